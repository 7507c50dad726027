"""Batch norm in training with the ReLU and the sum that follow it: on the CPU in passes of our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from gkm_ops.nn.plain import is_plain, kernels_serve
from gkm_ops.nn.recomputation import decided, kept, running_again


def normalized(norm: nn.Module, x: Tensor) -> Tensor:
    """``norm(x)``, the statistics of which, if it is in training, move once in a function that is `recomputed`."""
    if not running_again():
        result: Tensor = norm(x)
        return result
    statistics = {name: buffer.clone() for name, buffer in norm.named_buffers()}
    again: Tensor = functional_call(norm, statistics, (x,))
    return again


def normalized_and_rectified(norm: _BatchNorm, x: Tensor, added: Tensor | None) -> Tensor:
    """``relu(norm(x)) + added`` for a norm in training; on the CPU in three passes over memory, and two back.

    Float32 on the CPU: the statistics are kept for the second run of a function that is `recomputed`, and the backward
    pass needs nothing but x.

    Args:
        norm: moves its running statistics as torch's does.
        x: ``[B, C, H, W]``.
        added: of the same shape, or None.

    Raises:
        ValueError: one value per channel, as torch's.
    """
    if not decided(lambda: _kernels_serve(norm, x, added)):
        y = F.relu(normalized(norm, x), inplace=True)
        return y if added is None else y + added
    with torch.no_grad():
        statistics = kept(lambda: _statistics(x))
        if not running_again():
            _track(norm, statistics, x.numel() // x.shape[1])
    result: Tensor = _NormalizedAndRectified.apply(x, norm.weight, norm.bias, added, statistics, norm.eps)  # type: ignore[no-untyped-call]
    return result


def _kernels_serve(norm: _BatchNorm, x: Tensor, added: Tensor | None) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and x.numel() > x.shape[1]  # torch refuses one value per channel
        and (added is None or added.shape == x.shape)
        and kernels_serve(x, x if added is None else added, norm.weight)
    )


def _statistics(x: Tensor) -> Tensor:
    """Mean and biased variance of each channel, ``[2, C]``."""
    statistics = x.new_empty(2, x.shape[1])
    _run(_STATISTICS, x.contiguous(), of_channels=statistics)
    return statistics


def _track(norm: _BatchNorm, statistics: Tensor, values: int) -> None:
    mean, variance = statistics
    assert norm.num_batches_tracked is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.mul_(1 - norm.momentum).add_(mean, alpha=norm.momentum)
    norm.running_var.mul_(1 - norm.momentum).add_(variance, alpha=norm.momentum * values / (values - 1))


class _NormalizedAndRectified(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, statistics: Tensor, eps: float
    ) -> Tensor:
        mean, variance = statistics
        inverse = (variance + eps).rsqrt_()
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.eps = eps
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        added = None if added is None else added.contiguous()
        _run(_FORWARD, x.contiguous(), out, None, mean, inverse, weight, bias, added)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, inverse = ctx.saved_tensors
        of_added = grad if ctx.needs_input_grad[3] else None
        if torch.is_grad_enabled() or not is_plain(grad):  # what is to be differentiated again is torch's
            return *_differentiable(x, weight, bias, grad, ctx.eps, ctx.needs_input_grad), of_added, None, None
        of_channels = x.new_empty(2, x.shape[1])
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        _run(_GRADIENT, x.contiguous(), out, of_channels, mean, inverse, weight, bias, None, grad.contiguous())
        return out, of_channels[0], of_channels[1], of_added, None, None


def _differentiable(
    x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, eps: float, wanted: tuple[bool, ...]
) -> list[Tensor | None]:
    with torch.enable_grad():
        y = F.batch_norm(x, None, None, weight, bias, True, 0.0, eps).relu()
        asked = [tensor for tensor, want in zip((x, weight, bias), wanted, strict=False) if want]
        gradients = iter(torch.autograd.grad(y, asked, grad, create_graph=True))
    return [next(gradients) if want else None for want in wanted[:3]]


_STATISTICS, _FORWARD, _GRADIENT = range(3)  # NormalizationPass in csrc/cpu/network.h


def _run(
    kind: int,
    x: Tensor,
    out: Tensor | None = None,
    of_channels: Tensor | None = None,
    *operands: Tensor | None,
) -> None:
    """Operands: mean, inverse, weight, bias, added, grad."""
    padded = (*operands, *[None] * (6 - len(operands)))
    torch.ops.gkm_ops_cpu.normalize.default(kind, x, out, of_channels, *padded)
