"""Pieces that every part of GKMNet is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from gkm_ops.nn.convolution import Convolution, Geometry, convolve, convolve_and_rectify
from gkm_ops.nn.normalization import normalized, normalized_and_rectified
from gkm_ops.nn.plain import may_overwrite
from gkm_ops.nn.recomputation import decided


class ConvNormReLU(nn.Sequential):
    """A convolution, plain or transposed, then batch norm and ReLU; entries ``0`` and ``1`` of the state dict.

    Args:
        layer: the convolution, with a bias; a plain one keeps the size or has a stride.

    Shape:
        As the convolution's.

    Example:
        >>> ConvNormReLU(nn.Conv2d(3, 8, 3, padding=1))(torch.rand(1, 3, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """

    def __init__(self, layer: Convolution) -> None:
        super().__init__(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """The result, and `added` to it where there is any."""
        layer, norm, relu = self
        if not may_fuse(layer, norm, relu):
            y = relu(normalized(norm, layer(x)))
            return y if added is None else add_to(y, added)
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        assert isinstance(norm, _BatchNorm)
        if not norm.training and may_overwrite():
            return convolve_and_rectify(x, *folded(layer, norm), added)
        if norm.training:
            return normalized_and_rectified(norm, convolve(x, layer.weight, layer.bias, geometry_of(layer)), added)
        y = relu(convolve(x, *folded(layer, norm)))
        return y if added is None else add_to(y, added)


def may_fuse(*parts: nn.Module) -> bool:
    """Whether parts may be computed together, from their parameters: not where one of them was replaced by something
    else, or has hooks, which run when it is called by itself alone. Hooks of all modules only watch, and see fewer."""
    return decided(lambda: all(map(_is_as_made, parts)))


def _is_as_made(part: nn.Module) -> bool:
    return (
        type(part) in (nn.Conv2d, nn.ConvTranspose2d, nn.ReLU, nn.BatchNorm2d, nn.SyncBatchNorm)
        and not (part._forward_pre_hooks or part._forward_hooks or part._backward_pre_hooks or part._backward_hooks)
        and (not isinstance(part, _BatchNorm) or (part.affine and part.track_running_stats))
    )


def folded(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor, Geometry]:
    """Weight, bias and geometry of the convolution that a layer and its norm are in evaluation.

    The weights are so few beside the pixels that folding them on every call costs nothing to speak of,
    and no copy of them can fall behind.
    """
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    assert isinstance(norm, _BatchNorm)
    assert isinstance(norm.running_mean, Tensor)
    assert isinstance(norm.running_var, Tensor)
    geometry = geometry_of(layer)
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    bias = shift if layer.bias is None else shift + layer.bias * scale
    return layer.weight * scale.view((1, -1, 1, 1) if geometry.transposed else (-1, 1, 1, 1)), bias, geometry


def geometry_of(layer: Convolution) -> Geometry:
    """How a layer steps."""
    return Geometry(layer.stride[0], int(layer.padding[0]), isinstance(layer, nn.ConvTranspose2d))


def add_to(new: Tensor, old: Tensor) -> Tensor:
    """``new + old``, in the memory of ``new`` where no backward pass can need it."""
    return new.add_(old) if may_overwrite() else new + old


def doubled(maps: Tensor) -> Tensor:
    """Maps at twice their size, as what one scale hands to the next."""
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
