"""Options, and readings of their values, that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gkm_ops.files import is_among


def add_device(parser: argparse.ArgumentParser) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=device, help="as torch names it; default here: %(default)s")


def add_max_megapixels(
    parser: argparse.ArgumentParser, default: float | None = 100.0, told: str = "%(default)s"
) -> None:
    """An option for the largest photo that is read, with its default and what the help says of that."""
    parser.add_argument(
        "--max-megapixels",
        type=limit,
        default=default,
        metavar="N",
        help=f"refuse larger photos; default: {told}; inf for no limit",
    )


@contextmanager
def naming(option: str) -> Iterator[None]:
    """An error in what the option gave, within it, is a ValueError that names the option."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{option}: {error}") from error


def make_folder(folder: Path) -> None:
    """Make the folder that ``--output`` is or lies in. Meant to be called before what takes long."""
    with naming("--output"):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def device_named(device: str) -> Iterator[None]:
    """An error in going to the device, within it, is a ValueError that names the option."""
    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it holds no data")
        yield
    except (ImportError, RuntimeError, AssertionError) as error:  # all but the second from a torch built without it
        raise ValueError(f"--device: got {device!r}, which torch cannot use: {error}") from error


def check_free(path: Path, inputs: Iterable[Path], overwrite: bool, other: str = "OUT") -> None:
    """Complains of a path that may not be written: an input, a folder, or a file unless it may be replaced.

    Meant to be called before the work as well as after it; ``other`` is what the user is to name another of.
    """
    if is_among(path, inputs):
        raise ValueError(f"{path}: is an input, which is never replaced; name another {other}")
    if path.is_dir() or (path.exists() and not overwrite):
        hint = "" if path.is_dir() else ", or give --overwrite"
        raise ValueError(f"{path}: exists already; name another {other}{hint}")


def name(text: str) -> str:
    """That of a file or folder. An empty one, as of a variable that is not set, `Path` takes for the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("got an empty name, wanted that of a file or folder")
    return text


def path(text: str) -> Path:
    """A file or folder."""
    return Path(name(text))


def positive(text: str) -> float:
    """A finite number above zero."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number > 0")
    return number


def limit(text: str) -> float:
    """A number above zero, or infinity."""
    number = _number(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a number > 0")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
