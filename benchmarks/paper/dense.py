"""The two networks with the published bank: dense 21x21 convolutions, a stack of 66 channels, products, a sum."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gkm_ops import GKMNet
from gkm_ops.bank import GaussianBank
from gkm_ops.nn import HQSNet
from gkm_ops.nn.gaussian_convolution import GaussianConvolution

_COLOURS = 3
# Pixels to a convolution on a processor: of twice as many torch's took twice as long a pixel on an Intel Xeon, of
# 860 000 more than fifty times.
_AT_ONCE = 200_000


class DenseBank(torch.nn.Module):
    """Every kernel of a bank at the size of the largest, for three colours."""

    weight: Tensor

    def __init__(self, bank: GaussianBank) -> None:
        super().__init__()
        taps = bank.taps.detach().float()
        self.radius = taps.shape[1] // 2
        kernels = torch.einsum("mi,mj->mij", taps, taps)
        self.register_buffer("weight", kernels.repeat(_COLOURS, 1, 1).unsqueeze(1), persistent=False)

    def stack(self, x: Tensor) -> Tensor:
        """``[B, 3, H, W]`` -> ``[B, 66, H, W]``, colour by colour."""
        padded = F.pad(x, (self.radius,) * 4, mode="reflect")
        bands = [padded[:, :, rows.start : rows.stop + 2 * self.radius] for rows in _bands(x)]
        return torch.cat([F.conv2d(band, self.weight, groups=_COLOURS) for band in bands], 2)

    def blur(self, x: Tensor, coeffs: Tensor) -> Tensor:
        return (self.stack(x) * coeffs.repeat(1, _COLOURS, 1, 1)).unflatten(1, (_COLOURS, -1)).sum(2)

    def adjoint(self, y: Tensor, coeffs: Tensor) -> Tensor:
        products = coeffs.repeat(1, _COLOURS, 1, 1) * y.repeat_interleave(coeffs.shape[1], 1)
        padded = F.pad(torch.zeros_like(y), (self.radius,) * 4)
        for rows in _bands(y):
            spread = F.conv_transpose2d(products[:, :, rows.start : rows.stop], self.weight, groups=_COLOURS)
            padded[:, :, rows.start : rows.stop + 2 * self.radius] += spread
        return torch.ops.aten.reflection_pad2d_backward(padded, y, (self.radius,) * 4)


def _bands(image: Tensor) -> list[range]:
    """An image's rows by as many as one convolution should take."""
    H, W = image.shape[2:]
    step = max(1, _AT_ONCE // W) if image.device.type == "cpu" else H
    return [range(H)[top : top + step] for top in range(0, H, step)]


class DenseConvolution(GaussianConvolution):
    """Release v2's bank with every product made and kept."""

    def __init__(self) -> None:
        super().__init__("v2")
        self.dense = DenseBank(self.bank)

    def blend(self, x: Tensor, coeffs: Tensor, weight: Tensor) -> Tensor:
        products = self.dense.stack(x) * coeffs.repeat(1, _COLOURS, 1, 1)
        by_colour = weight.unflatten(1, (-1, _COLOURS)).transpose(1, 2).flatten(1)
        return F.conv2d(products, by_colour[..., None, None])


class DenseGKMNet(GKMNet):
    """GKMNet, release v2."""

    def __init__(self) -> None:
        super().__init__("v2")
        self.gcm = DenseConvolution()


class DenseHQSNet(HQSNet):
    """HQS + CG."""

    def __init__(self, cg_steps: int) -> None:
        super().__init__(cg_steps)
        self.dense = DenseBank(self.gcm.bank)

    def _blur(self, x: Tensor, coeffs: Tensor) -> Tensor:
        return self.dense.blur(x, coeffs)

    def _adjoint(self, y: Tensor, coeffs: Tensor) -> Tensor:
        return self.dense.adjoint(y, coeffs)
