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
TARGETS = ((80, "float32"), (90, "float32"), (90, "TF32"), (90, "bfloat16"), (100, "float32"))
# Bytes of stack a thread may take for registers that do not fit, on sm_80 and on newer ones; how many of them differs
# from one release of Triton to the next, of which these are the most from 3.6 to 3.9. The window of a tile does not
# quite fit on its way in, nor beside the largest bands.
MOST_STACK = {
    "blur": (296, 136),
    "blur, mix": (416, 56),
    "blur_adjoint": (48, 80),
    "blur_adjoint, mix": (96, 96),
    "correlate": (264, 152),
    "grad_mix": (240, 64),
    "grad_taps, 2 blocks": (0, 0),
    "grad_taps, 3 blocks": (0, 0),
    "ridge_dual": (80, 56),
    "bands": (0, 0),
}
if importlib.util.find_spec("triton") is not None and version("triton").startswith("3.7."):
    MOST_STACK["blur_adjoint, mix"] = (488, 464)  # in tiles at the border, whose masks 3.7 makes before it needs them
# Nothing of a loop goes through shared memory, but what these sum up tap by tap, in the same loop.
SHARING = ("grad_taps, 2 blocks", "grad_taps, 3 blocks")

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


@pytest.mark.parametrize(("capability", "precision"), TARGETS)
def test_everything_compiles_for_gpus_and_nothing_spills_where_it_counts(capability, precision):
    done = run(CASES / "ahead_of_time.py", capability, precision, interpreted=False)
    assert done.returncode == 0, done.stderr[-4000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(MOST_STACK) - (precision == "bfloat16")  # ridge_dual is for float32 alone
    for row in rows:
        assert row["stack"] <= MOST_STACK[row["op"]][capability > 80], row
        assert row["registers"] <= 255, row
        assert row["loops"] or row["op"] == "bands", row
        assert row["op"] in SHARING or not any(loop["shared"] for loop in row["loops"]), row
