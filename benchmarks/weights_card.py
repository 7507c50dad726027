"""Scores the packaged weights and writes their card.

    python -m benchmarks.weights_card PAIRS --sharp PHOTOS --run RUN

PAIRS are test pairs as `gkm evaluate` takes them, PHOTOS sharp photos that are blurred synthetically, RUN the folder
that `gkm train` left. Writes docs/weights.json, and from it the tables of docs/weights.md.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import environment
from benchmarks.readme import ROOT, regenerated
from benchmarks.report import table
from gkm_ops.data.pairs import Pair, find_pairs
from gkm_ops.data.synthetic import SyntheticDefocus
from gkm_ops.evaluation import Row, evaluate, mean
from gkm_ops.files import replacing
from gkm_ops.photos import find
from gkm_ops.training import CHECKPOINT, LOG
from gkm_ops.weights import pretrained

RECORD, CARD = ROOT / "docs" / "weights.json", ROOT / "docs" / "weights.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights_card", description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="*", type=Path, metavar="PAIRS")
    parser.add_argument("--sharp", nargs="*", type=Path, default=[], metavar="PHOTOS")
    parser.add_argument("--run", type=Path, metavar="RUN", help="what the weights were trained by")
    parser.add_argument("--card", action="store_true", help="only write the tables again from the record there is")
    options = parser.parse_args()
    if not options.card:
        if options.run is None:
            parser.error("--run: got none, wanted the folder of the run; --card takes none")
        record = _measured(options.pairs, options.sharp, options.run)
        with replacing(RECORD) as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())
    fresh = regenerated(CARD.read_text(), card(json.loads(RECORD.read_text())))
    with replacing(CARD) as file:
        file.write(fresh.encode())
    return 0


def _measured(pairs: Sequence[Path], sharp: Sequence[Path], run: Path) -> dict[str, Any]:
    net = pretrained()
    sets = {}
    if pairs:
        sets["real pairs"] = evaluate(net, tqdm(find_pairs(pairs)))
    if sharp:
        photos = [Pair(path.stem, path, path) for path in find(sharp)]
        sets["synthetic"] = evaluate(net, tqdm(photos), blur=SyntheticDefocus())
    state = torch.load(run / CHECKPOINT, map_location="cpu", weights_only=True)
    with (run / LOG).open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    last = losses[-100:]
    return {
        "environment": environment.describe(),
        "training": {**state["signature"], "steps": state["step"], "loss of the last 100 steps": sum(last) / len(last)},
        "sets": {name: [_flat(row) for row in (*rows, mean(rows))] for name, rows in sets.items()},
    }


def _flat(row: Row) -> dict[str, Any]:
    scores = {"psnr": (row.blurred.psnr, row.restored.psnr), "ssim": (row.blurred.ssim, row.restored.ssim)}
    return {"name": row.name, **{key: {"blurred": a, "restored": b} for key, (a, b) in scores.items()}}


def card(record: dict[str, Any]) -> str:
    """The tables as Markdown: how the weights were trained, and what they score."""
    unused = {"photos", "minutes" if record["training"].get("minutes") is None else "epochs"}
    training = "; ".join(f"{name} {value}" for name, value in record["training"].items() if name not in unused)
    text = f"The last run: {training}.\n"
    for name, rows in record["sets"].items():
        cells = [[row["name"], *_scores(row["psnr"], 2), *_scores(row["ssim"], 4)] for row in rows]
        heading = [name, "PSNR blurred", "restored", "gain", "SSIM blurred", "restored", "gain"]
        text += "\n" + table(heading, cells) + "\n"
    return text


def _scores(metric: dict[str, float], decimals: int) -> list[str]:
    blurred, restored = metric["blurred"], metric["restored"]
    return [f"{blurred:.{decimals}f}", f"{restored:.{decimals}f}", f"{restored - blurred:+.{decimals}f}"]


if __name__ == "__main__":
    raise SystemExit(main())
