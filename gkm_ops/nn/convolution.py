"""The convolutions of the network, by the quickest way that serves: on the CPU often by transforms of tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gkm_ops import cpu
from gkm_ops.nn.plain import is_plain, is_traced, kernels_serve
from gkm_ops.nn.recomputation import kept

Convolution = nn.Conv2d | nn.ConvTranspose2d

# With fewer channels, or less to do, what transforms cost is more than what they save.
_FEWEST_CHANNELS, _LEAST_PIXELS = 16, 256
# Torch is at its slowest with the 7x7 convolutions of attention gates, of two channels to one.
_MOST_CHANNELS_OF_THIN = 2
_SPREAD_ROWS = 16


class Geometry(NamedTuple):
    """How a convolution steps: alike along both axes, dilation 1, one group."""

    stride: int = 1
    padding: int = 0
    transposed: bool = False


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """``F.conv2d`` or ``F.conv_transpose2d``; a result that `recomputed` keeps.

    Float32 on the CPU with many channels at stride 1 goes through Winograd's transforms of tiles, which turn 9
    multiply-adds of 3x3 kernels into 2.25 and 25 of 5x5 kernels into 4, and which round some ten times as coarsely as
    the sums: to 4e-6 of the norm. So do the gradients by the weights, to 7e-6. 7x7 kernels of no more than two channels
    are summed as defined.

    Args:
        x: ``[B, C, H, W]``.
        weight: ``[O, C, K, K]``, or ``[C, O, K, K]`` for a transposed convolution.
        bias: ``[O]`` or None.
    """
    stride, padding, transposed = geometry
    if is_traced():
        return (F.conv_transpose2d if transposed else F.conv2d)(x, weight, bias, stride, padding)
    result: Tensor = _Convolution.apply(x, weight, bias, geometry)  # type: ignore[no-untyped-call]
    return result


def convolve_and_rectify(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, added: Tensor | None
) -> Tensor:
    """``relu(convolve(x, weight, bias, geometry)) + added``, without gradients: in one pass where Winograd's serves."""
    if _by_winograd(x, weight, bias, geometry) and (added is None or _is_result(added, x, weight)):
        return cpu.convolve(x, weight, bias, True, added)
    y = convolve(x, weight, bias, geometry).relu_()
    return y if added is None else y.add_(added)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        return kept(lambda: _made(x, weight, bias, geometry))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        gradients: list[Tensor | None] = [None] * 3
        if not torch.is_grad_enabled():  # what is to be differentiated again is torch's
            back = weight.transpose(0, 1)
            if wanted[0] and (_by_winograd(grad, back, None, ctx.geometry) or _is_thin(grad, back, ctx.geometry)):
                gradients[0] = _made(grad, weight.flip(2, 3).transpose(0, 1), None, ctx.geometry)
            if wanted[1] and _by_winograd(x, weight, None, ctx.geometry) and is_plain(grad):
                gradients[1], of_bias = cpu.convolve_gradient(grad, x, weight.shape[-1])
                gradients[2] = of_bias if wanted[2] else None
            if wanted[1] and _is_thin(x, weight, ctx.geometry) and is_plain(grad):
                gradients[1] = cpu.convolve_thin_gradient(grad, x)
                gradients[2] = grad.sum((0, 2, 3)) if wanted[2] else None
        missing = [want and gradient is None for want, gradient in zip(wanted, gradients, strict=True)]
        if any(missing):
            stride, padding, transposed = ctx.geometry
            others = torch.ops.aten.convolution_backward(
                grad, x.to(grad.dtype), weight.to(grad.dtype), ctx.bias_sizes,
                [stride] * 2, [padding] * 2, [1, 1], transposed, [0, 0], 1, missing,
            )  # fmt: skip
            gradients = [other if miss else own for miss, own, other in zip(missing, gradients, others, strict=True)]
        return *gradients, None


def _made(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    stride, padding, transposed = geometry
    if _by_winograd(x, weight, bias, geometry):
        return cpu.convolve(x, weight, bias)
    if _is_thin(x, weight, geometry):
        y = cpu.convolve_thin(x, weight)
        return y if bias is None else y.add_(bias.view(-1, 1, 1))
    if not transposed:
        return F.conv2d(x, weight, bias, stride, padding)
    if x.device.type == "cpu" and weight.shape[-1] == stride and padding == 0:
        return _spread(x, weight, bias, stride)
    return F.conv_transpose2d(x, weight, bias, stride, padding)


def _spread(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A transposed convolution whose steps do not overlap, by bands: torch copies all that it reads and writes."""
    bands = x.split(_SPREAD_ROWS, 2)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    y = x.new_empty(len(x), weight.shape[1], stride * x.shape[2], stride * x.shape[3], dtype=dtype)
    for band, result in zip(bands, y.split(stride * _SPREAD_ROWS, 2), strict=True):
        result.copy_(F.conv_transpose2d(band, weight, bias, stride))
    return y


def _by_winograd(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> bool:
    size = weight.shape[-1]
    return (
        geometry == (1, size // 2, False)
        and size in (3, 5)
        and _fit(x, weight)
        and min(weight.shape[:2]) >= _FEWEST_CHANNELS
        and x.shape[2] * x.shape[3] >= _LEAST_PIXELS
        and kernels_serve(x, weight)
        and (bias is None or (bias.shape == weight.shape[:1] and is_plain(bias)))
    )


def _is_thin(x: Tensor, weight: Tensor, geometry: Geometry) -> bool:
    return (
        geometry == (1, 3, False)
        and weight.shape[-1] == 7
        and _fit(x, weight)
        and max(weight.shape[:2]) <= _MOST_CHANNELS_OF_THIN
        and kernels_serve(x, weight)
    )


def _is_result(y: Tensor, x: Tensor, weight: Tensor) -> bool:
    """Whether it is of the shape that convolving x without stride gives."""
    return y.shape == (len(x), len(weight), *x.shape[2:]) and is_plain(y)


def _fit(x: Tensor, weight: Tensor) -> bool:
    """Whether it is a convolution by square kernels at all; what is none is for torch to refuse."""
    return x.dim() == weight.dim() == 4 and x.shape[1] == weight.shape[1] and weight.shape[2] == weight.shape[3]
