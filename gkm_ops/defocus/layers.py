"""Blur of a scene in layers, from far to near, so that an edge in depth is blurred as a lens does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# How the hidden part of a layer is guessed: from a copy this many times smaller, and how little that counts
# where the layer is seen at all.
_REACH = 8
_FAINT = 1e-3


class Layer(NamedTuple):
    """A part of a scene at similar depth.

    Attributes:
        mask: ``[H, W]``, how much of each pixel it covers, in [0, 1]; the masks of a scene sum to one.
        sigma: ``[H, W]``, blur width in pixels, defined beyond the mask as well.
    """

    mask: Tensor
    sigma: Tensor


def blur_layers(image: Tensor, layers: Sequence[Layer], blur: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Blur every layer by its own widths and lay the nearer ones over the farther.

    Within a layer the blur gathers from that layer alone, so a sharp object keeps its colour out of the blurred
    ground behind it, and a blurred object in front spreads over what is sharp behind.

    Args:
        image: ``[C, H, W]``, in linear light.
        layers: from the farthest to the nearest.
        blur: ``(image [1, C + 1, H, W], sigma [1, H, W])`` to the blurred image.

    Returns:
        ``[C, H, W]``.

    Raises:
        ValueError: no layer that covers anything.

    Example:
        >>> from gkm_ops import GaussianBank, gkm_blur
        >>> bank = GaussianBank.gkmnet()
        >>> def blur(x, sigma):
        ...     return gkm_blur(x, coefficients_from_sigma(sigma, bank), bank)
        >>> far = Layer(torch.ones(32, 32), torch.full((32, 32), 2.0))
        >>> blur_layers(torch.rand(3, 32, 32), [far], blur).shape
        torch.Size([3, 32, 32])
    """
    layers = [layer for layer in layers if layer.mask.any()]
    if not layers:
        raise ValueError("layers: got none that covers anything, wanted at least one")
    result = torch.zeros_like(image)
    for number, layer in enumerate(layers):
        seen = torch.cat((image * layer.mask, layer.mask.unsqueeze(0))).unsqueeze(0)
        blurred = blur(seen, layer.sigma.unsqueeze(0))[0]
        spread, cover = blurred[:-1], blurred[-1:]
        if number == 0:
            around = _far_reaching(seen)[0]
            result = (spread + _FAINT * around[:-1]) / (cover + _FAINT * around[-1:])
        else:
            result = spread + (1 - cover) * result
    return result


def _far_reaching(seen: Tensor) -> Tensor:
    """A smooth copy in which every pixel has at least a trace of those far away."""
    size = seen.shape[2:]
    small = F.interpolate(seen, [max(1, n // _REACH) for n in size], mode="area")
    everywhere = seen.mean((2, 3), keepdim=True)
    return F.interpolate(small, size, mode="bilinear", align_corners=False) + _FAINT * everywhere
