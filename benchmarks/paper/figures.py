"""Figures 1 to 4 of the supplement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from torch import Tensor

from benchmarks.paper.pairs import Images, naming
from benchmarks.paper.supplement import FIGURE_4_KERNELS, MODEL_NAMES
from gkm_ops import GKMNet
from gkm_ops.cli import coefficient_maps
from gkm_ops.defocus import fit
from gkm_ops.files import replacing
from gkm_ops.metrics import in_8_bits, psnr, ssim

_DPI = 150
_PANEL = 3.6  # inches
_CROP = 0.28  # of the shorter side
_ERROR_RANGE = 0.1  # of full scale, in the maps of errors


def syntheses(path: Path, pair: Images, windows: Sequence[int], device: str) -> None:
    """Figure 1: what each model makes of a sharp photo, and how far from the defocused one it stays, enlarged."""
    assert pair.sharp is not None
    sharp, defocused = pair.sharp.to(device), pair.defocused.to(device)
    crop = _busiest(pair.sharp - pair.defocused)
    rows = []
    for window in windows:
        with naming(pair):
            results = {model: fit(sharp, defocused, model=model, window=window) for model in MODEL_NAMES}
        titles = [f"{MODEL_NAMES[model]}\n{r.psnr:.2f} dB, SSIM {r.ssim:.3f}" for model, r in results.items()]
        rows.append((window, [r.image.cpu() for r in results.values()], titles))

    figure = Figure(figsize=(4 * _PANEL, 2 * len(rows) * _PANEL + 0.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots(2 * len(rows), 4)
    for (window, images, titles), upper, lower in zip(rows, axes[::2], axes[1::2], strict=True):
        shared = "each pixel for itself" if window == 1 else f"windows of {window} pixels share"
        _show(upper[0], pair.defocused, crop, f"defocused\n({shared})")
        _show(lower[0], pair.sharp, crop, "sharp")
        for column, (image, title) in enumerate(zip(images, titles, strict=True), 1):
            _show(upper[column], image, crop, title)
            error = (image - pair.defocused).abs().mean(0)[crop]
            shown = lower[column].imshow(error.numpy(), cmap="magma", vmin=0, vmax=_ERROR_RANGE, extent=_extent(crop))
            lower[column].set_title("error", fontsize=9)
            lower[column].tick_params(labelsize=6)
        figure.colorbar(shown, ax=lower[1:], label="mean absolute error of the colours", extend="max")
    _save(figure, path, f"{pair.name}: {pair.source}; axes in pixels of the photo")


def restorations(path: Path, images: Sequence[Images], net: GKMNet, heading: str) -> None:
    """Figures 2 and 3: photos, deblurred, beside the sharp ones where these are known, each with a crop enlarged."""
    columns = 3 if any(image.sharp is not None for image in images) else 2
    size = (1.35 * columns * _PANEL, 1.9 * len(images) * _PANEL + 0.8)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = figure.subplots(2 * len(images), columns, squeeze=False)
    for image, upper, lower in zip(images, axes[::2], axes[1::2], strict=True):
        device = next(net.parameters()).device
        restored = in_8_bits(net.deblur(image.defocused.to(device)).cpu())
        panels = {"defocused": image.defocused, "GKMNet": restored}
        if image.sharp is not None:
            panels["sharp"] = image.sharp
        crop = _busiest(restored - image.defocused)
        for column, (name, pixels) in enumerate(panels.items()):
            score = "" if image.sharp is None or name == "sharp" else _score(pixels, image.sharp)
            _show(upper[column], pixels, None, f"{image.name}: {name}{score}")
            _outline(upper[column], crop)
            _show(lower[column], pixels, crop, "")
        for place in (*upper[len(panels) :], *lower[len(panels) :]):
            place.set_axis_off()
    sources = "; ".join(dict.fromkeys(image.source for image in images))
    _save(figure, path, f"{heading}. Sources: {sources}. Axes in pixels of the photo")


def maps(paths: tuple[Path, Path], image: Images, net: GKMNet) -> None:
    """Figure 4: the coefficient maps at the last scale, of the supplement's kernels and of those that vary the most."""
    device = next(net.parameters()).device
    _, coeffs = net.deblur_with_coefficients(image.defocused.to(device))
    theirs = [number - 1 for number in FIGURE_4_KERNELS]
    variation = coeffs.float().flatten(1).std(1).unflatten(0, (2, -1)).amax(0)
    busiest = variation.topk(len(theirs)).indices.sort().values.tolist()
    caption = f"Coefficient maps of {image.name}, kernels counted from 1. Source: {image.source}. Axes in pixels"
    for path, kernels in zip(paths, (theirs, busiest), strict=True):
        with replacing(path) as file:
            coefficient_maps.draw(file, coeffs, kernels, net.gcm.bank, path.suffix[1:], first=1, caption=caption)


Crop = tuple[slice, slice]


def _busiest(change: Tensor) -> Crop:
    """The square of an image ``[3, H, W]`` in which most has changed."""
    H, W = change.shape[1:]
    side = max(16, round(_CROP * min(H, W)))
    energy = torch.nn.functional.avg_pool2d(change.square().mean(0)[None, None], side, stride=max(1, side // 8))[0, 0]
    row, column = divmod(int(energy.argmax()), energy.shape[1])
    top, left = row * max(1, side // 8), column * max(1, side // 8)
    return slice(top, top + side), slice(left, left + side)


def _show(axes: Axes, image: Tensor, crop: Crop | None, title: str) -> None:
    """An image or its crop, with a scale bar in the crop."""
    whole = (slice(0, image.shape[1]), slice(0, image.shape[2]))
    part = whole if crop is None else crop
    pixels = image.clamp(0, 1).permute(1, 2, 0)[part].numpy()
    axes.imshow(pixels, extent=_extent(part), interpolation="nearest" if crop else None)
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=6)
    if crop is not None:
        bar = AnchoredSizeBar(axes.transData, 20, "20 pixels", "lower right", size_vertical=1, color="white")
        bar.patch.set(facecolor="black", alpha=0.6)
        axes.add_artist(bar)


def _extent(crop: Crop) -> tuple[float, float, float, float]:
    """Left, right, bottom and top in pixels, for axes whose origin is the photo's first pixel."""
    rows, columns = crop
    return columns.start - 0.5, columns.stop - 0.5, rows.stop - 0.5, rows.start - 0.5


def _outline(axes: Axes, crop: Crop) -> None:
    left, right, bottom, top = _extent(crop)
    axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="yellow", linewidth=1)


def _score(image: Tensor, sharp: Tensor) -> str:
    return f"\n{psnr(image, sharp):.2f} dB, SSIM {ssim(image, sharp):.3f}"


def _save(figure: Figure, path: Path, caption: str) -> None:
    figure.supxlabel(caption, fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix[1:])
