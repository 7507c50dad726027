"""How near a restored photo is to the sharp one: PSNR, SSIM and LPIPS, by torchmetrics.

Published figures are not all computed alike. GKMNet's own test rounds the restored and the sharp image to 8 bits,
takes PSNR over all pixels and colours of an image, and SSIM as its authors defined it, over each colour: Gaussian
windows of 11 x 11 pixels with sigma 1.5, only those that lie wholly within the image. That is what `psnr` and `ssim`
do with images from `in_8_bits`. The authors of the DPDD dataset and many after them do not round, and use
scikit-image's default SSIM, uniform windows of 7 x 7 pixels, which differs in the second decimal. LPIPS goes by
AlexNet everywhere; it is defined for values in [-1, 1], to which `LPIPS` scales, while GKMNet's test gives it values
in [0, 1], so that its figure is not comparable.
"""

from __future__ import annotations

from pickle import UnpicklingError

from torch import Tensor

try:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another build of torch
    raise ImportError(
        f"PSNR, SSIM and LPIPS come from torchmetrics, which cannot be imported: {error}; pip install torchmetrics, "
        "and, if torchvision is there, the one made for this torch"
    ) from error

_SSIM_RADIUS = 5
_LEAST_FOR_LPIPS = 31  # pixels a side that leave AlexNet's last layer one


class LPIPSUnavailableError(RuntimeError):
    """LPIPS cannot be computed here; the message says what is missing and how to get it."""


def in_8_bits(image: Tensor) -> Tensor:
    """What is left of an image in an 8-bit file: clamped to [0, 1] and rounded to 256 levels.

    Example:
        >>> import torch
        >>> in_8_bits(torch.tensor([-0.5, 0.5, 2.0]))
        tensor([0.0000, 0.5020, 1.0000])
    """
    return (image.clamp(0, 1) * 255).round() / 255


def psnr(image: Tensor, sharp: Tensor) -> float:
    """Peak signal-to-noise ratio over all pixels and colours.

    Args:
        image: ``[3, H, W]``, float32; clamped to [0, 1].
        sharp: the same of the sharp image.

    Returns:
        Decibels; infinite for equal images.

    Raises:
        ValueError: another shape, or two that differ.

    Example:
        >>> import torch
        >>> round(psnr(torch.full((3, 8, 8), 0.6), torch.full((3, 8, 8), 0.5)), 3)
        20.0
    """
    return peak_signal_noise_ratio(*_as_batches(image, sharp), data_range=1.0).item()


def ssim(image: Tensor, sharp: Tensor) -> float:
    """Structural similarity, the mean over colours and over the windows that lie wholly within the image.

    Args:
        image: ``[3, H, W]``, float32, H and W at least 11; clamped to [0, 1].
        sharp: the same of the sharp image.

    Returns:
        1 for equal images.

    Raises:
        ValueError: another shape, two that differ, or an image smaller than a window.

    Example:
        >>> import torch
        >>> image = torch.rand(3, 32, 32)
        >>> ssim(image, image)
        1.0
    """
    batches = _as_batches(image, sharp)
    _check_size(image, 2 * _SSIM_RADIUS + 1, "SSIM")
    _, maps = structural_similarity_index_measure(*batches, data_range=1.0, return_full_image=True)
    inner = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    return maps[..., inner, inner].mean().item()


class LPIPS:
    """Learned perceptual image patch similarity by AlexNet's features; lower is more alike.

    Needs torchvision, which fetches AlexNet's weights (233 MB) on first use.

    Args:
        device: where to compute it.

    Raises:
        LPIPSUnavailableError: no torchvision, or no weights to be had.

    Example:
        >>> import torch  # doctest: +SKIP
        >>> lpips = LPIPS()  # doctest: +SKIP
        >>> lpips(torch.rand(3, 64, 64), torch.rand(3, 64, 64))  # doctest: +SKIP
        0.036
    """

    def __init__(self, device: str = "cpu") -> None:
        try:
            self._metric = LearnedPerceptualImagePatchSimilarity("alex", normalize=True).to(device)
        except ModuleNotFoundError as error:
            raise LPIPSUnavailableError("LPIPS needs torchvision; pip install torchvision") from error
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise LPIPSUnavailableError(
                f"LPIPS needs AlexNet's weights, which torchvision fetches, and could not be loaded: {error}"
            ) from error

    def __call__(self, image: Tensor, sharp: Tensor) -> float:
        """The distance between two images ``[3, H, W]``, float32, H and W at least 31; clamped to [0, 1].

        Raises:
            ValueError: another shape, two that differ, or an image too small.
        """
        batches = _as_batches(image, sharp)
        _check_size(image, _LEAST_FOR_LPIPS, "LPIPS")
        return self._metric(*(batch.to(self._metric.device) for batch in batches)).item()


def _as_batches(image: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor]:
    if image.dim() != 3 or image.shape[0] != 3 or image.shape != sharp.shape:
        raise ValueError(
            f"image, sharp: got shapes {tuple(image.shape)} and {tuple(sharp.shape)}, wanted [3, H, W] for both"
        )
    return image.clamp(0, 1).unsqueeze(0), sharp.clamp(0, 1).unsqueeze(0)


def _check_size(image: Tensor, least: int, metric: str) -> None:
    if min(image.shape[1:]) < least:
        raise ValueError(f"image: got shape {tuple(image.shape)}, wanted at least {least} pixels a side for {metric}")
