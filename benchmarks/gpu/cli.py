"""The command line on a GPU: measure, print the tables, and write JSON, Markdown and a plot."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import plot, report, suite
from benchmarks.suite import GateError


def main(arguments: list[str] | None = None, plan: suite.Plan = suite.FULL) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks --device cuda", description=__doc__.partition(": ")[2])
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark"), metavar="FOLDER", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got cuda, and torch finds no GPU here")
    try:
        record = suite.run(plan, options.device)
    except GateError as error:
        print(f"gate: {error}", file=sys.stderr)
        return 1
    print(report.full(record))
    write(record, options.out)
    return 0


def write(record: dict[str, Any], folder: Path) -> None:
    """The record as JSON, tables and a picture, named by the GPU; all of them or none."""
    machine = record["environment"]["gpu"] or record["environment"]["cpu"]
    name = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        (Path(fresh) / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        (Path(fresh) / f"{name}.md").write_text(report.full(record))
        plot.save(record, Path(fresh) / f"{name}.png")
        for path in sorted(Path(fresh).iterdir()):
            path.replace(folder / path.name)
            print(f"written: {folder / path.name}")
