"""Blurs of any width: what is wider than a bank reaches is blurred in a copy of half the size."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus.coefficients import bracket, check_floating, check_sigma_map
from gkm_ops.defocus.constants import Constants
from gkm_ops.defocus.disks import DiskBank
from gkm_ops.functional import gkm_blur

# Standard deviations of the spots in pixels: the identity, and four to the octave.
_SIGMAS = [0.0] + [0.375 * 2 ** (k / 4) for k in range(19)]
# From this share of the widest spot on, the half-size copy takes over.
_FADE_FROM = 0.8
# Halving with taps 1 3 3 1 spreads by 0.75 square pixels along an axis; so does doubling by bilinear samples.
_RESAMPLING_VARIANCE = 1.5
# Wider than so many times the image, a blur is the mean of the image.
_WIDEST = 4
# Side of what is blurred at a time, which bounds the memory for coefficient maps.
_TILE = 256


class BlurPyramid(Constants):
    """Blurs every pixel by its own width, of whatever size, with round or Gaussian spots.

    Widths within the bank's reach are blurred by `gkm_blur`. Wider ones are blurred at half the size, by half the
    width less what the resampling does by itself, and so on. Around the border between the two both are made, of
    the same width, and faded into each other. Beyond the image nothing is known: a blur is the mean of what its
    spot covers of the image, so a constant image stays constant.

    Args:
        shape: of the spots: ``"disk"``, as a round aperture makes, or ``"gaussian"``.

    Attributes:
        sigmas: ``[S]``, float64: the widths of the spots, as measured on their samples, rising.

    Raises:
        ValueError: another shape.

    Example:
        >>> blur = BlurPyramid("disk")
        >>> blur(torch.rand(1, 3, 40, 60), torch.linspace(0, 40, 60).expand(1, 40, 60)).shape
        torch.Size([1, 3, 40, 60])
    """

    spot: Tensor
    weight: Tensor
    sigmas: Tensor

    def __init__(self, shape: Literal["disk", "gaussian"] = "disk") -> None:
        super().__init__()
        if shape == "disk":
            disks = DiskBank([4 * sigma for sigma in _SIGMAS])
            self.bank, spot, weight = disks.bank, disks.disk, disks.eigenvalues
        elif shape == "gaussian":
            self.bank = GaussianBank(_SIGMAS)
            spot, weight = torch.arange(len(_SIGMAS)), torch.ones(len(_SIGMAS), dtype=torch.float64)
        else:
            raise ValueError(f"shape: got {shape!r}, wanted 'disk' or 'gaussian'")
        self.register_buffer("spot", spot, persistent=False)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("sigmas", self._measured(), persistent=False)
        self._reach = float(self.sigmas[-1])

    def forward(self, image: Tensor, sigma: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Blur an image.

        Args:
            image: ``[B, C, H, W]``, floating point; in 16 bits it is blurred in float32.
            sigma: ``[B, H, W]``, floating point: standard deviations along an axis in pixels, finite and >= 0.
            wanted: ``[B, H, W]``, bool: where the result matters; elsewhere it may stay zero. Default: everywhere.

        Returns:
            ``[B, C, H, W]`` in the type of ``image``.

        Raises:
            TypeError: an image or sigmas that are not floating-point tensors.
            ValueError: shapes that do not fit, or sigmas out of their range.
        """
        check_floating("image", image)
        if image.dim() != 4:
            raise ValueError(f"image: got shape {tuple(image.shape)}, wanted [B, C, H, W]")
        B, _, H, W = image.shape
        check_floating("sigma", sigma)
        for name, value in (("sigma", sigma), ("wanted", wanted)):
            if value is not None and value.shape != (B, H, W):
                raise ValueError(f"{name}: got shape {tuple(value.shape)}, wanted {(B, H, W)}, as image")
        check_sigma_map(sigma, "sigma")
        x = image.to(torch.promote_types(image.dtype, torch.float32))
        variance = sigma.to(x.dtype).clamp(max=_WIDEST * max(H, W)).square().unsqueeze(1)
        inside = torch.ones_like(x[:, :1])
        everywhere = inside if wanted is None else wanted.unsqueeze(1).to(x.dtype)
        return self._blurred(x, inside, variance, everywhere).to(image.dtype)

    def _blurred(self, x: Tensor, inside: Tensor, variance: Tensor, wanted: Tensor) -> Tensor:
        """The mean over what is inside; a pixel that is half inside counts half and comes as half its value."""
        sigma = variance.sqrt()
        coarse_share = ((sigma / self._reach - _FADE_FROM) / (1 - _FADE_FROM)).clamp(0, 1)
        fine = self._by_bank(x, inside, sigma, wanted * (coarse_share < 1))
        wanted = wanted * (coarse_share > 0)
        if not wanted.any():
            return fine
        to_even = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
        coarse_variance = halved(F.pad(variance, to_even, mode="replicate")) - _RESAMPLING_VARIANCE
        # What a doubled pixel is made of: two pixels along each axis, so four of its own size around it.
        around = F.max_pool2d(F.pad(wanted, to_even), 4, stride=2, padding=1)
        coarse = self._blurred(halved(x), halved(inside), coarse_variance.clamp_min(0) / 4, around)
        return torch.lerp(fine, doubled(coarse, x.shape), coarse_share)

    def _by_bank(self, x: Tensor, inside: Tensor, sigma: Tensor, wanted: Tensor) -> Tensor:
        """By the bank alone, tile by tile: each with the spots it needs, and none where there is nothing to do."""
        y = torch.zeros_like(x)
        for top in range(0, x.shape[2], _TILE):
            for left in range(0, x.shape[3], _TILE):
                tile = (..., slice(top, top + _TILE), slice(left, left + _TILE))
                if not wanted[tile].any():
                    continue
                bank, spots, spot, weight = self._needed(sigma[tile])
                radius = max(bank.radii)
                up, before = min(radius, top), min(radius, left)
                source = (..., slice(top - up, top + _TILE + radius), slice(left - before, left + _TILE + radius))
                if not x[source].any():
                    continue
                coeffs = bracket(sigma[source][:, 0], spots)[:, spot] * weight.to(x.dtype).view(-1, 1, 1)
                both = torch.cat((x[source], inside[source]), 1)
                blurred = gkm_blur(both, coeffs, bank, padding_mode="zeros")
                blurred = blurred[..., up : up + _TILE, before : before + _TILE]
                y[tile] = blurred[:, :-1] / blurred[:, -1:]
        return y

    def _needed(self, sigma: Tensor) -> tuple[GaussianBank, Tensor, Tensor, Tensor]:
        """Of the spots that bracket all of some widths: kernels, sigmas, and each kernel's spot and weight in it."""
        least, most = sigma.aminmax()
        sigmas = self.sigmas.tolist()
        first = bisect_right(sigmas, least.item()) - 1
        last = bisect_left(sigmas, most.item(), hi=len(sigmas) - 1)
        kernels = (self.spot >= first) & (self.spot <= last)
        radii = [radius for radius, needed in zip(self.bank.radii, kernels.tolist(), strict=True) if needed]
        bank = GaussianBank.from_taps(self.bank.taps[kernels], radii).to(sigma.device)
        return bank, self.sigmas[first : last + 1], self.spot[kernels] - first, self.weight[kernels]

    def _measured(self) -> Tensor:
        taps = self.bank.taps
        offset = torch.arange(taps.shape[1], dtype=taps.dtype) - taps.shape[1] // 2
        mass, moment = taps.sum(1), (taps * offset.square()).sum(1)
        return taps.new_zeros(len(_SIGMAS)).index_add(0, self.spot, self.weight * mass * moment).sqrt()


def fill(values: Tensor, weight: Tensor) -> Tensor:
    """Continue an image smoothly where it is not known, from near and from far: pull and push.

    Gortler, Grzeszczuk, Szeliski, Cohen: The Lumigraph (SIGGRAPH 1996), section 3.4.

    Args:
        values: ``[B, C, H, W]``, each pixel times its weight.
        weight: ``[B, 1, H, W]``, how far each pixel is known, in [0, 1].

    Returns:
        ``[B, C, H, W]``: ``values`` where the weight is one; zeros if nothing is known.

    Example:
        >>> fill(torch.tensor([[[[0.2, 0.0, 0.0, 0.2]]]]), torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]))
        tensor([[[[0.2000, 0.2000, 0.2000, 0.2000]]]])
    """
    if weight.min() == 1:
        return values
    if weight[0, 0].numel() == 1:
        return values / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    smaller = halved(torch.cat((values, weight), 1))
    # Four pixels in one: together they are known as soon as one of them is.
    scale = 1 / smaller[:, -1:].clamp_min(1 / 4)
    around = fill(smaller[:, :-1] * scale, smaller[:, -1:] * scale)
    return values + (1 - weight) * doubled(around, values.shape)


def halved(x: Tensor) -> Tensor:
    """Half the size, rounded up, by taps 1 3 3 1; an odd last row or column gets one of zeros beside it."""
    H, W = x.shape[2:]
    if W <= 2 < H:  # torch leaves the rows as they are where one column remains
        return halved(x.mT).mT
    even = F.pad(x, (0, W % 2, 0, H % 2))
    return F.interpolate(even, scale_factor=0.5, mode="bilinear", align_corners=False, antialias=True)


def doubled(x: Tensor, shape: torch.Size) -> Tensor:
    """Twice the size, by bilinear samples, cut to the height and width of ``shape``."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)[..., : shape[2], : shape[3]]
