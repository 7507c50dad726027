"""The Triton kernels without a GPU: interpreted, with faults put in, compiled ahead of time, and launched nowhere."""

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "triton_kernels"
# The types of the same kernels differ in how they load, which one GPU decides.
TARGETS = ((80, "float32"), (90, "float32"), (90, "bfloat16"), (100, "float32"))
# Bytes of stack a thread may take for registers that do not fit; how many of them differs from one release of Triton
# to the next, of which these are the most from 3.6 to 3.9, but for the adjoint with a mix, which by 3.6 to 3.8 takes
# up to 928. Where a warp is a program its tile's window does not quite fit on its way in, nor do the windows of three
# colours for the largest bands, to correlate; with a mix the adjoint weighs a row of the window by three images; and
# where the closed form solves, once at its end.
MOST_STACK = {
    "blur": 336,
    "blur, mix": 384,
    "blur_adjoint": 96,
    "blur_adjoint, mix": 352,
    "correlate": 576,
    "grad_mix": 240,
    "grad_taps": 0,
    "ridge_dual": 304,
}

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def interpreter_is_broken():
    """Triton 3.6's cannot loop up to a number known at run time with NumPy 2.4 and newer."""
    versions = [tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy")]
    return versions[0] < (3, 7) and versions[1] >= (2, 4)


needs_interpreter = pytest.mark.skipif(
    importlib.util.find_spec("triton") is not None and interpreter_is_broken(),
    reason="the interpreter of Triton 3.6 wants NumPy < 2.4",
)


def run(*command, interpreted):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(CASES.parent), "OMP_NUM_THREADS": "1"}
    if interpreted:
        environment["TRITON_INTERPRET"] = "1"
    return subprocess.run(
        [sys.executable, *map(str, command)], env=environment, capture_output=True, text=True, check=False
    )


@needs_interpreter
@pytest.mark.parametrize("half", ["image ops", "sums"])
def test_the_interpreter_agrees_with_the_oracle(half):
    sums = "grad_mix or grad_taps"
    chosen = f"not ({sums})" if half == "image ops" else sums
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, CASES / "interpreted.py"]
    done = run(*command, interpreted=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]


@needs_interpreter
@pytest.mark.parametrize("share", range(2))
def test_faults_are_found(share):
    done = run(CASES / "mutants.py", share, 2, interpreted=True)
    assert done.returncode == 0, f"not found:\n{done.stdout}\n{done.stderr[-4000:]}"


def test_what_is_kept_of_launches_starts_what_triton_would():
    done = run(CASES / "launches.py", interpreted=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize(("capability", "dtype"), TARGETS)
def test_everything_compiles_for_gpus_and_nothing_spills_where_it_counts(capability, dtype):
    done = run(CASES / "ahead_of_time.py", capability, dtype, interpreted=False)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(MOST_STACK) - (dtype == "bfloat16")  # ridge_dual is for float32 alone
    for row in rows:
        assert row["stack"] <= MOST_STACK[row["op"]], row
        assert row["registers"] <= 255, row
        assert row["matrix_products"] > 0, row
