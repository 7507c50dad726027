"""The demo: a real photo refocused near and far by its measured disparity, deblurred again, and what that costs.

    python -m examples.render_motorcycle [--scale 0.5] [-o out/demo.png]

From the disparity a thin lens gives the circle of confusion of every pixel; the bank's kernels are mixed
so that each pixel is blurred by as much (`gkm_ops.defocus`); one call of `gkm_blur` renders it. Like the
defocus model itself, this gathers: it does not know that a blurred foreground spills over its outline. GKMNet
then deblurs both renderings, whose sharp original is known, and a photo that was taken with a shallow focus.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from examples.comparison import compare, table
from examples.deblurring import deblur_and_show
from examples.picture import Rendering, check_output, save_picture
from examples.scene import Scene, load_scene
from gkm_ops import GaussianBank, gkm_blur
from gkm_ops.defocus import circle_of_confusion, coefficients_from_sigma, disk_sigma, kernel_sigmas

# Disparities in pixels of the full-size photo: the headlamp, and the shelf behind.
FOCUS = {"focused near": 56.0, "focused far": 17.0}
# Lens diameter in baselines of the stereo pair (193 mm): 72 mm, which just needs the bank's widest kernel.
APERTURE = 0.375


def main() -> None:
    options = parse_arguments()
    scene = load_scene(options.scale)
    H, W = scene.disparity.shape[1:]
    print(f"photo: {W} x {H} pixels; {scene.filled:.1%} of the disparity was not measured and is filled in")

    bank = GaussianBank.gkmnet()
    sigmas = kernel_sigmas(bank)
    renderings = [render(scene, bank, name, disparity * options.scale) for name, disparity in FOCUS.items()]
    for rendering in renderings:
        print(f"{rendering.name}: sigma up to {rendering.sigma.max():.2f} pixels; the bank reaches {sigmas.max():.2f}")

    restored = deblurred(options.output)
    try:
        save_picture(options.output, scene, renderings, sigmas)
        print(f"picture: {options.output}")
        deblur_and_show(restored, scene, renderings)
        print(f"picture: {restored}\n")
    except OSError as error:
        raise SystemExit(f"--output: cannot write {str(options.output)!r}: {error.strerror}") from error
    coeffs = renderings[0].coeffs.unsqueeze(0)
    print(table(compare(scene.photo, coeffs, bank), scene.photo))


def render(scene: Scene, bank: GaussianBank, name: str, focus_disparity: float) -> Rendering:
    diameter = circle_of_confusion(scene.disparity, focus_disparity, APERTURE)
    sigma = disk_sigma(diameter)
    coeffs = coefficients_from_sigma(sigma, bank)
    image = gkm_blur(scene.photo, coeffs, bank)
    return Rendering(name, sigma[0], coeffs[0], image[0])


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.render_motorcycle", description="Refocus the Middlebury motorcycle near and far."
    )
    parser.add_argument(
        "--scale", type=scale_factor, default=1.0, help="render at this fraction of 741 x 500 pixels (default 1)"
    )
    parser.add_argument(
        "-o", "--output", type=output_path, default=Path("out/demo.png"), help="the picture (default out/demo.png)"
    )
    return parser.parse_args(arguments)


def scale_factor(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = float("nan")
    if not 0.05 <= scale <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number from 0.05 to 1")
    return scale


def deblurred(path: Path) -> Path:
    """Where the second picture goes: beside the first."""
    return path.with_stem(f"{path.stem}-deblurred")


def output_path(text: str) -> Path:
    try:
        check_output(Path(text))
        check_output(deblurred(Path(text)))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(text)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
