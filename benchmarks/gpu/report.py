"""The record of a GPU run as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.outcomes import OUT_OF_TIME
from benchmarks.gpu.precision import PRECISIONS
from benchmarks.gpu.suite import floor_bytes
from benchmarks.network.cases import PUBLISHED
from benchmarks.report import table

Record = dict[str, Any]
_JOBS = {
    "forward": "forward",
    "training": "forward + backward to the image and the maps",
    "adjoint": "adjoint",
    "correlate": "correlate",
}
# What to reach on a GPU of the H200's class, at 1680x1120: at most so many times the memory floor.
_MOST_TIMES_FLOOR = {("forward", "float32"): 2.0, ("forward", "bfloat16"): 2.0, ("training", "float32"): 2.5}
_LEAST_TIMES_FASTER = {"eager": 30.0, "compiled": 8.0}
# Of the host's time, for a call of a registered op by the best backend.
_MOST_HOST_S = 10e-6
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
    if record.get("launches"):
        parts += ["## Launches, 64x64, float32", _launches(record)]
    if record.get("sums"):
        size = record["plan"]["sums"]
        parts += [f"## Gradients by mix and taps, and the closed form, {size[1]}x{size[0]}", _sums(record["sums"])]
    if "units" in record:
        parts += ["## Arithmetic units", _units(record["units"])]
    parts += ["## GKMNet", _network(record)]
    if left_out:
        parts += [f"## Not measured\n\nThere was no more time for {len(left_out)} of {len(record['ops'])} rows:"]
        parts += ["\n".join(f"- {row}" for row in left_out)]
    return "\n\n".join(parts) + "\n"


def short(record: Record) -> str:
    """The targets, who was fastest, and the network, for the README."""
    return "\n\n".join([machine(record), targets(record), fastest(record), _network(record)])


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
    if best is None or _is_left_out(record, job, precision, family):
        return ""
    return f"{_time(best)} ({best['name']})"


def _is_left_out(record: Record, job: str, precision: str, family: str) -> bool:
    """Whether there was no time for somebody of a family, who may have been the fastest."""
    return any(
        _is(row, _PHOTO, 1, job) and (row["precision"], row["family"], row["error"]) == (precision, family, OUT_OF_TIME)
        for row in record["ops"]
    )


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
    """Each aim and what was reached, where it was measured."""
    return table(["", "wanted", "reached", ""], [*_photo_targets(record), *_backend_targets(record)])


def _photo_targets(record: Record) -> Iterator[list[str]]:
    """Those at 1680x1120."""
    for (job, precision), most in _MOST_TIMES_FLOOR.items():
        ours = _best(record, job, precision, "fused")
        if ours is not None:
            times = ours["seconds"]["median"] / _floor(record, ours)
            title = f"1680x1120: {_JOBS[job]}, {precision}, times the memory floor"
            yield [title, f"at most {most}", f"{times:.2f}", _verdict(times <= most)]
    for family, least in _LEAST_TIMES_FASTER.items():
        ours = _best(record, "training", "float32", "fused")
        theirs = _best(record, "training", "float32", family)
        if ours is not None and theirs is not None:
            times = theirs["seconds"]["median"] / ours["seconds"]["median"]
            title = f"1680x1120: {_JOBS['training']}, float32, times faster than the best {family}"
            if _is_left_out(record, "training", "float32", family):
                yield [title, f"at least {least}", "", "not known"]
            else:
                yield [f"{title} ({theirs['name']})", f"at least {least}", f"{times:.1f}", _verdict(times >= least)]


def _backend_targets(record: Record) -> Iterator[list[str]]:
    """Those at all sizes."""
    times, row, count = _cuda_against_triton(record)
    if row is not None:
        where = f"{_JOBS[row['job']]}, {row['precision']}, {row['case']['size'][1]}x{row['case']['size'][0]}"
        title = f"cuda, times the time of triton, at its worst of {count} ({where})"
        yield [title, "at most 1.00", f"{times:.2f}", _verdict(times <= 1)]
    rows = record.get("launches", [])
    best = [row for row in rows if row["backend"] == rows[0]["backend"] and row["host_s"] is not None]
    if best:
        dearest = max(best, key=lambda row: float(row["host_s"]))
        call = f"{dearest['name']} by {dearest['backend']}"
        title = f"64x64: the host's time for a call without gradients, at worst ({call})"
        reached = f"{1e6 * dearest['host_s']:.1f} us"
        yield [title, f"at most {1e6 * _MOST_HOST_S:.0f} us", reached, _verdict(dearest["host_s"] <= _MOST_HOST_S)]
    if record["device"] == "cuda" and rows:
        recorded = sum(row["graph_s"] is not None for row in rows)
        title = "ops of all backends recorded in CUDA graphs, replayed to the same bits"
        yield [title, f"{len(rows)} of {len(rows)}", f"{recorded} of {len(rows)}", _verdict(recorded == len(rows))]


def _cuda_against_triton(record: Record) -> tuple[float, dict[str, Any] | None, int]:
    """The largest ratio of both backends' times, the row that it is of, and the number of rows compared."""

    def key(row: dict[str, Any]) -> tuple[Any, ...]:
        return (*row["case"]["size"], row["case"]["batch"], row["precision"], row["job"])

    fused = [row for row in record["ops"] if row["family"] == "fused" and row["seconds"]]
    triton = {key(row): _median(row) for row in fused if row["name"].endswith(", triton")}
    cuda = [row for row in fused if row["name"].endswith(", cuda") and key(row) in triton]
    ratios = [(_median(row) / triton[key(row)], row) for row in cuda]
    worst, row = max(ratios, key=lambda pair: pair[0], default=(0.0, None))
    return worst, row, len(ratios)


def _verdict(met: bool) -> str:
    return "met" if met else "not met"


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


def _launches(record: Record) -> str:
    def microseconds(seconds: float | None) -> str:
        return "" if seconds is None else f"{1e6 * seconds:.1f} us"

    lines = []
    for row in record["launches"]:
        graph = row["error"] or microseconds(row["graph_s"])
        lines.append([row["backend"], row["name"], microseconds(row["host_s"]), microseconds(row["device_s"]), graph])
    return table(["backend", "call", "host", "in a row on the device", "in a CUDA graph"], lines)


def _sums(rows: list[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        time = _time(row) if row["seconds"] else row["error"]
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        lines.append([row["name"], row["precision"], row["backend"], time, difference])
    return table(["", "precision", "backend", "time", "largest difference"], lines)


def _units(units: dict[str, Any]) -> str:
    if units["error"] is not None:
        return f"Not measured: {units['error']}."
    lines = [
        [
            row["name"],
            str(row["warps"]),
            f"{row['multiply_adds_per_s'] / 1e12:.1f} T",
            f"{row['multiply_adds_per_cycle']:.0f}",
        ]
        for row in units["rates"]
    ]
    header = [
        "float32, and products of float16",
        "warps of a multiprocessor",
        "multiply-adds a second",
        "and its cycle",
    ]
    return table(header, lines)


def _network(record: Record) -> str:
    lines = []
    published = {_what(row): row for row in record["network"] if row["contender"] == PUBLISHED.name and row["seconds"]}
    for row in record["network"]:
        line = [_what(row), row["contender"]]
        if row["seconds"] is None:
            lines.append([*line, row["error"], "", ""])
            continue
        theirs = published.get(_what(row))
        faster = "" if theirs is None else f"{_median(theirs) / _median(row):.2f}"
        lines.append([*line, f"{1e3 * _median(row):.3g} ms", faster, _megabytes(row["extra_bytes"])])
    return table(["", "", "time", "times faster than published", "extra memory"], lines)


def _what(row: dict[str, Any]) -> str:
    case = row["case"]
    return f"{case['job']} {case['release']}, {case['size'][1]}x{case['size'][0]}, batch {case['batch']}"


def _median(row: dict[str, Any]) -> float:
    return float("inf") if row["seconds"] is None else float(row["seconds"]["median"])


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.1f} MB"
