"""The command line on a GPU: measure, print the tables, and write JSON, Markdown and a plot."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import plot, report, suite
from benchmarks.gpu.outcomes import OUT_OF_TIME, is_wrong
from benchmarks.output import write


def main(arguments: list[str] | None = None, plan: suite.Plan = suite.FULL) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks --device cuda", description=__doc__.partition(": ")[2])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="who is not done by then is left out")
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, and torch finds no GPU here")

    def save(record: dict[str, Any]) -> None:
        machine = record["environment"]["gpu"] or record["environment"]["cpu"]
        write(record, machine, report.full(record), options.out, partial(plot.save, record))

    record = suite.run(plan, options.device, options.minutes, save)
    print(report.full(record))
    save(record)
    failed = [row for row in record["ops"] + record["network"] if _failed(row)]
    failed += [row for row in record["launches"] if row["error"] is not None]
    failed += [row for row in record["sums"] if row["error"] not in (None, OUT_OF_TIME)]
    for row in failed:
        print(f"{row.get('name') or row['contender']}, {row.get('case', '')}: {row['error']}", file=sys.stderr)
    return int(bool(failed))


def _failed(row: dict[str, Any]) -> bool:
    """Nobody may be wrong; ours may not break either."""
    broken = row.get("family") in ("fused", "variant") and row["error"] not in (None, OUT_OF_TIME)
    return broken or is_wrong(row["error"])
