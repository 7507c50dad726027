"""Which backends and instruction sets the tests run on, and what holds for all tests."""

from __future__ import annotations

import gc
import importlib.util
import os
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import pytest
import torch
from compiling import sanitizers  # noqa: F401  a fixture
from tolerances import TOLERANCE

import gkm_ops
from gkm_ops import backends


class Serving(NamedTuple):
    """A backend, the device to test it on, and the kernels to force where it has several."""

    backend: str
    device: str
    kernels: str | None = None

    def __str__(self) -> str:
        device = "" if self.device == "cpu" else f"-{self.device}"
        return self.backend + device if self.kernels is None else f"{self.backend}-{self.kernels}"


# What asks for them.
KERNELS = {"cpu": "GKM_OPS_CPU_ISA", "cuda": "GKM_OPS_CUDA_KERNELS"}
CUDA_KERNELS = ("generic", "banded", "composed", "stacked", "spread", "tailored")


def instruction_sets() -> list[str]:
    """Those compiled in; none where nothing was compiled, which test_backends.py does not let pass."""
    if importlib.util.find_spec("gkm_ops._info") is None:
        return []
    from gkm_ops import _info

    return _info.instruction_sets()


BACKENDS = [Serving("cpu", "cpu"), Serving("eager", "cpu")]
if torch.cuda.is_available():
    BACKENDS += [Serving("cuda", "cuda"), Serving("triton", "cuda"), Serving("eager", "cuda")]
SERVING = [*(Serving("cpu", "cpu", name) for name in instruction_sets()), *BACKENDS[1:]]
if torch.cuda.is_available():
    SERVING += [Serving("cuda", "cuda", kernels) for kernels in CUDA_KERNELS]


def serve_with(chosen: Serving, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Has every call of the test served by one backend and its kernels, or skips with the reason why not."""
    if chosen.kernels is not None:
        monkeypatch.setenv(KERNELS[chosen.backend], chosen.kernels)
    answer = gkm_ops.available_backends(chosen.device)[chosen.backend]
    if answer != "available":
        pytest.skip(f"{chosen.backend}: {answer}")
    # TF32 and float16 keep 11 bits of each factor of both products, which bfloat16's 8 of the result leave room for.
    if chosen.backend in ("cuda", "triton"):
        monkeypatch.setitem(TOLERANCE, torch.bfloat16, TOLERANCE[torch.bfloat16]._replace(absolute=2.0**-10))
    # Those of GPUs are left to serve by themselves, each as the best: what they have no kernels for, another one takes,
    # and what a test computes on the processor too.
    if chosen.backend == "triton":
        # Their order is that of preference, which putting one back would change.
        others = {name: module for name, module in backends._MODULES.items() if name != "cuda"}
        monkeypatch.setattr(backends, "_MODULES", others)
    with gkm_ops.use_backend(None if chosen.backend in ("cuda", "triton") else chosen.backend):
        yield chosen


@pytest.fixture(params=SERVING, ids=str)
def serving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Every backend with all its kernels: for what they compute."""
    yield from serve_with(request.param, monkeypatch)


@pytest.fixture(params=[chosen for chosen in SERVING if chosen.device == "cpu"], ids=str)
def on_processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Those that serve the processor."""
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


# Tests that take a minute each, of compilers and interpreters.
LONG = ("test_native.py", "test_triton.py", "test_without_gpu.py")


def long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """In as many equal parts as there are workers, each with its share of what takes long, and that first.

    pytest-xdist deals the parts out, and one who has finished takes over the last that others have: short ones.
    """
    long = [item for item in items if item.path.name in LONG]
    short = (item for item in items if item.path.name not in LONG)
    ordered = []
    for worker in range(workers):
        own = long[worker::workers]
        ordered += [*own, *islice(short, max(0, len(items) // workers - len(own)))]
    return [*ordered, *short]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every",
        type=int,
        default=1,
        metavar="N",
        help="of the cases of every test that has many, every N-th alone, and every 17th where they are less than ten "
        "times N: such primes keep clear of the counts of their parameters",
    )


@pytest.hookimpl(trylast=True)  # of what -k and -m have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    every, many = config.getoption("--every"), 40
    by_test: dict[str, list[pytest.Item]] = {}
    for item in items:
        by_test.setdefault(item.nodeid.partition("[")[0], []).append(item)

    def stride(cases: list[pytest.Item]) -> int:
        return 1 if len(cases) < many else every if len(cases) >= 10 * every else min(every, 17)

    left_out = {item for cases in by_test.values() for i, item in enumerate(cases) if i % stride(cases) != 0}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
        items[:] = long_ones_first(items, int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


def pytest_collection_finish() -> None:
    """What is there by now stays to the end: the collector of garbage need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Says at once what has failed: a run on a GPU may be stopped before it sums up."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        said = report.longreprtext.splitlines()[-1] if crash is None else crash.message.splitlines()[0]
        print(f"\nfailed: {report.nodeid}: {said}", flush=True)


def pytest_report_header() -> str:
    return f"gkm_ops: {gkm_ops.build_info()}"
