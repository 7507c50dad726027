"""From disparity to coefficient maps: thin lens, blur width, mixture of the bank's kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gkm_ops.bank import GaussianBank, check_bank
from gkm_ops.errors import described


def circle_of_confusion(disparity: Tensor, focus_disparity: float, aperture: float) -> Tensor:
    """Diameter of the disk that a thin lens makes of each point: ``aperture * |disparity - focus_disparity|``.

    The circle of confusion of a lens of diameter A at focal distance f, focused at depth Z0, is
    ``A f |1/Z - 1/Z0|``. A stereo pair with baseline b sees depth Z at disparity ``b f / Z``, so with f in
    pixels the diameter in pixels is the difference of disparities times A / b. (A constant offset of the
    disparities, as between principal points, cancels.)

    Args:
        disparity: any shape, floating point, in pixels; or any other measure of inverse depth.
        focus_disparity: the disparity that is in focus, in the same unit.
        aperture: A / b, the lens diameter in baselines; in general, pixels of diameter per unit of
            ``disparity``. Finite, >= 0.

    Returns:
        Diameters in pixels, in the shape and type of ``disparity``, differentiable by it. NaN stays NaN.

    Raises:
        TypeError: ``disparity`` is not a floating-point tensor.
        ValueError: ``focus_disparity`` or ``aperture`` outside those ranges.

    Example:
        >>> circle_of_confusion(torch.tensor([10.0, 30.0, 60.0]), focus_disparity=30.0, aperture=0.5)
        tensor([10.,  0., 15.])
    """
    check_floating("disparity", disparity)
    if not math.isfinite(focus_disparity):
        raise ValueError(f"focus_disparity: got {focus_disparity}, wanted a finite number")
    if not (math.isfinite(aperture) and aperture >= 0):
        raise ValueError(f"aperture: got {aperture}, wanted a finite number >= 0")
    return aperture * (disparity - focus_disparity).abs()


def disk_sigma(diameter: Tensor) -> Tensor:
    """Standard deviation along each axis of a uniform disk: a quarter of its diameter.

    Args:
        diameter: any shape, in pixels.

    Returns:
        The sigma, in pixels, of the Gaussian that is as wide as the disk.

    Example:
        >>> disk_sigma(torch.tensor(10.0))
        tensor(2.5000)
    """
    return diameter / 4


def kernel_sigmas(bank: GaussianBank) -> Tensor:
    """How wide each kernel really is: the standard deviation of its taps about the centre, in pixels.

    Sampling and truncation make a kernel narrower than the sigma it was made from: GKMNet's widest, made
    from sigma 5.25 in 21 taps, measures 4.62.

    Args:
        bank: kernels shared by all colours.

    Returns:
        ``[M]``, float64, on the bank's device.

    Raises:
        TypeError: ``bank`` is not a GaussianBank.
        ValueError: a bank per colour, or a kernel whose taps have no positive sum and variance >= 0.

    Example:
        >>> kernel_sigmas(GaussianBank([0.0, 1.0], sizes=[1, 5]))
        tensor([0.0000, 0.9614], dtype=torch.float64)
    """
    check_bank(bank)
    if bank.num_channels is not None:
        raise ValueError(f"bank: got one per colour ({bank.num_channels} colours), wanted one shared by all colours")
    taps = bank.taps.detach().double()
    offset = torch.arange(taps.shape[-1], dtype=taps.dtype, device=taps.device) - taps.shape[-1] // 2
    mass = taps.sum(-1)
    variance = (taps * offset**2).sum(-1) / mass
    if not ((mass > 0) & (variance >= 0)).all():
        raise ValueError("bank: got a kernel without a width, wanted taps of positive sum and variance >= 0")
    return variance.sqrt()


def coefficients_from_sigma(sigma_map: Tensor, bank: GaussianBank) -> Tensor:
    """Coefficient maps that blur each pixel by a wanted width, as a mixture of two kernels of the bank.

    Those are the two whose measured variances (`kernel_sigmas`, squared) bracket the wanted one. Their
    weights are linear in the variance, because variances of a mixture add by weight: the mixture's
    variance is exactly the one asked for. The maps are >= 0 and sum to one at every pixel.

    A sigma beyond the bank's widest kernel gets that kernel alone, one below its narrowest that one alone,
    so compare ``sigma_map`` with ``kernel_sigmas(bank)`` to know where the bank is too small.

    Args:
        sigma_map: ``[B, H, W]``, floating point, standard deviations in pixels, finite and >= 0.
        bank: M kernels shared by all colours, on the device of ``sigma_map``.

    Returns:
        ``[B, M, H, W]`` in the type of ``sigma_map``, at most two maps nonzero at a pixel, differentiable
        by ``sigma_map``.

    Raises:
        TypeError: ``sigma_map`` is not a floating-point tensor, or ``bank`` not a GaussianBank.
        ValueError: a wrong rank, NaN, infinite or negative sigmas, another device, or a bank that
            `kernel_sigmas` refuses.

    Example:
        >>> bank = GaussianBank.gkmnet()
        >>> coefficients_from_sigma(torch.full((1, 480, 640), 1.7), bank).shape
        torch.Size([1, 22, 480, 640])
    """
    check_floating("sigma_map", sigma_map)
    sigmas = kernel_sigmas(bank)
    if sigmas.device != sigma_map.device:
        raise ValueError(f"bank: got one on {sigmas.device}, wanted {sigma_map.device}, where sigma_map is")
    check_sigma_map(sigma_map)
    return bracket(sigma_map, sigmas)


def check_sigma_map(sigma_map: Tensor, name: str = "sigma_map") -> None:
    """Refuse what is no map of widths.

    Raises:
        TypeError: it is not a floating-point tensor.
        ValueError: it is not ``[B, H, W]``, finite and >= 0.
    """
    check_floating(name, sigma_map)
    if sigma_map.dim() != 3:
        raise ValueError(f"{name}: got shape {tuple(sigma_map.shape)}, wanted [B, H, W]")
    if not (sigma_map.isfinite() & (sigma_map >= 0)).all():
        raise ValueError(f"{name}: got NaN, infinite or negative values, wanted finite standard deviations >= 0")


def bracket(sigma_map: Tensor, sigmas: Tensor) -> Tensor:
    """Weights of the two of ``sigmas`` whose squares bracket each pixel's, linear in the square.

    Args:
        sigma_map: ``[B, H, W]``, finite and >= 0.
        sigmas: ``[M]``, of a set of kernels, in any order.

    Returns:
        ``[B, M, H, W]`` in the type of ``sigma_map``, >= 0, of sum one, at most two nonzero at a pixel.

    Example:
        >>> bracket(torch.full((1, 1, 1), 5.0).sqrt(), torch.tensor([0.0, 1.0, 3.0])).flatten()
        tensor([0.0000, 0.5000, 0.5000])
    """
    wide = torch.promote_types(sigma_map.dtype, torch.float32)
    wanted = sigma_map.to(wide).square()
    variances, kernel = sigmas.square().to(wide).sort(stable=True)
    if len(variances) == 1:
        return (1 + 0 * sigma_map).unsqueeze(1)  # which has a gradient, of zero
    upper = torch.searchsorted(variances, wanted.detach().contiguous()).clamp(1, len(variances) - 1)
    below, above = variances[upper - 1], variances[upper]
    # Kernels of equal width bracket nothing: the smallest number keeps 0 / 0 from making a NaN of them.
    step = (above - below).clamp_min(torch.finfo(wide).tiny)
    weight = ((wanted - below) / step).clamp(0, 1)

    B, H, W = sigma_map.shape
    coeffs = torch.zeros(B, len(variances), H, W, dtype=wide, device=sigma_map.device)
    coeffs = coeffs.scatter(1, kernel[upper - 1].unsqueeze(1), (1 - weight).unsqueeze(1))
    return coeffs.scatter(1, kernel[upper].unsqueeze(1), weight.unsqueeze(1)).to(sigma_map.dtype)


def check_floating(name: str, value: object) -> None:
    """Refuse by a TypeError what is not a floating-point tensor."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name}: got {described(value)}, wanted a floating-point tensor")
