"""From features to coefficient maps: the scale-recurrent attention module (SRAM) around a ConvLSTM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gkm_ops.nn.convolution import Geometry, convolve
from gkm_ops.nn.layers import ConvNormReLU, doubled
from gkm_ops.nn.recomputation import recomputed

State = tuple[Tensor, Tensor]


class ConvLSTMCell(nn.Module):
    """One step of a convolutional LSTM; its gates come from one convolution, in the order i, f, o, g.

    Args:
        channels: of the input.
        hidden: of the state.
        size: of the convolution, odd.

    Shape:
        ``x [B, channels, H, W]``, state ``(h, c)`` of ``[B, hidden, H, W]`` each, or None for zeros
        -> the next state.

    Example:
        >>> h, c = ConvLSTMCell(32, 44, 5)(torch.rand(1, 32, 16, 16))
        >>> h.shape
        torch.Size([1, 44, 16, 16])
    """

    def __init__(self, channels: int, hidden: int, size: int) -> None:
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(channels + hidden, 4 * hidden, size, padding=size // 2)
        self.geometry = Geometry(padding=size // 2)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        weight, bias = self.conv.weight, self.conv.bias
        # Without gradients the gates are nobody else's: their memory is used again.
        sigmoid, tanh = (torch.sigmoid, torch.tanh) if torch.is_grad_enabled() else (torch.sigmoid_, torch.tanh_)
        if state is None:  # a hidden state of zeros adds nothing to the gates
            i, _, o, g = convolve(x, weight[:, : self.channels], bias, self.geometry).chunk(4, 1)
            c = sigmoid(i) * tanh(g)
        else:
            i, f, o, g = convolve(torch.cat((x, state[0]), 1), weight, bias, self.geometry).chunk(4, 1)
            c = torch.addcmul(sigmoid(f) * state[1], sigmoid(i), tanh(g))
        return sigmoid(o) * c.tanh(), c


class ScaleRecurrentAttention(nn.Module):
    """Coefficient maps in (-1, 1) from features, with a memory that passes from scale to scale (paper, section 3.3).

    Args:
        channels: of the features.
        maps: how many to make.

    Shape:
        ``features [B, channels, H, W]``, H and W even, and None or the state that half the size has left, which
        is ``[B, maps, H / 4, W / 4]`` twice -> ``[B, maps, H, W]`` and the next state, of twice that size.

    Example:
        >>> coeffs, state = ScaleRecurrentAttention(32, 44)(torch.rand(1, 32, 16, 16))
        >>> coeffs.shape, state[0].shape
        (torch.Size([1, 44, 16, 16]), torch.Size([1, 44, 8, 8]))
    """

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.conv = nn.ModuleDict({"conv": ConvNormReLU(nn.Conv2d(channels, maps, 3, padding=1))})
        self.conv_atten = ConvLSTMCell(channels, maps, 5)

    def forward(self, features: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        remember, coefficients = self._remember, self._coefficients
        if self.training:  # one after the other, so that what is made again is not all there at once
            state = recomputed(remember, features, state)
            return recomputed(coefficients, features, state[0]), state
        state = remember(features, state)
        return coefficients(features, state[0]), state

    def _remember(self, features: Tensor, state: State | None) -> State:
        if state is not None:
            state = doubled(state[0]), doubled(state[1])
        return self.conv_atten(_halved(features), state)

    def _coefficients(self, features: Tensor, h: Tensor) -> Tensor:
        """``2 sigmoid(u r + u) - 1``, with u the state's h at twice its size, each value over 2x2 pixels."""
        refined = self.conv["conv"](features).unflatten(2, (-1, 2))
        u = (0.5 * h).repeat_interleave(2, 3).unsqueeze(3)
        if torch.is_grad_enabled():
            product: Tensor = _Modulated.apply(refined, u)  # type: ignore[no-untyped-call]
        else:
            product = refined.mul_(u).add_(u)
        return product.tanh_().flatten(2, 3)


class _Modulated(torch.autograd.Function):
    """``u r + u``, whose backward pass, where memory is shortest, never holds two gradients of r's size."""

    generate_vmap_rule = True

    @staticmethod
    def forward(r: Tensor, u: Tensor) -> Tensor:
        return torch.addcmul(u, u, r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        r, u = ctx.saved_tensors
        grad_u = torch.addcmul(grad, grad, r).sum(3, keepdim=True)
        return grad * u, grad_u


def _halved(maps: Tensor) -> Tensor:
    """2x2 means, as two sums of neighbours: many times quicker than avg_pool2d."""
    upper, lower = maps.unflatten(2, (-1, 2)).unbind(3)
    left, right = (upper + lower).unflatten(3, (-1, 2)).unbind(4)
    return (left + right) * 0.25
