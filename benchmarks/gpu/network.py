"""GKMNet on a GPU against its published formulation: inference, and the training step that ``gkm train`` takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.gpu import clock
from benchmarks.gpu.outcomes import OUT_OF_TIME, first_line, wrong
from benchmarks.gpu.precision import FLOAT32, using
from benchmarks.network import cases, tasks
from benchmarks.network.cases import ESTIMATES, TRAINING, Case, Run
from benchmarks.network.suite import TOLERANCES
from benchmarks.timing import Spread
from gkm_ops import GKMNet
from gkm_ops.training import optimizer_of, passes_of

# What all figures of a row may take: a few calls of the slowest.
_BUDGET_S = 1.0


@dataclass(frozen=True)
class Contender:
    """One way to compute a case.

    Attributes:
        name: in the tables; of our training steps with the flags of ``gkm train``.
        prepare: from a case and a device to a function that gives the estimates or, of a training step, the gradients.
        bfloat16: under autocast.
        records: the first call takes the memory that later ones use again.
    """

    name: str
    prepare: Callable[[Case, torch.device], Run]
    bfloat16: bool = False
    records: bool = False


def contenders(job: str) -> list[Contender]:
    """Those that are not compiled, the published formulation in float32 first."""
    if job != TRAINING:
        return [_eager(each) for each in (cases.PUBLISHED, cases.OURS, *cases.BFLOAT16)]
    return [
        _eager(cases.PUBLISHED),
        _step(),
        _step("--no-graph", graph=False),
        _step("--recompute", recompute=True),
        _eager(cases.BFLOAT16[0]),
        _step("--amp"),
        _step("--amp --recompute", recompute=True),
    ]


def compiled() -> list[Contender]:
    """The published formulation as torch.compile makes it, for both jobs."""
    return [_eager(cases.PUBLISHED_COMPILED)]


def _eager(contender: cases.Contender) -> Contender:
    def prepare(case: Case, device: torch.device) -> Run:
        call = cases.prepare(contender, case, device.type)
        return (lambda: call()[ESTIMATES:]) if case.job == TRAINING else call

    return Contender(contender.name, prepare, contender.bfloat16)


def _step(flags: str = "", graph: bool | None = None, recompute: bool | None = None) -> Contender:
    """Our training step as the command line takes it."""
    amp = "--amp" in flags

    def prepare(case: Case, device: torch.device) -> Run:
        net = cases.network(cases.OURS, case.release)
        assert isinstance(net, GKMNet)
        optimizer = optimizer_of(net, device, cases.LEARNING_RATE, amp)
        passes = passes_of(net, device, amp, graph, recompute)
        blurred, sharp = cases.images(case, device.type)

        def step() -> tuple[torch.Tensor, ...]:
            passes(blurred, sharp, "mse", False)
            optimizer.step()
            gradients = (parameter.grad for _, parameter in sorted(net.named_parameters()))
            return tuple(gradient for gradient in gradients if gradient is not None)

        return step

    return Contender(f"gkm_ops: {' '.join(['gkm train', flags]).strip()}", prepare, amp, records=graph is not False)


def planned(case: Case, field: list[Contender]) -> list[tuple[Contender, dict[str, Any]]]:
    """Each with its row of the record, which says that it is not measured."""
    row = {"case": asdict(case), "seconds": None, "extra_bytes": None, "difference": None, "error": OUT_OF_TIME}
    return [(contender, {**row, "contender": contender.name}) for contender in field]


def measure(
    case: Case, entries: list[tuple[Contender, dict[str, Any]]], rounds: int, device: torch.device, deadline: float
) -> None:
    """Fill in the rows of a case, as far as there is time."""
    wanted: tuple[torch.Tensor, ...] = ()
    for contender, row in tqdm(entries, desc=f"GKMNet, {case.job}"):
        if time.monotonic() > deadline:
            return
        with using(FLOAT32, search=case.job == TRAINING):
            try:
                with clock.until(deadline):
                    wanted = wanted or _eager(cases.PUBLISHED).prepare(case, device)()
                    row |= _figures(contender, case, wanted, rounds, device)
            except Exception as error:  # whatever torch, Triton and compilers raise: the others are still to come
                row["error"] = OUT_OF_TIME if time.monotonic() > deadline else first_line(error)


def _figures(
    contender: Contender, case: Case, wanted: tuple[torch.Tensor, ...], rounds: int, device: torch.device
) -> dict[str, Any]:
    call = contender.prepare(case, device)
    difference = tasks.largest_difference(call(), wanted)
    most = TOLERANCES["bfloat16" if contender.bfloat16 else "float32"][case.job == TRAINING]
    if not difference <= most:
        return {"difference": difference, "error": wrong(difference, "published")}
    seconds = clock.seconds_per_call([call], device, rounds, _BUDGET_S)
    if contender.records:
        call = contender.prepare(case, device)
    extra = clock.extra_bytes(call, device)
    return {"seconds": asdict(Spread.of(seconds)), "extra_bytes": extra, "difference": difference, "error": None}
