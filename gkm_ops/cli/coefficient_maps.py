"""A picture of coefficient maps, as Figure 4 of the paper's supplement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from gkm_ops import drawing
from gkm_ops.bank import GaussianBank

_WITHIN = 0.995  # of a map's values are within its range of colours: a few at the photo's border tend to stand out


def draw(
    file: BinaryIO,
    coeffs: Tensor,
    kernels: Sequence[int],
    bank: GaussianBank,
    picture_format: str = "png",
    *,
    first: int = 0,
    caption: str = "",
) -> None:
    """Write the maps of chosen kernels as a picture, each with its own range of colours about zero and a colour bar.

    Args:
        file: to write to.
        coeffs: ``[2 M, H, W]``, floating point: the maps of the photo, then those of the last estimate.
        kernels: which of the M kernels to show, counted from 0, one column each.
        bank: the kernels.
        picture_format: ``"png"`` or ``"jpg"``.
        first: the number of the first kernel in the titles.
        caption: to stand below.
    """
    width, height = drawing.panel_size(*coeffs.shape[-2:])
    figure = Figure(figsize=(width * len(kernels) + 0.4, 2 * height), dpi=drawing.DPI, layout="compressed")
    axes = figure.subplots(2, len(kernels), squeeze=False)
    for row, source in enumerate(("photo", "last estimate")):
        for column, kernel in enumerate(kernels):
            panel = axes[row, column]
            picture = drawing.show(panel, coeffs.unflatten(0, (2, -1))[row, kernel], cmap="RdBu_r")
            limit = float(np.quantile(abs(np.asarray(picture.get_array())), _WITHIN))
            drawing.add_colour_bar(picture, max(limit, 1e-6))
            if row == 0:
                panel.set_title(drawing.kernel_title(kernel, bank, first))
            if column == 0:
                panel.set_ylabel(f"of the {source}\n\npixels")
    figure.supxlabel(caption, fontsize=9)
    figure.savefig(file, format=picture_format)
