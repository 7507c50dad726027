"""What the project set out to reach, beside what a run reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Size = list[int]

_MEGABYTE = 1e6
_FEW_MEGABYTES = 8.0


@dataclass(frozen=True)
class Target:
    """One line of the table of targets.

    Attributes:
        text: what is held against the target.
        wanted: the figure to reach; at least, or at most for `at_most`.
        unit: how to write a figure.
        measure: the figure of one size in a record, or None where the run has nothing to say.
        every_size: whether each size has its own line.
    """

    text: str
    wanted: float
    unit: str
    measure: Callable[[Record, Size], float | None]
    at_most: bool = False
    every_size: bool = True

    def met(self, reached: float) -> bool:
        return reached <= self.wanted if self.at_most else reached >= self.wanted


def best(record: Record, job: str, family: str, size: Size, dtype: str = "float32") -> Record | None:
    """The fastest row of a family at one size, whichever formulation and allocator."""
    rows = [
        row
        for row in record["timings"]
        if (row["job"], row["family"], row["dtype"], list(row["size"])) == (job, family, dtype, list(size))
    ]
    return min(rows, key=lambda row: row["seconds"]["median"], default=None)


def _times_fused(job: str, family: str) -> Callable[[Record, Size], float | None]:
    def measure(record: Record, size: Size) -> float | None:
        row = best(record, job, family, size)
        return None if row is None else row["times_fused"]

    return measure


def _share_of_peak(record: Record, size: Size) -> float | None:
    rows = [row for row in record["roofline"] if list(row["size"]) == list(size)]
    return 100 * rows[0]["share"]["median"] if rows else None


def _times_forward(job: str) -> Callable[[Record, Size], float | None]:
    def measure(record: Record, size: Size) -> float | None:
        forward, other = best(record, "forward", "fused", size), best(record, job, "fused", size)
        return other["seconds"]["median"] / forward["seconds"]["median"] if forward and other else None

    return measure


def _most_extra_memory(record: Record, size: Size) -> float | None:
    rows = [row["extra_bytes"] for row in record["memory"] if "/fused/" in row["key"]]
    return max(rows) / _MEGABYTE if rows else None


def _small_call(record: Record, size: Size) -> float | None:
    return 1e6 * record["small_call"]["median"]


TARGETS = (
    Target("forward, share of the multiply-add peak", 85, "{:.0f} %", _share_of_peak),
    Target("forward, times faster than the best eager", 12, "{:.1f}x", _times_fused("forward", "eager")),
    Target(
        "forward, times faster than the best under torch.compile", 9, "{:.1f}x", _times_fused("forward", "compiled")
    ),
    Target("forward, times faster than OpenCV", 2.5, "{:.1f}x", _times_fused("forward", "opencv")),
    Target("forward + backward, times faster than the best eager", 12, "{:.1f}x", _times_fused("training", "eager")),
    Target("adjoint, times the forward", 1.3, "{:.2f}x", _times_forward("adjoint"), at_most=True),
    Target("correlate, times the forward", 1.3, "{:.2f}x", _times_forward("correlate"), at_most=True),
    Target("most extra memory of any fused op", _FEW_MEGABYTES, "{:.1f} MB", _most_extra_memory, True, False),
    Target("one call at 8x8", 40, "{:.0f} us", _small_call, at_most=True, every_size=False),
)
