"""Depth of field: a sharp photo and its disparity as a lens of wide aperture would show them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.defocus.coefficients import check_floating, circle_of_confusion, disk_sigma
from gkm_ops.defocus.pyramid import BlurPyramid, fill
from gkm_ops.errors import described

# How much the diameter of the blur may differ within a layer, in pixels, unless that takes too many layers.
_THICKNESS = 3.0
_MOST_LAYERS = 12
# Light that passes by the nearer layers where it is too little to see.
_FAINT = 1e-4
# How many pixels to either side a soft edge reaches, the share of the whole range by which disparity differs there
# within every patch of three pixels a side, and the share of the change in twice the reach that it makes up.
_EDGE = 4
_STEEP = 0.05
_COMPLETE = 0.75


class _Layer(NamedTuple):
    """A part of a scene at similar depth: ``[H, W]`` each, how much of each pixel it covers, and blur widths."""

    mask: Tensor
    sigma: Tensor


def render(
    image: Tensor, disparity: Tensor, *, focus: float, aperture: float, shape: Literal["disk", "gaussian"] = "disk"
) -> Tensor:
    """Depth of field from a photo that is sharp everywhere.

    A thin lens gives the diameter of each pixel's blur (`circle_of_confusion`). The scene is cut by disparity into
    layers which are blurred on their own, each continued behind the nearer ones, and laid over each other: what is
    near and blurred spreads over what is behind it, and what is in focus keeps its colour out of the blur behind it.

    Args:
        image: ``[C, H, W]``, float32 or float64, in linear light (`gkm_ops.srgb.to_linear`).
        disparity: ``[H, W]``, floating point, finite: in pixels or in any other measure of inverse depth, larger is
            nearer. Edges in it should be as sharp as the image's: see `sharpen_edges`; for gaps see `fill_gaps`.
        focus: the disparity that is in focus.
        aperture: pixels of the blur's diameter per unit of disparity, finite, >= 0.
        shape: of the blur of a point: ``"disk"``, as a round aperture makes, or ``"gaussian"`` of equal width.

    Returns:
        ``[C, H, W]`` in the type of ``image``.

    Raises:
        TypeError: ``image`` or ``disparity`` of a type that cannot serve.
        ValueError: shapes, devices or numbers that do not fit.

    Example:
        >>> disparity = torch.zeros(48, 64)
        >>> disparity[:, 32:] = 1
        >>> render(torch.rand(3, 48, 64), disparity, focus=1.0, aperture=20.0).shape
        torch.Size([3, 48, 64])
    """
    _check_image(image, disparity)
    if not math.isfinite(focus):
        raise ValueError(f"focus: got {focus}, wanted a finite number")
    blur = BlurPyramid(shape).to(image.device)
    sigma = disk_sigma(circle_of_confusion(disparity.to(image.dtype), focus, aperture))
    if not sigma.isfinite().all():
        raise ValueError(f"aperture: got {aperture:g}, wanted one that leaves the blur finite in {image.dtype}")
    # In float32 at least: differences of finite float16 may be infinite.
    wide = disparity.to(torch.promote_types(disparity.dtype, torch.float32))
    return _composite(image, _layers(wide, sigma, aperture), blur)


def fill_gaps(disparity: Tensor) -> Tensor:
    """Give each pixel without a finite disparity the farther of its nearest neighbours in the row that have one.

    Most gaps in a stereo pair's disparity are background that one camera could not see past a nearer object, so the
    smaller disparity is the likely one. A row without any is filled from the rows above and below.

    Args:
        disparity: ``[H, W]``, floating point, somewhere finite; NaN and infinity are gaps.

    Returns:
        ``[H, W]``, finite.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another shape, or nothing finite.

    Example:
        >>> fill_gaps(torch.tensor([[5.0, torch.nan, torch.inf, 2.0]]))
        tensor([[5., 2., 2., 2.]])
    """
    _check_disparity(disparity)
    known = disparity.isfinite()
    if not known.any():
        raise ValueError("disparity: got no finite value, wanted at least one")
    by_row = _farther_neighbour(disparity.where(known, torch.nan))
    return _farther_neighbour(by_row.T).T.contiguous()


def sharpen_edges(disparity: Tensor) -> Tensor:
    """Make soft edges hard: disparities between those of two surfaces belong to nothing in the scene.

    Where disparity passes within a few pixels from one surface to the next, each pixel takes the largest or the
    smallest value nearby, whichever is closer to its own: the contrast toggle of Kramer and Bruckner (1975).
    Surfaces keep their disparities, however many meet, and so do slopes that are longer than an edge.

    Args:
        disparity: ``[H, W]``, floating point, finite.

    Returns:
        ``[H, W]``.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: another shape, or values that are not finite.

    Example:
        >>> sharpen_edges(torch.tensor([[0.0, 0.0, 0.0, 0.3, 0.6, 1.0, 1.0, 1.0]]))
        tensor([[0., 0., 0., 0., 1., 1., 1., 1.]])
    """
    _check_disparity(disparity)
    _check_complete(disparity)
    own = disparity[None, None]
    farthest, nearest = _range_around(own, _EDGE)
    closer = torch.where(nearest - own < own - farthest, nearest, farthest)
    least, most = _range_around(own, 1)
    flattest = -F.max_pool2d(least - most, 3, stride=1, padding=1)  # of the nine patches that a pixel is part of
    steep = flattest > _STEEP * (own.max() - own.min())
    least, most = _range_around(own, 2 * _EDGE)
    complete = nearest - farthest > _COMPLETE * (most - least)
    return torch.where(steep & complete, closer, own)[0, 0]


def _layers(disparity: Tensor, sigma: Tensor, aperture: float) -> Iterator[_Layer]:
    """Slices of equal range in disparity, from the nearest to the farthest."""
    least, most = disparity.aminmax()
    span = most - least
    count = max(1, math.ceil(min(_MOST_LAYERS, aperture * float(span) / _THICKNESS)))
    depth = (disparity - least) / span.clamp_min(torch.finfo(disparity.dtype).tiny)
    slices = (count * depth).long().clamp(max=count - 1)
    for number in reversed(range(count)):
        mask = (slices == number).to(sigma.dtype)
        if mask.any():
            yield _Layer(mask, fill((sigma * mask)[None, None], mask[None, None])[0, 0])


def _composite(image: Tensor, layers: Iterable[_Layer], blur: BlurPyramid) -> Tensor:
    """Blur layers from the nearest to the farthest, and lay each under those before it.

    Behind nearer layers a layer goes on as it is around them: were it to end there, what is farther would shine
    through where two layers of one surface meet.
    """
    light, through = torch.zeros_like(image), torch.ones_like(image[:1])
    visible = torch.ones_like(through)
    for layer in layers:
        seen = torch.cat((image * layer.mask, layer.mask.unsqueeze(0)))
        continued = fill(seen.unsqueeze(0), visible.unsqueeze(0))
        blurred = blur(continued, layer.sigma.unsqueeze(0), through > _FAINT)[0]
        light = light + through * blurred[:-1]
        through = through * (1 - blurred[-1:])
        visible = visible - layer.mask
    return light / (1 - through)


def _range_around(values: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """The least and the largest value in the square around each pixel."""
    least, most = (F.max_pool2d(sign * values, 2 * radius + 1, stride=1, padding=radius) for sign in (-1, 1))
    return -least, most


def _farther_neighbour(values: Tensor) -> Tensor:
    """NaN replaced by the smaller of the nearest values before and after it along the last axis."""
    return torch.fmin(_carried_forward(values), _carried_forward(values.flip(1)).flip(1))


def _carried_forward(values: Tensor) -> Tensor:
    """NaN replaced by the last value before it along the last axis."""
    position = torch.arange(values.shape[1], device=values.device).where(~values.isnan(), 0)
    return values.gather(1, position.cummax(1).values)


def _check_image(image: Tensor, disparity: Tensor) -> None:
    for name, value, wanted in (
        ("image", image, (torch.float32, torch.float64)),
        ("disparity", disparity, (torch.float16, torch.bfloat16, torch.float32, torch.float64)),
    ):
        if not isinstance(value, Tensor) or value.dtype not in wanted:
            raise TypeError(f"{name}: got {described(value)}, wanted one of {', '.join(map(str, wanted))}")
    if image.dim() != 3 or image.numel() == 0:
        raise ValueError(f"image: got shape {tuple(image.shape)}, wanted [C, H, W], not empty")
    if disparity.shape != image.shape[1:] or disparity.device != image.device:
        raise ValueError(
            f"disparity: got shape {tuple(disparity.shape)} on {disparity.device}, wanted {tuple(image.shape[1:])} on "
            f"{image.device}, as image"
        )
    _check_complete(disparity)


def _check_disparity(disparity: Tensor) -> None:
    check_floating("disparity", disparity)
    if disparity.dim() != 2 or disparity.numel() == 0:
        raise ValueError(f"disparity: got shape {tuple(disparity.shape)}, wanted [H, W], not empty")


def _check_complete(disparity: Tensor) -> None:
    if not disparity.isfinite().all():
        raise ValueError("disparity: got NaN or infinite values, wanted finite ones; fill_gaps makes them so")
