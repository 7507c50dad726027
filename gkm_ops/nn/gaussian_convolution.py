"""GKMNet's bank as a layer: the Gaussian convolution module (GCM)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gkm_ops.bank import GaussianBank, within
from gkm_ops.functional import gaussian_stack, gkm_blur

# The border each release computes with.
_PADDING = {"v1": "zeros", "v2": "reflect"}
MODES = ("FG", "TG", "TR")


class GaussianConvolution(nn.Module):
    """The 22 kernels of GKMNet applied to an image (paper, section 3.1).

    Args:
        release: ``"v1"`` or ``"v2"``, the authors' two releases: they differ in the border, in the order of
            the channels, and v1's colours see different kernels (`GaussianBank.gkmnet`).
        mode: ``"FG"``, fixed Gaussians; ``"TG"``, trainable taps per colour, started at the Gaussians;
            ``"TR"``, trainable taps per colour, started at random (positive, of sum one). Trainable kernels
            stay separable, with one tap vector for both axes, and of their sizes: the one of a single tap starts
            as the identity in both modes, and only its weight can change.

    Attributes:
        bank: the kernels; in the state dict only where they are trainable.
        padding_mode: the release's border.

    Shape:
        ``[B, 3, H, W]`` -> ``[B, 66, H, W]``, channels in the release's order: ``22 c + j`` in v1,
        ``3 m + c`` in v2.

    Raises:
        ValueError: another release or mode.

    Example:
        >>> GaussianConvolution()(torch.rand(1, 3, 32, 32)).shape
        torch.Size([1, 66, 32, 32])
    """

    def __init__(self, release: str = "v2", mode: str = "FG") -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode: got {mode!r}, wanted one of {', '.join(MODES)}")
        device = torch.get_default_device()
        with torch.device("cpu"):  # where taps have values, whatever the default device
            bank = GaussianBank.gkmnet(release)
            self.bank = (bank if mode == "FG" else _trainable(bank, random=mode == "TR")).to(device)
        self.release, self.mode = release, mode
        self.padding_mode = _PADDING[release]

    def forward(self, x: Tensor) -> Tensor:
        stack = gaussian_stack(x, self.bank, padding_mode=self.padding_mode)
        return (stack if self.release == "v2" else stack.transpose(1, 2)).flatten(1, 2)

    def weighed(self, x: Tensor, coeffs: Tensor) -> Tensor:
        """Convolve, and weigh by the maps.

        Args:
            x: ``[B, 3, H, W]``.
            coeffs: ``[B, 22, H, W]``.

        Returns:
            ``[B, 66, H, W]``, in the release's order of channels.
        """
        colours = x.shape[1]
        return self(x) * (
            coeffs.repeat_interleave(colours, 1) if self.release == "v2" else coeffs.repeat(1, colours, 1, 1)
        )

    def blend(self, x: Tensor, coeffs: Tensor, weight: Tensor) -> Tensor:
        """Convolve, weigh by the maps and mix the 66 products to O channels, without making any of them.

        Args:
            x: ``[B, 3, H, W]``.
            coeffs: ``[B, 22, H, W]``.
            weight: ``[O, 66]``, its columns in the release's order of channels.

        Returns:
            ``[B, O, H, W]``.
        """
        kernels, colours = self.bank.num_kernels, x.shape[1]
        if self.release == "v2":
            mix = weight.unflatten(1, (kernels, colours)).permute(1, 0, 2)
        else:
            mix = weight.unflatten(1, (colours, kernels)).permute(2, 0, 1)
        return gkm_blur(x, coeffs, self.bank, mix=mix, padding_mode=self.padding_mode)


def _trainable(bank: GaussianBank, random: bool) -> GaussianBank:
    """A trainable bank per colour of the same radii."""
    colours = 3
    taps = bank.taps if bank.num_channels else bank.taps.expand(colours, -1, -1)
    radii = bank.radii if bank.num_channels else bank.radii * colours
    if random:
        drawn = torch.rand(taps.shape, dtype=taps.dtype) * within(radii, taps.shape)
        taps = drawn / drawn.sum(-1, keepdim=True)
    return GaussianBank.from_taps(taps, radii, trainable=True)
