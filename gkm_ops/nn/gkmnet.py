"""GKMNet: a photo deblurred by an unrolled fixed-point iteration over a Gaussian kernel mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gkm_ops.nn.attention import State
from gkm_ops.nn.layers import may_fuse
from gkm_ops.nn.scales import MultiScaleNet, pyramid

__all__ = ["GKMNet", "SumLayer", "pyramid", "unwrapped"]

# Of dicts in dicts, where a file's can hold themselves.
_DEEPEST = 8


class SumLayer(nn.Module):
    """What adds up all products of maps and blurred images: the weights of a 1x1 convolution to three colours."""

    def __init__(self, products: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(products, 3, 1)


class GKMNet(MultiScaleNet):
    """The net of "Gaussian Kernel Mixture Network for Single Image Defocus Deblurring" (Quan, Wu, Ji, NeurIPS 2021).

    Three scales, coarse to fine; each is one step of the fixed-point iteration: the coefficient maps found in
    the blurred image weigh the bank's convolutions of that image and of the last estimate, and a learned sum of
    all the products is the next estimate. It takes the state dicts of both releases and computes what they do,
    with bank, coefficients and sum in one fused op, and batch norm folded away in evaluation.

    A new net of v2 starts out near the identity, one of v1 at torch's random weights.

    Args:
        release: ``"v1"`` or ``"v2"``, which of the authors' two releases to equal.
        mode: of the bank: ``"FG"``, ``"TG"`` or ``"TR"`` (`GaussianConvolution`).

    Raises:
        ValueError: another release or mode.

    Example:
        >>> net = GKMNet(release="v2").eval()
        >>> net.deblur(torch.rand(3, 70, 90)).shape
        torch.Size([3, 70, 90])
    """

    def __init__(self, release: str = "v2", mode: str = "FG") -> None:
        super().__init__(2, release, mode)
        self.SumLayer = SumLayer(2 * 3 * self.gcm.bank.num_kernels)
        if release == "v2":
            self._start_near_identity()

    @torch.no_grad()
    def _start_near_identity(self) -> None:
        """Let the first estimate be about the image itself: from there training takes far fewer steps.

        The map of the identity kernel starts near 0.75 everywhere, what it weighs goes to its own colour, and the
        rest counts a tenth of what it would. (Of v1's bank, green and blue do not see the identity.)
        """
        weight = self.SumLayer.conv.weight.flatten(1)
        weight *= 0.1
        weight[:, :3] = 1.3 * torch.eye(3)
        self.get_parameter("SumLayer.conv.bias").zero_()
        self._start_identity_map(1.5)

    def step(self, y: Tensor, x: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor]:
        """One step of the iteration at one scale.

        Args:
            y: blurred image ``[B, 3, H, W]``.
            x: the last estimate, of the same shape.
            state: of the attention's memory, as the next coarser scale left it; None for zeros.

        Returns:
            The next estimate, the next state, and the coefficient maps ``[B, 44, H, W]``: those of ``y``, then
            those of ``x``.
        """
        coeffs, state = self.APU(self.features(y), state)
        coeffs_y, coeffs_x = coeffs.chunk(2, 1)
        if not may_fuse(self.SumLayer.conv):
            products = torch.cat((self.gcm.weighed(y, coeffs_y), self.gcm.weighed(x, coeffs_x)), 1)
            return self.SumLayer.conv(products), state, coeffs
        weight_y, weight_x = self.SumLayer.conv.weight.flatten(1).chunk(2, 1)
        blurred = self.gcm.blend(y, coeffs_y, weight_y) + self.gcm.blend(x, coeffs_x, weight_x)
        bias = self.SumLayer.conv.bias
        assert bias is not None
        return blurred + bias.view(-1, 1, 1), state, coeffs

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As torch's, and takes checkpoints of a DataParallel or compiled net, and within a dict of other things."""
        return super().load_state_dict(unwrapped(state_dict), strict, assign)


def unwrapped(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict within a checkpoint: out of the dicts it was saved in, and without its wrappers' prefixes."""
    for _ in range(_DEEPEST):
        inner = (checkpoint.get(key) for key in ("state_dict", "model_state_dict", "model", "net", "params"))
        checkpoint = next((value for value in inner if isinstance(value, Mapping)), checkpoint)
    for prefix in ("_orig_mod.", "module.", "_orig_mod."):  # a net can be compiled before DataParallel or after
        if checkpoint and all(isinstance(key, str) and key.startswith(prefix) for key in checkpoint):
            checkpoint = {key.removeprefix(prefix): value for key, value in checkpoint.items()}
    return checkpoint
