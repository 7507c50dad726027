"""What a child process of the benchmark can be asked to do: `benchmarks.worker.Worker.call` takes these."""

from __future__ import annotations

import functools
import gc
import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.memory import peak_above
from benchmarks.network.cases import CONTENDERS, ESTIMATES, PUBLISHED, Case, Run, prepare

# Loads code and libraries; no size that is measured.
_TINY = (48, 48)


@dataclass(frozen=True)
class FirstCall:
    """How a contender did when it was called first.

    Attributes:
        seconds: compiling included.
        estimates: how far they are from the published formulation's in float32 (`largest_difference`).
        gradients: the same of the gradients; 0 where there are none.
    """

    seconds: float
    estimates: float
    gradients: float


def first_call(name: str, case: Case) -> FirstCall:
    """Make a contender ready and hold its results against the published formulation's."""
    run = _prepared(name, case)
    start = time.perf_counter()
    results = run()
    seconds = time.perf_counter() - start
    wanted = _wanted(case)
    return FirstCall(
        seconds,
        largest_difference(results[:ESTIMATES], wanted[:ESTIMATES]),
        largest_difference(results[ESTIMATES:], wanted[ESTIMATES:]),
    )


def turn(name: str, case: Case) -> list[float]:
    """Seconds of one call, which is long beside what the last contender has left in the caches."""
    run = _prepared(name, case)
    start = time.perf_counter()
    run()
    return [time.perf_counter() - start]


def extra_memory(name: str, case: Case) -> int:
    """Bytes that the first call takes at its peak, beyond weights, inputs and results.

    Code compiled for the exact shape has to be run at full size before; the rest is called on a tiny image.
    """
    if CONTENDERS[name].compiled:
        _prepared(name, case)()
    else:
        prepare(CONTENDERS[name], Case(case.job, case.release, _TINY))()
    results, peak = peak_above(_prepared(name, case))
    return max(0, peak - sum(result.nbytes for result in results))


def release() -> None:
    """Forget what was prepared."""
    _prepared.cache_clear()
    _wanted.cache_clear()
    torch.compiler.reset()
    gc.collect()


def largest_difference(results: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """How far results are from others: the norm of the difference as a share of the norm, at its worst.

    A tensor whose norm is below a thousandth of the largest is held against that: a bias ahead of a batch norm
    has no gradient but rounding.

    Returns:
        inf where a result has NaN or another shape; 0 where there are none.
    """
    floor = 1e-3 * max((tensor.norm().item() for tensor in wanted), default=0.0)
    worst = 0.0
    for result, tensor in zip(results, wanted, strict=True):
        if result.shape != tensor.shape:
            return math.inf
        difference = (result.double() - tensor.double()).norm().item() / max(tensor.norm().item(), floor)
        worst = max(worst, math.inf if math.isnan(difference) else difference)
    return worst


@functools.cache
def _prepared(name: str, case: Case) -> Run:
    return prepare(CONTENDERS[name], case)


@functools.cache
def _wanted(case: Case) -> tuple[Tensor, ...]:
    """By a network of its own: the one that is timed takes a training step with every call."""
    return prepare(PUBLISHED, case)()
