"""The CUDA backend: C++ kernels for GPUs, built where torch has CUDA and nvcc is there.

Nothing here waits for the device or copies to it: a call can be captured into a CUDA graph.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gkm_ops import compiled, reference

# What the kernels' parameters have room for; the eager path takes what is larger (``csrc/cuda/form.h``).
_MOST_KERNELS, _MOST_TAPS = 1024, 2049


def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, and what went wrong, if anything did."""
    path = compiled.library_path("gkm_ops._cuda")
    if path is None:
        return None, "its library was not built: that takes a torch with CUDA, and nvcc, when gkm_ops is installed"
    problem = compiled.load(path)
    return (None if problem else ctypes.CDLL(path)), problem


_library, _problem = _load()


def _told(function: str) -> str | None:
    """What a function of the library says."""
    ask = getattr(_library, function)
    ask.restype = ctypes.c_char_p
    answer: bytes | None = ask()
    return None if answer is None else answer.decode()


def built() -> str:
    """For which architectures the kernels were built and with which nvcc, or why they are not there."""
    return _problem or _told("gkm_ops_cuda_build") or ""


@functools.cache
def has_gpu() -> bool:
    return torch.cuda.is_available()


@functools.cache
def _problem_of(device: int) -> str | None:
    """Why the kernels do not run on a GPU."""
    with torch.cuda.device(device):
        return _problem_here()


def _problem_here() -> str | None:
    """Why they do not run on the current one."""
    problem = _told("gkm_ops_cuda_problem")
    return problem and f"its kernels, for {built()}, do not run on this GPU: {problem}"


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot serve a device and dtype, or None where it can."""
    if _problem is not None:
        return _problem
    if device.type != "cuda":
        return f"it serves GPUs, not {device.type}"
    if not has_gpu():
        return "torch finds no GPU"
    if dtype not in compiled.DTYPES:
        return f"it has no kernels for {dtype}"
    return _problem_of(index_of(device))


def index_of(device: torch.device) -> int:
    """A GPU's number; the current one's where a device has none."""
    return torch.cuda.current_device() if device.index is None else device.index


class _CudaOps(compiled.CompiledOps):
    def _options(self) -> tuple[bool]:
        """Whether matrix units may take float32 in one product, which keeps fewer of its digits."""
        return (torch.get_float32_matmul_precision() != "highest",)


_ops = _CudaOps("gkm_ops_cuda", sums=None)


def _served(op: str, most_colours: int | None = None) -> Callable[..., Tensor]:
    ours, eager = getattr(_ops, op), getattr(reference, op)

    @functools.wraps(ours)
    def serve(*args: Any) -> Tensor:
        taps = args[3]  # of one axis or the other
        size = taps.shape[-1]
        too_large = size > _MOST_TAPS or taps.numel() > _MOST_KERNELS * size
        if too_large or (most_colours is not None and args[0].shape[1] > most_colours):
            return eager(*args)
        return ours(*args)

    return serve


blur = _served("blur")
blur_adjoint = _served("blur_adjoint")
correlate = _served("correlate")
grad_mix = _served("grad_mix")
grad_taps_w = _served("grad_taps_w")
grad_taps_h = _served("grad_taps_h")
# A thread holds the products of all colours of its pixels.
ridge_dual = _served("ridge_dual", most_colours=4)
