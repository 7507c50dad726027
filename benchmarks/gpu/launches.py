"""What a call costs the host, and the same call out of a CUDA graph: on images so small that nothing else counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gkm_ops
from benchmarks.gpu import clock
from benchmarks.gpu.outcomes import first_line
from benchmarks.problem import PADDING_MODE, Problem, make_problem
from gkm_ops import use_backend

SIZE = (64, 64)
# Calls that follow each other, few enough that the device's queue holds them all.
_CALLS, _ROUNDS = 100, 9


def measure(device: torch.device, backends: list[str]) -> list[dict[str, Any]]:
    """One row for each op and backend, the best backend as it serves by itself."""
    problem = make_problem(SIZE, device=device)
    rows = []
    for backend in backends:
        with use_backend(backend if backend != backends[0] else None), torch.no_grad():
            for name, call in _calls(problem):
                figures = dict.fromkeys(("host_s", "device_s", "graph_s", "error"))
                row: dict[str, Any] = {"name": name, "backend": backend, **figures}
                try:
                    row["host_s"] = statistics.median(_host_seconds(call, device) for _ in range(_ROUNDS))
                    row["device_s"] = statistics.median(clock.seconds_per_call([call], device, _ROUNDS))
                    if device.type == "cuda":
                        row["graph_s"] = _graph_seconds(call, device)
                except Exception as error:
                    row["error"] = first_line(error)
                rows.append(row)
    return rows


def _calls(p: Problem) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """The ops as they are registered, then one as it is exported."""
    ops, taps, rest = torch.ops.gkm_ops, (p.bank.taps, p.bank.taps), (None, p.bank.radii, PADDING_MODE)
    yield "torch.ops.gkm_ops.blur", partial(ops.blur.default, p.x, p.coeffs, *taps, *rest)
    yield "torch.ops.gkm_ops.blur_adjoint", partial(ops.blur_adjoint.default, p.cotangent, p.coeffs, *taps, *rest)
    yield "torch.ops.gkm_ops.correlate", partial(ops.correlate.default, p.x, p.cotangent, *taps, *rest, False)
    yield "gkm_ops.gkm_blur", partial(gkm_ops.gkm_blur, p.x, p.coeffs, p.bank)


def _host_seconds(call: Callable[[], Tensor], device: torch.device) -> float:
    """Until the host is back, with nothing waited for between calls."""
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    before = time.perf_counter()
    for _ in range(_CALLS):
        call()
    return (time.perf_counter() - before) / _CALLS


def _graph_seconds(call: Callable[[], Tensor], device: torch.device) -> float:
    """Of each call of many in one graph.

    Raises:
        RuntimeError: the calls cannot be recorded, or give something else when they are replayed.
    """
    wanted = call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(torch.cuda.current_stream(device)), torch.cuda.graph(graph):
        for _ in range(_CALLS):
            result = call()
    result.zero_()
    graph.replay()
    if not torch.equal(result, wanted):
        raise RuntimeError("the graph's result is another one")
    return statistics.median(clock.seconds_per_call([graph.replay], device, _ROUNDS)) / _CALLS
