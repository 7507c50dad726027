"""All that a machine with a GPU can tell, in under nine minutes and without a network: ``make gpu-check``.

Builds and installs with what the machine has, runs the tests that need the GPU, compute-sanitizer on a small case where
it is there, and the benchmarks, whose record lands in benchmarks/results. A step that fails does not stop the next.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SMALL_CASE = """
import torch, gkm_ops
bank = gkm_ops.GaussianBank.gkmnet().cuda()
x = torch.rand(1, 3, 40, 50, device="cuda", requires_grad=True)
coeffs = torch.rand(1, 22, 40, 50, device="cuda", requires_grad=True)
gkm_ops.gkm_blur(x, coeffs, bank).sum().backward()
torch.cuda.synchronize()
"""


@dataclass(frozen=True)
class Step:
    """One command, and how many seconds it may take."""

    name: str
    command: list[str]
    limit_s: float
    environment: dict[str, str] = field(default_factory=dict)


def steps(results: Path) -> list[Step]:
    """What this machine can run, in order."""
    python = sys.executable
    pip = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "-q", "-e", "."]
    # Kernels are compiled as cases meet them, by the processor: several of them at once.
    several = ["-n", str(min(12, os.cpu_count() or 1))] if find_spec("xdist") else []
    tests = [python, "-m", "pytest", "-q", *several, "-k", "cuda", "--every", "7", "--durations=5", "tests"]
    found = [
        Step("build", pip, 120, {"PIP_BREAK_SYSTEM_PACKAGES": "1", **_this_gpu_alone()}),
        Step("what is there", [python, "-m", "gkm_ops", "info"], 15),
        Step("tests", tests, 170),
    ]
    if shutil.which("compute-sanitizer"):
        sanitizer = ["compute-sanitizer", "--error-exitcode", "1", python, "-c", _SMALL_CASE]
        found.append(Step("compute-sanitizer", sanitizer, 40, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}))
    benchmarks = [python, "-m", "benchmarks", "--device", "cuda", "--minutes", "2.5", "--out", str(results)]
    found.append(Step("benchmarks", benchmarks, 230))
    return found


def _this_gpu_alone() -> dict[str, str]:
    """Has the CUDA kernels compiled for the GPU that is here, unless other ones are asked for."""
    import torch

    if not torch.cuda.is_available():
        return {}
    major, minor = torch.cuda.get_device_capability()
    return {"TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", f"{major}.{minor}")}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.check", description=__doc__.partition(": ")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    options = parser.parse_args(arguments)
    passed = [passes(step) for step in steps(options.out.resolve())]  # every one of them, whatever came before
    return int(not all(passed))


def passes(step: Step) -> bool:
    """Run a step and say how it ended."""
    print(f"--- {step.name}", flush=True)
    start = time.monotonic()
    try:
        done = subprocess.run(
            step.command, cwd=ROOT, env=os.environ | step.environment, timeout=step.limit_s, check=False
        )
        outcome = "passed" if done.returncode == 0 else f"failed, exit {done.returncode}"
    except subprocess.TimeoutExpired:
        outcome = f"stopped after {step.limit_s:.0f} s"
    except OSError as error:
        outcome = f"could not run: {error}"
    print(f"--- {step.name}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    return outcome == "passed"


if __name__ == "__main__":
    raise SystemExit(main())
