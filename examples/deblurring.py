"""The demo's second picture: the renderings and a real photo, deblurred by GKMNet with the weights of the package."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch
from torch import Tensor

from examples.picture import Rendering, save_figure
from examples.scene import SOURCE, Scene
from gkm_ops.metrics import in_8_bits, psnr
from gkm_ops.srgb import to_srgb
from gkm_ops.weights import pretrained

_COFFEE_SOURCE = "coffee: Rachel Michetti, from scikit-image"


def deblur_and_show(path: Path, scene: Scene, renderings: list[Rendering]) -> None:
    """Deblur, print the gain where the sharp photo is known, and save before and after side by side."""
    net = pretrained()
    sharp = in_8_bits(to_srgb(scene.photo[0]))
    rows = []
    for rendering in renderings:
        blurred = in_8_bits(to_srgb(rendering.image))
        restored = in_8_bits(net.deblur(blurred))
        before, after = (f"{psnr(image, sharp):.2f} dB" for image in (blurred, restored))
        print(f"{rendering.name}, deblurred: {after}, before {before}")
        titles = (f"{rendering.name}: {before}", f"deblurred: {after}", "the photo it was rendered from")
        rows.append(list(zip(titles, (blurred, restored, sharp), strict=True)))
    photo = torch.from_numpy(np.moveaxis(skimage.data.coffee(), -1, 0).astype(np.float32) / 255)
    rows.append([("coffee, as photographed", photo), ("deblurred", in_8_bits(net.deblur(photo)))])
    _save(path, rows)


def _save(path: Path, rows: list[list[tuple[str, Tensor]]]) -> None:
    figure, axes = plt.subplots(len(rows), 3, figsize=(14, 3.3 * len(rows)), layout="constrained", squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        for place in line:
            place.set_axis_off()
        for place, (title, image) in zip(line, row, strict=False):
            place.imshow(image.permute(1, 2, 0).numpy())
            place.set_title(title, fontsize=10)
    figure.suptitle("Deblurred by GKMNet, with the weights that come with gkm_ops", fontsize=13)
    figure.supxlabel(f"{SOURCE}; {_COFFEE_SOURCE}", fontsize=9)
    save_figure(figure, path)
