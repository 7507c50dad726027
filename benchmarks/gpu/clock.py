"""Times and memory of calls on one device, by the device's own clock and counters."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

Call = Callable[[], Any]
# The least time of a figure, where so many calls at most make it; all figures' time together, where the fewest fit.
_LEAST_S, _MOST_CALLS = 0.015, 50
_BUDGET_S, _FEWEST = 0.15, 3


class OutOfTimeError(RuntimeError):
    """The deadline came."""


@contextlib.contextmanager
def until(deadline: float) -> Iterator[None]:
    """Stops what it is around, compiling included, when ``time.monotonic()`` gets there; in the main thread.

    Raises:
        Exception: it was stopped: `OutOfTimeError`, or what a compiler makes of that.
    """

    def stop(*_: Any) -> None:
        raise OutOfTimeError("the deadline came")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0 if math.isinf(deadline) else max(1e-3, deadline - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def timed(calls: Sequence[Call], device: torch.device) -> float:
    """Seconds of one pass through all calls, started when the device has nothing else to do."""
    if device.type != "cuda":
        before = time.perf_counter()
        for call in calls:
            call()
        return time.perf_counter() - before
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    start.record()
    for call in calls:
        call()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1e3


def seconds_per_call(
    calls: Sequence[Call], device: torch.device, rounds: int, budget_s: float = _BUDGET_S
) -> list[float]:
    """One figure a round: the mean over calls that take turns, so that each finds the caches full of others' data.

    Args:
        calls: the same job on different inputs.
        rounds: how many figures at most.
        budget_s: what the figures may take together; a slow call has the fewest in any case.
    """
    timed(calls[:1], device)  # what is compiled, chosen or allocated once
    once = max(timed(calls[:1], device), 1e-9)
    count = min(_MOST_CALLS, max(1, round(_LEAST_S / once)))
    rounds = min(rounds, max(_FEWEST, int(budget_s / (once * count))))
    turns = itertools.cycle(calls)
    return [timed(list(itertools.islice(turns, count)), device) / count for _ in range(rounds)]


def extra_bytes(call: Call, device: torch.device) -> int | None:
    """How far the memory of torch's allocator rises above what the call returns; None off the GPU."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    results = call()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device)
    kept = torch.cuda.memory_allocated(device) - before
    del results
    return max(0, peak - before - kept)


def copy_bytes_per_s(device: torch.device, size: int = 1 << 30) -> float:
    """Bytes read and written a second by a copy within the device."""
    source = torch.zeros(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds_per_call([lambda: target.copy_(source)], device, 5))


def product_flops_per_s(device: torch.device, precision: str, n: int = 8192) -> float:
    """Two FLOPs a multiply-add of a square matrix product of normally distributed numbers."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n**3 / min(seconds_per_call([lambda: a @ b], device, 5))
