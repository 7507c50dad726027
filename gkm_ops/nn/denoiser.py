"""A residual U-net that removes what a solver leaves or makes: noise, ringing, artefacts."""

from __future__ import annotations

from torch import Tensor, nn

from gkm_ops.nn.backbone import ResidualBlock
from gkm_ops.nn.layers import ConvNormReLU, add_to
from gkm_ops.nn.recomputation import recomputed


class Denoiser(nn.Module):
    """Three resolutions of residual blocks, the most of them at the lowest, added to the image (after DRUNet, Zhang
    et al., PAMI 2021). A new one is the identity.

    Shape:
        ``[B, 3, H, W]`` -> the same, H and W multiples of 4.

    Example:
        >>> import torch
        >>> image = torch.rand(1, 3, 32, 48)
        >>> torch.equal(Denoiser()(image), image)
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.encode_full = _Stage(nn.Conv2d(3, 32, 3, padding=1), blocks=0)
        self.encode_half = _Stage(nn.Conv2d(32, 64, 3, stride=2, padding=1), blocks=1)
        self.quarter = _Stage(nn.Conv2d(64, 128, 3, stride=2, padding=1), blocks=6)
        self.decode_half = _Stage(nn.ConvTranspose2d(128, 64, 2, stride=2), blocks=1)
        self.decode_full = _Stage(nn.ConvTranspose2d(64, 32, 2, stride=2), blocks=1)
        self.residual = nn.Conv2d(32, 3, 3, padding=1)
        for parameter in self.residual.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        full = self.encode_full(x)
        half = self.encode_half(full)
        features = add_to(self.decode_half(self.quarter(half)), half)
        features = add_to(self.decode_full(features), full)
        return x + self.residual(features)


class _Stage(nn.Sequential):
    """A convolution to another resolution or width, then residual blocks."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d, blocks: int) -> None:
        super().__init__(ConvNormReLU(layer), *(ResidualBlock(layer.out_channels) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return recomputed(self._features, x) if self.training else self._features(x)

    def _features(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x
