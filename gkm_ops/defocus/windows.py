"""Windows of pixels that share what a fit finds: square blocks from the top left, the last ones smaller."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


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
