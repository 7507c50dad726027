"""The command line: regenerate the supplement's tables and figures as Markdown, CSV, JSON and PNG."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import environment
from benchmarks.paper import closed_form, descent, figures, gradients, pairs, report, table1, table2
from benchmarks.paper.clock import DisagreementError
from gkm_ops.cli import arguments
from gkm_ops.files import replacing
from gkm_ops.weights import load_net, pretrained

MEASURED = ("table1", "descent", "closed_form", "table2", "gradients")
PARTS = (*MEASURED, "figures")
_MULTIPLE, _SMALLEST = 16, 48  # as GKMNet's three scales and the bank's radius want
_SHOWN = 3  # photos of figures 2 and 3
_FIGURES = ("1", "2", "3", "4", "4-busiest")


def main(argv: list[str] | None = None) -> int:
    options = _parse(argv)
    try:
        return _run(options)
    except (OSError, ValueError, DisagreementError) as error:
        print(f"benchmarks.paper: error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    folder = options.record or options.out
    for place in (folder, options.out):
        place.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    with arguments.device_named(options.device):
        torch.empty(0, device=options.device)
    _check_free(_made(options, folder), options)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _once()
        sets = pairs.from_folders(options.data) if options.data else pairs.from_scikit_image()
        for part in options.parts:
            if part == "figures":
                _draw(options, sets)
                continue
            record = {"environment": environment.describe()} | _measure(part, options, sets)
            _write(folder / f"{part}.json", json.dumps(record, indent=1) + "\n")

    records = report.read(folder)
    if records:
        tables = report.full(records)
        print(tables)
        for name, text in {"paper.md": tables, **report.as_csv(records)}.items():
            _write(folder / name, text)
    print(f"written: {' and '.join(map(str, dict.fromkeys((folder, options.out))))}")
    return 0


def _measure(part: str, options: argparse.Namespace, sets: Sequence[pairs.Images]) -> dict[str, Any]:
    if part == "table1":
        return {"rows": table1.measure(sets, options.windows, options.device)}
    if part == "descent":
        return {"steps": options.descent_steps, "rows": descent.measure(sets, options.descent_steps, options.device)}
    if part == "closed_form":
        return closed_form.measure(options.device, options.size)
    if part == "table2":
        return table2.measure(options.cg_steps, options.size, options.device)
    return gradients.measure(options.cg_steps, options.device)


def _made(options: argparse.Namespace, folder: Path) -> list[Path]:
    """The files that this run will write."""
    made = [folder / f"{part}.json" for part in options.parts if part in MEASURED]
    parts = {*options.parts, *report.read(folder)}
    made += [folder / name for part, name in report.CSV_NAMES.items() if part in parts]
    made += [folder / "paper.md"] if parts & set(MEASURED) else []
    return made + [_figure(options, number) for number in _FIGURES if "figures" in options.parts]


def _check_free(made: Sequence[Path], options: argparse.Namespace) -> None:
    inputs = [*pairs.files(options.data, options.photos), *([options.weights] if options.weights else [])]
    for path in made:
        arguments.check_free(path, inputs, options.overwrite, other="--out or --record")


def _once() -> Callable[..., None]:
    """Tells of each warning when it is first met."""
    told = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in told:
            told.add(text)
            tqdm.write(f"benchmarks.paper: warning: {text}", file=sys.stderr)

    return show


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def _figure(options: argparse.Namespace, number: str) -> Path:
    path: Path = options.out / f"figure-{number}.{options.pictures}"
    return path


def _draw(options: argparse.Namespace, sets: Sequence[pairs.Images]) -> None:
    net = (pretrained() if options.weights is None else load_net(options.weights)).to(options.device)
    photos = pairs.only_defocused(options.photos) if options.photos else [pairs.coffee()]

    with tqdm(total=4, desc="figures", unit="figure", leave=False, disable=None) as progress:
        figures.syntheses(_figure(options, "1"), sets[0], options.windows[:2], options.device)
        progress.update()
        figures.restorations(_figure(options, "2"), sets[:_SHOWN], net, "Deblurred pairs")
        progress.update()
        figures.restorations(_figure(options, "3"), photos[:_SHOWN], net, "Deblurred photos")
        progress.update()
        figures.maps((_figure(options, "4"), _figure(options, "4-busiest")), photos[0], net)
        progress.update()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paper", description=__doc__.partition(": ")[2])
    parser.add_argument(
        "data",
        nargs="*",
        type=Path,
        metavar="DATA",
        help="folders of pairs, as gkm evaluate takes them; default: photos of scikit-image, blurred here",
    )
    parser.add_argument(
        "--photos",
        nargs="+",
        type=Path,
        default=[],
        metavar="PHOTO",
        help="defocused photos and folders of them for figures 3 and 4; default: scikit-image's coffee",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/paper"), metavar="FOLDER", help="for the figures; default: %(default)s"
    )
    parser.add_argument("--pictures", choices=("png", "jpg"), default="png", help="format; default: %(default)s")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FOLDER",
        help="for the numbers, beside those of other parts that are there; default: the folder of the figures",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier run has written; an input never is"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    parser.add_argument(
        "--windows",
        nargs="+",
        type=_positive,
        default=list(table1.WINDOWS),
        metavar="PIXELS",
        help="of table 1, the first two of figure 1 too; default: 1 8 16 32",
    )
    parser.add_argument(
        "--cg-steps",
        nargs="+",
        type=_positive,
        choices=table2.CG_STEPS,
        default=list(table2.CG_STEPS),
        metavar="P",
        help="of table 2, among the supplement's; default: 10 15 20 25",
    )
    parser.add_argument(
        "--size", type=_size, default=(560, 848), metavar="WxH", help="of the images that are timed; default: 848x560"
    )
    parser.add_argument(
        "--descent-steps", type=_positive, default=300, metavar="N", help="of gradient descent; default: %(default)s"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of GKMNet, instead of the package's own")
    parser.add_argument("--device", default="cpu", help="as torch names it; default: %(default)s")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, wanted 1 or more")
    return number


def _size(text: str) -> tuple[int, int]:
    """(height, width) of ``WIDTHxHEIGHT``."""
    width, _, height = text.partition("x")
    sides = tuple(int(side) if side.isdecimal() else 0 for side in (height, width))
    if min(sides) < _SMALLEST or any(side % _MULTIPLE for side in sides):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, wanted WIDTHxHEIGHT, multiples of {_MULTIPLE} from {_SMALLEST}"
        )
    return sides[0], sides[1]
