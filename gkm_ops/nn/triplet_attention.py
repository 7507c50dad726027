"""Triplet attention: every axis of the features gates the other two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gkm_ops.nn.convolution import convolve
from gkm_ops.nn.layers import folded, geometry_of, may_fuse
from gkm_ops.nn.normalization import normalized
from gkm_ops.nn.plain import is_plain, kernels_serve, may_overwrite
from gkm_ops.nn.recomputation import decided


class TripletAttention(nn.Module):
    """The mean of three gated copies of the features (Misra et al., WACV 2021, as GKMNet uses it).

    A gate pools one axis to its maximum and its mean, convolves the two 7x7 over the other two axes, and
    scales the features by the sigmoid of that. The three gates are added before they meet the features, and
    an axis is pooled where it lies: nothing is permuted or copied. In float32 on the CPU one pass pools all three axes
    and one gates, and back as many.

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
        plain = decided(lambda: kernels_serve(x) and x.numel() > 0)
        if plain:
            x, *maps = _Pooled.apply(x)  # type: ignore[no-untyped-call]
        else:
            maps = [_pooled(x, axis) for axis in (1, 2, 3)]
        gates = self.hw(maps[0]), self.cw(maps[1]), self.hc(maps[2], transposed=True)
        if plain and decided(lambda: is_plain(*gates)):
            gated: Tensor = _Gated.apply(x, *gates)  # type: ignore[no-untyped-call]
            return gated
        gate = _mean_of(gates)
        return gate.mul_(x) if may_overwrite() else x * gate


class Gate(nn.Module):
    """One of the three gates: 7x7 convolution of what is pooled, batch norm, sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {"conv": nn.Conv2d(2, 1, 7, padding=3, bias=False), "bn": nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)}
        )

    def forward(self, maps: Tensor, transposed: bool = False) -> Tensor:
        """Maximum and mean over an axis, ``[B, 2, ...]``, to ``[B, 1, ...]``.

        Args:
            transposed: the other two axes lie the other way round than in the releases.
        """
        layer, norm = self.conv["conv"], self.conv["bn"]
        if not may_fuse(layer, norm):
            y = layer(maps.mT).mT if transposed else layer(maps)
            return normalized(norm, y).sigmoid()
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(norm, _BatchNorm)
        weight, bias = (layer.weight, None) if norm.training else folded(layer, norm)[:2]
        y = convolve(maps, weight.transpose(2, 3) if transposed else weight, bias, geometry_of(layer))
        return (normalized(norm, y) if norm.training else y).sigmoid()


def _mean_of(gates: Sequence[Tensor]) -> Tensor:
    """Of ``[B, 1, H, W]``, ``[B, 1, C, W]`` and ``[B, 1, C, H]``: ``[B, C, H, W]``."""
    over_c, over_h, over_w = gates[0], gates[1].transpose(1, 2), gates[2].permute(0, 2, 3, 1)
    # A sum's gradient needs no summand, so the first may be written over.
    return (over_h + over_w).add_(over_c).div_(3)


def _pooled(x: Tensor, axis: int) -> Tensor:
    return torch.stack((x.amax(axis), x.mean(axis)), 1)


class _Pooled(torch.autograd.Function):
    """The features themselves and `_pooled` over each of three axes, so that the gradients meet in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        maps = _maps(x, 2)
        _run(_POOL, x.contiguous(), made=maps)
        ctx.save_for_backward(x, *maps)
        return x.view_as(x), *maps

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *grads: Tensor) -> Tensor:
        x, *maps = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_plain(grad, *grads):  # what is to be differentiated again is torch's
            with torch.enable_grad():
                pooled = [_pooled(x, axis) for axis in (1, 2, 3)]
                return grad + torch.autograd.grad(pooled, x, grads, create_graph=True)[0]
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        grads = tuple(grad.contiguous() for grad in grads)
        _run(_POOL_GRADIENT, x.contiguous(), grad.contiguous(), out, _maps(x, 1), maps, grads)
        return out


class _Gated(torch.autograd.Function):
    """Features times the mean of gates ``[B, 1, H, W]``, ``[B, 1, C, W]`` and ``[B, 1, C, H]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, *gates)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run(_GATE, x.contiguous(), out=out, taken=[gate.contiguous() for gate in gates])
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, *gates = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_plain(grad):  # what is to be differentiated again is torch's
            product = grad * x / 3
            of_gates = product.sum(1, True), product.sum(2).unsqueeze(1), product.sum(3).unsqueeze(1)
            return grad * _mean_of(gates), *of_gates
        out, of_maps = torch.empty_like(x, memory_format=torch.contiguous_format), _maps(x, 1)
        taken = [gate.contiguous() for gate in gates]
        _run(_GATE_GRADIENT, x.contiguous(), grad.contiguous(), out, of_maps, taken)
        return out, *of_maps


_POOL, _GATE, _GATE_GRADIENT, _POOL_GRADIENT = range(4)  # AttentionPass in csrc/cpu/network.h
_NONE = (None, None, None)


def _maps(x: Tensor, count: int) -> list[Tensor]:
    B, C, H, W = x.shape
    return [x.new_empty(B, count, *sizes) for sizes in ((H, W), (C, W), (C, H))]


def _run(
    kind: int,
    x: Tensor,
    grad: Tensor | None = None,
    out: Tensor | None = None,
    made: Sequence[Tensor | None] = _NONE,
    taken: Sequence[Tensor | None] = _NONE,
    grads: Sequence[Tensor | None] = _NONE,
) -> None:
    torch.ops.gkm_ops_cpu.attend.default(kind, x, grad, out, *made, *taken, *grads)
