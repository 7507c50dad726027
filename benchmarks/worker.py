"""Child processes that run contenders: one for each allocator setting, thread count or instruction set.

What a process's environment decides (glibc's malloc, OpenMP) has to be set before it starts. So a `Worker`
is a process of its own, and the functions at the top of this file are what it can be asked to do.
"""

from __future__ import annotations

import functools
import gc
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

import torch

import gkm_ops
from benchmarks import roofline
from benchmarks.contenders import Contender, Run, contenders
from benchmarks.memory import peak_above
from benchmarks.problem import Exact, Problem, exact_windows, largest_difference, make_problem

P = ParamSpec("P")
R = TypeVar("R")

# A turn makes several calls where they are short, and warms up first: the turn before has left the caches to
# another contender. A long call does not notice.
_TURN_S = 0.05
_MOST_CALLS = 20
_WARM_UP_BELOW_S = 0.5


# ---- What a worker can be asked --------------------------------------------------------------------------


def prepare(key: str, size: tuple[int, int]) -> tuple[float, float]:
    """Make a contender ready: seconds of its first call, and how far its results are from float64."""
    run = _prepared(key, size)
    start = time.perf_counter()
    results = run()
    seconds = time.perf_counter() - start
    contender = _contender(key)
    return seconds, largest_difference(results, _exact(size, contender.dtype, contender.job))


def turn(key: str, size: tuple[int, int]) -> list[float]:
    """Seconds of each timed call of one turn."""
    return _turn(_prepared(key, size))


def roofline_turn(key: str, size: tuple[int, int]) -> tuple[list[float], float]:
    """A turn, and the multiply-adds a second that the processor reached just before and after it."""
    instruction_set = gkm_ops.build_info()["instruction_set"]
    threads = torch.get_num_threads()
    before = roofline.peak_multiply_adds(instruction_set, threads)
    seconds = _turn(_prepared(key, size))
    after = roofline.peak_multiply_adds(instruction_set, threads)
    return seconds, (before + after) / 2


def extra_memory(key: str, size: tuple[int, int], tiny: tuple[int, int]) -> int:
    """Bytes that one call takes beyond inputs and outputs, at its peak.

    A call on a tiny image goes first, so that code and libraries are loaded, on a thread of its own, with which the
    memory goes that kernels keep for a thread's next call. Code compiled for the exact shape has to be run at full
    size first, here, for the compiler's settings are a thread's; what that leaves behind is handed back to the system.
    """
    if _contender(key).family == "compiled":
        _prepared(key, size)()
    else:
        with ThreadPoolExecutor(1) as beside:
            beside.submit(_prepared(key, tiny)).result()
    run = _prepared(key, size)
    results, peak = peak_above(run)
    return max(0, peak - sum(result.nbytes for result in results))


def small_call(size: tuple[int, int]) -> list[float]:
    """Seconds of a call of the public function without gradients, on an image of a few pixels."""
    problem = _problem(size, torch.float32)
    calls = 200
    samples = []
    with torch.no_grad():
        for _ in range(21):
            start = time.perf_counter()
            for _ in range(calls):
                gkm_ops.gkm_blur(problem.x, problem.coeffs, problem.bank, padding_mode="replicate")
            samples.append((time.perf_counter() - start) / calls)
    return samples[1:]


def release() -> None:
    """Forget problems and whatever was prepared for them."""
    _prepared.cache_clear()
    _exact.cache_clear()
    _problem.cache_clear()
    gc.collect()


# ---- The process ------------------------------------------------------------------------------------------

# "tuned" keeps freed memory instead of handing it back to the system, so that a large temporary is not paid
# for in page faults each time it is made.
ALLOCATORS: dict[str, dict[str, str]] = {
    "stock": {},
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
        "MALLOC_TOP_PAD_": str(1 << 26),
    },
}


@dataclass(frozen=True)
class Setting:
    """What a worker runs under."""

    threads: int
    allocator: str = "stock"
    instruction_set: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        chosen = {} if self.instruction_set is None else {"GKM_OPS_CPU_ISA": self.instruction_set}
        return {**ALLOCATORS[self.allocator], **chosen, "OMP_NUM_THREADS": str(self.threads)}


@dataclass
class Worker:
    """A process under one setting, which lives until it is closed.

    Example:
        >>> with Worker(Setting(threads=1)) as worker:
        ...     seconds = worker.call(turn, "forward/fused/gkm_blur", (64, 64))
    """

    setting: Setting
    _pool: ProcessPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        before = dict(os.environ)
        os.environ.update(self.setting.environment)
        try:
            self.call(torch.set_num_threads, self.setting.threads)
        finally:
            os.environ.clear()
            os.environ.update(before)

    def call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function of this module there; its exceptions are raised here."""
        return self._pool.submit(function, *args, **kwargs).result()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()


# ---- Inside of it -----------------------------------------------------------------------------------------


def _turn(run: Run) -> list[float]:
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    if first >= _WARM_UP_BELOW_S:
        return [first]
    samples: list[float] = []
    while sum(samples) < _TURN_S and len(samples) < _MOST_CALLS:
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return samples


@functools.cache
def _contenders() -> dict[str, Contender]:
    return contenders()


def _contender(key: str) -> Contender:
    return _contenders()[key]


@functools.cache
def _problem(size: tuple[int, int], dtype: torch.dtype) -> Problem:
    return make_problem(size, dtype)


@functools.cache
def _exact(size: tuple[int, int], dtype: torch.dtype, job: str) -> list[Exact]:
    return exact_windows(_problem(size, dtype), job)


@functools.cache
def _prepared(key: str, size: tuple[int, int]) -> Run:
    contender = _contender(key)
    return contender.prepare(_problem(size, contender.dtype), torch.get_num_threads())
