"""Interleaved timing: contenders take turns, so that whatever the machine does to one it does to all.

A ratio of two contenders is the median of the ratios within rounds, which a drifting clock leaves alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tqdm import tqdm

# Who is this many times slower than the fastest rival after the first round is not timed again; who has had
# this much time has had enough, if it took part in so many rounds.
_HOPELESS = 3.0
_BUDGET_S = 4.0
_FEWEST_ROUNDS = 3


@dataclass
class Record:
    """The calls of one contender: per round, the seconds of each."""

    rounds: list[list[float]] = field(default_factory=list)

    @property
    def calls(self) -> list[float]:
        return [seconds for samples in self.rounds for seconds in samples]

    @property
    def median(self) -> float:
        return statistics.median(self.calls)

    @property
    def medians(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(samples) for samples in self.rounds]


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))


def take_turns(
    turns: Mapping[str, Callable[[], list[float]]], rivals: Mapping[str, str], rounds: int, progress: tqdm[None]
) -> dict[str, Record]:
    """Give every contender a turn in each round, until a slow one has had its say.

    Args:
        turns: by name, a function that makes a few calls and returns the seconds of each.
        rivals: by name, the group of which only the fastest matters.
        rounds: how many at most.
        progress: a bar of ``rounds * len(turns)`` steps.
    """
    records = {name: Record() for name in turns}
    for number in range(rounds):
        fastest: dict[str, float] = {}
        for name, record in records.items():
            if record.rounds:
                fastest[rivals[name]] = min(record.median, fastest.get(rivals[name], math.inf))
        for name, turn in turns.items():
            record = records[name]
            hopeless = number > 0 and record.median > _HOPELESS * fastest[rivals[name]]
            spent = number >= _FEWEST_ROUNDS and sum(record.calls) > _BUDGET_S
            if not (hopeless or spent):
                record.rounds.append(turn())
            progress.update()
    return records


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times faster: the median over the rounds that both took part in."""
    return statistics.median(s / f for s, f in zip(slow, fast, strict=False))
