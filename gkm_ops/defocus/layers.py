"""Blur of scenes in layers, from far to near, so that an edge in depth is blurred as a lens does."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# How the hidden part of a layer is guessed: from a copy this many times smaller, and how little that counts
# where the layer is seen at all.
_REACH = 8
_FAINT = 1e-3


def blur_layers(image: Tensor, masks: Tensor, sigma: Tensor, blur: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Blur every layer by its own widths and lay the nearer ones over the farther.

    Within a layer the blur gathers from that layer alone, so a sharp object keeps its colour out of the blurred
    ground behind it, and a blurred object in front spreads over what is sharp behind.

    Args:
        image: ``[B, C, H, W]``, in linear light.
        masks: ``[B, L, H, W]``, how much of each pixel each layer covers, from the farthest to the nearest, in [0, 1];
            those of an image sum to one. A layer that covers nothing changes nothing.
        sigma: ``[B, L, H, W]``, blur widths in pixels, defined beyond the masks as well.
        blur: ``(image [B, C + 1, H, W], sigma [B, H, W])`` to the blurred image.

    Returns:
        ``[B, C, H, W]``.

    Raises:
        ValueError: shapes that do not fit, or an image without a layer that covers anything.

    Example:
        >>> from gkm_ops import GaussianBank, gkm_blur
        >>> from gkm_ops.defocus import coefficients_from_sigma
        >>> bank = GaussianBank.gkmnet()
        >>> def blur(x, sigma):
        ...     return gkm_blur(x, coefficients_from_sigma(sigma, bank), bank)
        >>> masks, sigma = torch.ones(1, 1, 32, 32), torch.full((1, 1, 32, 32), 2.0)
        >>> blur_layers(torch.rand(1, 3, 32, 32), masks, sigma, blur).shape
        torch.Size([1, 3, 32, 32])
    """
    _check(image, masks, sigma)
    return laid_over(image, masks, sigma, blur)


def laid_over(image: Tensor, masks: Tensor, sigma: Tensor, blur: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`blur_layers` of arguments that are known to fit: nothing waits for the device."""
    seen_yet = torch.zeros(len(image), 1, 1, 1, dtype=torch.bool, device=image.device)
    result = torch.zeros_like(image)
    for mask, widths in zip(masks.split(1, 1), sigma.unbind(1), strict=True):
        seen = torch.cat((image * mask, mask), 1)
        blurred = blur(seen, widths)
        around = _far_reaching(seen)
        spread, cover = blurred[:, :-1], blurred[:, -1:]
        # Behind the farthest layer that there is there is more of it.
        farthest = (spread + _FAINT * around[:, :-1]) / (cover + _FAINT * around[:, -1:])
        result = torch.where(seen_yet, spread + (1 - cover) * result, farthest)
        seen_yet = seen_yet | (mask.amax((2, 3), keepdim=True) > 0)
    return result


def _far_reaching(seen: Tensor) -> Tensor:
    """A smooth copy in which every pixel has at least a trace of those far away."""
    size = seen.shape[2:]
    small = F.interpolate(seen, [max(1, n // _REACH) for n in size], mode="area")
    everywhere = seen.mean((2, 3), keepdim=True)
    return F.interpolate(small, size, mode="bilinear", align_corners=False) + _FAINT * everywhere


def _check(image: Tensor, masks: Tensor, sigma: Tensor) -> None:
    if image.dim() != 4:
        raise ValueError(f"image: got shape {tuple(image.shape)}, wanted [B, C, H, W]")
    B, _, H, W = image.shape
    if masks.dim() != 4 or masks.shape[1] == 0 or (masks.shape[0], *masks.shape[2:]) != (B, H, W):
        raise ValueError(f"masks: got shape {tuple(masks.shape)}, wanted [{B}, L, {H}, {W}] of at least one layer")
    if sigma.shape != masks.shape:
        raise ValueError(f"sigma: got shape {tuple(sigma.shape)}, wanted {tuple(masks.shape)}, as masks")
    if not masks.flatten(1).any(1).all():
        raise ValueError("masks: got an image without a layer that covers anything, wanted at least one")
