"""Regenerates the measured block of the README from a committed record: ``python -m benchmarks.readme``.

The block stands between ``<!-- benchmark:begin -->`` and ``<!-- benchmark:end -->``. With ``--check``
nothing is written and the exit status is 1 where the README is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"


def regenerated(text: str, block: str) -> str:
    """The README's text with its block replaced.

    Raises:
        ValueError: the markers are not there exactly once each and in order.

    Example:
        >>> regenerated(f"a {BEGIN} old {END} b", "new") == f"a {BEGIN}\\nnew{END} b"
        True
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"wanted {BEGIN} and then {END}, once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{block}{END}{rest.split(END)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="the record; default: the only one in benchmarks/results")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the README is stale")
    options = parser.parse_args(arguments)
    try:
        source = options.json or _only_record()
        record = json.loads(source.read_text())
        text = options.readme.read_text()
        fresh = regenerated(text, report.short(record, _relative(source, options.readme)))
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


def _only_record() -> Path:
    records = sorted(RESULTS.glob("*.json"))
    if len(records) != 1:
        raise ValueError(f"found {len(records)} records in {RESULTS}; name one with --json")
    return records[0]


def _relative(source: Path, readme: Path) -> str:
    """The record's path as the README links to it."""
    folder = readme.resolve().parent
    resolved = source.resolve()
    return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else source.name


if __name__ == "__main__":
    raise SystemExit(main())
