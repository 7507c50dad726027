"""The demo's picture: photo, disparity, and for each focus the rendering and what made it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from PIL import ExifTags, Image
from torch import Tensor

from examples.scene import SOURCE, Scene
from gkm_ops.files import replacing
from gkm_ops.srgb import to_srgb

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Written into each picture, so that the demo replaces its own pictures and nobody else's file.
MARK = "gkm_ops demo"


class Rendering(NamedTuple):
    """One focus: a name, the sigma wanted (pixels, ``[H, W]``), its maps ``[M, H, W]`` and the image ``[3, H, W]``."""

    name: str
    sigma: Tensor
    coeffs: Tensor
    image: Tensor


def check_output(path: Path) -> None:
    """Refuse, before any work is done, a path that the picture must not or cannot be written to.

    Raises:
        ValueError: not a .png or .jpg, a folder, or a file that this demo did not write.
    """
    if path.suffix not in (".png", ".jpg"):
        raise ValueError(f"got {str(path)!r}, wanted a file name that ends in .png or .jpg")
    if path.is_dir():
        raise ValueError(f"got the folder {str(path)!r}, wanted a file name in it")
    if path.exists() and not _is_own(path):
        raise ValueError(f"{str(path)!r} exists and is not a picture of this demo; name another file")


def save_picture(path: Path, scene: Scene, renderings: list[Rendering], sigmas: Tensor) -> None:
    """Write the picture whole or not at all.

    Args:
        path: where to, as `check_output` accepts it.
        scene: what was rendered.
        renderings: one row of the picture each.
        sigmas: ``[M]``, the measured width of each kernel, in pixels.
    """
    rows = 1 + len(renderings)
    figure = plt.figure(figsize=(14, 2.65 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 4)
    _show_rgb(figure.add_subplot(grid[0, 0]), scene.photo[0], "photo, sharp throughout")
    _show_map(figure.add_subplot(grid[0, 1]), scene.disparity[0], "disparity, holes filled (pixels)", "viridis")
    _show_use(figure.add_subplot(grid[0, 2:]), renderings, sigmas)
    for row, rendering in enumerate(renderings, start=1):
        _show_rgb(figure.add_subplot(grid[row, 0]), rendering.image, rendering.name)
        _show_map(figure.add_subplot(grid[row, 1]), rendering.sigma, "blur wanted, $\\sigma$ (pixels)", "magma")
        for column, m in enumerate(_telling_kernels(rendering, sigmas), start=2):
            title = f"coefficient map {m} ($\\sigma$ = {sigmas[m]:.2f})"
            _show_map(figure.add_subplot(grid[row, column]), rendering.coeffs[m], title, "gray", (0, 1))
    figure.suptitle("Defocus as a per-pixel mixture of Gaussian blurs", fontsize=13)
    figure.supxlabel(SOURCE, fontsize=9)

    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all, marked as the demo's own, and close it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = MARK
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as file:
            figure.savefig(file, format=path.suffix[1:], dpi=100, pil_kwargs={"exif": exif})
    finally:
        plt.close(figure)


def _show_rgb(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(to_srgb(image).permute(1, 2, 0).numpy())
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def _show_map(axes: Axes, values: Tensor, title: str, colours: str, limits: tuple[float, float] | None = None) -> None:
    low, high = limits or (float(values.min()), float(values.max()))
    shown = axes.imshow(values.numpy(), cmap=colours, vmin=low, vmax=high)
    axes.figure.colorbar(shown, ax=axes, fraction=0.032, pad=0.02)
    axes.set_title(title, fontsize=10)
    axes.set_axis_off()


def _show_use(axes: Axes, renderings: list[Rendering], sigmas: Tensor) -> None:
    """How much each kernel is used: its coefficient map's mean, against its width."""
    for rendering in renderings:
        mean = rendering.coeffs.mean((1, 2))
        axes.plot(sigmas.numpy(), mean.numpy(), marker="o", markersize=3, label=rendering.name)
    axes.set_title(f"use of the bank's {len(sigmas)} kernels", fontsize=10)
    axes.set_xlabel("$\\sigma$ of the kernel (pixels)", fontsize=9)
    axes.set_ylabel("mean coefficient", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8)


def _telling_kernels(rendering: Rendering, sigmas: Tensor) -> list[int]:
    """A narrow and a wide kernel that the rendering uses: those nearest to the quartiles of the wanted blur."""
    quartiles = rendering.sigma.flatten().quantile(torch.tensor([0.25, 0.75]))
    return [int((sigmas - wanted).abs().argmin()) for wanted in quartiles]


def _is_own(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            return image.getexif().get(ExifTags.Base.Software) == MARK
    except OSError:
        return False
