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

from gkm_ops import drawing
from gkm_ops.bank import GaussianBank

_COLUMNS = 4
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
    chosen = {drawing.kernel_title(m, bank): coefficients[m] for m in kernels}
    figure, pictures = _panels(chosen, cmap="RdBu_r")
    for picture, values in zip(pictures, chosen.values(), strict=True):
        limit = float(np.quantile(values.abs().float().cpu().numpy(), _WITHIN))
        drawing.add_colour_bar(picture, max(limit, 1e-6))
    figure.savefig(file, format="png")


def _panels(values: Mapping[str, Tensor], **colours: Any) -> tuple[Figure, list[AxesImage]]:
    """Maps ``[H, W]`` under their titles, a few side by side, with room for colour bars."""
    columns = min(_COLUMNS, len(values))
    rows = math.ceil(len(values) / columns)
    width, height = drawing.panel_size(*next(iter(values.values())).shape)
    figure = Figure(figsize=(width * columns, height * rows), dpi=drawing.DPI, layout="compressed")
    pictures = []
    for number, (title, shown) in enumerate(values.items(), start=1):
        axes = figure.add_subplot(rows, columns, number, title=title)
        pictures.append(drawing.show(axes, shown, **colours))
    return figure, pictures
