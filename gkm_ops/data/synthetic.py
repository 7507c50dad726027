"""Synthetic defocus: sharp photos blurred as a lens would, from depth maps or invented scenes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank
from gkm_ops.defocus.coefficients import bracket, kernel_sigmas
from gkm_ops.defocus.disks import DiskBank
from gkm_ops.defocus.layers import laid_over
from gkm_ops.functional import gkm_blur
from gkm_ops.srgb import to_linear, to_srgb

_MOST_LAYERS = 4
_DEPTH_LAYERS = 5
# How many random values along each axis make the outline of an invented layer.
_OUTLINE = 5
# Sensor noise in linear light: standard deviation sqrt(shot^2 v + read^2) at value v, up to these.
_SHOT, _READ = 0.01, 0.003


class Invented(NamedTuple):
    """Smooth slanted layers with random outlines, from the farthest, which takes what the others leave, to the nearest.

    Attributes:
        outlines: ``[L, 5, 5]``, values whose smooth interpolation is above its layer's level inside of the outline.
        levels: ``[L]``, minus infinity for the farthest.
        widths: ``[L, 2, 2]``, blur widths at the corners as shares of the widest; their signs count for nothing.
    """

    outlines: Tensor
    levels: Tensor
    widths: Tensor


class Measured(NamedTuple):
    """A scene of known depth and a lens for it.

    Attributes:
        inverse_depth: ``[H, W]``, larger is nearer, in any unit.
        focus: what is in focus, as a share of the scene's range of inverse depths.
        reach: the width of the most blurred point as a share of the widest.
    """

    inverse_depth: Tensor
    focus: float
    reach: float


Layers: TypeAlias = Invented | Measured


class Scene(NamedTuple):
    """All that the blur of one photo follows from, on the CPU; `SyntheticDefocus.scene` draws it.

    Attributes:
        layers: what is how far away.
        round: whether blur spots are disks, as of a round aperture, or Gaussians.
        shot, read: the amounts of noise.
        noise: where noise comes from; left as it is.
    """

    layers: Layers
    round: bool
    shot: float
    read: float
    noise: torch.Generator


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
        self.bank = GaussianBank.gkmnet() if bank is None else copy.deepcopy(bank)  # it goes where the photos are
        self.sigmas = kernel_sigmas(self.bank)
        self.widest = float(self.sigmas.max())
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
            TypeError: another type than float32.
            ValueError: shapes that do not fit, or an inverse depth that is not finite.
        """
        if inverse_depth is not None and not inverse_depth.isfinite().all():
            raise ValueError("inverse_depth: got NaN or infinite values, wanted finite ones")
        return self.blur(sharp.unsqueeze(0), [self.scene(seed, inverse_depth)])[0]

    def scene(self, seed: int, inverse_depth: Tensor | None = None) -> Scene:
        """Draw a scene, a lens and noise for one photo.

        Args:
            seed: of all that is drawn.
            inverse_depth: ``[H, W]``, of the photo, larger is nearer; without one layers are invented.
        """
        draw = torch.Generator().manual_seed(seed)
        layers: Layers
        if inverse_depth is None:
            layers = _invented(draw)
        else:
            focus, reach = torch.rand(2, generator=draw).tolist()
            layers = Measured(inverse_depth.float(), focus, reach)
        lens, *amounts = torch.rand(3, generator=draw).tolist()
        shot, read = (self.noise * most * amount for most, amount in zip((_SHOT, _READ), amounts, strict=True))
        return Scene(layers, lens < 0.5, shot, read, draw)

    def blur(self, sharp: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Blur a batch of photos, each by its own scene.

        Nothing waits for the device, but for the banks' way there the first time. A photo's blur does not depend on
        what else is in the batch but for rounding; its noise is another one on another kind of device.

        Args:
            sharp: ``[B, 3, H, W]``, float32, sRGB in [0, 1], at least 11 pixels a side.
            scenes: one per photo.

        Returns:
            The defocused photos, as ``sharp``.

        Raises:
            TypeError: another type than float32.
            ValueError: shapes that do not fit.
        """
        if sharp.dtype != torch.float32:
            raise TypeError(f"sharp: got {sharp.dtype}, wanted torch.float32 in [0, 1]")
        least, shape = max(self.bank.radii) + 1, tuple(sharp.shape[1:])
        if sharp.dim() != 4 or shape[0] != 3 or min(shape[1:]) < least:
            raise ValueError(f"sharp: got photos of shape {shape}, wanted [3, H, W] of at least {least} pixels a side")
        for scene in scenes:
            if isinstance(scene.layers, Measured) and scene.layers.inverse_depth.shape != shape[1:]:
                got = tuple(scene.layers.inverse_depth.shape)
                raise ValueError(f"inverse_depth: got shape {got}, wanted {shape[1:]}, as sharp")
        self._go_to(sharp.device)
        light = to_linear(sharp)
        blurred = torch.empty_like(light)
        kinds = [(type(scene.layers), scene.round) for scene in scenes]
        for kind in sorted(set(kinds), key=str):
            of_kind = [place for place, other in enumerate(kinds) if other == kind]
            places = _sent(torch.tensor(of_kind), sharp.device)
            blurred_ones = self._blurred(light.index_select(0, places), [scenes[place] for place in of_kind])
            blurred.index_copy_(0, places, blurred_ones)
        photos = to_srgb(self._noisy(blurred.clamp(0, 1), scenes))
        return (photos * 255).round() / 255 if self.rounding else photos

    def _go_to(self, device: torch.device) -> None:
        if self.sigmas.device != device:
            self.bank, self.disks, self.sigmas = self.bank.to(device), self.disks.to(device), self.sigmas.to(device)

    def _blurred(self, light: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Photos whose scenes and lenses are of one kind."""
        masks, widths = _maps([scene.layers for scene in scenes], light)
        blur = self._blur_by_disks if scenes[0].round else self._blur_by_gaussians
        return laid_over(light, masks, self.widest * widths, blur)

    def _blur_by_disks(self, image: Tensor, sigma: Tensor) -> Tensor:
        return gkm_blur(image, self.disks.bracketing(sigma), self.disks.bank)

    def _blur_by_gaussians(self, image: Tensor, sigma: Tensor) -> Tensor:
        return gkm_blur(image, bracket(sigma, self.sigmas), self.bank)

    @staticmethod
    def _noisy(light: Tensor, scenes: Sequence[Scene]) -> Tensor:
        device = light.device
        amounts = torch.tensor([(scene.shot, scene.read) for scene in scenes])
        shot, read = _sent(amounts, device).view(-1, 2, 1, 1, 1).unbind(1)
        sources = [_on(device, scene.noise) for scene in scenes]
        noise = torch.stack([torch.randn(light.shape[1:], generator=source, device=device) for source in sources])
        return light + (shot.square() * light + read.square()).sqrt() * noise


def _invented(draw: torch.Generator) -> Invented:
    count = int(torch.randint(1, _MOST_LAYERS + 1, (), generator=draw))
    outlines, levels = torch.zeros(count, _OUTLINE, _OUTLINE), torch.full((count,), -torch.inf)
    widths = torch.empty(count, 2, 2)
    for number in reversed(range(count)):
        if number:
            outlines[number] = torch.randn(_OUTLINE, _OUTLINE, generator=draw)
            levels[number] = 0.5 * torch.randn((), generator=draw)
        mean = 1.2 * torch.rand((), generator=draw) - 0.2
        widths[number] = mean + 0.4 * (torch.rand(2, 2, generator=draw) - 0.5)
    return Invented(outlines, levels, widths)


def _maps(layers: Sequence[Layers], image: Tensor) -> tuple[Tensor, Tensor]:
    """Masks and widths of layers of one kind, each ``[B, L, H, W]``, from far to near.

    Masks of a scene sum to one; widths are shares of the widest, defined beyond the masks as well.
    """
    if isinstance(layers[0], Invented):
        return _invented_maps([one for one in layers if isinstance(one, Invented)], image)
    return _measured_maps([one for one in layers if isinstance(one, Measured)], image)


def _invented_maps(layers: Sequence[Invented], image: Tensor) -> tuple[Tensor, Tensor]:
    size = image.shape[2:]
    most = max(len(one.levels) for one in layers)
    # Where a scene has fewer layers than another, the nearest are nowhere.
    missing = [most - len(one.levels) for one in layers]
    outlines, levels, widths = (
        _sent(torch.stack(of_each), image.device)
        for of_each in (
            [F.pad(one.outlines, (0, 0, 0, 0, 0, n)) for one, n in zip(layers, missing, strict=True)],
            [F.pad(one.levels, (0, n), value=torch.inf) for one, n in zip(layers, missing, strict=True)],
            [F.pad(one.widths, (0, 0, 0, 0, 0, n)) for one, n in zip(layers, missing, strict=True)],
        )
    )
    field = F.interpolate(outlines, size, mode="bicubic", align_corners=True)
    slope = torch.stack(torch.gradient(field, dim=(2, 3))).square().sum(0).sqrt().clamp_min(1e-6)
    # An outline's edge is about a pixel wide.
    inside = ((field - levels[..., None, None]) / slope + 0.5).clamp(0, 1)
    # The nearest takes its outline out of what is left, and so on.
    left, masks = torch.ones_like(inside[:, :1]), []
    for outline in reversed(inside.split(1, 1)):
        masks.append(left * outline)
        left = left * (1 - outline)
    slants = F.interpolate(widths, size, mode="bilinear", align_corners=True)
    return torch.cat(masks[::-1], 1), slants.abs().clamp(0, 1)


def _measured_maps(layers: Sequence[Measured], image: Tensor) -> tuple[Tensor, Tensor]:
    depth = _sent(torch.stack([one.inverse_depth for one in layers]), image.device).unsqueeze(1)
    lenses = torch.tensor([(one.focus, one.reach) for one in layers])
    focus, reach = _sent(lenses, image.device).view(-1, 2, 1, 1, 1).unbind(1)
    least, most = depth.amin((2, 3), keepdim=True), depth.amax((2, 3), keepdim=True)
    depth = (depth - least) / (most - least).clamp_min(torch.finfo(torch.float32).tiny)
    edges = torch.arange(_DEPTH_LAYERS + 1, device=image.device).view(1, -1, 1, 1) / _DEPTH_LAYERS
    low, high = edges[:, :-1], edges[:, 1:]
    inside = (depth >= low) & ((depth < high) | (high == 1))
    aperture = reach / torch.maximum(focus, 1 - focus)
    return inside.float(), aperture * (depth.clamp(low, high) - focus).abs()


def _sent(values: Tensor, device: torch.device) -> Tensor:
    """A few values on a device, without a wait for what it is at."""
    return values.to(device, non_blocking=True)


def _on(device: torch.device, generator: torch.Generator) -> torch.Generator:
    """A generator of a device's own that follows from one of the CPU."""
    if device.type == "cpu":
        return generator.clone_state()
    return torch.Generator(device).manual_seed(generator.initial_seed())
