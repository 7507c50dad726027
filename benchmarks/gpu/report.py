"""The record of a GPU run as Markdown tables."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.suite import OUT_OF_TIME, PRECISIONS, floor_bytes
from benchmarks.report import table

Record = dict[str, Any]
UNMEASURED = "Not yet measured on a GPU.\n"
_JOBS = {
    "forward": "forward",
    "training": "forward + backward to the image and the maps",
    "adjoint": "adjoint",
    "correlate": "correlate",
}
# What to reach at 1680x1120 on a GPU of the H200's class: at most so many times the memory floor.
_MOST_TIMES_FLOOR = {("forward", "float32"): 2.0, ("forward", "bfloat16"): 2.0, ("training", "float32"): 2.5}
_LEAST_TIMES_FASTER = {"eager": 30.0, "compiled": 8.0}
_PHOTO = (1120, 1680)


def full(record: Record) -> str:
    """Everything that a run found."""
    parts = ["# Benchmark on a GPU", machine(record), "## Targets", targets(record)]
    cases = list(dict.fromkeys((tuple(row["case"]["size"]), row["case"]["batch"]) for row in record["ops"]))
    left_out = []
    for size, batch in cases:
        for job, title in _JOBS.items():
            rows = [row for row in record["ops"] if _is(row, size, batch, job)]
            what = f"{title}, {size[1]}x{size[0]}, batch {batch}"
            measured = [row for row in rows if row["error"] != OUT_OF_TIME]
            if measured:
                parts += [f"## {what[0].upper()}{what[1:]}", _contenders(record, measured)]
            left_out += [f"{what}: {row['precision']}, {row['name']}" for row in rows if row["error"] == OUT_OF_TIME]
    parts += ["## GKMNet", _network(record)]
    if left_out:
        parts += [f"## Not measured\n\nThere was no more time for {len(left_out)} of {len(record['ops'])} rows:"]
        parts += ["\n".join(f"- {row}" for row in left_out)]
    return "\n\n".join(parts) + "\n"


def short(record: Record, source: str) -> str:
    """The targets, who was fastest, and the network, for the README."""
    parts = [machine(record), targets(record), fastest(record), _network(record), f"From [{source}]({source})."]
    return "\n\n".join(parts) + "\n"


def fastest(record: Record) -> str:
    """The times of our backends and of the best of the others, at 1680x1120."""
    backends = sorted({row["name"].rpartition(", ")[2] for row in record["ops"] if row["family"] == "fused"})
    others = [family for family in ("eager", "compiled") if any(row["family"] == family for row in record["ops"])]
    lines = []
    for job, title in _JOBS.items():
        for precision in PRECISIONS:
            ours = [_best(record, job, precision, "fused", backend) for backend in backends]
            theirs = [_fastest_of_all(record, job, precision, family) for family in others]
            if any(ours):
                lines.append([f"{title}, {precision}", *map(_time, ours), *theirs])
    return table(["1680x1120", *backends, *(f"fastest {family}" for family in others)], lines)


def _time(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{1e3 * row['seconds']['median']:.3g} ms"


def _fastest_of_all(record: Record, job: str, precision: str, family: str) -> str:
    """Who of a family was fastest, unless somebody was left out."""
    best = _best(record, job, precision, family)
    if best is None or any(
        _is(row, _PHOTO, 1, job) and (row["precision"], row["family"], row["error"]) == (precision, family, OUT_OF_TIME)
        for row in record["ops"]
    ):
        return ""
    return f"{_time(best)} ({best['name']})"


def machine(record: Record) -> str:
    env, roofline = record["environment"], record["roofline"]
    products = ", ".join(f"{p} {roofline['product_flops_per_s'][p] / 1e12:.0f}" for p in PRECISIONS)
    return (
        f"{env['gpu'] or env['cpu']}, torch {env['torch']}, CUDA {env.get('cuda')}, Triton {env.get('triton')}; commit "
        f"{env['commit']}, {env['date'][:10]}. 3 colours, 22 kernels. In the same run a copy moved "
        f"{roofline['copy_bytes_per_s'] / 1e12:.2f} TB/s, and a matrix product of 8192 made, in TFLOP/s: {products}. "
        "Times by the device's events, medians, inputs taking turns; the floor is the time that reading and writing "
        "images and maps once would take at the copy's speed."
    )


def targets(record: Record) -> str:
    """Each aim at 1680x1120, and what was reached."""
    rows = []
    for (job, precision), most in _MOST_TIMES_FLOOR.items():
        ours = _best(record, job, precision, "fused")
        if ours is not None:
            times = ours["seconds"]["median"] / _floor(record, ours)
            rows.append([f"{_JOBS[job]}, {precision}, times the memory floor", f"at most {most}", f"{times:.2f}"])
            rows[-1].append("met" if times <= most else "not met")
    for family, least in _LEAST_TIMES_FASTER.items():
        ours = _best(record, "training", "float32", "fused")
        theirs = _best(record, "training", "float32", family)
        if ours is not None and theirs is not None:
            times = theirs["seconds"]["median"] / ours["seconds"]["median"]
            title = f"{_JOBS['training']}, float32, times faster than the best {family} ({theirs['name']})"
            rows.append([title, f"at least {least}", f"{times:.1f}", "met" if times >= least else "not met"])
    return table(["1680x1120", "wanted", "reached", ""], rows)


def _is(row: dict[str, Any], size: tuple[int, ...], batch: int, job: str) -> bool:
    return (tuple(row["case"]["size"]), row["case"]["batch"], row["job"]) == (size, batch, job)


def _best(record: Record, job: str, precision: str, family: str, backend: str = "") -> dict[str, Any] | None:
    rows = [
        row
        for row in record["ops"]
        if _is(row, _PHOTO, 1, job)
        and (row["precision"], row["family"]) == (precision, family)
        and row["name"].endswith(backend)
        and row["seconds"]
    ]
    return min(rows, key=lambda row: row["seconds"]["median"], default=None)


def _floor(record: Record, row: dict[str, Any]) -> float:
    return floor_bytes(row["case"], row["job"], row["precision"]) / float(record["roofline"]["copy_bytes_per_s"])


def _contenders(record: Record, rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in sorted(rows, key=lambda row: (PRECISIONS.index(row["precision"]), _median(row))):
        line = [row["precision"], row["family"], row["name"]]
        if row["seconds"] is None:
            lines.append([*line, row["error"], "", "", ""])
            continue
        spread = row["seconds"]
        time = f"{1e3 * spread['median']:.3g} ms [{1e3 * spread['lower']:.3g}, {1e3 * spread['upper']:.3g}]"
        floor = f"{spread['median'] / _floor(record, row):.2f}"
        lines.append([*line, time, floor, _megabytes(row["extra_bytes"]), f"{row['difference']:.1e}"])
    header = ["precision", "family", "formulation", "time", "times the floor", "extra memory", "largest difference"]
    return table(header, lines)


def _network(record: Record) -> str:
    lines = []
    for row in record["network"]:
        case = row["case"]
        what = f"{case['job']} {case['release']}, {case['size'][1]}x{case['size'][0]}, batch {case['batch']}"
        time = f"{1e3 * row['seconds']['median']:.3g} ms"
        lines.append([what, row["contender"], time, f"{row['times_faster']:.2f}", _megabytes(row["extra_bytes"])])
    return table(["", "", "time", "times faster than published", "extra memory"], lines)


def _median(row: dict[str, Any]) -> float:
    return float("inf") if row["seconds"] is None else float(row["seconds"]["median"])


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} MB"
