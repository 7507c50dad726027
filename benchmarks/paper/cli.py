"""The command line: regenerate the supplement's tables and figures as Markdown, CSV, JSON and PNG."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import environment
from benchmarks.paper import figures, pairs, report, table1, table2
from gkm_ops.files import replacing
from gkm_ops.weights import load_net, pretrained

PARTS = ("table1", "table2", "figures")
_MULTIPLE, _SMALLEST = 16, 48  # as GKMNet's three scales and the bank's radius want
_SHOWN = 3  # photos of figures 2 and 3


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        return _run(options)
    except (OSError, ValueError, table2.DisagreementError) as error:
        print(f"benchmarks.paper: error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    sets = pairs.from_folders(options.data) if options.data else pairs.from_scikit_image()
    record: dict[str, Any] = {"environment": environment.describe()}
    with warnings.catch_warnings(record=True) as misaligned:
        warnings.simplefilter("always", UserWarning)
        if "table1" in options.parts:
            record["table1"] = table1.measure(sets, options.windows, options.device)
        if "table2" in options.parts:
            record["table2"] = table2.measure(options.cg_steps, options.size, options.device)
        if "figures" in options.parts:
            _draw(options, sets)
    for message in dict.fromkeys(str(warning.message) for warning in misaligned):
        print(f"benchmarks.paper: warning: {message}", file=sys.stderr)

    tables = report.full(record)
    if tables:
        print(tables)
        files = {"paper.json": json.dumps(record, indent=1) + "\n", "paper.md": tables, **report.as_csv(record)}
        for name, text in files.items():
            with replacing(options.out / name) as file:
                file.write(text.encode())
    print(f"written: {options.out}")
    return 0


def _draw(options: argparse.Namespace, sets: Sequence[pairs.Images]) -> None:
    net = (pretrained() if options.weights is None else load_net(options.weights)).to(options.device)
    photos = pairs.only_defocused(options.photos) if options.photos else [pairs.coffee()]
    with tqdm(total=4, desc="figures", unit="figure", leave=False, disable=None) as progress:
        figures.syntheses(options.out / "figure-1.png", sets[0], options.windows[:2], options.device)
        progress.update()
        figures.restorations(options.out / "figure-2.png", sets[:_SHOWN], net, "Deblurred pairs")
        progress.update()
        figures.restorations(options.out / "figure-3.png", photos[:_SHOWN], net, "Deblurred photos")
        progress.update()
        figures.maps(options.out / "figure-4.png", photos[0], net)
        progress.update()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
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
    parser.add_argument("--out", type=Path, default=Path("out/paper"), metavar="FOLDER", help="default: %(default)s")
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
        "--size", type=_size, default=(560, 848), metavar="WxH", help="of the image that table 2 is timed on; 848x560"
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="of GKMNet, instead of the package's own")
    parser.add_argument("--device", default="cpu", help="as torch names it; default: %(default)s")
    return parser.parse_args(arguments)


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
