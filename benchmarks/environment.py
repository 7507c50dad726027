"""On what, with what and when the numbers were taken."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import gkm_ops
from benchmarks import roofline

_PACKAGES = {"torch": "torch", "numpy": "numpy", "opencv": "opencv-python-headless"}


def describe() -> dict[str, Any]:
    """Facts for the record: processor, versions, compiler, commit, date."""
    cpu = _cpu()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": cpu.get("model name", platform.processor() or platform.machine()),
        "cpu_id": " ".join(f"{name} {cpu[name]}" for name in ("cpu family", "model", "stepping") if name in cpu),
        "cpu_flags": cpu.get("flags", ""),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version_of(package) for name, package in _PACKAGES.items()},
        "compiler": _compiler(),
        "gkm_ops": {key: value for key, value in gkm_ops.build_info().items() if key not in ("python", "torch")},
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }


def _cpu() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def version_of(package: str) -> str | None:
    """Of an installed package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _compiler() -> str | None:
    path = roofline.compiler()
    return None if path is None else _output([path, "--version"])


def _commit() -> str | None:
    """The commit, with a mark where the tree differs from it."""
    return _output(["git", "describe", "--always", "--dirty", "--abbrev=12"])


def _output(command: list[str]) -> str | None:
    """The first line that a command prints, or None where it cannot be run."""
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0] if done.stdout else None
