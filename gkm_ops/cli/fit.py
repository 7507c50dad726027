"""Fit models of defocus to a photo out of focus, given the sharp one, and tell how near each comes."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gkm_ops.bank import GKMNET_KERNELS, GaussianBank
from gkm_ops.cli import arguments, messages
from gkm_ops.defocus import ClosedForm, Fit, GradientDescent, fit
from gkm_ops.defocus.fit import MODELS, Method
from gkm_ops.files import replacing

if TYPE_CHECKING:
    from gkm_ops.photos import Photo

# Which options are settings of which method.
_METHODS: dict[str, tuple[Callable[..., Method], tuple[str, ...]]] = {
    "closed_form": (ClosedForm, ("ridge",)),
    "gradient": (GradientDescent, ("steps", "bounded")),
}
_SHOWN = (0, 14, 15, 19)  # those of the supplement's Figure 4

# Model and window to the fit's PSNR and SSIM.
_Scores = dict[tuple[str, int], tuple[float, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sharp", type=arguments.path, metavar="SHARP", help="the sharp photo")
    parser.add_argument(
        "defocused", type=arguments.path, metavar="DEFOCUSED", help="the same scene out of focus, of the same size"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=arguments.path,
        metavar="OUT",
        help="a folder for the synthesised photos (disk.png, gaussian.png, gkm.png), errors.png and coefficients.png",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist; an input never is")
    parser.add_argument(
        "--windows",
        nargs="+",
        type=_count,
        default=[1],
        metavar="N",
        help="share parameters over blocks of N x N pixels; several are compared; default: 1",
    )
    parser.add_argument(
        "--method", choices=tuple(_METHODS), default="closed_form", help="for the mixture; default: %(default)s"
    )
    parser.add_argument("--ridge", type=float, metavar="R", help=f"of closed_form; default: {ClosedForm.ridge}")
    parser.add_argument("--steps", type=_count, metavar="N", help=f"of gradient; default: {GradientDescent.steps}")
    parser.add_argument(
        "--bounded",
        action="store_true",
        default=None,
        help="of gradient: coefficients in [-1, 1], as the network's are",
    )
    parser.add_argument(
        "--coefficients",
        nargs="+",
        type=int,
        choices=range(GKMNET_KERNELS),
        default=_SHOWN,
        metavar="K",
        help=f"draw the maps of these kernels, 0 to {GKMNET_KERNELS - 1}; default: {' '.join(map(str, _SHOWN))}",
    )
    arguments.add_device(parser)
    arguments.add_max_megapixels(parser)


def run(options: argparse.Namespace) -> int:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        messages.say("fit", f"warning: {message}")

    scores: _Scores = {}
    with warnings.catch_warnings():
        warnings.showwarning = show
        try:
            return _fit_all(options, scores)
        except ImportError as error:
            return messages.lacking("fit", error, "evaluate")
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            return messages.failed("fit", error)
        finally:
            if scores:
                print(table(scores))


def table(scores: _Scores) -> str:
    """PSNR and SSIM of all fits as aligned text, a line for every model."""
    models = list(dict.fromkeys(model for model, _ in scores))
    windows = list(dict.fromkeys(window for _, window in scores))
    names = max(map(len, models))
    lines = [
        " " * names + "".join(f"{f'{window} x {window} pixels':>20}" for window in windows),
        " " * names + "".join(f"{'PSNR [dB]':>12}{'SSIM':>8}" for _ in windows),
    ]
    for model in models:
        figures = (scores[model, window] for window in windows)
        lines.append(f"{model:<{names}}" + "".join(f"{psnr:>12.2f}{ssim:>8.4f}" for psnr, ssim in figures))
    return "\n".join(lines)


def _fit_all(options: argparse.Namespace, scores: _Scores) -> int:
    """Fit every model over every window, and write what comes of it one window after another.

    Where it cannot be written that is told, and the other windows are fitted.

    Args:
        options: the command's.
        scores: to put those of a window into before anything of it is written.

    Returns:
        The exit status.
    """
    from tqdm import tqdm

    windows = sorted(set(options.windows))
    status = 0
    with tqdm(total=len(windows) * len(MODELS), unit="fit", leave=False, disable=None) as bar:
        method = _method(options, lambda step, _: bar.set_postfix_str(f"step {step}"))
        if options.output.exists() and not options.output.is_dir():
            raise ValueError(f"--output: got {str(options.output)!r}, which is a file, wanted a folder")
        _check_free([path for window in windows for path in _outputs(options.output, window).values()], options)
        sharp, defocused = (_read(path, options.max_megapixels) for path in (options.sharp, options.defocused))
        (H, W), (h, w) = (photo.pixels.shape[:2] for photo in (sharp, defocused))
        if (h, w) != (H, W):
            raise ValueError(f"{options.defocused}: got {w}x{h} pixels, wanted {W}x{H}, the size of {options.sharp}")
        with arguments.device_named(options.device):
            x, y = (photo.image.to(options.device) for photo in (sharp, defocused))
        bank = GaussianBank.gkmnet().to(x.device)
        for window in windows:
            fits: dict[str, Fit] = {}
            for model in MODELS:
                of_mixture = {"method": method} if model == "gkm" else {}
                fits[model] = fit(x, y, model=model, window=window, bank=bank, **of_mixture)
                bar.update()
            scores |= {(model, window): (found.psnr, found.ssim) for model, found in fits.items()}
            try:
                _write(_outputs(options.output, window), fits, defocused, y, bank, options)
            except (OSError, ValueError) as error:
                status = messages.failed("fit", error)
    return status


def _write(
    outputs: dict[str, Path],
    fits: Mapping[str, Fit],
    defocused: Photo,
    y: Tensor,
    bank: GaussianBank,
    options: argparse.Namespace,
) -> None:
    """The synthesised photos as the defocused one came (bits, grey, alpha, profile), and the pictures."""
    from gkm_ops import photos
    from gkm_ops.defocus.fit_pictures import draw_coefficients, draw_errors

    options.output.mkdir(parents=True, exist_ok=True)
    _check_free(outputs.values(), options)
    for model, found in fits.items():
        photos.write(outputs[model], defocused.with_image(found.image), overwrite=options.overwrite)
    with replacing(outputs["errors"]) as file:
        draw_errors(file, {model: found.image for model, found in fits.items()}, y)
    coefficients = fits["gkm"].coefficients
    assert coefficients is not None
    with replacing(outputs["coefficients"]) as file:
        draw_coefficients(file, coefficients, options.coefficients, bank)


def _outputs(folder: Path, window: int) -> dict[str, Path]:
    suffix = "" if window == 1 else f"_window{window}"
    return {name: folder / f"{name}{suffix}.png" for name in (*MODELS, "errors", "coefficients")}


def _method(options: argparse.Namespace, on_step: Callable[[int, float], None]) -> Method:
    """The method that the options name, with the settings they give."""
    method, settings = _METHODS[options.method]
    given = {name: getattr(options, name) for _, names in _METHODS.values() for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        if name not in settings:
            raise ValueError(f"--{name}: got it with --method {options.method}, of which it is no setting")
    return method(**given) if options.method == "closed_form" else method(**given, on_step=on_step)


def _check_free(paths: Iterable[Path], options: argparse.Namespace) -> None:
    for path in paths:
        arguments.check_free(path, (options.sharp, options.defocused), options.overwrite)


def _read(path: Path, max_megapixels: float) -> Photo:
    from gkm_ops import photos

    photo = photos.read(path, max_megapixels=max_megapixels)
    if photo.pixels.shape[2] < 3:
        messages.say(
            "fit", f"{path}: is grey, taken as three equal colours, which are one observation a pixel and not three"
        )
    return photo


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number, at least 1")
    return int(text)
