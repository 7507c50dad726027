"""Between sRGB values and linear light, in which blurs happen (IEC 61966-2-1)."""

from __future__ import annotations

import torch
from torch import Tensor


def to_linear(srgb: Tensor) -> Tensor:
    """sRGB values in [0, 1] to linear light in [0, 1].

    Args:
        srgb: any shape, floating point; below zero it goes on as it begins.

    Returns:
        In the shape and type of ``srgb``, differentiable.

    Example:
        >>> to_linear(torch.tensor([0.0, 0.5, 1.0]))
        tensor([0.0000, 0.2140, 1.0000])
    """
    # The clamp keeps the power's NaN below zero out of gradients.
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB values in [0, 1].

    Args:
        linear: any shape, floating point, clamped to [0, 1].

    Returns:
        In the shape and type of ``linear``, differentiable.

    Example:
        >>> to_srgb(torch.tensor([0.0, 0.2140, 2.0]))
        tensor([0.0000, 0.5000, 1.0000])
    """
    light = linear.clamp(0, 1)
    # The clamp keeps the power's infinite slope at zero out of gradients.
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)
