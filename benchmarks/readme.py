"""Regenerates the measured blocks of the README from committed records: ``python -m benchmarks.readme``.

A block stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``, and is made from the newest record of its
kind; one without a record says so. With ``--check`` nothing is written and the exit status is 1 where the README is
stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.gpu import report as gpu_report
from benchmarks.network import report as network_report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

Record = dict[str, Any]


class Block(NamedTuple):
    """A block of the README.

    Attributes:
        name: in its markers.
        folder: of its records, in that of all results.
        device: of its records.
        text: makes it from a record.
        unmeasured: what it says without a record.
    """

    name: str
    folder: str
    device: str
    text: Callable[[Record], str]
    unmeasured: str = "Not yet measured."


BLOCKS = (
    Block("benchmark", ".", "cpu", report.short),
    Block("narrow", "narrow", "cpu", report.shortest),
    Block("network", "network", "cpu", network_report.short),
    Block("gpu", ".", "cuda", gpu_report.short, "Not yet measured on a GPU."),
)


def regenerated(text: str, block: str, name: str = "benchmark") -> str:
    """A page's text with one block replaced.

    Raises:
        ValueError: the markers are not there exactly once each and in order.

    Example:
        >>> regenerated("a <!-- benchmark:begin --> old <!-- benchmark:end --> b", "new\\n")
        'a <!-- benchmark:begin -->\\nnew\\n<!-- benchmark:end --> b'
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"wanted {begin} and then {end}, once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}{end}{rest.split(end)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the records' folder; default: %(default)s")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="default: %(default)s")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the README is stale")
    options = parser.parse_args(arguments)
    try:
        fresh = text = options.readme.read_text()
        for block in BLOCKS:
            fresh = regenerated(fresh, _made(block, options.results, options.readme), block.name)
    except (OSError, ValueError, KeyError) as error:
        print(f"{options.readme}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if options.check:
        if fresh != text:
            print(f"{options.readme}: stale; run python -m benchmarks.readme", file=sys.stderr)
        return int(fresh != text)
    beside = options.readme.with_suffix(".new")
    beside.write_text(fresh)
    beside.replace(options.readme)
    return 0


def _made(block: Block, results: Path, readme: Path) -> str:
    records: dict[Path, Record] = {
        path: json.loads(path.read_text()) for path in (results / block.folder).glob("*.json")
    }
    dates = {
        path: record["environment"]["date"]
        for path, record in records.items()
        if record.get("device", "cpu") == block.device
    }
    if not dates:
        return f"{block.unmeasured}\n"
    newest = max(dates, key=dates.__getitem__)
    link = _relative(newest, readme)
    return f"{block.text(records[newest])}\n\nFrom [{link}]({link}).\n"


def _relative(source: Path, readme: Path) -> str:
    """The record's path as the README links to it."""
    folder = readme.resolve().parent
    resolved = source.resolve()
    return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else source.name


if __name__ == "__main__":
    raise SystemExit(main())
