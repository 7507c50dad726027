"""The tables as Markdown and CSV, the supplement's own figures beside ours."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any

from benchmarks.paper.supplement import MODEL_NAMES, TABLE_1, TABLE_2
from benchmarks.paper.table1 import means
from benchmarks.report import pixels, table

Record = dict[str, Any]


def full(record: Record) -> str:
    """Everything that a record holds, as Markdown."""
    parts = []
    if "table1" in record:
        parts.append(f"## Table 1: synthesis of a defocused photo from the sharp one\n\n{synthesis(record['table1'])}")
    if "table2" in record:
        parts.append(f"## Table 2: cost\n\n{cost(record['table2'], record['environment'])}")
    return "\n".join(parts)


def synthesis(rows: list[Record]) -> str:
    """Mean PSNR and SSIM of each set; the supplement's column is the mean over a set that cannot be had, RTF's."""
    averages = means(rows)
    sets = list(dict.fromkeys(row["set"] for row in rows))
    text = ""
    for window in dict.fromkeys(row["window"] for row in rows):
        shared = "Parameters of each pixel's own" if window == 1 else f"Parameters shared by {window} x {window} pixels"
        heading = ["model", *(f"{name} ({_pairs(rows, name)} pairs)" for name in sets)]
        if window == 1:
            heading.append("supplement (RTF)")
        lines = []
        for model, name in MODEL_NAMES.items():
            cells = [_score(*averages[one, window, model]) for one in sets]
            if window == 1:
                cells.append(_score(*TABLE_1[model]))
            lines.append([name, *cells])
        text += f"{shared}: PSNR in dB, SSIM.\n\n{table(heading, lines)}\n\n"
    return text


def cost(record: Record, environment: Record) -> str:
    """Parameters, FLOPs and seconds of each network, with the dense bank and with the fused ops."""
    heading = ["", "parameters, M", "GMAC, modules", "GFLOP, dense", "GFLOP, fused", "s, dense", "s, fused"]
    heading.append("dense / fused")
    heading += ["supplement: parameters, M", "GFLOPs", "s"]
    lines = []
    for row in record["rows"]:
        dense, fused = (statistics.median(row["seconds"][kind]) for kind in ("dense", "fused"))
        printed = TABLE_2[row["cg_steps"]]
        flops = [f"{sum(row['flops'][kind].values()) / 1e9:.0f}" for kind in ("dense", "fused")]
        modules = row["flops"]["fused"]["aten.convolution"] / 2e9
        cells = [_name(row), f"{row['parameters'] / 1e6:.2f}", f"{modules:.0f}", *flops, f"{dense:.2f}", f"{fused:.2f}"]
        cells += [f"{dense / fused:.1f}", f"{printed.parameters}", f"{printed.gflops}", f"{printed.seconds}"]
        lines.append(cells)
    processor = f"{environment['cpu']}, {environment['gkm_ops']['threads']} threads"
    where = processor if record["device"] == "cpu" else record["device"]
    return (
        f"{table(heading, lines)}\n\n"
        "GMAC: multiply-adds of the convolutions with trained weights alone, as the supplement counts GKMNet's; GFLOP: "
        "of everything, two a multiply-add. "
        f"Both of one image of {pixels(record['counted_size'])}; seconds of one of "
        f"{pixels(record['size'])} on {where}.\n\n"
        f"{_conclusion(record['rows'])}\n"
    )


def _conclusion(rows: list[Record]) -> str:
    """How many times GKMNet's time the HQS + CG networks take, in each formulation and in the supplement."""
    (net,) = [row for row in rows if row["cg_steps"] is None]
    solvers = [row for row in rows if row["cg_steps"] is not None]
    heading = ["times GKMNet's time", *(f"P = {row['cg_steps']}" for row in solvers)]
    lines = []
    for kind in ("dense", "fused"):
        own = statistics.median(net["seconds"][kind])
        lines.append([kind, *(f"{statistics.median(row['seconds'][kind]) / own:.1f}" for row in solvers)])
    printed = (TABLE_2[row["cg_steps"]].seconds / TABLE_2[None].seconds for row in solvers)
    lines.append(["supplement", *(f"{ratio:.1f}" for ratio in printed)])
    return table(heading, lines)


def as_csv(record: Record) -> dict[str, str]:
    """The rows of each table, by file name."""
    files = {}
    if "table1" in record:
        files["table1.csv"] = _csv(record["table1"])
    if "table2" in record:
        rows = [
            {
                "network": _name(row),
                "parameters": row["parameters"],
                **{f"flops_{kind}": sum(row["flops"][kind].values()) for kind in ("dense", "fused")},
                **{f"seconds_{kind}": statistics.median(row["seconds"][kind]) for kind in ("dense", "fused")},
                **{f"supplement_{key}": value for key, value in TABLE_2[row["cg_steps"]]._asdict().items()},
            }
            for row in record["table2"]["rows"]
        ]
        files["table2.csv"] = _csv(rows)
    return files


def _csv(rows: list[Record]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _name(row: Record) -> str:
    return "GKMNet" if row["cg_steps"] is None else f"HQS + CG (P = {row['cg_steps']})"


def _pairs(rows: list[Record], source: str) -> int:
    return len({row["name"] for row in rows if row["set"] == source})


def _score(psnr: float, ssim: float) -> str:
    return f"{psnr:.2f} / {ssim:.3f}"
