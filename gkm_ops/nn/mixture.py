"""The spatially varying mixture of blurs as a layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkm_ops.bank import GaussianBank, check_bank
from gkm_ops.functional import gkm_blur
from gkm_ops.ops import check_padding_mode


class GaussianMixtureBlur(nn.Module):
    """`gkm_blur` with its bank, border and, as an option, a learned colour mix.

    Args:
        bank: the kernels.
        channels: ``(C, O)`` to learn a mix ``[M, O, C]`` (GKMNet's sum layer without its bias), started
            at the identity as far as the shape allows; None for no mix.
        padding_mode: ``"zeros"``, ``"reflect"`` or ``"replicate"``.

    Raises:
        TypeError: another kind of bank.
        ValueError: another padding mode.

    Shape:
        ``x [B, C, H, W]``, ``coeffs [B, M, H, W]`` -> ``[B, O, H, W]``.

    Example:
        >>> layer = GaussianMixtureBlur(GaussianBank.gkmnet())
        >>> layer(torch.rand(1, 3, 32, 32), torch.rand(1, 22, 32, 32)).shape
        torch.Size([1, 3, 32, 32])
    """

    mix: nn.Parameter | None

    def __init__(
        self, bank: GaussianBank, channels: tuple[int, int] | None = None, *, padding_mode: str = "reflect"
    ) -> None:
        super().__init__()
        check_bank(bank)
        check_padding_mode(padding_mode)
        self.bank = bank
        self.padding_mode = padding_mode
        if channels is None:
            self.register_parameter("mix", None)
        else:
            c, o = channels
            self.mix = nn.Parameter(torch.eye(o, c).repeat(bank.num_kernels, 1, 1))

    def forward(self, x: Tensor, coeffs: Tensor) -> Tensor:
        return gkm_blur(x, coeffs, self.bank, mix=self.mix, padding_mode=self.padding_mode)

    def extra_repr(self) -> str:
        return f"padding_mode={self.padding_mode!r}"
