"""A picture of coefficient maps, as Figure 4 of the paper's supplement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank

_PANEL = 4.0  # inches
_DPI = 200
_WITHIN = 0.995  # of a map's values are within its range of colours: a few at the photo's border tend to stand out


def draw(
    file: BinaryIO, coeffs: Tensor, kernels: Sequence[int], bank: GaussianBank, picture_format: str = "png"
) -> None:
    """Write the maps of chosen kernels as a picture, each with its own range of colours about zero and a colour bar.

    Args:
        file: to write to.
        coeffs: ``[2 M, H, W]``, floating point: the maps of the photo, then those of the last estimate.
        kernels: which of the M kernels to show, one column each.
        bank: the kernels.
        picture_format: ``"png"`` or ``"jpg"``.
    """
    H, W = coeffs.shape[-2:]
    # As many pixels as a panel shows; Matplotlib takes long over more.
    stride = max(1, round(max(H, W) / (_PANEL * _DPI)))
    chosen = coeffs.unflatten(0, (2, -1))[:, list(kernels)].float().cpu()
    chosen = F.avg_pool2d(chosen, stride, ceil_mode=True)

    panel = (_PANEL * min(1, W / H) + 0.8, _PANEL * min(1, H / W) + 0.4)
    size = (panel[0] * len(kernels) + 0.4, 2 * panel[1])
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(2, len(kernels), squeeze=False)
    for row, source in enumerate(("photo", "last estimate")):
        for column, kernel in enumerate(kernels):
            panel_axes = axes[row, column]
            values = chosen[row, column].numpy()
            limit = max(float(np.quantile(abs(values), _WITHIN)), 1e-6)
            shown = panel_axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit)
            figure.colorbar(shown, ax=panel_axes, extend="both", fraction=0.05)
            panel_axes.set(xticks=[], yticks=[], title=_title(kernel, bank) if row == 0 else "")
            if column == 0:
                panel_axes.set_ylabel(f"of the {source}")
    figure.savefig(file, format=picture_format)


def _title(kernel: int, bank: GaussianBank) -> str:
    if bank.num_channels is not None:  # each colour has a kernel of its own
        return f"map {kernel}"
    size = 2 * bank.radii[kernel] + 1
    return f"map {kernel}: {size} × {size}"  # noqa: RUF001
