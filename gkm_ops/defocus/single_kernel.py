"""One kernel a pixel: of all blurred versions of an image the one nearest to a photo (supplement, first section).

The versions are made and compared one after another, so that no more than a few planes are in memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus import windows
from gkm_ops.defocus.coefficients import kernel_sigmas
from gkm_ops.defocus.disks import disk_kernel
from gkm_ops.functional import gaussian_stack, gkm_blur

# What a wider kernel has to gain in squared error to be taken: more than float64 rounds, less than anything that shows.
_GAIN = 1e-12


def nearest_gaussian(x: Tensor, y: Tensor, bank: GaussianBank, window: int) -> tuple[Tensor, Tensor]:
    """Per window the one Gaussian of the bank that takes x nearest to y; of equally near ones the narrowest.

    Args:
        x: sharp image ``[1, C, H, W]``, floating point.
        y: defocused image of the same shape and type.
        bank: M kernels shared by all colours, on the device of ``x``.
        window: pixels a side that share a kernel.

    Returns:
        The synthesised image, in the shape and type of ``x``, and the number of each pixel's kernel ``[H, W]``,
        int64.

    Example:
        >>> bank = GaussianBank([0.0, 1.0, 2.0])
        >>> x = torch.rand(1, 3, 32, 32)
        >>> image, kernels = nearest_gaussian(x, x, bank, window=1)
        >>> torch.equal(image, x), kernels.max().item()
        (True, 0)
    """
    return _nearest(_gaussians(x.double(), bank), y, window)


def nearest_disk(
    x: Tensor, y: Tensor, bank: GaussianBank, window: int, *, diameter: float = 4.0
) -> tuple[Tensor, Tensor]:
    """As `nearest_gaussian` with a uniform disk in the place of every kernel, whose number it has.

    Args:
        diameter: of the disks, in standard deviations of the kernels, > 0. Default: 4, with which both spread alike,
            up to the disk's sampling on pixels.

    Example:
        >>> bank = GaussianBank([0.0, 1.0, 2.0])
        >>> x = torch.rand(1, 3, 32, 32)
        >>> nearest_disk(x, x, bank, window=8)[1].shape
        torch.Size([32, 32])
    """
    return _nearest(_disks(x.double(), bank, diameter), y, window)


def _nearest(versions: Iterator[tuple[int, Tensor]], y: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The nearest of numbered versions ``[1, C, H, W]``, which come from the narrowest to the widest."""
    height, width = y.shape[2:]
    wanted = y.double()
    image = torch.zeros_like(wanted)
    kernels = torch.zeros(height, width, dtype=torch.int64, device=y.device)
    least = torch.full((), torch.inf, dtype=torch.float64, device=y.device)
    for number, version in versions:
        error = windows.mean((version - wanted).square().sum(1), window)
        nearer = error < least - _GAIN
        least = torch.where(nearer, error, least)
        chosen = windows.spread(nearer[0], window, height, width)
        image = torch.where(chosen, version, image)
        kernels[chosen] = number
    return image.to(y.dtype), kernels


def _gaussians(x: Tensor, bank: GaussianBank) -> Iterator[tuple[int, Tensor]]:
    for m, _ in _by_width(bank):
        kernel = GaussianBank.from_taps(bank.taps[m : m + 1], [bank.radii[m]]).to(x.device)
        yield m, gaussian_stack(x, kernel)[:, 0]


def _disks(x: Tensor, bank: GaussianBank, diameter: float) -> Iterator[tuple[int, Tensor]]:
    """Each disk exactly, as the sum of all its separable parts: K = sum_i e_i v_i v_i^T, v_i its eigenvectors."""
    for m, sigma in _by_width(bank):
        eigenvalues, vectors = torch.linalg.eigh(disk_kernel(diameter * sigma))
        parts = GaussianBank.from_taps(vectors.mT).to(x.device)
        weights = eigenvalues.to(x).view(1, -1, 1, 1).expand(1, -1, *x.shape[2:])
        yield m, gkm_blur(x, weights, parts)


def _by_width(bank: GaussianBank) -> list[tuple[int, float]]:
    """The kernels' numbers and standard deviations, from the narrowest to the widest."""
    return sorted(enumerate(kernel_sigmas(bank).tolist()), key=lambda kernel: kernel[1])
