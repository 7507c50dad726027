"""Deblurring from coarse to fine: what the networks of this package share, whatever the step they take at a scale."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gkm_ops.errors import described
from gkm_ops.nn.attention import ScaleRecurrentAttention, State
from gkm_ops.nn.backbone import FEATURES, Backbone
from gkm_ops.nn.gaussian_convolution import GaussianConvolution
from gkm_ops.nn.layers import doubled

# Two strided convolutions at the coarsest of three scales.
_MULTIPLE = 16


class MultiScaleNet(Backbone, ABC):
    """Estimates of a sharp image at three scales, one step of an iteration at each, with the same weights (paper,
    section 3.3): coefficient maps come from the features of the blurred image and a memory that passes from scale to
    scale, and each estimate is where the next finer scale starts. What the step does with them a subclass says.

    It is a `Backbone` and not only has one, so that the names in GKMNet's state dict are the releases'.

    Args:
        maps: coefficient maps per kernel of the bank.
        release: which of GKMNet's two releases the bank is that of (`GaussianConvolution`).
        mode: of the bank: ``"FG"``, ``"TG"`` or ``"TR"`` (`GaussianConvolution`).

    Raises:
        ValueError: another release or mode.
    """

    def __init__(self, maps: int, release: str = "v2", mode: str = "FG") -> None:
        super().__init__()
        self.gcm = GaussianConvolution(release, mode)
        self.APU = ScaleRecurrentAttention(FEATURES, maps * self.gcm.bank.num_kernels)

    @abstractmethod
    def step(self, y: Tensor, x: Tensor, state: State | None = None) -> tuple[Tensor, State, Tensor]:
        """One step of the iteration at one scale.

        Args:
            y: blurred image ``[B, 3, H, W]``.
            x: the last estimate, of the same shape.
            state: of the attention's memory, as the next coarser scale left it; None for zeros.

        Returns:
            The next estimate, the next state, and the coefficient maps ``[B, N, H, W]``.
        """

    def forward(  # type: ignore[override]  # it has a backbone's names, and is called in its own way
        self, y1: Tensor, y2: Tensor, y3: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Deblur an image given at three scales.

        Args:
            y1: blurred image ``[B, 3, H, W]``, in [0, 1], H and W multiples of 16, and of v2 48 or more.
            y2: the same at half the size (`pyramid` makes it).
            y3: the same at a quarter of the size.

        Returns:
            The estimates of the sharp image at the three scales, ``(x1, x2, x3)``, not clamped.

        Raises:
            ValueError: shapes that do not fit.
        """
        _check_scales(y1, y2, y3, self._least if self.gcm.padding_mode == "reflect" else _MULTIPLE)
        return self._iterate(y1, y2, y3)[0]

    @torch.no_grad()
    def deblur(self, image: Tensor) -> Tensor:
        """Deblur one image or a batch of any size, as the releases test: padded with black, in evaluation mode.

        Args:
            image: ``[3, H, W]`` or ``[B, 3, H, W]``, floating point in [0, 1], on the network's device.

        Returns:
            The estimate of the sharp image, in the shape and type of ``image``, not clamped.

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: another shape, or NaN or infinite values.
        """
        return self.deblur_with_coefficients(image)[0]

    @torch.no_grad()
    def deblur_with_coefficients(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As `deblur`, and the coefficient maps of the last step, which is that at full size.

        Args:
            image: as for `deblur`.

        Returns:
            What `deblur` returns, and the N maps of `step`, ``[N, H, W]`` or ``[B, N, H, W]``, in [-1, 1].

        Raises:
            As `deblur`.

        Example:
            >>> from gkm_ops import GKMNet
            >>> x, coeffs = GKMNet().deblur_with_coefficients(torch.rand(3, 70, 90))
            >>> x.shape, coeffs.shape
            (torch.Size([3, 70, 90]), torch.Size([44, 70, 90]))
        """
        batch = _as_batch(image)
        H, W = batch.shape[2:]
        rows, columns = (_next_multiple(max(n, self._least)) - n for n in (H, W))
        top, left = rows // 2, columns // 2
        padded = F.pad(batch, (left, columns - left, top, rows - top))
        dtype = next(self.parameters()).dtype
        with _evaluating(self):
            # Torch interpolates in no narrower type on the CPU.
            levels = pyramid(padded.to(torch.promote_types(dtype, torch.float32)))
            (x1, _, _), coeffs = self._iterate(*(level.to(dtype) for level in levels))
        x1, coeffs = (maps[:, :, top : top + H, left : left + W].to(image.dtype) for maps in (x1, coeffs))
        return (x1, coeffs) if image.dim() == 4 else (x1[0], coeffs[0])

    @property
    def _least(self) -> int:
        """Pixels a side: the coarsest scale's must be more than the bank's largest radius, to be reflected."""
        return _next_multiple(4 * (max(self.gcm.bank.radii) + 1))

    def _iterate(self, y1: Tensor, y2: Tensor, y3: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """The estimates at the three scales, and the coefficient maps of the last step."""
        x3, state, _ = self.step(y3, y3)
        x2, state, _ = self.step(y2, doubled(x3), state)
        x1, _, coeffs = self.step(y1, doubled(x2), state)
        return (x1, x2, x3), coeffs

    @torch.no_grad()
    def _start_identity_map(self, refined: float) -> None:
        """Let the first map start out about the same everywhere: near ``tanh(0.375 (refined + 1))``."""
        self.get_parameter("APU.conv.conv.1.weight")[0] = 0.1
        self.get_parameter("APU.conv.conv.1.bias")[0] = refined
        gates = self.get_parameter("APU.conv_atten.conv.bias").view(4, -1)
        gates[:, 0] = torch.tensor([3.0, -1.0, 3.0, 3.0])


# Nets that evaluate: by so many calls, and the modes that their modules go back to.
_evaluated: dict[nn.Module, tuple[int, dict[nn.Module, bool]]] = {}
_changing_modes = threading.Lock()


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode, from the first call that wants it, on whichever thread, to the end of the last."""
    with _changing_modes:
        calls, modes = _evaluated.get(net) or (0, {module: module.training for module in net.modules()})
        _evaluated[net] = calls + 1, modes
        net.eval()
    try:
        yield
    finally:
        with _changing_modes:
            calls, modes = _evaluated.pop(net)
            if calls > 1:
                _evaluated[net] = calls - 1, modes
            else:
                for module, mode in modes.items():
                    module.training = mode


def pyramid(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """An image at full, half and quarter size, each made from the one before by antialiased bilinear interpolation.

    Args:
        image: ``[B, C, H, W]``, H and W multiples of 4.

    Example:
        >>> [tuple(level.shape[2:]) for level in pyramid(torch.rand(1, 3, 32, 48))]
        [(32, 48), (16, 24), (8, 12)]
    """
    half = _halved(image)
    return image, half, _halved(half)


def _halved(image: Tensor) -> Tensor:
    size = [n // 2 for n in image.shape[2:]]
    return F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)


def _next_multiple(n: int) -> int:
    return -(-n // _MULTIPLE) * _MULTIPLE


def _check_scales(y1: Tensor, y2: Tensor, y3: Tensor, least: int) -> None:
    shape = tuple(y1.shape)
    if len(shape) != 4 or shape[1] != 3 or any(n % _MULTIPLE or n < least for n in shape[2:]):
        raise ValueError(
            f"y1: got shape {shape}, wanted [B, 3, H, W] with H and W multiples of {_MULTIPLE}, {least} or more; "
            "deblur() pads any image"
        )
    for name, y, scale in (("y2", y2, 2), ("y3", y3, 4)):
        wanted = (*shape[:2], shape[2] // scale, shape[3] // scale)
        if tuple(y.shape) != wanted:
            raise ValueError(
                f"{name}: got shape {tuple(y.shape)}, wanted {wanted}, 1/{scale} of y1; pyramid() makes it"
            )


def _as_batch(image: Tensor) -> Tensor:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image: got {described(image)}, wanted a floating-point tensor in [0, 1]")
    if image.dim() not in (3, 4) or image.shape[-3] != 3 or 0 in image.shape[-2:]:
        raise ValueError(f"image: got shape {tuple(image.shape)}, wanted [3, H, W] or [B, 3, H, W]")
    if not image.isfinite().all():
        raise ValueError("image: got NaN or infinite values, wanted finite ones")
    return image if image.dim() == 4 else image.unsqueeze(0)
