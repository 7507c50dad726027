"""GKMNet's feature extractor: a small U-net whose every block ends in triplet attention."""

from __future__ import annotations

from torch import Tensor, nn

from gkm_ops.nn.layers import ConvNormReLU, add_to
from gkm_ops.nn.recomputation import recomputed
from gkm_ops.nn.triplet_attention import TripletAttention

FEATURES = 32


class Backbone(nn.Module):
    """32 feature maps of an image, at its size (paper, section 3.3).

    Shape:
        ``[B, 3, H, W]`` -> ``[B, 32, H, W]``, H and W multiples of 4.

    Example:
        >>> import torch
        >>> Backbone()(torch.rand(1, 3, 32, 48)).shape
        torch.Size([1, 32, 32, 48])
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_block = Block(nn.Sequential(nn.Conv2d(3, FEATURES, 3, padding=1)))
        self.conv_block1_1 = Block(_down(FEATURES, 64))
        self.conv_block2_1 = Block(_down(64, 128))
        self.bottle_neck_1 = Block(ConvNormReLU(nn.Conv2d(128, 128, 3, padding=1)))
        self.conv_block3_1 = Block(_up(128, 64))
        self.conv_block4_1 = Block(_up(64, FEATURES))

    def features(self, x: Tensor) -> Tensor:
        """As `forward`, for networks that are a backbone and are called in their own way."""
        half = self.conv_block1_1(self.in_block(x))
        quarter = self.conv_block2_1(half)
        x = add_to(self.bottle_neck_1(quarter), quarter)
        del quarter  # memory is short where the maps are large again
        x = add_to(self.conv_block3_1(x), half)
        del half
        return self.conv_block4_1(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


class Block(nn.Module):
    """A convolution, a residual block, triplet attention."""

    def __init__(self, conv: nn.Sequential) -> None:
        super().__init__()
        self.conv = conv
        last = conv[0]
        assert isinstance(last, nn.Conv2d | nn.ConvTranspose2d)
        self.res_block = ResidualBlock(last.out_channels)
        self.ta = TripletAttention()

    def forward(self, x: Tensor) -> Tensor:
        return recomputed(self._features, x) if self.training else self._features(x)

    def _features(self, x: Tensor) -> Tensor:
        return self.ta(self.res_block(self.conv(x)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and ReLU, each added to what it was given.

    Example:
        >>> import torch
        >>> ResidualBlock(8)(torch.rand(1, 8, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(nn.Conv2d(channels, channels, 3, padding=1))
        self.conv1 = ConvNormReLU(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x, x)
        return self.conv1(x, x)


def _down(channels: int, to: int) -> ConvNormReLU:
    return ConvNormReLU(nn.Conv2d(channels, to, 3, stride=2, padding=1))


def _up(channels: int, to: int) -> ConvNormReLU:
    return ConvNormReLU(nn.ConvTranspose2d(channels, to, 2, stride=2))
