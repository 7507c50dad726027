"""Deblur photos: PNG, TIFF (8 and 16 bits), JPEG and WebP, with profile, EXIF, depth and alpha kept."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gkm_ops.bank import GKMNET_KERNELS
from gkm_ops.cli import arguments, messages, network
from gkm_ops.files import replacing
from gkm_ops.nn.gkmnet import GKMNet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "photos", nargs="+", type=arguments.path, metavar="PHOTO_OR_FOLDER", help="a folder gives all its photos"
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=arguments.name,
        metavar="OUT",
        help="a folder, or for one photo a file name; a new folder with a dot in its name ends in /",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist; an input never is")
    network.add_arguments(parser)
    parser.add_argument("--compare", action="store_true", help="also write OUT_compare: the photo before and after")
    parser.add_argument(
        "--coefficients",
        nargs="+",
        type=_kernel,
        metavar="K",
        help=f"also draw OUT_coefficients.png: the maps of these kernels, 0 to {GKMNET_KERNELS - 1}",
    )


def run(options: argparse.Namespace) -> int:
    try:
        from tqdm import tqdm

        from gkm_ops import photos  # noqa: F401  told about once, not for each photo

        if options.coefficients:
            from gkm_ops.cli import coefficient_maps  # noqa: F401
    except ImportError as error:
        return messages.lacking("deblur", error, "photos")
    try:
        folder = _is_folder(options)
        net = network.chosen(options)
        output = Path(options.output)
        arguments.make_folder(output if folder else output.parent)
    except (OSError, ValueError, RuntimeError) as error:
        return messages.failed("deblur", error)

    sources, status = _sources(options.photos)
    kept = {_identity(path) for path in sources if path.exists()}
    stems = Counter(source.stem for source in sources)
    for source in tqdm(sources, unit="photo", disable=None):
        photo = output / source.name if folder else output
        outputs = _outputs(photo, photo.stem if stems[source.stem] == 1 else photo.name)
        try:
            _deblur(source, outputs, net, options, kept)
        except (ImportError, OSError, ValueError, RuntimeError, MemoryError) as error:
            text = str(error) or type(error).__name__
            status = messages.failed("deblur", text if str(source) in text else f"{source}: {text}")
    return status


class _Outputs(NamedTuple):
    photo: Path
    compare: Path
    coefficients: Path


def _outputs(photo: Path, name: str) -> _Outputs:
    """Beside a photo, what ends in .png whatever the photo does has a name that no other photo's has."""
    return _Outputs(photo, photo.with_stem(f"{photo.stem}_compare"), photo.with_name(f"{name}_coefficients.png"))


def _deblur(
    source: Path, outputs: _Outputs, net: GKMNet, options: argparse.Namespace, kept: set[tuple[int, int]]
) -> None:
    """Deblur one photo. ``kept`` are the files that nothing may replace: inputs, and what this run has written."""
    from gkm_ops import photos

    wanted = [outputs.photo]
    wanted += [outputs.compare] if options.compare else []
    wanted += [outputs.coefficients] if options.coefficients else []
    for path in wanted:
        _check_free(path, kept, options.overwrite)
    photo = photos.read(source, max_megapixels=network.most_megapixels(options))
    photos.check(outputs.photo, photo)
    image, coeffs = net.deblur_with_coefficients(photo.image.to(options.device))
    if not image.isfinite().all():
        hint = "" if options.dtype == "float32" else "; try --dtype float32"
        raise ValueError(f"{source}: the network gave NaN or infinite values in {options.dtype}{hint}")
    deblurred = photo.with_image(image)

    photos.write(outputs.photo, deblurred, overwrite=options.overwrite)
    kept.add(_identity(outputs.photo))
    if options.compare:
        both = photos.Photo(np.hstack([photo.pixels, deblurred.pixels]), photo.exif, photo.icc_profile)
        photos.write(outputs.compare, both, overwrite=options.overwrite)
        kept.add(_identity(outputs.compare))
    if options.coefficients:
        from gkm_ops.cli import coefficient_maps

        with replacing(outputs.coefficients) as file:
            coefficient_maps.draw(file, coeffs, options.coefficients, net.gcm.bank)
        kept.add(_identity(outputs.coefficients))


def _check_free(path: Path, kept: set[tuple[int, int]], overwrite: bool) -> None:
    if path.exists() and _identity(path) in kept:
        raise ValueError(f"{path}: is an input or another photo's output, which is never replaced; name another OUT")
    arguments.check_free(path, (), overwrite)


def _sources(paths: list[Path]) -> tuple[list[Path], int]:
    """The photos in files and folders, each once, and the exit status that folders have led to."""
    from gkm_ops import photos

    found: list[Path] = []
    status = 0
    for path in paths:
        try:
            found += photos.find([path])
        except (OSError, ValueError) as error:
            status = messages.failed("deblur", error)
    return list(dict.fromkeys(found)), status


def _is_folder(options: argparse.Namespace) -> bool:
    """Whether OUT is a folder to write into."""
    from gkm_ops import photos

    output = Path(options.output)
    several = len(options.photos) > 1 or options.photos[0].is_dir()
    if output.is_dir():
        return True
    if output.suffix.lower() in photos.FORMATS:
        if several:
            raise ValueError(f"--output: got the file name {options.output!r}, wanted a folder for several photos")
        return False
    wanted = f"wanted a folder, or a name that ends in {', '.join(photos.FORMATS)}"
    if output.exists():
        raise ValueError(f"--output: got {options.output!r}, which is a file, {wanted}")
    if output.suffix and not options.output.endswith(("/", os.sep)):
        raise ValueError(f"--output: got {options.output!r}, {wanted}; a new folder with a dot in its name ends in /")
    return True


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from all others, by whatever name."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _kernel(text: str) -> int:
    if not (text.isdecimal() and int(text) < GKMNET_KERNELS):
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a kernel's number from 0 to {GKMNET_KERNELS - 1}")
    return int(text)
