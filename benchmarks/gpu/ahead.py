"""Compiles ahead, several at once, what the benchmark will want: ``python -m benchmarks.gpu.ahead``.

torch and Triton keep what they compile in folders where the benchmark finds it. Without this it compiles as it goes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from benchmarks.gpu import network, suite
from benchmarks.gpu.precision import FLOAT32, using
from benchmarks.network.cases import TRAINING
from benchmarks.network.cases import Case as NetworkCase

Group = tuple[suite.Case, str, tuple[str, ...]]


def main(arguments: list[str] | None = None, plan: suite.Plan = suite.FULL) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.ahead", description=__doc__.partition(": ")[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=max(1, (os.cpu_count() or 1) // 2), metavar="N")
    options = parser.parse_args(arguments)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")  # of each process
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        done = [pool.submit(compile_network, case, options.device) for case in plan.network]
        done += [pool.submit(compile_ops, group, options.device) for group in groups(plan)]
        for each in done:
            each.result()
    return 0


def groups(plan: suite.Plan) -> Iterator[Group]:
    """Those in which something is compiled, the longest first."""
    for wanted in ("compiled", "fused"):
        for families, precisions in suite.ORDER:
            if wanted in families:
                for case in plan.cases:
                    yield from ((case, precision, families) for precision in precisions if precision in plan.precisions)


def compile_ops(group: Group, device: torch.device) -> None:
    """Call each contender of a group that is compiled once."""
    case, precision, families = group
    with contextlib.suppress(Exception):  # of what fails, here and below, the benchmark will tell
        problem = next(suite.problems(case, precision, device))
        for contender, _ in suite.planned(case, precision, device, families):
            if contender.family == "compiled" or contender.name.endswith(", triton"):
                torch.compiler.reset()
                with using(precision), contextlib.suppress(Exception):
                    contender.prepare(problem, 1)()
    _tidy(device)


def compile_network(case: NetworkCase, device: torch.device) -> None:
    """Call the compiled network once."""
    for contender in network.compiled():
        with using(FLOAT32, search=case.job == TRAINING), contextlib.suppress(Exception):
            contender.prepare(case, device)()
    _tidy(device)


def _tidy(device: torch.device) -> None:
    """Leave the memory to others."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    raise SystemExit(main())
