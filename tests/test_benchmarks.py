"""The benchmarks' own parts: every contender is right, wrong ones are refused, and reports say what was found."""

from __future__ import annotations

import functools
import json
import math
import statistics
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("tqdm", reason="the benchmarks need the bench extra")

from benchmarks import readme, report, roofline, suite, targets, weights_card, worker
from benchmarks.contenders import Contender, contenders
from benchmarks.memory import peak_above
from benchmarks.problem import TOLERANCES, Exact, exact_windows, largest_difference, make_problem
from benchmarks.timing import Spread, ratio, take_turns

SIZE = (190, 203)  # windows smaller than the image, and no multiple of anything
KNOWN = contenders()
QUICK_TO_START = [key for key, contender in KNOWN.items() if contender.family != "compiled"]
NEEDS_COMPILER = pytest.mark.skipif(roofline.compiler() is None, reason="needs a C++ compiler")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@functools.cache
def exact(job: str, dtype: torch.dtype) -> list[Exact]:
    return exact_windows(make_problem(SIZE, dtype), job)


@pytest.mark.parametrize("key", QUICK_TO_START)
def test_contender_matches_float64(key: str) -> None:
    contender = KNOWN[key]
    results = contender.prepare(make_problem(SIZE, contender.dtype), 2)()
    assert largest_difference(results, exact(contender.job, contender.dtype)) <= TOLERANCES[contender.dtype]


@NEEDS_COMPILER
def test_compiled_contender_matches_float64() -> None:
    contender = KNOWN["forward/compiled/grouped, channels last"]
    problem = make_problem((24, 31))
    results = contender.prepare(problem, 1)()
    assert largest_difference(results, exact_windows(problem, "forward")) <= TOLERANCES[torch.float32]


@pytest.mark.parametrize("job", ["forward", "training", "adjoint", "correlate"])
def test_windows_hold_what_the_whole_image_gives(job: str) -> None:
    problem = make_problem(SIZE)
    double = type(problem)(problem.x.double(), problem.coeffs.double(), problem.cotangent.double(), problem.bank)
    fused = next(c for c in KNOWN.values() if c.job == job and c.family == "fused")
    assert largest_difference(fused.prepare(double, 1)(), exact(job, torch.float32)) < 1e-13


@pytest.mark.parametrize("spoil", [lambda y: y + 1e-4, lambda y: y * math.nan, lambda y: y[..., :-1]])
def test_gate_sees_a_wrong_result(spoil: Any) -> None:
    problem = make_problem((40, 40))
    (right,) = KNOWN[suite.FUSED].prepare(problem, 1)()
    difference = largest_difference((spoil(right),), exact_windows(problem, "forward"))
    contender = Contender("forward", "eager", "wrong", lambda problem, threads: lambda: (right,))
    with pytest.raises(suite.GateError, match="forward/eager/wrong"):
        suite._refuse_wrong({contender.key: (contender, difference)})


def test_gate_sees_what_is_not_finite_between_its_windows() -> None:
    problem = make_problem((400, 400))
    (result,) = KNOWN[suite.FUSED].prepare(problem, 1)()
    exact = exact_windows(problem, "forward")
    assert largest_difference((result,), exact) < TOLERANCES[torch.float32]
    result[0, 0, 50, 200] = math.nan
    assert largest_difference((result,), exact) == math.inf


def test_take_turns_interleaves_and_stops_the_slow_early() -> None:
    order: list[str] = []

    def turn(name: str, seconds: float) -> Any:
        return lambda: [order.append(name), seconds][1:]

    class Progress:
        steps = 0

        def update(self) -> None:
            self.steps += 1

    progress: Any = Progress()
    turns = {"slow": turn("slow", 3.0), "fast": turn("fast", 0.1), "hopeless": turn("hopeless", 0.4)}
    rivals = {"slow": "alone", "fast": "pair", "hopeless": "pair"}
    records = take_turns(turns, rivals, 6, progress)
    assert order[:5] == ["slow", "fast", "hopeless", "slow", "fast"]
    assert {name: len(record.rounds) for name, record in records.items()} == {"slow": 3, "fast": 6, "hopeless": 1}
    assert progress.steps == 18


def test_ratio_is_taken_within_rounds() -> None:
    drifting = [1.0, 2.0, 4.0, 8.0]
    assert ratio([3 * seconds for seconds in drifting], drifting) == 3
    assert ratio([30.0, 6.0], [10.0, 3.0, 99.0]) == 2.5


def test_spread_of_one_value_and_of_many() -> None:
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 1)
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert Spread.of(values) == Spread(statistics.median(values), 2.0, 4.0, 5)


@LINUX
def test_peak_memory_sees_what_is_freed_again() -> None:
    megabytes = 96

    def call() -> float:
        return torch.ones(megabytes << 18).max().item()

    result, peak = peak_above(call)
    assert result == 1
    assert 0.95 * megabytes < peak / (1 << 20) < megabytes + 24


@NEEDS_COMPILER
def test_roofline_knows_the_instruction_sets() -> None:
    assert (
        roofline.peak_multiply_adds(
            "sse2" if "sse2" in worker.gkm_ops.build_info()["instruction_sets"] else "generic", 1
        )
        > 1e8
    )
    with pytest.raises(ValueError, match="got 'mmx'"):
        roofline.peak_multiply_adds("mmx", 1)


def test_useful_work_is_what_the_bank_needs() -> None:
    radii = make_problem((11, 11)).bank.radii
    row_passes, column_passes = sum(r + 1 for r in radii), sum(2 * r + 1 for r in radii)
    assert row_passes + column_passes + len(radii) + max(radii) == roofline.USEFUL_WORK


# ---- Reports -----------------------------------------------------------------------------------------------


def spread(seconds: float) -> dict[str, float]:
    return {"median": seconds, "lower": 0.9 * seconds, "upper": 1.1 * seconds, "count": 9}


def timing(job: str, family: str, seconds: float, times_fused: float, allocator: str = "stock") -> dict[str, Any]:
    return {
        "key": f"{job}/{family}/some", "job": job, "family": family, "name": "some", "dtype": "float32",
        "size": [64, 96], "allocator": allocator, "threads": 2, "seconds": spread(seconds), "rounds": [seconds],
        "times_fused": times_fused, "first_call_s": 1.0, "difference": 1e-7,
    }  # fmt: skip


@pytest.fixture
def record() -> dict[str, Any]:
    return {
        "environment": {
            "cpu": "Some Processor", "cpu_id": "model 1", "cores": 2, "gkm_ops": {"instruction_set": "avx2"},
            "torch": "2.13.0", "numpy": "2.0", "opencv": None, "compiler": "g++ 12", "commit": "abc",
            "date": "2026-01-01T00:00:00", "load": 0.1,
        },
        "plan": {"sizes": [[64, 96]], "threads": 2, "seed": 1},
        "timings": [
            timing("forward", "fused", 0.005, 1.0),
            timing("forward", "eager", 0.090, 18.0),
            timing("forward", "eager", 0.055, 11.0, "tuned"),
            timing("adjoint", "fused", 0.006, 1.0),
        ],
        "roofline": [
            {
                "size": [64, 96], "threads": 2, "instruction_set": "avx2", "peak_per_s": spread(1e11),
                "seconds": spread(0.005), "share": spread(0.9), "best_share": 0.95, "difference": 1e-7,
            }
        ],
        "scaling": [
            {"key": "forward/fused/some", "family": "fused", "size": [64, 96], "seconds": spread(0.005)},
            {"key": "forward/eager/large", "family": "eager", "size": [64, 96], "seconds": None},
        ],
        "small_call": spread(30e-6),
        "memory": [{"key": "forward/fused/some", "size": [64, 96], "extra_bytes": 3_000_000}],
        "copy_bytes_per_s": 2e10,
    }  # fmt: skip


def test_targets_say_met_not_met_and_not_measured(record: dict[str, Any]) -> None:
    lines = {line.split(" | ")[0][2:]: line for line in report.targets(record).splitlines()}
    assert "| 90 % | met |" in lines["forward, share of the multiply-add peak"]
    assert "| 11.0x | not met |" in lines["forward, times faster than the best eager"], "the better allocator counts"
    assert "| not measured |  |" in lines["forward, times faster than OpenCV"]
    assert "| 1.20x | met |" in lines["adjoint, times the forward"]
    assert "| 30 us | met |" in lines["one call at 8x8"]
    assert len(lines) == len(targets.TARGETS) + 2


def test_full_report_takes_each_contender_once(record: dict[str, Any]) -> None:
    text = report.full(record)
    assert text.count("| eager | some |") == 1
    assert "| eager | some | tuned | 55 ms [49.5, 60.5] | 11.00 |" in text
    assert "| eager | large | its process was ended, for want of memory |" in text


def test_plot_is_written(record: dict[str, Any], tmp_path: Any) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plot

    plot.save(record, tmp_path / "record.png")
    assert (tmp_path / "record.png").read_bytes().startswith(b"\x89PNG")


PAGE = "".join(f"<!-- {block.name}:begin -->\nold\n<!-- {block.name}:end -->\n" for block in readme.BLOCKS)


def test_readme_is_regenerated_and_checked(record: dict[str, Any], tmp_path: Any) -> None:
    page, results = tmp_path / "README.md", tmp_path / "results"
    results.mkdir()
    (results / "record.json").write_text(json.dumps(record))
    record["environment"] |= {"date": "2000-01-01", "cpu": "An Older One"}
    (results / "older.json").write_text(json.dumps(record))
    page.write_text(f"before\n{PAGE}after\n")
    arguments = ["--results", str(results), "--readme", str(page)]
    assert readme.main([*arguments, "--check"]) == 1
    assert "old" in page.read_text(), "a check writes nothing"
    assert readme.main(arguments) == 0
    assert readme.main([*arguments, "--check"]) == 0
    text = page.read_text()
    assert text.startswith("before\n<!-- benchmark:begin -->\nSome Processor")
    assert "\n\nFrom [results/record.json](results/record.json).\n<!-- benchmark:end -->\n" in text
    assert "<!-- network:begin -->\nNot yet measured.\n<!-- network:end -->\n" in text
    assert text.endswith("<!-- gpu:begin -->\nNot yet measured on a GPU.\n<!-- gpu:end -->\nafter\n")


@pytest.mark.parametrize("markers", ["", "{end} {begin}", "{begin}{begin} {end}"])
def test_readme_without_its_markers_is_left_alone(tmp_path: Any, capsys: Any, markers: str) -> None:
    begin, end = "<!-- gpu:begin -->", "<!-- gpu:end -->"
    text = PAGE.partition(begin)[0] + markers.format(begin=begin, end=end)
    page = tmp_path / "README.md"
    page.write_text(text)
    assert readme.main(["--results", str(tmp_path), "--readme", str(page)]) == 2
    assert page.read_text() == text
    assert begin in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "{}"])
def test_readme_needs_whole_records(tmp_path: Any, capsys: Any, content: str) -> None:
    page = tmp_path / "README.md"
    (tmp_path / "record.json").write_text(content)
    page.write_text(PAGE)
    assert readme.main(["--results", str(tmp_path), "--readme", str(page)]) == 2
    assert page.read_text() == PAGE
    assert capsys.readouterr().err


# ---- Child processes ---------------------------------------------------------------------------------------


@LINUX
def test_worker_runs_under_its_setting() -> None:
    import os

    setting = worker.Setting(threads=1, allocator="tuned")
    with worker.Worker(setting) as process:
        assert process.call(torch.get_num_threads) == 1
        assert process.call(os.getenv, "MALLOC_MMAP_THRESHOLD_") == setting.environment["MALLOC_MMAP_THRESHOLD_"]
        assert process.call(worker.turn, suite.FUSED, (32, 32))
        with pytest.raises(KeyError):
            process.call(worker.turn, "forward/fused/nothing", (32, 32))
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ


def test_the_card_of_weights_tells_a_run_without_what_says_nothing() -> None:
    training = {"epochs": 3000, "minutes": 2.5, "mode": "FG", "photos": "2 files (9 bytes, digest 0123456789ab)"}
    assert weights_card.card({"training": training, "sets": {}}) == "The last run: minutes 2.5; mode FG.\n"
