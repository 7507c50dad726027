"""What is run on a GPU, in which order, and the record that comes of it."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import environment
from benchmarks.contenders import JOBS, Contender, Run, contenders, forward_of, training_of
from benchmarks.gpu import clock, libraries
from benchmarks.network import cases as network
from benchmarks.problem import SEED, Problem, exact_windows, largest_difference, make_problem
from benchmarks.suite import GateError
from benchmarks.timing import Spread
from gkm_ops import available_backends, use_backend

FLOAT32, TF32, BFLOAT16 = PRECISIONS = ("float32", "TF32", "bfloat16")
# The largest differences allowed, as shares of the largest value: of ours, which sum in float32 and round once, and of
# formulations that round every intermediate image.
_TOLERANCES = {FLOAT32: (4e-6, 4e-6), TF32: (2e-3, 2e-3), BFLOAT16: (6e-3, 8e-2)}
_NAMES = (
    "dense", "grouped", "grouped, channels last", "unfolded rows", "convolution pairs",
    "convolution pairs, channels last", "shifted adds", "shifted adds, backward by hand", "shifted adds by kernel",
)  # fmt: skip
_ONE_IMAGE = ("unfolded rows",)
OUT_OF_TIME = "left out: there was no more time"
# Input sets that take turns, so many that no cache holds them all; few where memory is short.
_SETS = 3


@dataclass(frozen=True)
class Case:
    """One kind of input: (height, width), images at once, and whether torch.compile takes part."""

    size: tuple[int, int]
    batch: int = 1
    compiled: bool = False


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        cases: of the ops, in turn.
        network: cases of GKMNet.
        precisions: of the ops' cases.
        rounds: figures for each median.
    """

    cases: tuple[Case, ...]
    network: tuple[network.Case, ...]
    precisions: tuple[str, ...] = PRECISIONS
    rounds: int = 9


FULL = Plan(
    (Case((1120, 1680), compiled=True), Case((256, 256), 16), Case((4000, 6000))),
    tuple(network.cases(((1120, 1680),), ("v2",))),
)


def run(plan: Plan, device: torch.device, minutes: float = math.inf) -> dict[str, Any]:
    """Gate, then time, everyone on every case, the first case and the network before the others.

    Args:
        plan: what is run.
        device: where.
        minutes: after so many nobody else is begun with; who is left out has a row that says so.

    Raises:
        GateError: some contender is not right; nothing of its case was timed.
    """
    deadline = time.monotonic() + 60 * minutes
    record: dict[str, Any] = {
        "device": device.type,
        "environment": environment.describe() | _device(device),
        "plan": {**asdict(plan), "seed": SEED},
        "roofline": {
            "copy_bytes_per_s": clock.copy_bytes_per_s(device),
            "product_flops_per_s": {p: _product(device, p) for p in PRECISIONS},
        },
        "ops": [],
        "network": [],
    }
    for i, case in enumerate(plan.cases):
        for precision in plan.precisions:
            record["ops"] += _ops(case, precision, plan.rounds, device, deadline)
        if i == 0:
            record["network"] = [row for case in plan.network for row in _network(case, plan.rounds, device)]
    return record


@contextlib.contextmanager
def using(precision: str) -> Iterator[None]:
    """Float32 in full, or TF32 wherever torch and we may use it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == TF32 else "highest")
    torch.backends.cudnn.allow_tf32 = precision == TF32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"gpu": None}
    properties = torch.cuda.get_device_properties(device)
    return {
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


def _field(case: Case, precision: str, device: torch.device) -> list[Contender]:
    """Ours, plain PyTorch, compiled and other libraries', each only where it has something new to say."""
    every = [c for c in contenders().values() if c.dtype == torch.float32 and _has_a_say(c, case, precision)]
    ours = [backend for backend, answer in available_backends(device).items() if answer == "available"]
    chosen = [
        each for c in every for each in ([_by(c, b) for b in ours if b != "eager"] if c.family == "fused" else [c])
    ]
    for name, formulation in libraries.formulations().items():
        chosen.append(Contender("forward", "library", name, forward_of(formulation)))
        chosen.append(Contender("training", "library", name, training_of(formulation)))
    return chosen


def _by(contender: Contender, backend: str) -> Contender:
    """One of ours by one of our backends."""

    def prepare(problem: Problem, threads: int) -> Run:
        run = contender.prepare(problem, threads)

        def forced() -> tuple[torch.Tensor, ...]:
            with use_backend(backend):
                return run()

        return forced

    return replace(contender, name=f"{contender.name}, {backend}", prepare=prepare)


def _has_a_say(contender: Contender, case: Case, precision: str) -> bool:
    if contender.family == "eager":
        return contender.name in _NAMES and (case.batch == 1 or contender.name not in _ONE_IMAGE)
    # What takes long to compile is compiled once, in full precision.
    return contender.family == "fused" or (contender.family == "compiled" and case.compiled and precision == FLOAT32)


def _ops(case: Case, precision: str, rounds: int, device: torch.device, deadline: float) -> list[dict[str, Any]]:
    dtype = torch.bfloat16 if precision == BFLOAT16 else torch.float32
    problems = [make_problem(case.size, dtype, case.batch, device, SEED + i) for i in range(_SETS)]
    exact = {job: exact_windows(problems[0], job) for job in JOBS} if time.monotonic() < deadline else {}
    rows = []
    for contender in tqdm(
        _field(case, precision, device), desc=f"{case.size[1]}x{case.size[0]}, batch {case.batch}, {precision}"
    ):
        row = {"case": asdict(case), "precision": precision, "job": contender.job}
        row |= {"family": contender.family, "name": contender.name}
        if time.monotonic() > deadline:
            rows.append(row | {"seconds": None, "error": OUT_OF_TIME})
            continue
        with using(precision):
            try:
                calls = [contender.prepare(problem, 1) for problem in problems]
                difference = largest_difference(calls[0](), exact[contender.job])
                if not difference <= _TOLERANCES[precision][contender.family != "fused"]:
                    raise GateError(f"{contender.key}, {precision}: differs from float64 by {difference:.2e}")
                seconds = clock.seconds_per_call(calls, device, rounds)
                rows.append(
                    row
                    | {"seconds": asdict(Spread.of(seconds)), "difference": difference}
                    | {"extra_bytes": clock.extra_bytes(calls[0], device), "error": None}
                )
            except torch.OutOfMemoryError as error:
                rows.append(row | {"seconds": None, "error": str(error).splitlines()[0]})
    return rows


def _network(case: network.Case, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """GKMNet and its published formulation, in float32 and under bfloat16 autocast."""
    rows = []
    published: float | None = None
    for contender in tqdm((network.PUBLISHED, network.OURS, *network.BFLOAT16), desc=f"GKMNet, {case.job}"):
        with using(FLOAT32):
            call = network.prepare(contender, case, device.type)
            seconds = clock.seconds_per_call([call], device, rounds)
        median = statistics.median(seconds)
        published = published or median
        rows.append(
            {
                "case": asdict(case),
                "contender": contender.name,
                "seconds": asdict(Spread.of(seconds)),
                "times_faster": published / median,
                "extra_bytes": clock.extra_bytes(call, device),
            }
        )
    return rows


def floor_bytes(case: dict[str, Any], job: str, precision: str) -> int:
    """What a job must read and write: images and maps once each way."""
    numbers = {"forward": 28, "training": 28 + 53, "adjoint": 28, "correlate": 28}[job]
    width = 2 if precision == BFLOAT16 else 4
    return numbers * width * case["batch"] * math.prod(case["size"])
