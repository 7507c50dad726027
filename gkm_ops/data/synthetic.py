"""Synthetic defocus: a sharp photo blurred as a lens would, from a depth map or an invented scene."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus.coefficients import coefficients_from_sigma, kernel_sigmas
from gkm_ops.defocus.disks import DiskBank
from gkm_ops.defocus.layers import Layer, blur_layers
from gkm_ops.functional import gkm_blur
from gkm_ops.srgb import to_linear, to_srgb

_MOST_LAYERS = 4
_DEPTH_LAYERS = 5
# Sensor noise in linear light: standard deviation sqrt(shot^2 v + read^2) at value v, up to these.
_SHOT, _READ = 0.01, 0.003


class SyntheticDefocus:
    """Blurs sharp photos; every photo's scene, lens and noise follow from a seed.

    The scene is the depth map that is given or, without one, up to four smooth slanted layers with random
    outlines. Blur widths run over the bank's whole range: an invented layer's are drawn evenly from zero to the
    widest, a depth map is focused somewhere in its range and opened until its most defocused point has a drawn
    width. The lens has round or Gaussian blur spots. Blurring is done in linear light, from far to near
    (`gkm_ops.defocus.blur_layers`), shot and read noise are added there, and the result is rounded to 8 bits.

    Args:
        bank: the kernels to train for; its widest sets the range. Default: GKMNet's.
        noise: multiplies the drawn amount of noise; 0 for none.
        rounding: round to 8 bits.

    Example:
        >>> blurred = SyntheticDefocus()(torch.rand(3, 64, 96), seed=1)
        >>> blurred.shape, bool((blurred * 255 == (blurred * 255).round()).all())
        (torch.Size([3, 64, 96]), True)
    """

    def __init__(self, bank: GaussianBank | None = None, *, noise: float = 1.0, rounding: bool = True) -> None:
        self.bank = GaussianBank.gkmnet() if bank is None else bank
        self.widest = float(kernel_sigmas(self.bank).max())
        diameters = torch.linspace(0, 4 * self.widest, 20, dtype=torch.float64)
        self.disks = DiskBank(diameters.tolist())
        self.noise = noise
        self.rounding = rounding

    def __call__(self, sharp: Tensor, *, seed: int, inverse_depth: Tensor | None = None) -> Tensor:
        """Blur one photo.

        Args:
            sharp: ``[3, H, W]``, float32, sRGB in [0, 1], at least 11 pixels a side.
            seed: of the scene (unless given), the lens and the noise.
            inverse_depth: ``[H, W]``, larger is nearer, in any unit, finite (disparity, for instance).

        Returns:
            The defocused photo, as ``sharp``.

        Raises:
            ValueError: shapes that do not fit.
        """
        if sharp.dim() != 3 or sharp.shape[0] != 3 or min(sharp.shape[1:]) <= max(self.bank.radii):
            least = max(self.bank.radii) + 1
            raise ValueError(
                f"sharp: got shape {tuple(sharp.shape)}, wanted [3, H, W] of at least {least} pixels a side"
            )
        if inverse_depth is not None and inverse_depth.shape != sharp.shape[1:]:
            raise ValueError(
                f"inverse_depth: got shape {tuple(inverse_depth.shape)}, wanted {tuple(sharp.shape[1:])}, as sharp"
            )
        draw = torch.Generator().manual_seed(seed)
        if inverse_depth is None:
            layers = self._invented_layers(sharp.shape[1], sharp.shape[2], draw)
        else:
            layers = self._layers_of(inverse_depth.float(), draw)
        blur = self._blur_by_disks if torch.rand((), generator=draw) < 0.5 else self._blur_by_gaussians
        light = blur_layers(to_linear(sharp), layers, blur).clamp(0, 1)
        shot, read = (self.noise * most * torch.rand((), generator=draw) for most in (_SHOT, _READ))
        deviation = (shot.square() * light + read.square()).sqrt()
        noisy = light + deviation * torch.randn(light.shape, generator=draw)
        photo = to_srgb(noisy)
        return (photo * 255).round() / 255 if self.rounding else photo

    def _blur_by_gaussians(self, image: Tensor, sigma: Tensor) -> Tensor:
        return gkm_blur(image, coefficients_from_sigma(sigma, self.bank), self.bank)

    def _blur_by_disks(self, image: Tensor, sigma: Tensor) -> Tensor:
        return gkm_blur(image, self.disks.coefficients(sigma), self.disks.bank)

    def _invented_layers(self, H: int, W: int, draw: torch.Generator) -> list[Layer]:
        count = int(torch.randint(1, _MOST_LAYERS + 1, (), generator=draw))
        layers, left = [], torch.ones(H, W)
        for number in reversed(range(count)):
            # Nearest first: each takes its outline out of what is left, the farthest takes the rest.
            outline = _outline(H, W, draw) if number else torch.ones(H, W)
            layers.append(Layer(left * outline, self.widest * _slant(H, W, draw)))
            left = left * (1 - outline)
        return layers[::-1]

    def _layers_of(self, inverse_depth: Tensor, draw: torch.Generator) -> list[Layer]:
        least, most = inverse_depth.aminmax()
        depth = (inverse_depth - least) / (most - least).clamp_min(torch.finfo(torch.float32).tiny)
        focus, reach = torch.rand(2, generator=draw)
        aperture = self.widest * reach / torch.maximum(focus, 1 - focus)
        layers = []
        for number in range(_DEPTH_LAYERS):
            low, high = number / _DEPTH_LAYERS, (number + 1) / _DEPTH_LAYERS
            inside = (depth >= low) & ((depth < high) | (number == _DEPTH_LAYERS - 1))
            if inside.any():
                layers.append(Layer(inside.float(), aperture * (depth.clamp(low, high) - focus).abs()))
        return layers


def _outline(H: int, W: int, draw: torch.Generator) -> Tensor:
    """A random shape with a smooth outline, its edge about a pixel wide."""
    coarse = torch.randn(1, 1, 5, 5, generator=draw)
    field = F.interpolate(coarse, (H, W), mode="bicubic", align_corners=True)[0, 0]
    level = 0.5 * torch.randn((), generator=draw)
    slope = torch.stack(torch.gradient(field)).square().sum(0).sqrt().clamp_min(1e-6)
    return ((field - level) / slope + 0.5).clamp(0, 1)


def _slant(H: int, W: int, draw: torch.Generator) -> Tensor:
    """Widths in [0, 1] that change evenly over the image between drawn values at its corners."""
    corners = 1.2 * torch.rand((), generator=draw) - 0.2 + 0.4 * (torch.rand(1, 1, 2, 2, generator=draw) - 0.5)
    return F.interpolate(corners, (H, W), mode="bilinear", align_corners=True)[0, 0].abs().clamp(0, 1)
