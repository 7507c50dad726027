"""The op family as functions of images, coefficient maps and a bank."""

from __future__ import annotations

import numbers

import torch
from torch import Tensor

from gkm_ops import ops as _ops  # noqa: F401  registers torch.ops.gkm_ops
from gkm_ops import ridge as _ridge  # noqa: F401  likewise
from gkm_ops.bank import GaussianBank, check_bank


def gkm_blur(
    x: Tensor, coeffs: Tensor, bank: GaussianBank, *, mix: Tensor | None = None, padding_mode: str = "reflect"
) -> Tensor:
    """Spatially varying mixture of blurs: blur, weigh and sum in one pass.

    ``y_o = sum_m coeffs_m * sum_c mix[m, o, c] (g_m * x_c)``, the defocus model of GKMNet (paper,
    equation 3; with ``mix``, its bank, coefficients and sum layer in one op). Differentiable to any order
    by ``x``, ``coeffs``, ``mix`` and the taps of a trainable bank; only the inputs are kept for that.

    Args:
        x: image ``[B, C, H, W]``, float32, float64, bfloat16 or float16 (sums are held in float32 at
            least).
        coeffs: coefficient maps ``[B, M, H, W]``, shared by the colours, or ``[B, M, C, H, W]``, in the
            type of ``x``. They may be negative and need not sum to one.
        bank: M kernels, on the device of ``x``.
        mix: ``[M, O, C]``, any of those types; absent: the identity, O = C.
        padding_mode: ``"zeros"``, ``"reflect"`` (each kernel by its own radius, the edge not repeated)
            or ``"replicate"``.

    Returns:
        ``[B, O, H, W]`` in the type of ``x``, contiguous.

    Raises:
        TypeError: an argument of a type or layout that cannot serve.
        ValueError: shapes, devices or a padding mode that do not fit; ``"reflect"`` on an image no wider
            than the largest radius.

    Example:
        >>> bank = GaussianBank.gkmnet()
        >>> x, coeffs = torch.rand(1, 3, 64, 64), torch.rand(1, 22, 64, 64).softmax(1)
        >>> gkm_blur(x, coeffs, bank).shape
        torch.Size([1, 3, 64, 64])
    """
    taps, radii = _unpacked(bank, padding_mode, x=x, coeffs=coeffs, mix=mix)
    return torch.ops.gkm_ops.blur.default(x, coeffs, taps, taps, mix, radii, padding_mode)


def gkm_blur_adjoint(
    y: Tensor, coeffs: Tensor, bank: GaussianBank, *, mix: Tensor | None = None, padding_mode: str = "reflect"
) -> Tensor:
    """The transpose of `gkm_blur` as a linear map of the image: ``<gkm_blur(x), y> = <x, adjoint(y)>``.

    ``x_c = sum_m T_m^T (coeffs_m * sum_o mix[m, o, c] y_o)``: what CG and other solvers of the deblurring
    problem need beside the blur (supplement, HQS + CG).

    Args:
        y: image ``[B, O, H, W]``; the rest as for `gkm_blur`.

    Returns:
        ``[B, C, H, W]`` in the type of ``y``.

    Raises:
        As `gkm_blur`.

    Example:
        >>> bank = GaussianBank.gkmnet()
        >>> y, coeffs = torch.rand(1, 3, 64, 64), torch.rand(1, 22, 64, 64)
        >>> gkm_blur_adjoint(y, coeffs, bank).shape
        torch.Size([1, 3, 64, 64])
    """
    taps, radii = _unpacked(bank, padding_mode, y=y, coeffs=coeffs, mix=mix)
    return torch.ops.gkm_ops.blur_adjoint.default(y, coeffs, taps, taps, mix, radii, padding_mode)


def gkm_correlate(
    x: Tensor, y: Tensor, bank: GaussianBank, *, mix: Tensor | None = None, padding_mode: str = "reflect"
) -> Tensor:
    """How much of each blurred version of ``x`` there is in ``y``, per pixel: the gradient for the maps.

    ``b_m = sum_o y_o * sum_c mix[m, o, c] (g_m * x_c)``.

    Args:
        x: image ``[B, C, H, W]``.
        y: image ``[B, O, H, W]`` in the type of ``x``; the rest as for `gkm_blur`.

    Returns:
        ``[B, M, H, W]`` in the type of ``x``.

    Raises:
        As `gkm_blur`.

    Example:
        >>> bank = GaussianBank.gkmnet()
        >>> gkm_correlate(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), bank).shape
        torch.Size([1, 22, 64, 64])
    """
    taps, radii = _unpacked(bank, padding_mode, x=x, y=y, mix=mix)
    return torch.ops.gkm_ops.correlate.default(x, y, taps, taps, mix, radii, padding_mode, False)


def gaussian_stack(x: Tensor, bank: GaussianBank, *, padding_mode: str = "reflect") -> Tensor:
    """Every blurred version of an image: the bank's plain output, for those who want the stack.

    Args:
        x: image ``[B, C, H, W]``; the rest as for `gkm_blur`.

    Returns:
        ``[B, M, C, H, W]`` in the type of ``x``.

    Raises:
        As `gkm_blur`.

    Example:
        >>> gaussian_stack(torch.rand(1, 3, 64, 64), GaussianBank.gkmnet()).shape
        torch.Size([1, 22, 3, 64, 64])
    """
    taps, radii = _unpacked(bank, padding_mode, x=x)
    return torch.ops.gkm_ops.correlate.default(x, torch.ones_like(x), taps, taps, None, radii, padding_mode, True)


def gkm_ridge_dual(x: Tensor, y: Tensor, bank: GaussianBank, *, ridge: float, padding_mode: str = "reflect") -> Tensor:
    """The closed form of coefficient maps, per pixel and in one pass: the dual solution of a ridge regression.

    ``z = (A A^T + ridge I)^-1 y``, where ``A [C, M]`` holds the blurred versions of ``x`` at a pixel. The maps of
    least norm that turn ``x`` into ``y``, ``A^T (A A^T + ridge I)^-1 y``, are ``gkm_correlate(x, z, bank)``, and what
    `gkm_blur` makes with them misses ``y`` by ``ridge * z``. Differentiable to any order by ``x``, ``y`` and the taps
    of a trainable bank.

    Args:
        x: image ``[B, C, H, W]``, float32 or float64; under autocast float32.
        y: image of the same shape and type.
        bank: M kernels, on the device of ``x``.
        ridge: in squared units of ``x``; finite, > 0. With images in [0, 1] and float32, not below 1e-6.
        padding_mode: as for `gkm_blur`.

    Returns:
        ``[B, C, H, W]`` in the type of ``x``.

    Raises:
        TypeError: an argument of a type that cannot serve.
        ValueError: shapes, devices, a ridge or a padding mode that do not fit.

    Example:
        >>> bank = GaussianBank.gkmnet()
        >>> x, y = torch.rand(2, 1, 3, 64, 64)
        >>> z = gkm_ridge_dual(x, y, bank, ridge=1e-2)
        >>> fitted = gkm_blur(x, gkm_correlate(x, z, bank), bank)
        >>> torch.allclose(fitted, y - 1e-2 * z, atol=1e-3)
        True
    """
    taps, radii = _unpacked(bank, padding_mode, x=x, y=y)
    if not isinstance(ridge, numbers.Real | torch.SymFloat):
        raise TypeError(f"ridge: got a {type(ridge).__name__}, wanted a number; it has no gradient")
    return torch.ops.gkm_ops.ridge_dual.default(x, y, taps, taps, radii, ridge, padding_mode)


def _unpacked(bank: GaussianBank, padding_mode: str, **tensors: Tensor | None) -> tuple[Tensor, tuple[int, ...]]:
    """The bank's taps and radii, once every argument is known to be of the right kind."""
    check_bank(bank)
    if not isinstance(padding_mode, str):
        raise TypeError(f"padding_mode: got a {type(padding_mode).__name__}, wanted a string")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) and not (name == "mix" and tensor is None):
            raise TypeError(f"{name}: got a {type(tensor).__name__}, wanted a tensor")
    image, taps = next(iter(tensors.values())), bank.taps
    if image is not None and taps.device != image.device:
        raise ValueError(
            f"bank: got one on {taps.device}, wanted {image.device}, where the image is; move it with bank.to()"
        )
    return taps, bank.radii
