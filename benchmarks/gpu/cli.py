"""The command line on a GPU: measure, print the tables, and write JSON, Markdown and a plot."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu import plot, report, suite
from benchmarks.output import write
from benchmarks.suite import GateError


def main(arguments: list[str] | None = None, plan: suite.Plan = suite.FULL) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks --device cuda", description=__doc__.partition(": ")[2])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="who has not begun by then is left out")
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, and torch finds no GPU here")
    try:
        record = suite.run(plan, options.device, options.minutes)
    except GateError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1
    print(report.full(record))
    machine = record["environment"]["gpu"] or record["environment"]["cpu"]
    write(record, machine, report.full(record), options.out, partial(plot.save, record))
    return 0
