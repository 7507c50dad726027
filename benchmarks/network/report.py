"""The record of a run as Markdown tables."""

from __future__ import annotations

from typing import Any

from benchmarks.network.cases import INFERENCE, OURS, PUBLISHED, TRAINING, Case
from benchmarks.network.suite import label
from benchmarks.report import milliseconds, table

Record = dict[str, Any]

# By job: at least so many times faster than published, with at most this share of its extra memory.
TARGETS = {INFERENCE: (3.0, 1 / 3), TRAINING: (2.5, 1 / 3)}


def full(record: Record) -> str:
    """Everything that a run found."""
    parts = ["# GKMNet against its published formulation", _machine(record), "## Targets", targets(record)]
    for case in _cases(record):
        parts += [f"## {label(case).capitalize()}", _contenders(record, case)]
    return "\n\n".join(parts) + "\n"


def short(record: Record) -> str:
    """The machine and the targets, for the README."""
    return "\n\n".join([_machine(record), targets(record)])


def targets(record: Record) -> str:
    """Each target beside what was reached, in float32 and without a compiler."""
    rows = []
    for case in _cases(record):
        published, ours = (
            {row["contender"]: row for row in _rows(record, case)}[who.name] for who in (PUBLISHED, OURS)
        )
        times, memory = ours["times_faster"], ours["share_of_memory"]
        faster, share = TARGETS[case.job]
        rows.append([label(case), *(f"{row['seconds']['median']:.2f} s" for row in (published, ours))])
        rows[-1] += [f"{faster}x", f"{times:.2f}x", _verdict(times >= faster)]
        rows[-1] += [f"{100 * share:.0f} %", f"{100 * memory:.0f} %", _verdict(memory <= share)]
    header = ["", PUBLISHED.name, OURS.name, "at least so much faster", "reached", ""]
    return table([*header, "at most this share of the peak memory", "reached", ""], rows)


def _cases(record: Record) -> list[Case]:
    return list(dict.fromkeys(Case(**{**row["case"], "size": tuple(row["case"]["size"])}) for row in record["rows"]))


def _contenders(record: Record, case: Case) -> str:
    return table(
        [
            "",
            "time",
            "times faster than published",
            "extra memory",
            "share of published",
            "first call",
            "difference of estimates",
            "of gradients",
        ],
        [
            [
                row["contender"],
                milliseconds(row["seconds"]),
                f"{row['times_faster']:.2f}",
                f"{row['extra_bytes'] / 1e6:.0f} MB",
                f"{100 * row['share_of_memory']:.0f} %",
                f"{row['first_call']['seconds']:.2g} s",
                f"{row['first_call']['estimates']:.1e}",
                f"{row['first_call']['gradients']:.1e}" if case.job == TRAINING else "",
            ]
            for row in _rows(record, case)
        ],
    )


def _rows(record: Record, case: Case) -> list[Record]:
    return [row for row in record["rows"] if label(Case(**row["case"])) == label(case)]


def _machine(record: Record) -> str:
    env, plan = record["environment"], record["plan"]
    return (
        f"{env['cpu']} ({env['cpu_id']}, {env['cores']} cores, "
        f"{env['gkm_ops'].get('instruction_set', 'no kernels built')}), {plan['threads']} threads, "
        f"torch {env['torch']}; commit {env['commit']}, {env['date'][:10]}; load before the run {env['load']}. "
        f"Weights as initialised, images of uniform noise, seed {plan['seed']}. Times are medians, quartiles in "
        "brackets, under an allocator that keeps freed memory; a ratio is the median of the ratios of rounds in which "
        "all took turns. Memory is how far one call's peak rises above weights, inputs and results, in a process of "
        "its own, under an allocator that hands freed memory back at once. Differences are "
        "to the published formulation in float32, as shares of the norm. A training step is the three estimates, the "
        f"squared error over the scales, its gradients and Adam's step of {plan['learning_rate']}."
    )


def _verdict(met: bool) -> str:
    return "met" if met else "not met"
