"""The CPU backend: C++ kernels for several instruction sets, one of them chosen at run time."""

from __future__ import annotations

import torch
from torch import Tensor

from gkm_ops import compiled

try:
    from gkm_ops import _info
except ImportError:
    _info = None  # type: ignore[assignment]


def _load() -> str | None:
    path = compiled.library_path("gkm_ops._cpu")
    if _info is None or path is None:
        return "its library was not built; run `pip install .`"
    return compiled.load(path)


_problem = _load()


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot serve a device and dtype, or None where it can.

    Raises:
        ValueError: GKM_OPS_CPU_ISA names no instruction set that the kernels have and the processor runs.
    """
    if _problem is not None:
        return _problem
    if device.type != "cpu":
        return f"it serves the CPU alone, not {device.type}"
    try:
        _info.instruction_set()
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    if dtype not in compiled.DTYPES:
        return f"it has no kernels for {dtype}"
    return None


_ops = compiled.CompiledOps("gkm_ops_cpu", sums=torch.float64)
blur = _ops.blur
blur_adjoint = _ops.blur_adjoint
correlate = _ops.correlate
grad_mix = _ops.grad_mix
grad_taps_w = _ops.grad_taps_w
grad_taps_h = _ops.grad_taps_h
ridge_dual = _ops.ridge_dual


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool = False, added: Tensor | None = None
) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=K // 2)`` for kernels of 3x3 or 5x5, by Winograd's transforms
    (``csrc/cpu/winograd.h``).

    Args:
        x: ``[B, C, H, W]`` float32.
        weight: ``[O, C, K, K]`` float32, K 3 or 5.
        bias: ``[O]`` float32 or None.
        rectified: with a ReLU after it.
        added: ``[B, O, H, W]`` float32 or None: what is added to that.

    Returns:
        ``[B, O, H, W]``, contiguous; without gradients.
    """
    out = x.new_empty(len(x), len(weight), *x.shape[2:])
    bias, added = (None if tensor is None else tensor.contiguous() for tensor in (bias, added))
    torch.ops.gkm_ops_cpu.convolve.default(out, _by_rows(x), weight.contiguous(), bias, rectified, added)
    return out


def convolve_gradient(grad: Tensor, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The gradients of ``F.conv2d(x, weight, bias, padding=size // 2)`` by weight and bias, by Winograd's transforms
    (``csrc/cpu/winograd_gradient.h``).

    Args:
        grad: of the result, ``[B, O, H, W]`` float32.
        x: ``[B, C, H, W]`` float32.
        size: of the kernels, 3 or 5.

    Returns:
        ``[O, C, size, size]`` and ``[O]``, contiguous.
    """
    weight, bias = x.new_empty(grad.shape[1], x.shape[1], size, size), x.new_empty(grad.shape[1])
    if x.numel() == 0:
        return weight.zero_(), bias.zero_()
    torch.ops.gkm_ops_cpu.convolve_gradient.default(weight, bias, grad.contiguous(), _by_rows(x))
    return weight, bias


def convolve_thin(x: Tensor, weight: Tensor) -> Tensor:
    """``F.conv2d(x, weight, padding=3)`` for 7x7 kernels of one or two channels (``csrc/cpu/thin_convolution.h``).

    Args:
        x: ``[B, C, H, W]`` float32.
        weight: ``[O, C, 7, 7]`` float32.

    Returns:
        ``[B, O, H, W]``, contiguous; without gradients.
    """
    out = x.new_empty(len(x), len(weight), *x.shape[2:])
    torch.ops.gkm_ops_cpu.convolve_thin.default(out, x.contiguous(), weight.contiguous(), None)
    return out


def convolve_thin_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of `convolve_thin` by its weights, ``[O, C, 7, 7]``.

    Args:
        grad: of the result, ``[B, O, H, W]`` float32.
        x: ``[B, C, H, W]`` float32.
    """
    out = x.new_empty(grad.shape[1], x.shape[1], 7, 7)
    torch.ops.gkm_ops_cpu.convolve_thin.default(out, x.contiguous(), None, grad.contiguous())
    return out


def _by_rows(x: Tensor) -> Tensor:
    """With the columns of a row side by side."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()
