"""Times and memory of calls on one device, by the device's own clock and counters."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], Any]
_WARM_UP, _LEAST_S, _MOST_CALLS = 3, 0.02, 50
# Who takes so long for one figure is given few.
_SLOW_S, _FEW_ROUNDS = 0.2, 3


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


def seconds_per_call(calls: Sequence[Call], device: torch.device, rounds: int) -> list[float]:
    """One figure a round: the mean over calls that take turns, so that each finds the caches full of others' data.

    Args:
        calls: the same job on different inputs.
        rounds: how many figures; of slow calls fewer.
    """
    for call in itertools.islice(itertools.cycle(calls), _WARM_UP):
        call()
    once = timed(calls, device) / len(calls)
    count = min(_MOST_CALLS, max(len(calls), round(_LEAST_S / max(once, 1e-9))))
    turns = list(itertools.islice(itertools.cycle(calls), count))
    rounds = rounds if once * count < _SLOW_S else min(rounds, _FEW_ROUNDS)
    return [timed(turns, device) / count for _ in range(rounds)]


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
