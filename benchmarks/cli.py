"""The command line: measure, print the tables, and write JSON, Markdown and a plot."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmarks import plot, report, suite
from benchmarks.contenders import contenders
from benchmarks.output import write

_SIZES = ("512x512", "1680x1120")
_SCALING_SIZES = ("64x64", "128x128", "256x256", "512x512", "1024x1024", "2048x2048", "6000x4000")
# Reflected borders need more than the bank's largest radius.
_SMALLEST = 11
_QUICK_KEYS = (
    suite.FUSED,
    "forward/eager/shifted adds",
    "forward/eager/grouped, channels last",
    "forward/opencv/row bands in threads, blend by OpenCV",
    "training/fused/gkm_blur",
    "training/eager/shifted adds, backward by hand",
    "adjoint/fused/gkm_blur_adjoint",
    "correlate/fused/gkm_correlate",
)


def main() -> int:
    options = _parse()
    quick = options.quick
    plan = suite.Plan(
        sizes=tuple(options.sizes or map(_size, _SIZES[:1] if quick else _SIZES)),
        scaling_sizes=tuple(map(_size, _SCALING_SIZES[:4] if quick else _SCALING_SIZES)),
        threads=options.threads,
        rounds=3 if quick else 9,
        keys=_keys(options.only, quick),
    )
    with tempfile.TemporaryDirectory() as cache:
        # A cache of this run's own: compile times are real, and the second process reuses the first one's code.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        try:
            record = suite.run(plan)
        except suite.GateError as error:
            print(f"gate: {error}", file=sys.stderr)
            return 1
    print(report.full(record))
    machine = f"{record['environment']['cpu']} {plan.threads} threads"
    write(record, machine, report.full(record), options.out, partial(plot.save, record))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition(": ")[2])
    parser.add_argument("--sizes", nargs="+", type=_size, metavar="WxH", help=f"default: {' '.join(_SIZES)}")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N", help="default: torch's")
    parser.add_argument("--only", nargs="+", metavar="TEXT", default=[], help="contenders whose key has one of these")
    parser.add_argument("--quick", action="store_true", help="a few contenders, one size, three rounds")
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark"), metavar="FOLDER", help="default: %(default)s"
    )
    options = parser.parse_args()
    if options.threads < 1:
        parser.error(f"--threads: got {options.threads}, wanted 1 or more")
    return options


def _size(text: str) -> tuple[int, int]:
    """(height, width) from what photographers write, ``WIDTHxHEIGHT``."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(map(int, match.groups())) < _SMALLEST:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted WIDTHxHEIGHT of at least {_SMALLEST} pixels each")
    width, height = map(int, match.groups())
    return height, width


def _keys(wanted: list[str], quick: bool) -> tuple[str, ...]:
    """The contenders of a run; the fused forward pass always takes part, as what the rest is held against."""
    keys = [key for key in contenders() if key == suite.FUSED or not wanted or any(text in key for text in wanted)]
    if quick and not wanted:
        keys = [key for key in keys if key in _QUICK_KEYS]
    return tuple(keys)
