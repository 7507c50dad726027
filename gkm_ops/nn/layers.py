"""Pieces that every part of GKMNet is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvNormReLU(nn.Sequential):
    """A convolution, plain or transposed, then batch norm and ReLU; entries ``0`` and ``1`` of the state dict.

    Args:
        convolution: with a bias.

    Shape:
        As the convolution's.

    Example:
        >>> ConvNormReLU(nn.Conv2d(3, 8, 3, padding=1))(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](normalized_convolution(self[0], self[1], x))


def normalized_convolution(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``norm(convolution(x))``; in evaluation as one convolution with the norm folded into its weights.

    The weights are so few beside the pixels that folding them on every call costs nothing to speak of,
    and no copy of them can fall behind.
    """
    if norm.training:
        return norm(convolution(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    bias = shift if convolution.bias is None else shift + convolution.bias * scale
    if isinstance(convolution, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, convolution.weight * scale.view(1, -1, 1, 1), bias, convolution.stride)
    return F.conv2d(x, convolution.weight * scale.view(-1, 1, 1, 1), bias, convolution.stride, convolution.padding)


def add_to(new: Tensor, old: Tensor) -> Tensor:
    """``new + old``, in the memory of ``new`` where no backward pass can need it."""
    return new + old if torch.is_grad_enabled() else new.add_(old)
