"""From features to coefficient maps: the scale-recurrent attention module (SRAM) around a ConvLSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gkm_ops.nn.layers import ConvNormReLU

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

    def forward(self, x: Tensor, state: State | None = None) -> State:
        conv = self.conv
        if state is None:  # a hidden state of zeros adds nothing to the gates
            gates = F.conv2d(x, conv.weight[:, : self.channels], conv.bias, padding=conv.padding)
            i, _, o, g = gates.chunk(4, 1)
            c = i.sigmoid() * g.tanh()
        else:
            i, f, o, g = conv(torch.cat((x, state[0]), 1)).chunk(4, 1)
            c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class ScaleRecurrentAttention(nn.Module):
    """Coefficient maps in (-1, 1) from features, with a memory that passes from scale to scale (paper, section 3.3).

    Args:
        channels: of the features.
        maps: how many to make.

    Shape:
        ``features [B, channels, H, W]``, H and W even, and a state at half that size or None
        -> ``[B, maps, H, W]`` and the next state.

    Example:
        >>> coeffs, state = ScaleRecurrentAttention(32, 44)(torch.rand(1, 32, 16, 16))
        >>> coeffs.shape, state[0].shape
        (torch.Size([1, 44, 16, 16]), torch.Size([1, 44, 8, 8]))
    """

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        self.conv = nn.Module()
        self.conv.conv = ConvNormReLU(nn.Conv2d(channels, maps, 3, padding=1))
        self.conv_atten = ConvLSTMCell(channels, maps, 5)

    def forward(self, features: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        state = self.conv_atten(F.avg_pool2d(features, 2), state)
        refined = self.conv.conv(features)
        # 2 sigmoid(u r + u) - 1, with u the state's h at twice its size, each value over 2x2 pixels.
        blocks = (*refined.shape[:2], refined.shape[2] // 2, 2, refined.shape[3] // 2, 2)
        u = (0.5 * state[0])[:, :, :, None, :, None]
        return torch.addcmul(u, u, refined.view(blocks)).tanh_().view_as(refined), state
