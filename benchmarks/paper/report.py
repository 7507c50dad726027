"""The tables as Markdown and CSV, the supplement's own figures beside ours."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from benchmarks.paper.supplement import MODEL_NAMES, TABLE_1, TABLE_2
from benchmarks.paper.table1 import MODELS, NARROW_DISK, means
from benchmarks.report import milliseconds, pixels, table

Record = dict[str, Any]
Records = dict[str, Record]
KINDS = ("dense", "fused")


TITLES = {
    "table1": "Table 1: synthesis of a defocused photo from the sharp one",
    "descent": "Coefficient maps by gradient descent",
    "closed_form": "The closed form's cost",
    "table2": "Table 2: cost of the networks",
    "gradients": "Gradients through the solver and at the solution",
}
CSV_NAMES = {"table1": "table1.csv", "table2": "table2.csv"}
_MODEL_NAMES = MODEL_NAMES | {
    "disk": "Single disk, spread as the Gaussian",
    NARROW_DISK: "Single disk, sigma as radius",
}


def read(folder: Path) -> Records:
    """The records of all parts that a folder holds."""
    paths = ((part, folder / f"{part}.json") for part in TITLES)
    return {part: json.loads(path.read_text()) for part, path in paths if path.exists()}


def full(records: Records) -> str:
    """Everything that there are records of, as Markdown."""
    writers = {
        "table1": synthesis,
        "descent": descent,
        "closed_form": closed_form,
        "table2": cost,
        "gradients": gradients,
    }
    return "\n".join(
        f"## {TITLES[part]}\n\n{writers[part](record)}\n{_where(record)}\n" for part, record in records.items()
    )


def synthesis(record: Record) -> str:
    """Mean PSNR and SSIM of each set; the supplement's column is the mean over a set that cannot be had, RTF's."""
    rows = record["rows"]
    if len({row["set"] for row in rows}) > 1:
        rows = [*rows, *(row | {"set": "all", "name": f"{row['set']}/{row['name']}"} for row in rows)]
    averages = means(rows)
    sets = list(dict.fromkeys(row["set"] for row in rows))
    text = ""
    for window in dict.fromkeys(row["window"] for row in rows):
        shared = "Parameters of each pixel's own" if window == 1 else f"Parameters shared by {window} x {window} pixels"
        heading = ["model", *(f"{name} ({_pairs(rows, name)} pairs)" for name in sets)]
        if window == 1:
            heading.append("supplement (RTF)")
        lines = []
        for model in MODELS:
            cells = [_score(*averages[one, window, model]) for one in sets]
            if window == 1:
                cells.append(_score(*TABLE_1[model]) if model in TABLE_1 else "")
            lines.append([_MODEL_NAMES[model], *cells])
        least = min(_margins(rows, window))
        text += f"{shared}: PSNR in dB / SSIM.\n\n{table(heading, lines)}\n\n"
        text += f"On every single pair GKM is at least {least:.2f} dB better than the best of the others.\n\n"
    return text


def _margins(rows: list[Record], window: int) -> list[float]:
    """By how many dB the mixture leads, pair by pair."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if row["window"] == window:
            scores.setdefault((row["set"], row["name"]), {})[row["model"]] = row["psnr"]
    return [of_pair.pop("gkm") - max(of_pair.values()) for of_pair in scores.values()]


def descent(record: Record) -> str:
    """PSNR on the way, at the end and by the closed form."""
    steps = list(dict.fromkeys(step for row in record["rows"] for step in row["free"]["curve"]))
    heading = ["pair", "coefficients", *(f"{step} steps" for step in steps), f"{record['steps']} steps"]
    heading += ["SSIM", "largest coefficient", "s"]
    lines = []
    for row in record["rows"]:
        for kind, name in (("free", "free"), ("bounded", "within [-1, 1]"), ("closed_form", "closed form")):
            found = row[kind]
            curve = found.get("curve", {})
            cells = [f"{curve[step]:.2f}" if step in curve else "" for step in steps]
            cells += [f"{found['psnr']:.2f}", f"{found['ssim']:.4f}", f"{found['largest']:.2f}"]
            lines.append([f"{row['set']}, {row['name']}", name, *cells, f"{found['seconds']:.1f}"])
    return f"PSNR in dB, parameters of each pixel's own; Adam at learning rate 0.01.\n\n{table(heading, lines)}\n"


def closed_form(record: Record) -> str:
    """Its time and that of the ops beside it."""
    lines = [[name, milliseconds(times)] for name, times in record["seconds"].items()]
    return (
        f"{pixels(record['size'])}, float32, each pixel for itself: {record['times_the_ops']:.2f} times the time of "
        "one gkm_blur and one gkm_correlate, which took turns with it (medians, quartiles in brackets).\n\n"
        f"{table(['', 'time'], lines)}\n"
    )


def gradients(record: Record) -> str:
    """How far apart the two kinds are, and what they keep."""
    differences = [[f"{row['tolerance']:.0e}", f"{row['difference']:.1e}"] for row in record["by_tolerance"]]
    kept = [
        [str(row["steps"]), *(f"{row['images_kept'][kind]:.0f}" for kind in ("unrolled", "implicit"))]
        for row in record["kept"]
    ]
    return (
        f"HQSNet's inner problem on {pixels(record['size'])} in float64; its gradient by the coefficient maps.\n\n"
        f"{table(['tolerance of the solve', 'difference of the two, share of the norm'], differences)}\n\n"
        f"{table(['P', 'unrolled keeps, in images', 'implicit keeps'], kept)}\n"
    )


def cost(record: Record) -> str:
    """Parameters, FLOPs and seconds of each network, with the dense bank and with the fused ops."""
    heading = ["", "parameters, M", "printed", "GMAC by modules", "GFLOP, dense", "GFLOP, fused", "GFLOPs, printed"]
    heading += ["s, dense", "s, fused", "dense / fused", "s, printed"]
    lines = []
    for row in record["rows"]:
        dense, fused = (min(row["seconds"][kind]) for kind in KINDS)
        printed = TABLE_2[row["cg_steps"]]
        flops = [f"{_flops(row, kind) / 1e9:.0f}" for kind in KINDS]
        cells = [_name(row), f"{row['parameters'] / 1e6:.2f}", f"{printed.parameters}"]
        cells += [f"{row['macs_by_modules'] / 1e9:.0f}", *flops, f"{printed.gflops}"]
        cells += [f"{dense:.2f}", f"{fused:.2f}", f"{dense / fused:.1f}", f"{printed.seconds}"]
        lines.append(cells)
    return (
        f"{table(heading, lines)}\n\n"
        "Printed: in the supplement. GMAC by modules: multiply-adds of the convolutions that are modules, every one "
        "for each pixel of its result, as GKMNet's are counted there; GFLOP: of everything, two a multiply-add. Both "
        f"of one image of {pixels(record['counted_size'])}; seconds of one of {pixels(record['size'])}, "
        f"{_how_timed(record)}.\n\n"
        f"{_conclusion(record['rows'])}\n"
    )


def _how_timed(record: Record) -> str:
    rounds = len(record["rows"][0]["seconds"]["fused"])
    return "of a single call" if rounds == 1 else f"the fastest of {rounds} rounds in which all networks took turns"


def _conclusion(rows: list[Record]) -> str:
    """How many times GKMNet's time the HQS + CG networks take, and what a step of their solver costs."""
    (net,) = [row for row in rows if row["cg_steps"] is None]
    solvers = [row for row in rows if row["cg_steps"] is not None]
    steps = [row["cg_steps"] for row in solvers]
    heading = ["HQS + CG", *(f"P = {P}, times GKMNet's time" for P in steps), "GFLOP a step", "ms a step"]
    lines = []
    for kind in KINDS:
        times = [min(row["seconds"][kind]) for row in solvers]
        cells = [f"{seconds / min(net['seconds'][kind]):.1f}" for seconds in times]
        cells.append(_growth(steps, [_flops(row, kind) / 1e9 for row in solvers]))
        lines.append([kind, *cells, _growth(steps, [1e3 * seconds for seconds in times])])
    printed = [TABLE_2[P] for P in steps]
    cells = [f"{one.seconds / TABLE_2[None].seconds:.1f}" for one in printed]
    cells.append(_growth(steps, [one.gflops for one in printed]))
    lines.append(["printed", *cells, _growth(steps, [1e3 * one.seconds for one in printed])])
    return table(heading, lines)


def _growth(steps: list[int], cost: list[float]) -> str:
    """What a step adds to a cost, between the fewest steps and the most."""
    more = steps[-1] - steps[0]
    return f"{(cost[-1] - cost[0]) / more:.1f}" if more else ""


def as_csv(records: Records) -> dict[str, str]:
    """The rows of each table, by file name."""
    files = {}
    if "table1" in records:
        rows = []
        for row in records["table1"]["rows"]:
            # The supplement's means are of parameters of each pixel's own.
            psnr, ssim = TABLE_1.get(row["model"], ("", "")) if row["window"] == 1 else ("", "")
            rows.append(row | {"supplement_mean_psnr": psnr, "supplement_mean_ssim": ssim})
        files[CSV_NAMES["table1"]] = _csv(rows)
    if "table2" in records:
        rows = [
            {
                "network": _name(row),
                "parameters": row["parameters"],
                "macs_by_modules": row["macs_by_modules"],
                **{f"flops_{kind}": _flops(row, kind) for kind in KINDS},
                **{f"seconds_{kind}": min(row["seconds"][kind]) for kind in KINDS},
                **{f"supplement_{key}": value for key, value in TABLE_2[row["cg_steps"]]._asdict().items()},
            }
            for row in records["table2"]["rows"]
        ]
        files[CSV_NAMES["table2"]] = _csv(rows)
    return files


def _csv(rows: list[Record]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _where(record: Record) -> str:
    env = record["environment"]
    processor = f"{env['cpu']}, {_threads(env['gkm_ops']['threads'])}"
    device = record.get("device", "cpu")
    where = processor if device == "cpu" else device
    taken = f"commit {env['commit']}, {env['date'][:10]}; load before the run {env['load']}"
    return f"*{where}, torch {env['torch']}; {taken}.*"


def _threads(count: int) -> str:
    return "1 thread, seconds of its core" if count == 1 else f"{count} threads"


def _flops(row: Record, kind: str) -> int:
    return sum(row["flops"][kind].values())


def _name(row: Record) -> str:
    return "GKMNet" if row["cg_steps"] is None else f"HQS + CG (P = {row['cg_steps']})"


def _pairs(rows: list[Record], source: str) -> int:
    return len({row["name"] for row in rows if row["set"] == source})


def _score(psnr: float, ssim: float) -> str:
    return f"{psnr:.2f} / {ssim:.3f}"
