"""The record of a run as a picture: time against size, and the share of the roofline."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.report import pixels
from benchmarks.targets import Record, best


def save(record: Record, path: Path) -> None:
    """Write the picture as PNG."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1.5, 1))
    _time_against_size(record, left)
    _share_of_roofline(record, right)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _time_against_size(record: Record, axes: Axes) -> None:
    """Lines from the scaling run; torch.compile, compiled anew for each size, as points."""
    timed = [row for row in record["scaling"] if row["seconds"] is not None]
    for family in dict.fromkeys(row["family"] for row in timed):
        rows = [row for row in timed if row["family"] == family]
        megapixels = [row["size"][0] * row["size"][1] / 1e6 for row in rows]
        axes.plot(megapixels, [1e3 * row["seconds"]["median"] for row in rows], marker="o", label=_label(rows[0]))
    compiled = [row for size in record["plan"]["sizes"] if (row := best(record, "forward", "compiled", size))]
    if compiled:
        megapixels = [row["size"][0] * row["size"][1] / 1e6 for row in compiled]
        times = [1e3 * row["seconds"]["median"] for row in compiled]
        axes.plot(megapixels, times, marker="s", linestyle="none", label=_label(compiled[0]))
    axes.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="forward, ms", title="Time against size")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def _share_of_roofline(record: Record, axes: Axes) -> None:
    rows = record["roofline"]
    names = [f"{row['instruction_set']}, {row['threads']} threads\n{pixels(row['size'])}" for row in rows]
    shares = [100 * row["share"]["median"] for row in rows]
    below = [100 * (row["share"]["median"] - row["share"]["lower"]) for row in rows]
    above = [100 * (row["share"]["upper"] - row["share"]["median"]) for row in rows]
    axes.barh(names, shares, xerr=[below, above], capsize=3)
    axes.set(xlim=(0, 105), xlabel="% of the multiply-add peak", title="Share of the roofline, forward")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(visible=True, axis="x", alpha=0.3)


def _label(row: Record) -> str:
    _, family, name = row["key"].split("/", 2)
    return f"{family}: {name}"
