"""Writes the tables of docs/paper.md from the committed records: ``python -m benchmarks.paper.card``."""

from __future__ import annotations

from pathlib import Path

from benchmarks.paper import report
from benchmarks.readme import ROOT, regenerated
from gkm_ops.files import replacing

RECORDS, CARD = ROOT / "benchmarks" / "results" / "paper", ROOT / "docs" / "paper.md"


def card(page: Path = CARD, records: Path = RECORDS) -> str:
    """The page with its tables made anew.

    Raises:
        ValueError: a page without the marks between which they stand.
    """
    return regenerated(page.read_text(), "\n" + report.full(report.read(records)))


def main() -> int:
    fresh = card()
    with replacing(CARD) as file:
        file.write(fresh.encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
