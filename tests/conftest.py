"""Which backends and instruction sets the tests run on, and what holds for all tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from tolerances import TOLERANCE

import gkm_ops


class Serving(NamedTuple):
    """A backend, the device to test it on, and the instruction set to force where it has several."""

    backend: str
    device: str
    instruction_set: str | None = None

    def __str__(self) -> str:
        device = "" if self.device == "cpu" else f"-{self.device}"
        return self.backend + device if self.instruction_set is None else f"{self.backend}-{self.instruction_set}"


def instruction_sets() -> list[str]:
    """Those compiled in; none where nothing was compiled, which test_backends.py does not let pass."""
    if importlib.util.find_spec("gkm_ops._info") is None:
        return []
    from gkm_ops import _info

    return _info.instruction_sets()


BACKENDS = [Serving("cpu", "cpu"), Serving("eager", "cpu")]
if torch.cuda.is_available():
    BACKENDS += [Serving("triton", "cuda"), Serving("eager", "cuda")]
SERVING = [*(Serving("cpu", "cpu", name) for name in instruction_sets()), *BACKENDS[1:]]


def serve_with(chosen: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Has every call of the test served by one backend and instruction set, or skips with the reason why not."""
    if chosen.instruction_set is not None:
        monkeypatch.setenv("GKM_OPS_CPU_ISA", chosen.instruction_set)
    answer = gkm_ops.available_backends(chosen.device)[chosen.backend]
    if answer != "available":
        pytest.skip(f"{chosen.backend}: {answer}")
    # On a GPU the best backend is left to serve by itself: what it has no kernels for, float64, the eager path takes.
    best = chosen.device == "cuda" and chosen.backend != "eager"
    if best:  # TF32 keeps 11 bits of each factor of both products, which bfloat16's 8 bits of the result leave room for
        monkeypatch.setitem(TOLERANCE, torch.bfloat16, TOLERANCE[torch.bfloat16]._replace(absolute=2.0**-10))
    with gkm_ops.use_backend(None if best else chosen.backend):
        yield chosen


@pytest.fixture(params=SERVING, ids=str)
def serving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Every backend with every instruction set: for what the kernels compute."""
    yield from serve_with(request.param, monkeypatch)


@pytest.fixture(params=BACKENDS, ids=str)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Every backend once: for what the registration makes of them."""
    yield from serve_with(request.param, monkeypatch)


@pytest.fixture(autouse=True, scope="session")
def _poisoned_memory() -> None:
    """Fills new tensors with NaN, so that an output left unwritten shows."""
    # On a GPU torch has no deterministic way for some of what the eager path needs, and would refuse it.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    assert torch.empty(3).isnan().all()


@pytest.fixture(autouse=True, scope="session")
def _float32_in_full() -> None:
    """What torch itself computes on a GPU is not rounded to TF32."""
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The images here are tiny and the processor may be busy; test_threads.py is about threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.default_generator.manual_seed(20240607)


def pytest_report_header() -> str:
    return f"gkm_ops: {gkm_ops.build_info()}"
