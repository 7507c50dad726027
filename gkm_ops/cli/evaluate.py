"""Deblur photos whose sharp originals are known, and tell how much nearer to these they came."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gkm_ops.cli import arguments, messages, network
from gkm_ops.files import replacing

if TYPE_CHECKING:
    from gkm_ops.data.pairs import Pair
    from gkm_ops.evaluation import Row
    from gkm_ops.metrics import LPIPS

# Field of the scores, heading, decimals.
_METRICS = (("psnr", "PSNR [dB]", 2), ("ssim", "SSIM", 4), ("lpips", "LPIPS (less is better)", 4))
_STAGES = ("blurred", "restored", "gain")
_WIDTH = 10
_BLUR_SUFFIX, _SHARP_SUFFIX, _SPLIT = "_blur", "_sharp", "test"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="+",
        type=arguments.path,
        metavar="DATA",
        help="folders in the DPDD layout (test_c/source, test_c/target), with source and target, or of pairs by suffix",
    )
    parser.add_argument(
        "-o", "--output", type=arguments.path, metavar="CSV", help="write the figures to this file, too"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace that file if it exists")
    parser.add_argument(
        "--synthetic", action="store_true", help="DATA are sharp photos and folders of them, to be blurred here"
    )
    parser.add_argument(
        "--blur-suffix", default=_BLUR_SUFFIX, help="of the names of blurred photos; default: %(default)s"
    )
    parser.add_argument("--sharp-suffix", default=_SHARP_SUFFIX, help="of those of sharp ones; default: %(default)s")
    parser.add_argument(
        "--split", choices=("train", "val", "test"), default=_SPLIT, help="of the DPDD layout; default: %(default)s"
    )
    parser.add_argument(
        "--rounding",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="score what 8-bit files would hold, as GKMNet's published figures do; default: --rounding",
    )
    parser.add_argument(
        "--lpips",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="LPIPS, where torchvision is installed, which fetches weights on first use; default: --lpips",
    )
    network.add_arguments(parser)


def run(options: argparse.Namespace) -> int:
    try:
        return _run(options)
    except ImportError as error:
        return messages.lacking("evaluate", error, "evaluate")
    except (OSError, ValueError, RuntimeError) as error:
        return messages.failed("evaluate", error)


def _run(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from gkm_ops.data.synthetic import SyntheticDefocus
    from gkm_ops.evaluation import evaluate, mean

    _check_free(options.output, options.overwrite)
    pairs = _pairs(options)
    inputs = [photo for pair in pairs for photo in (pair.blurred, pair.sharp)]
    if options.weights is not None:
        inputs.append(options.weights)
    _check_free(options.output, options.overwrite, inputs)
    net = network.chosen(options)
    if options.output is not None:
        arguments.make_folder(options.output.parent)
    skipped = []

    def skip(pair: Pair, error: Exception) -> None:
        skipped.append(pair)
        messages.failed("evaluate", f"{pair.name} skipped: {error}")

    rows = evaluate(
        net,
        tqdm(pairs, unit="photo", leave=False, disable=None),
        blur=SyntheticDefocus() if options.synthetic else None,
        lpips=_lpips(options.device) if options.lpips else None,
        rounding=options.rounding,
        max_megapixels=network.most_megapixels(options),
        on_error=skip,
    )
    if rows:
        rows.append(mean(rows))
        _write(options.output, as_csv(rows), options.overwrite)
        print(table(rows))
    return messages.failed("evaluate", f"{len(skipped)} of {len(pairs)} skipped") if skipped else 0


def table(rows: list[Row]) -> str:
    """The figures of all rows as aligned text."""
    metrics = _metrics(rows)
    names = max(len(row.name) for row in rows)
    lines = [
        " " * names + "".join(f"{heading:>{len(_STAGES) * _WIDTH}}" for _, heading, _ in metrics),
        " " * names + "".join(f"{stage:>{_WIDTH}}" for stage in _STAGES) * len(metrics),
    ]
    for row in rows:
        figures = (
            f"{getattr(getattr(row, stage), field):>{'+' if stage == 'gain' else ''}{_WIDTH}.{decimals}f}"
            for field, _, decimals in metrics
            for stage in _STAGES
        )
        lines.append(f"{row.name:<{names}}" + "".join(figures))
    return "\n".join(lines)


def as_csv(rows: list[Row]) -> str:
    """The figures of all rows in full, under a line of headings."""
    fields = [(field, stage) for field, _, _ in _metrics(rows) for stage in _STAGES]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", *(f"{field}_{stage}" for field, stage in fields)])
    for row in rows:
        writer.writerow([row.name, *(getattr(getattr(row, stage), field) for field, stage in fields)])
    return text.getvalue()


def _metrics(rows: list[Row]) -> list[tuple[str, str, int]]:
    """Those that were computed."""
    return [metric for metric in _METRICS if getattr(rows[0].blurred, metric[0]) is not None]


def _pairs(options: argparse.Namespace) -> list[Pair]:
    from gkm_ops.data.pairs import find_pairs, named
    from gkm_ops.data.training_data import DEPTH_SUFFIX
    from gkm_ops.photos import find

    if options.synthetic:
        if (options.blur_suffix, options.sharp_suffix, options.split) != (_BLUR_SUFFIX, _SHARP_SUFFIX, _SPLIT):
            raise ValueError("--synthetic: got it beside --blur-suffix, --sharp-suffix or --split, which are of pairs")
        # In sorted order, since a photo's place in it is the seed of its blur.
        sharp = [path for path in sorted(set(find(options.data))) if not path.stem.endswith(DEPTH_SUFFIX)]
        if not sharp:
            raise ValueError(f"DATA: got depth maps alone (X{DEPTH_SUFFIX}.png), wanted sharp photos for --synthetic")
        return named([(path, path) for path in sharp])
    return find_pairs(
        options.data, blur_suffix=options.blur_suffix, sharp_suffix=options.sharp_suffix, split=options.split
    )


def _lpips(device: str) -> LPIPS | None:
    from gkm_ops.metrics import LPIPS, LPIPSUnavailableError

    try:
        return LPIPS(device)
    except LPIPSUnavailableError as error:
        messages.say("evaluate", f"no LPIPS: {error}")
        return None


def _check_free(path: Path | None, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    if path is not None:
        arguments.check_free(path, inputs, overwrite, other="file")


def _write(path: Path | None, text: str, overwrite: bool) -> None:
    if path is not None:
        _check_free(path, overwrite)
        with replacing(path) as file:
            file.write(text.encode())
