"""The CPU backend: C++ kernels for several instruction sets, one of them chosen at run time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch
from torch import Tensor

from gkm_ops.reference import accumulation_dtype

try:
    from gkm_ops import _info
except ImportError:
    _info = None  # type: ignore[assignment]

_OPS = ("blur", "blur_adjoint", "correlate", "grad_mix", "grad_taps_w", "grad_taps_h", "ridge_dual")
_TARGETS = {op: number for number, op in enumerate(_OPS)}
_PADDING = {"zeros": 0, "reflect": 1, "replicate": 2}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def _load() -> str | None:
    """Load the library of kernels; what went wrong, if anything did."""
    spec = find_spec("gkm_ops._cpu")
    if _info is None or spec is None or spec.origin is None:
        return "its library was not built; run `pip install .`"
    try:
        torch.ops.load_library(spec.origin)
    except OSError as error:
        return f"its library does not load: {error}"
    return None


_problem = _load()


def refusal(device_type: str, dtype: torch.dtype) -> str | None:
    """Why this backend cannot serve a device and dtype, or None where it can."""
    if _problem is not None:
        return _problem
    try:
        _info.instruction_set()
    except RuntimeError as error:
        return str(error)
    if device_type != "cpu":
        return f"it serves the CPU alone, not {device_type}"
    if dtype not in _DTYPES:
        return f"it has no kernels for {dtype}"
    return None


def _evaluate(
    target: str,
    out: Tensor,
    radii: Sequence[int],
    padding_mode: str,
    *,
    x: Tensor | None = None,
    y: Tensor | None = None,
    coeffs: Tensor | None = None,
    taps_w: Tensor | None = None,
    taps_h: Tensor | None = None,
    mix: Tensor | None = None,
    ridge: float = 0.0,
) -> Tensor:
    torch.ops.gkm_ops_cpu.evaluate.default(
        _TARGETS[target], out, x, y, coeffs, taps_w, taps_h, mix, radii, _PADDING[padding_mode], ridge
    )
    return out


def blur(
    x: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    B, C, H, W = x.shape
    out = x.new_empty(B, C if mix is None else mix.shape[1], H, W)
    return _evaluate("blur", out, radii, padding, x=x, coeffs=coeffs, taps_w=taps_w, taps_h=taps_h, mix=mix)


def blur_adjoint(
    y: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    B, O, H, W = y.shape  # noqa: E741
    out = y.new_empty(B, O if mix is None else mix.shape[2], H, W)
    return _evaluate("blur_adjoint", out, radii, padding, y=y, coeffs=coeffs, taps_w=taps_w, taps_h=taps_h, mix=mix)


def correlate(
    x: Tensor,
    y: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding: str,
    per_channel: bool,
) -> Tensor:
    B, C, H, W = x.shape
    M = taps_w.shape[-2]
    out = x.new_empty(B, M, C, H, W) if per_channel else x.new_empty(B, M, H, W)
    return _evaluate("correlate", out, radii, padding, x=x, y=y, taps_w=taps_w, taps_h=taps_h, mix=mix)


def grad_mix(
    x: Tensor, y: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], padding: str
) -> Tensor:
    sums = x.new_empty(coeffs.shape[1], y.shape[1], x.shape[1], dtype=torch.float64)
    _evaluate("grad_mix", sums, radii, padding, x=x, y=y, coeffs=coeffs, taps_w=taps_w, taps_h=taps_h)
    return sums.to(accumulation_dtype(x.dtype))


def grad_taps_w(
    x: Tensor, y: Tensor, coeffs: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    sums = torch.empty_like(taps_h, dtype=torch.float64, memory_format=torch.contiguous_format)
    _evaluate("grad_taps_w", sums, radii, padding, x=x, y=y, coeffs=coeffs, taps_h=taps_h, mix=mix)
    return sums.to(accumulation_dtype(x.dtype))


def grad_taps_h(
    x: Tensor, y: Tensor, coeffs: Tensor, taps_w: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    sums = torch.empty_like(taps_w, dtype=torch.float64, memory_format=torch.contiguous_format)
    _evaluate("grad_taps_h", sums, radii, padding, x=x, y=y, coeffs=coeffs, taps_w=taps_w, mix=mix)
    return sums.to(accumulation_dtype(x.dtype))


def ridge_dual(
    x: Tensor, y: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], ridge: float, padding: str
) -> Tensor:
    out = y.new_empty(y.shape)
    return _evaluate("ridge_dual", out, radii, padding, x=x, y=y, taps_w=taps_w, taps_h=taps_h, ridge=ridge)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, rectified: bool = False, added: Tensor | None = None
) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` for 3x3 kernels, by Winograd's F(4x4, 3x3) (``csrc/cpu/winograd.h``).

    Args:
        x: ``[B, C, H, W]`` float32.
        weight: ``[O, C, 3, 3]`` float32.
        bias: ``[O]`` float32 or None.
        rectified: with a ReLU after it.
        added: ``[B, O, H, W]`` float32 or None: what is added to that.

    Returns:
        ``[B, O, H, W]``, contiguous; without gradients.
    """
    out = x.new_empty(len(x), len(weight), *x.shape[2:])
    rows = x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()
    bias, added = (None if tensor is None else tensor.contiguous() for tensor in (bias, added))
    torch.ops.gkm_ops_cpu.convolve.default(out, rows, weight.contiguous(), bias, rectified, added)
    return out
