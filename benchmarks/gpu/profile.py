"""What the CUDA kernels wait for, by Nsight Compute where it is: ``python -m benchmarks.gpu.profile``.

Every op is profiled once at 1680x1120 in each precision, by every kind of kernels in question, and what was counted
written as JSON and a table.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import suite
from benchmarks.gpu.precision import PRECISIONS, using
from benchmarks.output import write
from benchmarks.report import table

Counters = dict[str, Any]
_SECTIONS = ("SpeedOfLight", "ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "SchedulerStats", "WarpStateStats",
             "InstructionStats", "LaunchStats", "Occupancy")  # fmt: skip
_CASE = suite.Case((1120, 1680))
_FORBIDDEN = "ERR_NVGPUCTRPERM"  # a machine's owner decides who may count
# The counters that are told, by their names in Nsight Compute.
_TOLD = {
    "gpu__time_duration.sum": "time",
    "smsp__inst_executed.avg": "instructions of a scheduler",
    "smsp__issue_active.avg.per_cycle_active": "issued a cycle",
    "smsp__warps_active.avg.per_cycle_active": "warps of a scheduler",
    "l1tex__t_sector_hit_rate.pct": "first cache's hits, %",
}
_STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
_MOST_STALLS = 4  # are told
# Kernels that are profiled: those that serve by themselves, and those that no measurement has chosen or refused yet.
_PROFILED = (", cuda", ", cuda tailored")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.profile", description=__doc__.partition(": ")[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark/profile"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--calls", action="store_true", help="make the calls to be profiled, and nothing else")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("torch finds no GPU here")
    device = torch.device("cuda")
    if options.calls:
        make_calls(device)
        return 0
    ncu = shutil.which("ncu")
    if ncu is None:
        print("nothing is profiled: there is no ncu")
        return 0
    done = subprocess.run(command(ncu), capture_output=True, text=True, check=False)
    if _FORBIDDEN in done.stdout + done.stderr:
        print(f"nothing is profiled: ncu may not count here ({_FORBIDDEN})")
        return 0
    kernels = parsed(done.stdout)
    if done.returncode != 0 or not kernels:
        print(done.stdout[-2000:] + done.stderr[-2000:], file=sys.stderr)
        return 1
    record: dict[str, Any] = {"environment": suite.machine(device), "case": str(_CASE), "kernels": kernels}
    gpu = record["environment"]["gpu"]
    told = f"# Profile of the CUDA kernels\n\n{gpu}, {_CASE}.\n\n{tables(kernels)}\n"
    print(told)
    write(record, gpu, told, options.out)
    return 0


def command(ncu: str) -> list[str]:
    """Profiles what `make_calls` marks; clocks are left as they are in use."""
    sections = [argument for name in _SECTIONS for argument in ("--section", name)]
    how = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", "--profile-from-start", "off"]
    return [ncu, *how, *sections, sys.executable, "-m", "benchmarks.gpu.profile", "--calls"]


def make_calls(device: torch.device) -> None:
    """Call each op by the CUDA kernels, once to warm up and once marked."""
    for precision in PRECISIONS:
        problem = next(suite.problems(_CASE, precision, device))
        for contender in suite.field(_CASE, precision, device):
            if contender.job == "training" or not contender.name.endswith(_PROFILED):
                continue
            with using(precision):
                call = contender.prepare(problem, 1)
                call()
                torch.cuda.synchronize(device)
                torch.cuda.profiler.start()
                call()
                torch.cuda.synchronize(device)
                torch.cuda.profiler.stop()


def parsed(output: str) -> list[Counters]:
    """The kernels of Nsight Compute's raw page as CSV, which may stand among other lines, with what it counted."""
    lines = [line for line in output.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))[1:]  # the first has the units
    return [{"kernel": row["Kernel Name"], **_numbers(row)} for row in rows]


def _numbers(row: dict[str, str]) -> Counters:
    numbers = {}
    for name, text in row.items():
        try:
            numbers[name] = float(text.replace(",", ""))
        except (ValueError, AttributeError):
            continue
    return numbers


def tables(kernels: list[Counters]) -> str:
    """Times, instructions, and what warps wait for most."""
    lines = []
    for kernel in kernels:
        told = [_told(name, kernel.get(name)) for name in _TOLD]
        stalls = {match[1]: number for name, number in kernel.items() if (match := _STALL.fullmatch(name))}
        total = sum(stalls.values())
        most = sorted(stalls, key=lambda name: -stalls[name])[:_MOST_STALLS]
        waits = ", ".join(f"{name.replace('_', ' ')} {100 * stalls[name] / total:.0f} %" for name in most)
        lines.append([kernel["kernel"], *told, waits])
    return table(["kernel", *_TOLD.values(), "a warp's time"], lines)


def _told(name: str, number: float | None) -> str:
    if number is None:
        return ""
    return f"{number / 1e3:.1f} us" if name == "gpu__time_duration.sum" else f"{number:.3g}"


if __name__ == "__main__":
    raise SystemExit(main())
