"""Pictures of fits: where the models miss the photo, and the coefficient maps (supplement, Figures 1 and 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank

_PANEL = 4.0  # inches
_COLUMNS = 4
_DPI = 200
_LEAST_ERROR = 0.1  # of a level; the map's darkest colour
_WITHIN = 0.99  # of a map's values are within the range of colours


def draw_errors(file: BinaryIO, images: Mapping[str, Tensor], defocused: Tensor) -> None:
    """Write how far synthesised photos are from the real one as a PNG, all in one logarithmic range of colours.

    Args:
        file: to write to.
        images: ``[3, H, W]`` each, floating point, under their titles.
        defocused: the real one, of the same shape and device.
    """
    levels = {title: 255 * (image.clamp(0, 1) - defocused).abs().mean(0) for title, image in images.items()}
    most = max(1.0, *(error.max().item() for error in levels.values()))
    figure, pictures = _panels(levels, norm=LogNorm(_LEAST_ERROR, most, clip=True))
    axes = [picture.axes for picture in pictures]
    figure.colorbar(pictures[0], ax=axes, label="error, mean of the colours, in 255ths", fraction=0.05)
    figure.savefig(file, format="png")


def draw_coefficients(file: BinaryIO, coefficients: Tensor, kernels: Sequence[int], bank: GaussianBank) -> None:
    """Write the maps of chosen kernels as a PNG, each with its own range of colours about zero.

    Args:
        file: to write to.
        coefficients: ``[M, H, W]``, floating point.
        kernels: which of them to show.
        bank: the M kernels, shared by all colours.
    """
    sizes = [2 * radius + 1 for radius in bank.radii]
    maps = {f"map {m}: {sizes[m]} × {sizes[m]}": coefficients[m] for m in kernels}  # noqa: RUF001
    figure, pictures = _panels(maps, cmap="RdBu_r")
    for picture, values in zip(pictures, maps.values(), strict=True):
        limit = max(float(np.quantile(values.abs().float().cpu().numpy(), _WITHIN)), 1e-6)
        picture.set_clim(-limit, limit)
        figure.colorbar(picture, ax=picture.axes, extend="both", fraction=0.05)
    figure.savefig(file, format="png")


def _panels(maps: Mapping[str, Tensor], **colours: Any) -> tuple[Figure, list[AxesImage]]:
    """Maps ``[H, W]`` under their titles, a few side by side, with room for colour bars."""
    H, W = next(iter(maps.values())).shape
    # As many pixels as a panel shows; Matplotlib takes long over more.
    stride = max(1, round(max(H, W) / (_PANEL * _DPI)))
    columns = min(_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    panel = (_PANEL * min(1, W / H) + 0.8, _PANEL * min(1, H / W) + 0.4)
    figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), dpi=_DPI, layout="constrained")
    pictures = []
    for number, (title, values) in enumerate(maps.items(), start=1):
        shown = F.avg_pool2d(values.float().cpu().unsqueeze(0), stride, ceil_mode=True)[0]
        axes = figure.add_subplot(rows, columns, number, title=title, xticks=[], yticks=[])
        pictures.append(axes.imshow(shown.numpy(), **colours))
    return figure, pictures
