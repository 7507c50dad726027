"""From features to coefficient maps: the scale-recurrent attention module (SRAM) around a ConvLSTM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gkm_ops.nn.convolution import Geometry, convolve
from gkm_ops.nn.layers import ConvNormReLU, doubled, may_fuse
from gkm_ops.nn.plain import is_traced, may_overwrite
from gkm_ops.nn.recomputation import recomputed

State = tuple[Tensor, Tensor]

# Where memory is shortest: a few maps at a time are made twice as wide.
_MAPS_AT_ONCE = 8


class ConvLSTMCell(nn.Module):
    """One step of a convolutional LSTM; its gates come from one convolution, in the order i, f, o, g.

    Args:
        channels: of the input.
        hidden: of the state.
        size: of the convolution, odd.

    Raises:
        ValueError: an even size.

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
        if size % 2 == 0:
            raise ValueError(f"size: got {size}, wanted an odd number, so that the state keeps its size")
        self.channels, self.hidden = channels, hidden
        self.conv = nn.Conv2d(channels + hidden, 4 * hidden, size, padding=size // 2)
        self.geometry = Geometry(padding=size // 2)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        h, c = state if state is not None else (None, None)
        return self.advance(self.gates(x, h), c)

    def gates(self, x: Tensor, h: Tensor | None = None) -> Tensor:
        """All four gates before their functions, ``[B, 4 * hidden, H, W]``."""
        if not may_fuse(self.conv):
            h = x.new_zeros(len(x), self.hidden, *x.shape[2:]) if h is None else h
            gates: Tensor = self.conv(torch.cat((x, h), 1))
            return gates
        weight, bias = self.conv.weight, self.conv.bias
        if h is None:  # a hidden state of zeros adds nothing to the gates
            return convolve(x, weight[:, : self.channels], bias, self.geometry)
        x = torch.cat((x, h), 1)
        del h  # memory is short beside the convolution
        return convolve(x, weight, bias, self.geometry)

    def advance(self, gates: Tensor, c: Tensor | None = None) -> State:
        """The next state, from the gates and the last c."""
        i, f, o, g = gates.chunk(4, 1)
        if not may_overwrite():
            new = torch.sigmoid(i) * torch.tanh(g)
            new = new if c is None else torch.addcmul(new, torch.sigmoid(f), c)
            return torch.sigmoid(o) * torch.tanh(new), new
        # The gates are nobody else's: their memory is used again.
        new = g.tanh_() * i.sigmoid_()
        if c is not None:
            new.addcmul_(f.sigmoid_(), c)
        return o.sigmoid_() * torch.tanh(new, out=i), new


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
        cell = self.conv_atten
        if state is None:
            return cell.advance(cell.gates(_halved(features)))
        # Each part is made when it is needed, and held by nobody else.
        gates = cell.gates(_halved(features), doubled(state[0]))
        return cell.advance(gates, doubled(state[1]))

    def _coefficients(self, features: Tensor, h: Tensor) -> Tensor:
        """``2 sigmoid(u r + u) - 1``, with u the state's h at twice its size, each value over 2x2 pixels."""
        refined = self.conv["conv"](features).unflatten(2, (-1, 2))
        if is_traced():
            u = _half_over_columns(h)
            return torch.addcmul(u, u, refined).tanh().flatten(2, 3)
        if torch.is_grad_enabled():
            product: Tensor = _Modulated.apply(refined, _half_over_columns(h))  # type: ignore[no-untyped-call]
            return product.tanh_().flatten(2, 3)
        for some, h_some in zip(refined.split(_MAPS_AT_ONCE, 1), h.split(_MAPS_AT_ONCE, 1), strict=True):
            u = _half_over_columns(h_some)
            some.mul_(u).add_(u).tanh_()
        return refined.flatten(2, 3)


class _Modulated(torch.autograd.Function):
    """``u r + u``, whose backward pass, where memory is shortest, never holds two gradients of r's size."""

    @staticmethod
    def forward(ctx: Any, r: Tensor, u: Tensor) -> Tensor:
        ctx.save_for_backward(r, u)
        return torch.addcmul(u, u, r)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        r, u = ctx.saved_tensors
        grad_u = torch.addcmul(grad, grad, r).sum(3, keepdim=True)
        return grad * u, grad_u


def _half_over_columns(h: Tensor) -> Tensor:
    """``0.5 h``, each value twice in its row: ``[B, N, H, W] -> [B, N, H, 1, 2 W]``."""
    return (0.5 * h).repeat_interleave(2, 3).unsqueeze(3)


def _halved(maps: Tensor) -> Tensor:
    """2x2 means, as two sums of neighbours: many times quicker than avg_pool2d."""
    upper, lower = maps.unflatten(2, (-1, 2)).unbind(3)
    left, right = (upper + lower).unflatten(3, (-1, 2)).unbind(4)
    return (left + right) * 0.25
