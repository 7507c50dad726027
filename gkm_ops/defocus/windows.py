"""Windows of pixels that share what a fit finds: square blocks from the top left, the last ones smaller."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.errors import described


def check(x: Tensor, y: Tensor, window: int) -> None:
    """Refuse what a method of `gkm_ops.defocus.fit` cannot take: it fits one image at a time.

    Raises:
        TypeError: images of other types than float32 or float64, or of two.
        ValueError: another shape, two of them, or a window that is no whole number of pixels.
    """
    for name, image in (("x", x), ("y", y)):
        if not isinstance(image, Tensor) or image.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name}: got {described(image)}, wanted a float32 or float64 tensor")
    if x.dim() != 4 or len(x) != 1:
        raise ValueError(f"x: got shape {tuple(x.shape)}, wanted [1, C, H, W]")
    if y.shape != x.shape:
        raise ValueError(f"y: got shape {tuple(y.shape)}, wanted {tuple(x.shape)}, as x")
    if y.dtype != x.dtype:
        raise TypeError(f"y: got {y.dtype}, wanted {x.dtype}, the type of x")
    check_window(window)


def check_window(window: int) -> None:
    """Refuse, by a ValueError, what is no whole number of pixels."""
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(f"window: got {window!r}, wanted a whole number of pixels, at least 1")


def mean(pixels: Tensor, window: int) -> Tensor:
    """The mean over each window.

    Args:
        pixels: ``[..., H, W]``, floating point, of three or four dimensions.
        window: pixels a side, >= 1.

    Returns:
        ``[..., ceil(H / window), ceil(W / window)]``.

    Example:
        >>> import torch
        >>> mean(torch.arange(6.0).view(1, 2, 3), 2)
        tensor([[[2.0000, 3.5000]]])
    """
    return F.avg_pool2d(pixels, window, ceil_mode=True)


def spread(values: Tensor, window: int, height: int, width: int) -> Tensor:
    """Every window's value at each of its pixels, differentiable.

    Args:
        values: ``[..., ceil(height / window), ceil(width / window)]``.
        window: pixels a side, >= 1.
        height: of the image.
        width: of the image.

    Returns:
        ``[..., height, width]``.

    Example:
        >>> import torch
        >>> spread(torch.tensor([[1, 2]]), 2, 1, 3)
        tensor([[1, 1, 2]])
    """
    if window == 1:
        return values
    return values.repeat_interleave(window, -2)[..., :height, :].repeat_interleave(window, -1)[..., :width]
