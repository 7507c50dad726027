"""Triplet attention: every axis of the features gates the other two."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkm_ops.nn.layers import normalized_convolution


class TripletAttention(nn.Module):
    """The mean of three gated copies of the features (Misra et al., WACV 2021, as GKMNet uses it).

    A gate pools one axis to its maximum and its mean, convolves the two 7x7 over the other two axes, and
    scales the features by the sigmoid of that. The three gates are added before they meet the features, and
    an axis is pooled where it lies: nothing is permuted or copied.

    Shape:
        ``[B, C, H, W]`` -> the same.

    Example:
        >>> TripletAttention()(torch.rand(1, 8, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """

    def __init__(self) -> None:
        super().__init__()
        self.cw = Gate()
        self.hc = Gate()
        self.hw = Gate()

    def forward(self, x: Tensor) -> Tensor:
        over_hw = self.hw(x, pooled=1) / 3
        over_cw = self.cw(x, pooled=2).transpose(1, 2) / 3  # [B, 1, C, W] -> [B, C, 1, W]
        over_hc = self.hc(x, pooled=3).permute(0, 3, 2, 1) / 3  # [B, 1, H, C] -> [B, C, H, 1]
        if torch.is_grad_enabled():
            return x * (over_cw + over_hc + over_hw)
        return (over_cw + over_hc).add_(over_hw).mul_(x)


class Gate(nn.Module):
    """One of the three gates: pooled axis, 7x7 convolution, batch norm, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {"conv": nn.Conv2d(2, 1, 7, padding=3, bias=False), "bn": nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)}
        )

    def forward(self, x: Tensor, pooled: int) -> Tensor:
        """``x [B, C, H, W]`` pooled over axis 1, 2 or 3 -> ``[B, 1, H, W]``, ``[B, 1, C, W]`` or ``[B, 1, H, C]``."""
        maps = torch.stack((x.amax(pooled), x.mean(pooled)), 1)
        if pooled == 3:
            maps = maps.transpose(2, 3)
        return normalized_convolution(self.conv["conv"], self.conv["bn"], maps).sigmoid()
