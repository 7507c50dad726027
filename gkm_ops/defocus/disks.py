"""Disks as mixtures of separable kernels: the blur of a lens with a round aperture, through the fused op."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus.coefficients import bracket, check_sigma_map
from gkm_ops.defocus.constants import Constants

# Of a kernel's 2-norm: what the separable parts that are left out may add up to.
_LEFT_OUT = 2e-3
_SUBSAMPLES = 16


class DiskBank(Constants):
    """Uniform disks, each the sum of a few separable kernels, for `gkm_blur`.

    A disk is a symmetric matrix, so its eigenvectors are 1-D kernels that serve both axes, and its
    eigenvalues weigh them: ``K = sum_i e_i v_i v_i^T``. The sum stops where what is left of the kernel is
    below 0.2 % of its norm.

    Args:
        diameters: in pixels, finite and >= 0; 0 is the identity.

    Attributes:
        bank: the 1-D kernels of all disks.
        diameters: ``[D]``, float64, as all its numbers stay.
        disk: ``[M]``, which disk each kernel of the bank is a part of.
        eigenvalues: ``[M]``, float64, its weight there.

    Raises:
        TypeError: not a sequence of numbers.
        ValueError: a diameter outside that range, or none.

    Example:
        >>> disks = DiskBank([0.0, 3.0, 6.0])
        >>> coeffs = disks.coefficients(torch.full((1, 32, 32), 1.2))
        >>> coeffs.shape[1] == disks.bank.num_kernels
        True
    """

    diameters: Tensor
    disk: Tensor
    eigenvalues: Tensor

    def __init__(self, diameters: Sequence[float]) -> None:
        super().__init__()
        if not isinstance(diameters, Sequence) or not all(isinstance(diameter, numbers.Real) for diameter in diameters):
            raise TypeError(f"diameters: got {diameters!r}, wanted a sequence of numbers")
        if not diameters:
            raise ValueError("diameters: got none, wanted at least one")
        kernels = [disk_kernel(diameter) for diameter in diameters]
        half = max(len(kernel) for kernel in kernels) // 2
        taps, radii, disk, eigenvalues = [], [], [], []
        for number, kernel in enumerate(kernels):
            values, vectors = torch.linalg.eigh(kernel)
            for i in _parts(values):
                taps.append(nn.functional.pad(vectors[:, i], (half - len(kernel) // 2,) * 2))
                radii.append(len(kernel) // 2)
                disk.append(number)
                eigenvalues.append(values[i])
        self.bank = GaussianBank.from_taps(torch.stack(taps), radii)
        self.register_buffer("diameters", torch.tensor(diameters, dtype=torch.float64), persistent=False)
        self.register_buffer("disk", torch.tensor(disk), persistent=False)
        self.register_buffer("eigenvalues", torch.stack(eigenvalues), persistent=False)

    def coefficients(self, sigma_map: Tensor) -> Tensor:
        """Coefficient maps that blur each pixel by the two disks that bracket a wanted width.

        Args:
            sigma_map: ``[B, H, W]``, floating point, standard deviations along an axis in pixels (a quarter of
                the diameter), finite and >= 0.

        Returns:
            ``[B, M, H, W]`` in the type of ``sigma_map``, for `gkm_blur` with this ``bank``.

        Raises:
            TypeError: ``sigma_map`` is not a floating-point tensor.
            ValueError: a wrong rank, or NaN, infinite or negative sigmas.
        """
        check_sigma_map(sigma_map)
        return self.bracketing(sigma_map)

    def bracketing(self, sigma_map: Tensor) -> Tensor:
        """As `coefficients`, of widths that are known to be right: no look at them waits for a GPU."""
        weights = bracket(sigma_map, self.diameters / 4)
        return weights[:, self.disk] * self.eigenvalues.to(sigma_map.dtype).view(-1, 1, 1)


def disk_kernel(diameter: float) -> Tensor:
    """A uniform disk sampled on pixels, each by the share of its area inside, normalised to sum 1.

    Args:
        diameter: in pixels, finite and >= 0.

    Returns:
        float64 ``[K, K]``, K odd.

    Raises:
        ValueError: a diameter outside that range.

    Example:
        >>> disk_kernel(1.0).shape
        torch.Size([1, 1])
    """
    if not (math.isfinite(diameter) and diameter >= 0):
        raise ValueError(f"diameters: got {diameter}, wanted finite numbers >= 0 (0 is the identity)")
    radius = max(0, math.ceil((diameter - 1) / 2))
    size = 2 * radius + 1
    fine = (torch.arange(size * _SUBSAMPLES, dtype=torch.float64) + 0.5) / _SUBSAMPLES - size / 2
    inside = fine.square() + fine.square().unsqueeze(1) <= (max(diameter, 1.0) / 2) ** 2
    area = inside.double().unflatten(1, (size, -1)).unflatten(0, (size, -1)).mean((1, 3))
    return area / area.sum()


def _parts(eigenvalues: Tensor) -> list[int]:
    """The fewest eigenvalues, largest first, that leave out little enough."""
    squares = eigenvalues.square()
    order = squares.argsort(descending=True)
    left = squares.sum() - squares[order].cumsum(0)
    needed = int((left > _LEFT_OUT**2 * squares.sum()).sum()) + 1
    return order[:needed].tolist()
