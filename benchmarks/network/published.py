"""GKMNet as published, in plain PyTorch: what the network is held against.

Written from the description of the two releases, operation for operation: the bank as a stack of blurred images,
coefficient maps repeated for the colours and concatenated, 132 products into a 1x1 convolution, three permuted
copies in triplet attention, batch norm by itself, and a hidden state of zeros. The names in the state dict are the
releases', so a `gkm_ops.GKMNet` of the same release exchanges weights with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gkm_ops import GaussianBank

COLOURS = 3
FEATURES = 32
KERNELS = 22

State = tuple[Tensor, Tensor]


class PublishedGKMNet(nn.Module):
    """The network, with the bank of one release and fixed kernels.

    Args:
        release: ``"v1"`` or ``"v2"``.

    Shape:
        ``y1 [B, 3, H, W]``, H and W multiples of 16, then half and a quarter of that -> three estimates alike.

    Example:
        >>> y1, y2, y3 = (torch.rand(1, 3, n, n) for n in (64, 32, 16))
        >>> [tuple(x.shape) for x in PublishedGKMNet("v1")(y1, y2, y3)]
        [(1, 3, 64, 64), (1, 3, 32, 32), (1, 3, 16, 16)]
    """

    def __init__(self, release: str) -> None:
        super().__init__()
        self.GCM: DenseBank | SeparableBank = DenseBank() if release == "v1" else SeparableBank()
        self.in_block = _block(FEATURES, nn.Conv2d(COLOURS, FEATURES, 3, padding=1))
        self.conv_block1_1 = _block(64, *_normed(nn.Conv2d(FEATURES, 64, 3, stride=2, padding=1), 64))
        self.conv_block2_1 = _block(128, *_normed(nn.Conv2d(64, 128, 3, stride=2, padding=1), 128))
        self.bottle_neck_1 = _block(128, *_normed(nn.Conv2d(128, 128, 3, padding=1), 128))
        self.conv_block3_1 = _block(64, *_normed(nn.ConvTranspose2d(128, 64, 2, stride=2), 64))
        self.conv_block4_1 = _block(FEATURES, *_normed(nn.ConvTranspose2d(64, FEATURES, 2, stride=2), FEATURES))
        self.APU = AttentionUnit(FEATURES, 2 * KERNELS)
        self.SumLayer = nn.ModuleDict({"conv": nn.Conv2d(2 * COLOURS * KERNELS, COLOURS, 1)})

    def forward(self, y1: Tensor, y2: Tensor, y3: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        zeros = y3.new_zeros(len(y3), 2 * KERNELS, y3.shape[2] // 2, y3.shape[3] // 2)
        x3, h, c = self.forward_step(y3, y3, (zeros, zeros))
        x2, h, c = self.forward_step(y2, _doubled(x3), (_doubled(h), _doubled(c)))
        x1, h, c = self.forward_step(y1, _doubled(x2), (_doubled(h), _doubled(c)))
        return x1, x2, x3

    def forward_step(self, y: Tensor, x_last: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        gy = self.GCM(y)
        gx = self.GCM(x_last)
        maps, h, c = self.APU(self._features(y), state)
        of_y, of_x = maps[:, :KERNELS], maps[:, KERNELS:]
        products = torch.cat((self.GCM.repeated(of_y) * gy, self.GCM.repeated(of_x) * gx), 1)
        return self.SumLayer["conv"](products), h, c

    def _features(self, x: Tensor) -> Tensor:
        f_i = self.in_block(x)
        f1 = self.conv_block1_1(f_i)
        f2 = self.conv_block2_1(f1)
        b = self.bottle_neck_1(f2)
        f3 = self.conv_block3_1(b + f2)
        return self.conv_block4_1(f3 + f1)


# ---- The bank ----------------------------------------------------------------------------------------------


class DenseBank(nn.Module):
    """v1: one dense 21x21 grouped convolution with zeros beyond the border; 66 channels, colour by colour."""

    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = GaussianBank.gkmnet("v1").taps.flatten(0, 1).float()
        self.register_buffer("weight", torch.einsum("qi,qj->qij", taps, taps).unsqueeze(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2, groups=COLOURS)

    def repeated(self, maps: Tensor) -> Tensor:
        return maps.repeat(1, COLOURS, 1, 1)


class SeparableBank(nn.Module):
    """v2: each kernel along the width, then the height, over a reflected border of its own; 66 channels, by kernel."""

    def __init__(self) -> None:
        super().__init__()
        bank = GaussianBank.gkmnet("v2")
        self.radii = bank.radii
        for m, r in enumerate(bank.radii):
            centre = bank.taps.shape[1] // 2
            taps = bank.taps[m, centre - r : centre + r + 1].float()
            self.register_buffer(f"taps{m}", taps.repeat(COLOURS, 1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        blurred = []
        for m, r in enumerate(self.radii):
            taps = self.get_buffer(f"taps{m}")
            rows = F.conv2d(F.pad(x, (r, r, r, r), mode="reflect"), taps, groups=COLOURS)
            blurred.append(F.conv2d(rows, taps.transpose(2, 3), groups=COLOURS))
        return torch.cat(blurred, 1)

    def repeated(self, maps: Tensor) -> Tensor:
        return torch.cat([maps[:, m : m + 1].repeat(1, COLOURS, 1, 1) for m in range(KERNELS)], 1)


# ---- The backbone ------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(*_normed(nn.Conv2d(channels, channels, 3, padding=1), channels))
        self.conv1 = nn.Sequential(*_normed(nn.Conv2d(channels, channels, 3, padding=1), channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.conv(x)
        return x + self.conv1(x)


class AttentionGate(nn.Module):
    """Gates the first axis of what it is given by the other two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.ModuleDict(
            {"conv": nn.Conv2d(2, 1, 7, padding=3, bias=False), "bn": nn.BatchNorm2d(1, eps=1e-5, momentum=0.01)}
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), 1)
        return x * torch.sigmoid(self.conv["bn"](self.conv["conv"](pooled)))


class TripletAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cw = AttentionGate()
        self.hc = AttentionGate()
        self.hw = AttentionGate()

    def forward(self, x: Tensor) -> Tensor:
        by_cw = self.cw(x.permute(0, 2, 1, 3).contiguous()).permute(0, 2, 1, 3).contiguous()
        by_hc = self.hc(x.permute(0, 3, 2, 1).contiguous()).permute(0, 3, 2, 1).contiguous()
        return 1 / 3 * (self.hw(x) + by_cw + by_hc)


def _block(channels: int, *conv: nn.Module) -> nn.Sequential:
    block = nn.Sequential()
    block.add_module("conv", nn.Sequential(*conv))
    block.add_module("res_block", ResidualBlock(channels))
    block.add_module("ta", TripletAttention())
    return block


def _normed(convolution: nn.Module, channels: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


# ---- Coefficient maps --------------------------------------------------------------------------------------


class ConvLSTMCell(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels + hidden, 4 * hidden, 5, padding=2)

    def forward(self, x: Tensor, state: State) -> State:
        h, c = state
        i, f, o, g = torch.split(self.conv(torch.cat((x, h), 1)), h.shape[1], 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class AttentionUnit(nn.Module):
    """Scale-recurrent attention: a ConvLSTM at half size steers the maps."""

    def __init__(self, channels: int, maps: int) -> None:
        super().__init__()
        normed = nn.Sequential(*_normed(nn.Conv2d(channels, maps, 3, padding=1), maps))
        self.conv = nn.ModuleDict({"conv": normed})
        self.conv_atten = ConvLSTMCell(channels, maps)

    def forward(self, features: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        refined = self.conv["conv"](features)
        h, c = self.conv_atten(F.avg_pool2d(features, 2), state)
        u = F.interpolate(h, scale_factor=2, mode="nearest")
        return 2 * torch.sigmoid(u * refined + u) - 1, h, c


def _doubled(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
