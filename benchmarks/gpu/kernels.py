"""Every kind of CUDA kernels by itself, and versions of them side by side: ``python -m benchmarks.gpu.kernels``.

The sources are compiled into a program that times them without torch (kernels.cu), so that a version takes a minute or
two and is not installed. Several folders of sources, say of another commit's worktree, take turns:

    python -m benchmarks.gpu.kernels --sources csrc/cuda ../before/csrc/cuda

Without a GPU the programs are made, for the compute capability that is asked for, and kept for a machine that has one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import suite, units
from benchmarks.output import write
from benchmarks.report import table

PROGRAM = Path(__file__).with_suffix(".cu")
_FOR_THE_BINDING = "facts.cu"
_UNASKED = "generic"  # what all are compared with
# Of the largest result, by how numbers are multiplied.
_MOST_DIFFERENCE = {"float32": 1e-5, "one product": 1e-2, "bfloat16": 2e-2}

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.kernels", description=__doc__.partition(": ")[0])
    parser.add_argument(
        "--sources", type=Path, nargs="+", default=[units.KERNELS], metavar="FOLDER", help="versions of csrc/cuda"
    )
    parser.add_argument("--capability", metavar="X.Y", help="default: that of the GPU which is here")
    parser.add_argument(
        "--build", type=Path, default=Path("out/kernels"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/benchmark/kernels"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="of every program, by turns; default: %(default)s"
    )
    options = parser.parse_args(arguments)
    there = torch.cuda.is_available()
    nvcc = units.find_nvcc()
    if nvcc is None:
        parser.error("there is no nvcc")
    if options.capability is None and not there:
        parser.error("there is no GPU whose --capability is known")
    capability = options.capability or "{}.{}".format(*torch.cuda.get_device_capability())
    if not re.fullmatch(r"\d+\.\d+", capability):
        parser.error(f"--capability: got {capability}, wanted two numbers as in 9.0")
    for folder in options.sources:
        if not (folder / "form.h").is_file():
            parser.error(f"--sources: {folder} is no csrc/cuda: it has no form.h")
    programs = [build(nvcc, of, capability, options.build / str(i)) for i, of in enumerate(options.sources)]
    if not there:
        print(f"made, and not run, as there is no GPU: {', '.join(map(str, programs))}")
        return 0
    rounds = [
        [run(program, of) for program, of in zip(programs, options.sources, strict=True)] for _ in range(options.rounds)
    ]
    versions = [medians([turn[i] for turn in rounds]) for i in range(len(programs))]
    record = {
        "environment": suite.machine(torch.device("cuda")),
        "rounds": options.rounds,
        "versions": [{"sources": str(of), "rows": rows} for of, rows in zip(options.sources, versions, strict=True)],
    }
    gpu = record["environment"]["gpu"]
    told = f"# The kinds of CUDA kernels\n\n{gpu}, microseconds.\n\n{tables(record['versions'])}\n"
    print(told)
    write(record, gpu, told, options.out)
    wrong = [row for rows in versions for row in rows if row["microseconds"] is None]
    return 1 if wrong else 0


def build(nvcc: str, sources: Path, capability: str, folder: Path) -> Path:
    """The program for a version of the kernels, each source compiled by itself, several at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    major, minor = map(int, capability.split("."))
    flags = units.flags((major, minor))

    def compile_one(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        subprocess.run([nvcc, *flags, "-I", sources, "-c", source, "-o", target], check=True)
        return target

    named = [source for source in sorted(sources.glob("*.cu")) if source.name != _FOR_THE_BINDING]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, [*named, PROGRAM]))
    program = folder / "time"
    subprocess.run([nvcc, *flags, *objects, "-o", program], check=True)
    return program


def kinds(sources: Path) -> dict[str, int]:
    """The kinds of kernels that a version has, by the numbers that it knows them by."""
    found = re.search(r"enum class Kernels[^{]*\{([^}]*)\}", (sources / "form.h").read_text())
    if found is None:
        raise ValueError(f"{sources / 'form.h'} does not say what kinds of kernels there are")
    names = [name.strip() for name in found[1].split(",")]
    return {name: number for number, name in enumerate(names) if name != _UNASKED}


def run(program: Path, sources: Path) -> list[Row]:
    asked = [f"{name}={number}" for name, number in kinds(sources).items()]
    done = subprocess.run([program, *asked], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{program}: {done.stderr.strip() or f'exit {done.returncode}'}")
    rows: list[Row] = json.loads(done.stdout)
    return rows


def medians(rounds: list[list[Row]]) -> list[Row]:
    """The rows of a version; who gives wrong results has no time."""
    rows = []
    for turns in zip(*rounds, strict=True):
        time = statistics.median(row["microseconds"] for row in turns)
        right = all(row["difference"] <= _MOST_DIFFERENCE[row["way"]] for row in turns)
        rows.append(
            {**turns[0], "difference": max(row["difference"] for row in turns), "microseconds": time if right else None}
        )
    return rows


def tables(versions: list[dict[str, Any]]) -> str:
    """A line for each size, op and way, with a column for every kind and version."""
    met = [(i, row["kernels"]) for i, version in enumerate(versions) for row in version["rows"]]
    of_kinds = list(dict.fromkeys(kind for _, kind in met))
    columns = sorted(set(met), key=lambda column: (of_kinds.index(column[1]), column[0]))
    lines: dict[tuple[Any, ...], dict[tuple[int, str], str]] = {}
    for i, version in enumerate(versions):
        for row in version["rows"]:
            place = (f"{row['width']}x{row['height']}, batch {row['batch']}", row["op"], row["way"])
            time = row["microseconds"]
            lines.setdefault(place, {})[i, row["kernels"]] = "wrong" if time is None else f"{time:.1f}"
    several = len(versions) > 1
    head = [f"{kind} of {versions[i]['sources']}" if several else kind for i, kind in columns]
    cells = [[*place, *(found.get(column, "") for column in columns)] for place, found in lines.items()]
    return table(["size", "op", "in", *head], cells)


if __name__ == "__main__":
    raise SystemExit(main())
