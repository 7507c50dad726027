"""The whole run on the CPU: gate, timing, roofline, small call, scaling and memory, as one JSON-ready record."""

from __future__ import annotations

import itertools
import math
import statistics
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from tqdm import tqdm

import gkm_ops
from benchmarks import environment, roofline, worker
from benchmarks.contenders import Contender, contenders
from benchmarks.problem import SEED, TOLERANCES
from benchmarks.timing import Record, Spread, ratio, take_turns
from benchmarks.worker import Setting, Worker

FUSED = "forward/fused/gkm_blur"
_SMALL = (8, 8)
_TINY = (24, 24)
_SCALING_TURNS = 3


class GateError(Exception):
    """A contender's results are too far from float64: no speed is worth printing."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        sizes: (height, width) of the images that all contenders run on.
        scaling_sizes: those that the fastest of each family run on, for time against size.
        threads: of every contender, except where one thread is measured.
        rounds: of interleaved turns.
        keys: the contenders that take part; `FUSED` always does.
    """

    sizes: tuple[tuple[int, int], ...]
    scaling_sizes: tuple[tuple[int, int], ...]
    threads: int
    rounds: int
    keys: tuple[str, ...]


def run(plan: Plan) -> dict[str, Any]:
    """Run everything in turn.

    Raises:
        GateError: some contender is not right.
    """
    known = contenders()
    field = [known[key] for key in plan.keys]
    record: dict[str, Any] = {
        "environment": environment.describe(),
        "plan": {**asdict(plan), "seed": SEED, "tolerances": {str(k): v for k, v in TOLERANCES.items()}},
    }
    settings = [Setting(plan.threads, allocator) for allocator in worker.ALLOCATORS]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(setting)) for setting in settings]
        record["timings"] = [row for size in plan.sizes for row in _timings(field, workers, size, plan.rounds)]
    record["scaling"] = _scaling(record["timings"], plan)
    record["roofline"] = _rooflines(plan)
    with Worker(Setting(plan.threads, "tuned")) as tuned:
        record["small_call"] = {"size": _SMALL, **asdict(Spread.of(tuned.call(worker.small_call, _SMALL)))}
    record["memory"] = _memory(field, plan)
    record["copy_bytes_per_s"] = roofline.copy_bandwidth(plan.threads)
    return record


def _timings(field: list[Contender], workers: list[Worker], size: tuple[int, int], rounds: int) -> list[dict[str, Any]]:
    """Gate, then time, every contender under every allocator; one row for each pair."""
    entries = {f"{c.key} {w.setting.allocator}": (c, w) for c in field for w in workers}
    gates = {}
    for name, (contender, process) in _bar(entries.items(), f"gate {_text(size)}"):
        gates[name] = process.call(worker.prepare, contender.key, size)
    _refuse_wrong({name: (entries[name][0], difference) for name, (_, difference) in gates.items()})

    turns = {name: partial(w.call, worker.turn, c.key, size) for name, (c, w) in entries.items()}
    rivals = {name: f"{c.job}/{c.family}/{c.dtype}" for name, (c, _) in entries.items()}
    with tqdm(total=rounds * len(turns), desc=f"time {_text(size)}") as progress:
        records = take_turns(turns, rivals, rounds, progress)
    for process in workers:
        process.call(worker.release)
    fused = [c for c in field if c.family == "fused" and c.dtype == torch.float32]
    base = {c.job: _fastest_medians([records[f"{c.key} {a}"] for a in worker.ALLOCATORS]) for c in fused}
    return [
        {
            "key": contender.key,
            "job": contender.job,
            "family": contender.family,
            "name": contender.name,
            "dtype": str(contender.dtype).removeprefix("torch."),
            "size": size,
            "allocator": process.setting.allocator,
            "threads": process.setting.threads,
            "seconds": asdict(Spread.of(records[name].calls)),
            "rounds": records[name].medians,
            "times_fused": ratio(records[name].medians, base[contender.job]) if contender.job in base else None,
            "first_call_s": gates[name][0],
            "difference": gates[name][1],
        }
        for name, (contender, process) in entries.items()
    ]


def _fastest_medians(records: list[Record]) -> list[float]:
    return min(records, key=lambda record: record.median).medians


def _rooflines(plan: Plan) -> list[dict[str, Any]]:
    """The forward pass between two looks at the peak: all threads and one, each instruction set."""
    best = gkm_ops.build_info()["instruction_set"]
    features = gkm_ops.build_info()["instruction_sets"]
    settings = [Setting(plan.threads, "tuned", best)]
    if plan.threads > 1:
        settings.append(Setting(1, "tuned", best))
    settings += [Setting(plan.threads, "tuned", name) for name in features[features.index(best) + 1 :]]
    rows = []
    for setting in _bar(settings, "roofline"):
        with Worker(setting) as process:
            for size in plan.sizes:
                _, difference = process.call(worker.prepare, FUSED, size)
                _refuse_wrong({f"{FUSED} {setting.instruction_set}": (contenders()[FUSED], difference)})
                turns = [process.call(worker.roofline_turn, FUSED, size) for _ in range(plan.rounds)]
                work = roofline.useful_work(size)
                shares = [work / statistics.median(seconds) / peak for seconds, peak in turns]
                rows.append(
                    {
                        "size": size,
                        "threads": setting.threads,
                        "instruction_set": setting.instruction_set,
                        "peak_per_s": asdict(Spread.of([peak for _, peak in turns])),
                        "seconds": asdict(Spread.of([s for seconds, _ in turns for s in seconds])),
                        "share": asdict(Spread.of(shares)),
                        "best_share": max(shares),
                        "difference": difference,
                    }
                )
                process.call(worker.release)
    return rows


def _scaling(timings: list[dict[str, Any]], plan: Plan) -> list[dict[str, Any]]:
    """Time against size of the fastest forward pass of each family that needs no compiling for a size.

    Each alone and in a process of its own, so that none lacks the memory that another holds: an image too large for a
    formulation ends that process alone, and stands in the record as a row without a time.
    """
    forward = [t for t in timings if t["job"] == "forward" and t["dtype"] == "float32" and t["family"] != "compiled"]
    fastest = {}
    for timing in sorted(forward, key=lambda t: (t["size"], -t["seconds"]["median"])):
        fastest[timing["family"]] = timing
    rows = []
    for size, (family, timing) in _bar(list(itertools.product(plan.scaling_sizes, fastest.items())), "scaling"):
        key, seconds = timing["key"], None
        with Worker(Setting(plan.threads, timing["allocator"])) as process:
            try:
                _, difference = process.call(worker.prepare, key, size)
                _refuse_wrong({key: (contenders()[key], difference)})
                turns = [process.call(worker.turn, key, size) for _ in range(_SCALING_TURNS)]
                seconds = asdict(Spread.of(list(itertools.chain(*turns))))
            except BrokenProcessPool:
                pass
        rows.append({"key": key, "family": family, "size": size, "seconds": seconds})
    return rows


def _memory(field: list[Contender], plan: Plan) -> list[dict[str, Any]]:
    """The peak of each contender's first call at the largest size, each in a fresh process."""
    size = max(plan.sizes, key=math.prod)
    rows = []
    for contender in _bar(field, f"memory {_text(size)}"):
        with Worker(Setting(plan.threads, "stock")) as process:
            extra = process.call(worker.extra_memory, contender.key, size, _TINY)
        rows.append({"key": contender.key, "size": size, "extra_bytes": extra})
    return rows


def _refuse_wrong(differences: dict[str, tuple[Contender, float]]) -> None:
    wrong = {
        name: difference
        for name, (contender, difference) in differences.items()
        if not difference <= TOLERANCES[contender.dtype]
    }
    if wrong:
        lines = [f"  {name}: {difference:.2e}" for name, difference in wrong.items()]
        raise GateError("differs from float64 by more than is allowed, so nothing was timed:\n" + "\n".join(lines))


def _bar(items: Any, label: str) -> tqdm[Any]:
    return tqdm(items, desc=label, total=len(items))


def _text(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
