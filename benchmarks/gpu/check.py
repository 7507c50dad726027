"""All that a machine with a GPU can tell, in under nine minutes and without a network: ``make gpu-check``.

Builds and installs with what the machine has; then the tests that need the GPU and, beside them, compute-sanitizer on a
small case where it is there, and a compilation of what the benchmarks will want; then, with nothing beside them, the
benchmarks, whose record lands in benchmarks/results, and a profile of the CUDA kernels where Nsight Compute is there. A
step that fails does not stop the next.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CAPABILITY = "import torch; print(*torch.cuda.get_device_capability(), sep='.')"


@dataclass(frozen=True)
class Step:
    """One command, and how many seconds it may take."""

    name: str
    command: list[str]
    limit_s: float
    environment: dict[str, str] = field(default_factory=dict)


def stages(results: Path) -> list[list[Step]]:
    """What this machine can run, one stage after the other, the steps of a stage side by side."""
    python = sys.executable
    pip = [python, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "-q", "-e", "."]
    # Kernels are compiled as cases meet them, by the processor: several of them at once.
    several = ["-n", str(min(12, os.cpu_count() or 1))] if find_spec("xdist") else []
    tests = [python, "-m", "pytest", "-q", *several, "-k", "cuda", "--every", "47", "--durations=5", "tests"]
    untimed = [
        Step("tests", tests, 120),
        Step("compiling ahead", [python, "-m", "benchmarks.gpu.ahead"], 100),
    ]
    if shutil.which("compute-sanitizer"):
        sanitizer = ["compute-sanitizer", "--error-exitcode", "1", python, "-m", "benchmarks.gpu.sanitized"]
        untimed.append(Step("compute-sanitizer", sanitizer, 90, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}))
    benchmarks = [python, "-m", "benchmarks", "--device", "cuda", "--minutes", "2.5", "--out", str(results)]
    return [
        [Step("build", pip, 150, {"PIP_BREAK_SYSTEM_PACKAGES": "1", **_this_gpu_alone()})],
        [Step("what is there", [python, "-m", "gkm_ops", "info"], 20)],
        untimed,
        [Step("benchmarks", benchmarks, 200)],
        [Step("profile", [python, "-m", "benchmarks.gpu.profile", "--out", str(results / "profile")], 50)],
    ]


def _this_gpu_alone() -> dict[str, str]:
    """Has the CUDA kernels compiled for the GPU that is here, unless other ones are asked for."""
    # By a process that ends: a GPU may be set to serve one at a time, and this one outlasts the steps.
    ask = [sys.executable, "-c", _CAPABILITY]
    try:
        asked = subprocess.run(ask, capture_output=True, text=True, check=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return {}
    return {"TORCH_CUDA_ARCH_LIST": os.environ.get("TORCH_CUDA_ARCH_LIST", asked.stdout.strip())}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.check", description=__doc__.partition(": ")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    options = parser.parse_args(arguments)
    passed = [passes(stage) for stage in stages(options.out.resolve())]  # every one of them, whatever came before
    return int(not all(passed))


def passes(stage: list[Step]) -> bool:
    """Run the steps of a stage and say how each ended, with no process of theirs left to disturb the next."""
    processes = [_started(step) for step in stage]
    with ThreadPoolExecutor(len(stage)) as waiting:
        try:
            return all(list(waiting.map(_passed, stage, processes)))
        finally:
            for process in processes:
                _end(process)


def _started(step: Step) -> subprocess.Popen[bytes] | None:
    print(f"--- {step.name}", flush=True)
    try:
        return subprocess.Popen(step.command, cwd=ROOT, env=os.environ | step.environment, start_new_session=True)
    except OSError as error:
        print(f"could not run {step.command[0]}: {error}", flush=True)
        return None


def _passed(step: Step, process: subprocess.Popen[bytes] | None) -> bool:
    if process is None:
        return False
    start = time.monotonic()
    try:
        code = process.wait(step.limit_s)
        outcome = "passed" if code == 0 else f"failed, exit {code}"
    except subprocess.TimeoutExpired:
        _end(process)
        outcome = f"stopped after {step.limit_s:.0f} s"
    print(f"--- {step.name}: {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    return outcome == "passed"


def _end(process: subprocess.Popen[bytes] | None) -> None:
    """Kill what is left of a step, whatever it has started."""
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
