"""The record of a run as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.contenders import FAMILIES, JOBS
from benchmarks.targets import TARGETS, Record, Size, best

_JOB_TITLES = {
    "forward": "Forward",
    "training": "Forward + backward to the image and the maps",
    "adjoint": "Adjoint",
    "correlate": "Correlate",
}


def full(record: Record) -> str:
    """Everything that a run found."""
    parts = ["# Benchmark", machine(record), "## Targets", targets(record)]
    for job in JOBS:
        for size in record["plan"]["sizes"]:
            rows = [row for row in record["timings"] if row["job"] == job and list(row["size"]) == list(size)]
            if rows:
                parts += [f"## {_JOB_TITLES[job]}, {pixels(size)}", _contenders(record, rows)]
    parts += ["## Share of the roofline", _roofline(record)]
    if record["scaling"]:
        parts += ["## Forward against size", _scaling(record)]
    return "\n\n".join(parts) + "\n"


def short(record: Record) -> str:
    """The targets and each family's best, for the README."""
    sizes = record["plan"]["sizes"]
    rows = []
    for job in ("forward", "training"):
        for family in FAMILIES:
            entries = [best(record, job, family, size) for size in sizes]
            if any(entries):
                rows.append([_JOB_TITLES[job], family, *(_time_and_ratio(entry) for entry in entries)])
    families = table(["", "fastest of", *(pixels(size) for size in sizes)], rows)
    return "\n\n".join([shortest(record), families])


def shortest(record: Record) -> str:
    """The machine and the targets."""
    return "\n\n".join([machine(record), targets(record)])


def machine(record: Record) -> str:
    env, plan = record["environment"], record["plan"]
    ops = env["gkm_ops"]
    return (
        f"{env['cpu']} ({env['cpu_id']}, {env['cores']} cores, {ops.get('instruction_set', 'no kernels built')}), "
        f"{plan['threads']} threads, torch {env['torch']}, OpenCV {env['opencv'] or 'not installed'}, "
        f"numpy {env['numpy']}, {env['compiler'] or 'no compiler'}; commit {env['commit']}, {env['date'][:10]}; "
        f"load before the run {env['load']}. Batch 1, 3 colours, "
        f"22 kernels, float32 unless said otherwise, seed {plan['seed']}. Medians, quartiles in brackets."
    )


def targets(record: Record) -> str:
    """Each target, what was reached at each size, and whether that is enough at all of them."""
    sizes: list[Size] = record["plan"]["sizes"]
    rows = []
    for target in TARGETS:
        measured = [target.measure(record, size) for size in (sizes if target.every_size else sizes[:1])]
        reached = [value for value in measured if value is not None]
        cells = ["not measured" if value is None else target.unit.format(value) for value in measured]
        verdict = "" if not reached else "met" if all(target.met(value) for value in reached) else "not met"
        wanted = f"{'at most' if target.at_most else 'at least'} {target.unit.format(target.wanted)}"
        rows.append([target.text, wanted, *cells, *[""] * (len(sizes) - len(cells)), verdict])
    return table(["", "wanted", *(pixels(size) for size in sizes), ""], rows)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pixels(size: Sequence[int]) -> str:
    """Width x height, as photographers say it."""
    return f"{size[1]}x{size[0]}"


def milliseconds(spread: dict[str, float]) -> str:
    return f"{1e3 * spread['median']:.3g} ms [{1e3 * spread['lower']:.3g}, {1e3 * spread['upper']:.3g}]"


def _percent(spread: dict[str, float]) -> str:
    return f"{100 * spread['median']:.0f} % [{100 * spread['lower']:.0f}, {100 * spread['upper']:.0f}]"


def _contenders(record: Record, rows: list[Record]) -> str:
    """Each contender under its better allocator, the fastest first."""
    fastest: dict[str, Record] = {}
    for row in sorted(rows, key=lambda row: row["seconds"]["median"]):
        fastest.setdefault(row["key"], row)
    compile_s = {row["key"]: row["first_call_s"] for row in reversed(rows) if row["family"] == "compiled"}
    memory = {row["key"]: row["extra_bytes"] for row in record["memory"]}
    return table(
        [
            "family",
            "formulation",
            "allocator",
            "time",
            "times fused",
            "first call (compiling)",
            _memory_title(record),
            "largest difference",
        ],
        [
            [
                row["family"],
                row["name"],
                row["allocator"],
                milliseconds(row["seconds"]),
                "" if row["times_fused"] is None else f"{row['times_fused']:.2f}",
                f"{compile_s[key]:.1f} s" if key in compile_s else "",
                f"{memory[key] / 1e6:.1f} MB" if key in memory else "",
                f"{row['difference']:.1e}",
            ]
            for key, row in fastest.items()
        ],
    )


def _memory_title(record: Record) -> str:
    sizes = {pixels(row["size"]) for row in record["memory"]}
    return f"extra memory at {', '.join(sizes)}" if sizes else "extra memory"


def _roofline(record: Record) -> str:
    header = ["size", "threads", "instructions", "forward", "peak, G multiply-adds/s", "share, median", "share, best"]
    rows = [
        [
            pixels(row["size"]),
            str(row["threads"]),
            row["instruction_set"],
            milliseconds(row["seconds"]),
            f"{row['peak_per_s']['median'] / 1e9:.1f}",
            _percent(row["share"]),
            f"{100 * row['best_share']:.0f} %",
        ]
        for row in record["roofline"]
    ]
    note = (
        "Useful work: 399 multiply-adds and 10 adds a pixel and colour. Each pass stands between two measurements of "
        f"the peak. Copying memory ran at {record['copy_bytes_per_s'] / 1e9:.1f} GB/s, read and written together."
    )
    return f"{table(header, rows)}\n\n{note}"


def _scaling(record: Record) -> str:
    rows = []
    for row in record["scaling"]:
        time, per_pixel = "its process was ended, for want of memory", ""
        if row["seconds"] is not None:
            time = milliseconds(row["seconds"])
            per_pixel = f"{1e9 * row['seconds']['median'] / (row['size'][0] * row['size'][1]):.1f}"
        rows.append([pixels(row["size"]), row["family"], row["key"].split("/", 2)[2], time, per_pixel])
    return table(["size", "family", "formulation", "time", "ns a pixel"], rows)


def _time_and_ratio(row: Record | None) -> str:
    if row is None:
        return ""
    ratio = "" if row["family"] == "fused" else f", {row['times_fused']:.1f} times fused"
    return f"{1e3 * row['seconds']['median']:.3g} ms{ratio} ({row['name']}, {row['allocator']} allocator)"
