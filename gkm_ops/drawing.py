"""Maps drawn with Matplotlib: panels with axes in pixels of the photo, and the kernels' titles."""

from __future__ import annotations

from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor
from torch.nn import functional as F

from gkm_ops.bank import GaussianBank

DPI = 250
_SIDE = 3.2  # inches, of a map's longer one
_MARGINS = 1.2, 0.8  # inches across and down, for labels and a colour bar
_TICKS = 4  # steps between those of a map's longer axis or of a colour bar, at most


def panel_size(height: int, width: int) -> tuple[float, float]:
    """Width and height in inches of what a map takes up with its labels."""
    return _SIDE * min(1, width / height) + _MARGINS[0], _SIDE * min(1, height / width) + _MARGINS[1]


def show(axes: Axes, values: Tensor, **colours: Any) -> AxesImage:
    """Show a map.

    Args:
        axes: to show it in.
        values: ``[H, W]``, floating point, a value for each pixel.
        colours: as ``imshow`` takes them.
    """
    H, W = values.shape
    # As many pixels as a panel shows; Matplotlib takes long over more.
    stride = max(1, round(max(H, W) / (_SIDE * DPI)))
    shown = F.avg_pool2d(values.float().cpu().unsqueeze(0), stride, ceil_mode=True)[0]
    right, bottom = (stride * count - 0.5 for count in reversed(shown.shape))  # the last may reach beyond the map
    picture = axes.imshow(shown.numpy(), extent=(-0.5, right, bottom, -0.5), **colours)
    axes.set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5), xlabel="pixels", ylabel="pixels")
    sides: dict[Literal["x", "y"], int] = {"x": W, "y": H}
    for name, side in sides.items():
        axes.locator_params(name, nbins=max(1, round(_TICKS * side / max(H, W))), integer=True, min_n_ticks=1)
    return picture


def add_colour_bar(picture: AxesImage, limit: float) -> None:
    """Give a map's colours a range about zero, beyond which some values may be, and a bar beside it."""
    picture.set_clim(-limit, limit)
    assert picture.axes.figure is not None
    bar = picture.axes.figure.colorbar(picture, ax=picture.axes, extend="both", fraction=0.05)
    bar.ax.locator_params(axis="y", nbins=_TICKS)


def kernel_title(kernel: int, bank: GaussianBank, first: int = 0) -> str:
    """A kernel's number among all, counted from ``first`` on, and its size where all colours share it."""
    name = f"kernel {kernel + first} (of {first} to {bank.num_kernels - 1 + first})"
    if bank.num_channels is not None:  # each colour has a kernel of its own
        return name
    size = 2 * bank.radii[kernel] + 1
    return f"{name}: {size} × {size}"  # noqa: RUF001
