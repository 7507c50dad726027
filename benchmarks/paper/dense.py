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
        return F.conv2d(F.pad(x, (self.radius,) * 4, mode="reflect"), self.weight, groups=_COLOURS)

    def blur(self, x: Tensor, coeffs: Tensor) -> Tensor:
        return (self.stack(x) * coeffs.repeat(1, _COLOURS, 1, 1)).unflatten(1, (_COLOURS, -1)).sum(2)

    def adjoint(self, y: Tensor, coeffs: Tensor) -> Tensor:
        products = coeffs.repeat(1, _COLOURS, 1, 1) * y.repeat_interleave(coeffs.shape[1], 1)
        padded = F.conv_transpose2d(products, self.weight, groups=_COLOURS)
        return torch.ops.aten.reflection_pad2d_backward(padded, y, (self.radius,) * 4)


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
