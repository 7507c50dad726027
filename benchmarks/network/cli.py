"""The command line: measure, print the tables, and write JSON and Markdown."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.network import report, suite
from benchmarks.network.cases import BFLOAT16, COMPILED, OURS, PUBLISHED, cases
from benchmarks.output import write
from benchmarks.suite import GateError

_SIZES = ("512x512", "1680x1120")
# Halved twice on the way in and twice within; what is left must be wider than the widest kernel's radius.
_MULTIPLE, _SMALLEST = 16, 48


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    quick = options.quick
    contenders = [PUBLISHED, OURS] if quick else [PUBLISHED, OURS, *BFLOAT16]
    if options.compiled:
        contenders.append(COMPILED)
    sizes = options.sizes or list(map(_size, _SIZES[:1] if quick else _SIZES))
    plan = suite.Plan(
        cases=tuple(cases(tuple(sizes), ("v2",) if quick else ("v2", "v1"))),
        contenders=tuple(contender.name for contender in contenders),
        threads=options.threads,
        rounds=3 if quick else 9,
    )
    with tempfile.TemporaryDirectory() as cache:
        # A cache of this run's own: compile times are real, and the second process reuses the first one's code.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        try:
            record = suite.run(plan)
        except GateError as error:
            print(f"gate: {error}", file=sys.stderr)
            return 1
    print(report.full(record))
    machine = f"{record['environment']['cpu']} {plan.threads} threads"
    write(record, machine, report.full(record), options.out)
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__.partition(": ")[2])
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="WxH", help=f"default: {' '.join(_SIZES)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="default: torch's")
    parser.add_argument("--compiled", action="store_true", help="ours under torch.compile too; minutes of compiling")
    parser.add_argument("--quick", action="store_true", help="float32 and release v2 only, one size, three rounds")
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark-network"), metavar="FOLDER", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if options.threads < 1:
        parser.error(f"--threads: got {options.threads}, wanted 1 or more")
    try:
        options.out.mkdir(parents=True, exist_ok=True)  # before the run, not after it
    except OSError as error:
        parser.error(f"--out: {error}")
    return options


def _size(text: str) -> tuple[int, int]:
    """(height, width) from what photographers write, ``WIDTHxHEIGHT``."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    width, height = map(int, match.groups()) if match else (0, 0)
    if min(width, height) < _SMALLEST or width % _MULTIPLE or height % _MULTIPLE:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, wanted WIDTHxHEIGHT, multiples of {_MULTIPLE} from {_SMALLEST} on"
        )
    return height, width
