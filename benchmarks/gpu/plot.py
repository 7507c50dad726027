"""The record of a GPU run as a picture: each family's best time against the memory floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.gpu.precision import PRECISIONS
from benchmarks.gpu.suite import floor_bytes

_FAMILIES = ("fused", "compiled", "eager", "library")


def save(record: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG."""
    jobs = ("forward", "training")
    figure, axes = plt.subplots(1, len(jobs), figsize=(11, 4.2), squeeze=False)
    for job, axis in zip(jobs, axes[0], strict=True):
        for family in _FAMILIES:
            for precision in PRECISIONS:
                points = _fastest(record, job, family, precision)
                if points:
                    axis.plot(*zip(*points, strict=True), marker="o", label=f"{family}, {precision}")
        sizes = sorted({_pixels(row["case"]) for row in record["ops"]})
        copy = record["roofline"]["copy_bytes_per_s"]
        floors = [1e3 * floor_bytes({"size": (1, pixels), "batch": 1}, job, "float32") / copy for pixels in sizes]
        axis.plot([pixels / 1e6 for pixels in sizes], floors, "k--", label="memory floor, float32")
        axis.set(xscale="log", yscale="log", xlabel="megapixels", ylabel="ms", title=job)
        axis.grid(visible=True, alpha=0.3)
    axes[0][-1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _fastest(record: dict[str, Any], job: str, family: str, precision: str) -> list[tuple[float, float]]:
    """(megapixels, milliseconds) of the quickest of a family, by size."""
    best: dict[int, float] = {}
    for row in record["ops"]:
        if (row["job"], row["family"], row["precision"]) == (job, family, precision) and row["seconds"] is not None:
            pixels = _pixels(row["case"])
            best[pixels] = min(row["seconds"]["median"], best.get(pixels, float("inf")))
    return [(pixels / 1e6, 1e3 * seconds) for pixels, seconds in sorted(best.items())]


def _pixels(case: dict[str, Any]) -> int:
    return int(case["batch"] * case["size"][0] * case["size"][1])
