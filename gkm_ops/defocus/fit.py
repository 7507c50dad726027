"""How well models of defocus explain a real photo out of focus, given the sharp one (supplement, first section)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gkm_ops.bank import GaussianBank, check_bank
from gkm_ops.defocus import alignment, windows
from gkm_ops.defocus.closed_form import ClosedForm
from gkm_ops.defocus.gradient import GradientDescent
from gkm_ops.defocus.single_kernel import nearest_disk, nearest_gaussian
from gkm_ops.errors import described
from gkm_ops.functional import gkm_blur

MODELS = ("disk", "gaussian", "gkm")
Method = Callable[[Tensor, Tensor, GaussianBank, int], Tensor]
_METHODS: dict[str, Method] = {"closed_form": ClosedForm(), "gradient": GradientDescent()}

_ALIGNED = 0.5  # pixels
_LEAST = 11  # pixels a side: SSIM's window


@dataclass(frozen=True, eq=False)
class Fit:
    """What a model made of a sharp photo to come near a defocused one.

    Attributes:
        image: the synthesised photo ``[3, H, W]``, not clamped.
        psnr: how near it comes, in dB; not rounded to 8 bits.
        ssim: likewise.
        coefficients: of model "gkm": the maps ``[M, H, W]``, for `gkm_blur`.
        kernels: of models "disk" and "gaussian": the number of each pixel's kernel in the bank, ``[H, W]``, int64.
    """

    image: Tensor
    psnr: float
    ssim: float
    coefficients: Tensor | None = None
    kernels: Tensor | None = None


@torch.no_grad()
def fit(
    sharp: Tensor,
    defocused: Tensor,
    *,
    model: str = "gkm",
    method: str | Method = "closed_form",
    window: int = 1,
    bank: GaussianBank | None = None,
) -> Fit:
    """Synthesise a defocused photo from the sharp one, by the parameters that come nearest to the real one.

    "disk" and "gaussian" choose one kernel a pixel, "gkm" weighs and sums all of them. At window 1 the latter has M
    unknowns for the three observations of a pixel and fits nearly anything, and free choice fits noise; over larger
    windows a model must earn its accuracy.

    Args:
        sharp: ``[3, H, W]``, floating point in [0, 1], H and W at least 11 and larger than the bank's largest radius.
        defocused: the same scene out of focus, in the same shape and type, on the same device.
        model: ``"disk"``, ``"gaussian"`` or ``"gkm"``. Disks are as wide as the bank's kernels.
        method: how "gkm" finds its maps: ``"closed_form"`` or ``"gradient"``, which are `ClosedForm` and
            `GradientDescent` as they come, or one of those with settings of its own.
        window: pixels a side of the blocks that share their parameters.
        bank: the kernels; default: the published 22.

    Returns:
        A `Fit`, whose tensors are float32, of float64 images float64.

    Raises:
        ImportError: torchmetrics (for PSNR and SSIM) or OpenCV (for misalignment) is not installed.
        TypeError: an image that is not a floating-point tensor, or two types.
        ValueError: anything else that does not fit: a shape, a device, values outside [0, 1], a setting.

    Warns:
        UserWarning: one photo lies more than half a pixel from the other; not where `alignment.shift` cannot tell.

    Example:
        >>> sharp = torch.rand(3, 64, 64)
        >>> defocused = torch.nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2)
        >>> fit(sharp, defocused).psnr > fit(sharp, defocused, model="gaussian").psnr
        True
    """
    from gkm_ops import metrics

    solve = _METHODS.get(method) if isinstance(method, str) else method
    if model not in MODELS:
        raise ValueError(f"model: got {model!r}, wanted one of {MODELS}")
    if not callable(solve):
        raise ValueError(f"method: got {method!r}, wanted one of {tuple(_METHODS)}, or one of those with settings")
    if model != "gkm" and method != "closed_form":
        raise ValueError(f"method: got {method!r} with model {model!r}, wanted it with 'gkm' alone")
    windows.check_window(window)
    x, y = _checked(sharp, defocused)
    if bank is None:
        bank = GaussianBank.gkmnet().to(x.device)
    _check_reach(sharp, bank)
    _warn_of_shift(sharp, defocused)
    window = min(window, max(x.shape[2:]))

    coeffs = kernels = None
    if model == "gkm":
        coeffs = solve(x, y, bank, window)
        image = gkm_blur(x, coeffs, bank)
    else:
        image, kernels = (nearest_disk if model == "disk" else nearest_gaussian)(x, y, bank, window)
    return Fit(
        image[0],
        metrics.psnr(image[0], y[0]),
        metrics.ssim(image[0], y[0]),
        None if coeffs is None else coeffs[0],
        kernels,
    )


def _checked(sharp: Tensor, defocused: Tensor) -> tuple[Tensor, Tensor]:
    """Both photos as batches of one, in a type to compute in."""
    for name, image in (("sharp", sharp), ("defocused", defocused)):
        if not isinstance(image, Tensor) or not image.is_floating_point():
            raise TypeError(
                f"{name}: got {described(image)}, wanted floating point in [0, 1]; divide by what stands for white"
            )
        if image.dim() != 3 or image.shape[0] != 3:
            raise ValueError(
                f"{name}: got shape {tuple(image.shape)}, wanted [3, H, W]; one channel serves as expand(3, -1, -1)"
            )
        if not image.numel():
            raise ValueError(f"{name}: got {_size(image)} pixels, wanted at least {_LEAST} a side for SSIM")
        if not image.isfinite().all():
            raise ValueError(f"{name}: got NaN or infinite values, wanted numbers in [0, 1]")
        if image.min() < 0 or image.max() > 1:
            raise ValueError(
                f"{name}: got values from {image.min():g} to {image.max():g}, wanted them in [0, 1]; divide by what "
                "stands for white, and clamp what oversteps"
            )
    if sharp.shape != defocused.shape:
        raise ValueError(f"defocused: got {_size(defocused)} pixels, wanted {_size(sharp)}, the size of sharp")
    if sharp.dtype != defocused.dtype:
        raise TypeError(f"defocused: got {defocused.dtype}, wanted {sharp.dtype}, the type of sharp")
    if sharp.device != defocused.device:
        raise ValueError(f"defocused: got one on {defocused.device}, wanted {sharp.device}, where sharp is")
    wide = torch.promote_types(sharp.dtype, torch.float32)
    return sharp.detach().to(wide).unsqueeze(0), defocused.detach().to(wide).unsqueeze(0)


def _check_reach(sharp: Tensor, bank: GaussianBank) -> None:
    check_bank(bank)
    least = max(_LEAST, max(bank.radii) + 1)
    if min(sharp.shape[1:]) < least:
        raise ValueError(f"sharp: got {_size(sharp)} pixels, wanted at least {least} a side for SSIM and the bank")


def _warn_of_shift(sharp: Tensor, defocused: Tensor) -> None:
    down, right = alignment.shift(sharp, defocused)
    if math.hypot(down, right) > _ALIGNED:
        warnings.warn(
            f"the defocused photo lies {down:+.1f} pixels further down and {right:+.1f} further right than the sharp "
            "one; align them for figures that mean anything",
            stacklevel=4,
        )


def _size(image: Tensor) -> str:
    return f"{image.shape[2]}x{image.shape[1]}"
