"""Regenerates the measured blocks of the README from committed records: ``python -m benchmarks.readme``.

The processor's block stands between ``<!-- benchmark:begin -->`` and ``<!-- benchmark:end -->``, the GPU's between
``<!-- gpu:begin -->`` and ``<!-- gpu:end -->``; the latter says so where no GPU has been measured. With ``--check``
nothing is written and the exit status is 1 where the README is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.gpu import report as gpu_report

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
GPU_BEGIN, GPU_END = "<!-- gpu:begin -->", "<!-- gpu:end -->"


def regenerated(text: str, block: str, begin: str = BEGIN, end: str = END) -> str:
    """The README's text with one block replaced.

    Raises:
        ValueError: the markers are not there exactly once each and in order.

    Example:
        >>> regenerated(f"a {BEGIN} old {END} b", "new") == f"a {BEGIN}\\nnew{END} b"
        True
    """
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"wanted {begin} and then {end}, once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{block}{end}{rest.split(end)[1]}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="the processor's record; default: the only one in benchmarks/results")
    parser.add_argument("--gpu-json", type=Path, help="the GPU's; default: the only one there, or none")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the README is stale")
    options = parser.parse_args(arguments)
    try:
        source = options.json or _only_record("cpu")
        gpu_source = options.gpu_json or _only_record("cuda", or_none=True)
        text = options.readme.read_text()
        assert source is not None
        fresh = regenerated(text, report.short(_read(source), _relative(source, options.readme)))
        gpu_block = gpu_report.UNMEASURED
        if gpu_source is not None:
            gpu_block = gpu_report.short(_read(gpu_source), _relative(gpu_source, options.readme))
        fresh = regenerated(fresh, gpu_block, GPU_BEGIN, GPU_END)
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


def _read(source: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(source.read_text())
    return record


def _only_record(device: str, or_none: bool = False) -> Path | None:
    """The one record of a kind of device among the results."""
    records = [path for path in sorted(RESULTS.glob("*.json")) if _read(path).get("device", "cpu") == device]
    if or_none and not records:
        return None
    if len(records) != 1:
        raise ValueError(f"found {len(records)} records of {device} in {RESULTS}; name one with --json or --gpu-json")
    return records[0]


def _relative(source: Path, readme: Path) -> str:
    """The record's path as the README links to it."""
    folder = readme.resolve().parent
    resolved = source.resolve()
    return resolved.relative_to(folder).as_posix() if resolved.is_relative_to(folder) else source.name


if __name__ == "__main__":
    raise SystemExit(main())
