"""What is run on a GPU, in which order, and the record that comes of it."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import compiled, eager, environment
from benchmarks.contenders import Contender, Run, contenders, forward_of, training_of
from benchmarks.gpu import clock, launches, libraries, network, sums, units
from benchmarks.gpu.outcomes import OUT_OF_TIME, first_line, wrong
from benchmarks.gpu.precision import BFLOAT16, FLOAT32, PRECISIONS, TF32, dtype_of, using
from benchmarks.network.cases import Case as NetworkCase
from benchmarks.network.cases import cases as network_cases
from benchmarks.problem import SEED, Exact, Problem, exact_windows, largest_difference, make_problem
from benchmarks.timing import Spread
from gkm_ops import available_backends, use_backend

# The largest differences allowed, as shares of the largest value: of ours, which sum in float32 and round once, and of
# formulations that round every intermediate image.
_TOLERANCES = {FLOAT32: (4e-6, 4e-6), TF32: (2e-3, 2e-3), BFLOAT16: (6e-3, 8e-2)}
_NAMES = (
    "grouped", "grouped, channels last", "convolution pairs", "convolution pairs, channels last", "shifted adds",
    "shifted adds, backward by hand", "shifted adds by kernel", "dense", "shifted adds by kernel, backward by hand",
)  # fmt: skip
# Who comes first, with all cases: what the targets and the README tell, then the rest. In TF32 the others' times were
# those of float32: a convolution of one channel a group has no use for it.
ORDER = (
    (("fused", "variant"), (FLOAT32, BFLOAT16, TF32)),
    (("eager", "library"), (FLOAT32,)),
    (("compiled",), (FLOAT32,)),
    (("eager", "library"), (BFLOAT16,)),
    (("compiled",), (BFLOAT16,)),
)
_KERNELS = "GKM_OPS_CUDA_KERNELS"
# Where each job's result stands among those of training.
_PARTS = {"forward": 0, "adjoint": 1, "correlate": 2}
# Input sets that take turns: so many, and more of small ones, until no cache holds what a pass over them touches.
_SETS, _TOUCHED_BYTES = 3, 100_000_000


@dataclass(frozen=True)
class Case:
    """One kind of input: (height, width), images at once, and whether others than ours take part."""

    size: tuple[int, int]
    batch: int = 1
    others: bool = True

    def __str__(self) -> str:
        return f"{self.size[1]}x{self.size[0]}, batch {self.batch}"


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        cases: of the ops, in turn.
        network: cases of GKMNet.
        precisions: of the ops' cases.
        rounds: figures for each median, at most.
        sums: (height, width) for the ops that no case times, if they are to be timed.
    """

    cases: tuple[Case, ...]
    network: tuple[NetworkCase, ...]
    precisions: tuple[str, ...] = PRECISIONS
    rounds: int = 9
    sums: tuple[int, int] | None = None


FULL = Plan(
    (Case((1120, 1680)), Case((64, 64), others=False), Case((256, 256), 16), Case((4000, 6000))),
    tuple(network_cases(((1120, 1680),), ("v2",))),
    sums=(1120, 1680),
)
_Entries = list[tuple[Contender, dict[str, Any]]]


def run(
    plan: Plan, device: torch.device, minutes: float = math.inf, save: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Gate and time everyone on every case. Who gives a wrong result has a row that says so, and no time.

    Args:
        plan: what is run.
        device: where.
        minutes: after so many the one at work is stopped and nobody else begun with; their rows say so.
        save: is given the record whenever another part of it is there, the parts to come as left out.
    """
    deadline = time.monotonic() + 60 * minutes
    stages = [
        [
            (case, precision, planned(case, precision, device, families))
            for case in plan.cases
            for precision in precisions
            if precision in plan.precisions
        ]
        for families, precisions in ORDER
    ]
    nets = {case: network.planned(case, network.contenders(case.job)) for case in plan.network}
    compiled_nets = {case: network.planned(case, network.compiled()) for case in plan.network}
    record: dict[str, Any] = {
        "device": device.type,
        "environment": machine(device),
        "plan": {**asdict(plan), "seed": SEED},
        "roofline": {
            "copy_bytes_per_s": clock.copy_bytes_per_s(device),
            "product_flops_per_s": {p: _product(device, p) for p in PRECISIONS},
        },
        "units": units.measure(device),
        "launches": [],
        "sums": [],
        "ops": [row for stage in stages for *_, entries in stage for _, row in entries],
        "network": [row for case in plan.network for _, row in nets[case] + compiled_nets[case]],
    }
    for number, stage in enumerate(stages):
        for case, precision, entries in stage:
            _measure(case, precision, entries, plan.rounds, device, deadline)
        save(record)
        if number == 0:
            record["launches"] = launches.measure(device, _ours(device))
            save(record)
            if plan.sums is not None:
                record["sums"] = sums.measure(plan.sums, device, _ours(device), plan.rounds, deadline)
                save(record)
            for net, entries_of_net in nets.items():
                network.measure(net, entries_of_net, plan.rounds, device, deadline)
            save(record)
    for net, entries_of_net in compiled_nets.items():
        network.measure(net, entries_of_net, plan.rounds, device, deadline)
    return record


def machine(device: torch.device) -> dict[str, Any]:
    """What a record says of the machine and of its GPU."""
    facts = environment.describe()
    if device.type != "cuda":
        return facts | {"gpu": None}
    properties = torch.cuda.get_device_properties(device)
    return facts | {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "gpu_processors": properties.multi_processor_count,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "triton": environment.version_of("triton"),
    }


def _product(device: torch.device, precision: str) -> float:
    with using(precision):
        return clock.product_flops_per_s(device, precision, 8192 if device.type == "cuda" else 256)


def planned(case: Case, precision: str, device: torch.device, families: tuple[str, ...]) -> _Entries:
    """Each contender with its row of the record, which says that it is not measured."""
    row = {"case": asdict(case), "precision": precision, "seconds": None, "error": OUT_OF_TIME}
    return [
        (contender, {**row, "job": contender.job, "family": contender.family, "name": contender.name})
        for contender in field(case, precision, device)
        if contender.family in families
    ]


def field(case: Case, precision: str, device: torch.device) -> list[Contender]:
    """Ours, plain PyTorch, compiled and other libraries', each only where it has something new to say."""
    every = [c for c in contenders().values() if c.dtype == torch.float32]
    fused = [c for c in every if c.family == "fused"]
    ours = [_by(c, backend) for c in fused for backend in _ours(device)]
    if "cuda" in _ours(device):
        others_of_ours = [c for c in fused if c.job in ("forward", "correlate")]
        ours += [
            replace(_by(c, "cuda", kernels), family="variant") for c in others_of_ours for kernels in _kinds(device)
        ]
    if not case.others:
        return ours
    others = [c for c in every if c.family in ("eager", "compiled") and c.name in _NAMES]
    others += [
        Contender("training", "eager", "dense", training_of(eager.dense)),
        Contender("training", "compiled", "dense", lambda *args: training_of(compiled.whole(eager.dense))(*args)),
    ]
    others.sort(key=lambda c: _NAMES.index(c.name))
    for name, formulation in libraries.formulations().items():
        others.append(Contender("forward", "library", name, forward_of(formulation)))
        others.append(Contender("training", "library", name, training_of(formulation)))
    return ours + others


def _kinds(device: torch.device) -> list[str]:
    """The CUDA kernels that can be asked for here; in the place of others the ones for any GPU would serve."""
    on_hopper = torch.cuda.get_device_capability(device) == (9, 0)
    return ["banded", "composed", *(["stacked"] if on_hopper else []), "tailored"]


def _ours(device: torch.device) -> list[str]:
    """The backends that we made for a device, the best first."""
    answers = available_backends(device)
    return [backend for backend, answer in answers.items() if answer == "available" and backend != "eager"]


def _by(contender: Contender, backend: str, kernels: str = "") -> Contender:
    """One of ours by one of our backends, and by CUDA kernels whether they would serve by themselves or not."""

    def prepare(problem: Problem, threads: int) -> Run:
        run = contender.prepare(problem, threads)

        def forced() -> tuple[torch.Tensor, ...]:
            with use_backend(backend), _asked_for(kernels) if kernels else contextlib.nullcontext():
                return run()

        return forced

    name = f"{contender.name}, {backend}" + (f" {kernels}" if kernels else "")
    return replace(contender, name=name, prepare=prepare)


@contextlib.contextmanager
def _asked_for(kernels: str) -> Iterator[None]:
    """Sets one variable, quickly: it happens in every call that is timed."""
    before = os.environ.get(_KERNELS)
    os.environ[_KERNELS] = kernels
    try:
        yield
    finally:
        if before is None:
            del os.environ[_KERNELS]
        else:
            os.environ[_KERNELS] = before


def problems(case: Case, precision: str, device: torch.device) -> Iterator[Problem]:
    """Input sets without end, of one bank."""
    first = make_problem(case.size, dtype_of(precision), case.batch, device, SEED)
    yield first
    seed = SEED
    while True:
        seed += 1
        yield replace(make_problem(case.size, dtype_of(precision), case.batch, device, seed), bank=first.bank)


def _measure(case: Case, precision: str, entries: _Entries, rounds: int, device: torch.device, deadline: float) -> None:
    """Fill in the rows of one case, as far as there is time."""
    if not entries or time.monotonic() > deadline:
        return
    sets = max(_SETS, math.ceil(_TOUCHED_BYTES / floor_bytes(asdict(case), "forward", precision)))
    try:
        inputs = list(itertools.islice(problems(case, precision, device), sets))
        exact = exact_windows(inputs[0], "training")
    except Exception as error:  # memory is short already
        for _, row in entries:
            row["error"] = first_line(error)
        return
    for contender, row in tqdm(entries, desc=f"{case}, {precision}"):
        began = time.monotonic()
        if began > deadline:
            return
        with using(precision):
            try:
                with clock.until(deadline):
                    row |= _figures(contender, precision, inputs, exact, rounds, device)
            except Exception as error:  # whatever torch, Triton and compilers raise: the others are still to come
                row["error"] = OUT_OF_TIME if time.monotonic() > deadline else first_line(error)
        row["spent_s"] = round(time.monotonic() - began, 2)


def _figures(
    contender: Contender,
    precision: str,
    inputs: list[Problem],
    exact: list[Exact],
    rounds: int,
    device: torch.device,
) -> dict[str, Any]:
    torch.compiler.reset()  # no call has to look through what was compiled for others
    calls = [contender.prepare(problem, 1) for problem in inputs]
    part = slice(None) if contender.job == "training" else slice(_PARTS[contender.job], _PARTS[contender.job] + 1)
    windows = [replace(window, results=window.results[part]) for window in exact]
    difference = largest_difference(calls[0](), windows)
    if not difference <= _TOLERANCES[precision][contender.family not in ("fused", "variant")]:
        return {"difference": difference, "error": wrong(difference, "float64")}
    return {
        "seconds": asdict(Spread.of(clock.seconds_per_call(calls, device, rounds))),
        "difference": difference,
        "extra_bytes": clock.extra_bytes(calls[0], device),
        "error": None,
    }


def floor_bytes(case: dict[str, Any], job: str, precision: str) -> int:
    """What a job must read and write: images and maps once each way."""
    numbers = {"forward": 28, "training": 28 + 53, "adjoint": 28, "correlate": 28}[job]
    width = 2 if precision == BFLOAT16 else 4
    return numbers * width * case["batch"] * math.prod(case["size"])
