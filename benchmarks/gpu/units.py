"""How fast the GPU's units multiply, asked in the ways that the CUDA kernels have: units.cu, compiled and run."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils.cpp_extension import CUDA_HOME

from benchmarks.gpu.outcomes import first_line

SOURCE = Path(__file__).with_suffix(".cu")
KERNELS = SOURCE.parents[2] / "csrc" / "cuda"
_HOW: dict[str, Any] = {"check": True, "capture_output": True, "text": True, "timeout": 60}


def find_nvcc() -> str | None:
    """Where torch's extensions would find it too."""
    return shutil.which("nvcc") or (CUDA_HOME and shutil.which("nvcc", path=str(Path(CUDA_HOME) / "bin")))


def measure(device: torch.device) -> dict[str, Any]:
    """The rates, or why there are none."""
    nvcc = find_nvcc()
    if device.type != "cuda" or nvcc is None:
        return {"rates": [], "error": "there is no GPU" if device.type != "cuda" else "there is no nvcc"}
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "units"
        try:
            subprocess.run(compilation(nvcc, torch.cuda.get_device_capability(device), program), **_HOW)
            return {"rates": json.loads(subprocess.run([program], **_HOW).stdout), "error": None}
        except subprocess.CalledProcessError as error:
            return {"rates": [], "error": next(iter(error.stderr.splitlines()), first_line(error))}
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            return {"rates": [], "error": first_line(error)}


def compilation(nvcc: str, capability: tuple[int, int], program: Path) -> list[str | Path]:
    """The command that makes the program for a GPU of this compute capability."""
    return [nvcc, *flags(capability), "-Werror=all-warnings", "-I", KERNELS, SOURCE, "-o", program]


def flags(capability: tuple[int, int]) -> list[str]:
    """What nvcc takes for a GPU of this compute capability."""
    architecture = "".join(map(str, capability))
    target = ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    if capability == (9, 0):  # whose products of four warps are asked for by name
        target = ["-gencode", "arch=compute_90a,code=sm_90a", "-DGKM_STACKS"]
    return ["-std=c++17", "-O3", *target]
