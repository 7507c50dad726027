"""The whole run: for each case gate, time and memory, as one JSON-ready record."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from benchmarks import environment
from benchmarks.network import tasks
from benchmarks.network.cases import CONTENDERS, LEARNING_RATE, PUBLISHED, SEED, Case
from benchmarks.report import pixels
from benchmarks.suite import GateError
from benchmarks.timing import Spread, ratio, take_turns
from benchmarks.worker import Setting, Worker

# The largest differences allowed in estimates and in gradients. Under autocast a backward pass through batch
# norms has few right bits left in its small gradients: the published formulation's own are 0.4 off.
TOLERANCES = {"float32": (1e-4, 1e-2), "bfloat16": (2e-2, 1.0)}


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        cases: in turn.
        contenders: by name; the published formulation in float32 always is the first.
        threads: of every contender.
        rounds: of interleaved turns.
    """

    cases: tuple[Case, ...]
    contenders: tuple[str, ...]
    threads: int
    rounds: int


class _Returning(Setting):
    """Every block of a megabyte or more goes back to the system when it is freed."""

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def run(plan: Plan) -> dict[str, Any]:
    """Run everything in turn, all contenders under the same allocator settings.

    Time is taken where freed memory is kept and used again: a page fault costs what the machine's other tenants
    make it cost. Memory is taken where freed memory goes back at once: what counts is what was in use.

    Raises:
        GateError: some contender is not right.
    """
    record: dict[str, Any] = {
        "environment": environment.describe(),
        "plan": {**asdict(plan), "seed": SEED, "learning_rate": LEARNING_RATE, "tolerances": TOLERANCES},
    }
    with Worker(Setting(plan.threads, "tuned")) as process:
        record["rows"] = [row for case in plan.cases for row in _rows(process, case, plan)]
    return record


def label(case: Case) -> str:
    """What a case is called in tables: ``inference v2, 512x512``."""
    batch = f", batch {case.batch}" if case.batch > 1 else ""
    return f"{case.job} {case.release}, {pixels(case.size)}{batch}"


def _rows(process: Worker, case: Case, plan: Plan) -> list[dict[str, Any]]:
    """One row for each contender, the published formulation first."""
    names = plan.contenders
    first_calls = {
        name: process.call(tasks.first_call, name, case) for name in tqdm(names, desc=f"gate: {label(case)}")
    }
    _refuse_wrong(first_calls)
    turns = {name: partial(process.call, tasks.turn, name, case) for name in names}
    with tqdm(total=plan.rounds * len(names), desc=f"time: {label(case)}") as progress:
        # Each its own rival: none is given up on for being slow.
        records = take_turns(turns, {name: name for name in names}, plan.rounds, progress)
    process.call(tasks.release)
    memory = {name: _extra_memory(name, case, plan.threads) for name in tqdm(names, desc=f"memory: {label(case)}")}
    published = PUBLISHED.name
    return [
        {
            "case": asdict(case),
            "contender": name,
            "seconds": asdict(Spread.of(records[name].calls)),
            "rounds": records[name].medians,
            "times_faster": ratio(records[published].medians, records[name].medians),
            "extra_bytes": memory[name],
            "share_of_memory": memory[name] / memory[published],
            "first_call": asdict(first_calls[name]),
        }
        for name in names
    ]


def _extra_memory(name: str, case: Case, threads: int) -> int:
    with Worker(_Returning(threads)) as process:
        return process.call(tasks.extra_memory, name, case)


def _refuse_wrong(first_calls: dict[str, tasks.FirstCall]) -> None:
    wrong = []
    for name, call in first_calls.items():
        estimates, gradients = TOLERANCES["bfloat16" if CONTENDERS[name].bfloat16 else "float32"]
        if not (call.estimates <= estimates and call.gradients <= gradients):
            wrong.append(f"  {name}: estimates {call.estimates:.2e}, gradients {call.gradients:.2e}")
    if wrong:
        raise GateError(
            "differs from the published formulation by more than is allowed, so nothing was timed:\n" + "\n".join(wrong)
        )
