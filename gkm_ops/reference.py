"""The op family in plain PyTorch: the oracle's vocabulary, the last fallback and the benchmarks' baseline.

Everything is one scalar form, linear in each of its six tensors:

    F(x, y, coeffs, taps_w, taps_h, mix) = <y, blur(x, coeffs, taps_w, taps_h, mix)>

and every op is the derivative of F by the tensor that it returns. So there is one formula here, `blur`;
the rest are its vector-Jacobian products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_PAD_MODE = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type sums are held in: float64 for float64, float32 for all narrower types."""
    return torch.promote_types(dtype, torch.float32)


def blur(
    x: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c; shapes as in `gkm_ops.ops`."""
    wide = accumulation_dtype(x.dtype)
    image, weights = x.to(wide), coeffs.to(wide)
    y = torch.zeros((), dtype=wide, device=x.device)
    for m in range(coeffs.shape[1]):
        blurred = _blur_with_kernel(image, m, taps_w.to(wide), taps_h.to(wide), radii, padding_mode)
        if mix is not None:
            blurred = torch.einsum("oc,bchw->bohw", mix[m].to(wide), blurred)
        y = y + (weights[:, m] if weights.dim() == 5 else weights[:, m : m + 1]) * blurred
    return y.to(x.dtype)


def blur_adjoint(
    y: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The derivative of F by x."""
    x = torch.zeros_like(y) if mix is None else y.new_zeros(len(y), mix.shape[2], *y.shape[2:])
    return _derivative(lambda v: blur(v, coeffs, taps_w, taps_h, mix, radii, padding_mode), x, y)


def correlate(
    x: Tensor,
    y: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
    per_channel: bool,
) -> Tensor:
    """The derivative of F by coeffs."""
    planes = (taps_w.shape[-2], x.shape[1]) if per_channel else (taps_w.shape[-2],)
    coeffs = x.new_zeros(len(x), *planes, *x.shape[2:])
    return _derivative(lambda v: blur(x, v, taps_w, taps_h, mix, radii, padding_mode), coeffs, y)


def grad_mix(
    x: Tensor,
    y: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The derivative of F by mix."""
    wide = accumulation_dtype(x.dtype)
    x, y, coeffs = x.to(wide), y.to(wide), coeffs.to(wide)
    mix = x.new_zeros(coeffs.shape[1], y.shape[1], x.shape[1])
    return _derivative(lambda v: blur(x, coeffs, taps_w, taps_h, v, radii, padding_mode), mix, y)


def grad_taps_w(
    x: Tensor,
    y: Tensor,
    coeffs: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The derivative of F by taps_w."""
    wide = accumulation_dtype(x.dtype)
    x, y, coeffs = x.to(wide), y.to(wide), coeffs.to(wide)
    taps = torch.zeros_like(taps_h, dtype=wide)
    return _derivative(lambda v: blur(x, coeffs, v, taps_h, mix, radii, padding_mode), taps, y)


def grad_taps_h(
    x: Tensor,
    y: Tensor,
    coeffs: Tensor,
    taps_w: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding_mode: str,
) -> Tensor:
    """The derivative of F by taps_h."""
    wide = accumulation_dtype(x.dtype)
    x, y, coeffs = x.to(wide), y.to(wide), coeffs.to(wide)
    taps = torch.zeros_like(taps_w, dtype=wide)
    return _derivative(lambda v: blur(x, coeffs, taps_w, v, mix, radii, padding_mode), taps, y)


def _derivative(linear: Callable[[Tensor], Tensor], at: Tensor, cotangent: Tensor) -> Tensor:
    """The vector-Jacobian product of a linear map, whose Jacobian is the same at every point."""
    with torch.enable_grad():
        pullback = torch.func.vjp(linear, at)[1]
        return pullback(cotangent)[0]


def _blur_with_kernel(
    x: Tensor, m: int, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], padding_mode: str
) -> Tensor:
    """T_m x: kernel m of the bank, which is each colour's own for taps of shape [C, M, K]."""
    if taps_w.dim() == 2:
        return _blur_separable(x, taps_w[m], taps_h[m], radii[m], padding_mode)
    kernels = taps_w.shape[1]
    planes = [
        _blur_separable(x[:, c : c + 1], taps_w[c, m], taps_h[c, m], radii[c * kernels + m], padding_mode)
        for c in range(len(taps_w))
    ]
    return torch.cat(planes, dim=1)


def _blur_separable(x: Tensor, taps_w: Tensor, taps_h: Tensor, radius: int, padding_mode: str) -> Tensor:
    """Cross-correlation with the central 2 * radius + 1 taps, along the width and then the height."""
    centre = slice(taps_w.shape[-1] // 2 - radius, taps_w.shape[-1] // 2 + radius + 1)
    channels = x.shape[1]
    kernel_w = taps_w[centre].expand(channels, 1, 1, -1)
    kernel_h = taps_h[centre].unsqueeze(-1).expand(channels, 1, -1, 1)
    x = F.pad(x, (radius,) * 4, mode=_PAD_MODE[padding_mode])
    return F.conv2d(F.conv2d(x, kernel_w, groups=channels), kernel_h, groups=channels)


def refusal(device_type: str, dtype: torch.dtype) -> str | None:
    """Plain PyTorch serves every call."""
    return None
