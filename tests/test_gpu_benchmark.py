"""The GPU benchmark on tiny cases on the CPU, whose clock and counters stand in; and what the check would run."""

import json
import sys

import pytest
import torch

from benchmarks import readme
from benchmarks.gpu import check, cli, clock, report, suite
from benchmarks.network.cases import INFERENCE
from benchmarks.network.cases import Case as NetworkCase
from benchmarks.suite import GateError

TINY = suite.Plan(
    (suite.Case((48, 64)), suite.Case((32, 40), batch=2)),
    (NetworkCase(INFERENCE, "v2", (48, 64)),),
    precisions=(suite.FLOAT32, suite.TF32),
    rounds=2,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(clock, "_LEAST_S", 0)
    monkeypatch.setattr(clock.copy_bytes_per_s, "__defaults__", (1 << 20,))


def test_a_run_is_written_and_told(tmp_path, capsys):
    assert cli.main(["--device", "cpu", "--out", str(tmp_path)], TINY) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".png"]
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    rows = record["ops"]
    assert {row["case"]["batch"] for row in rows} == {1, 2}
    assert {row["family"] for row in rows} >= {"fused", "eager"}
    assert all(row["difference"] < 1e-5 and row["seconds"]["median"] > 0 for row in rows)
    assert {row["contender"] for row in record["network"]} >= {"published", "gkm_ops"}
    assert "| float32 | fused | gkm_blur, cpu |" in capsys.readouterr().out


def test_a_wrong_result_stops_the_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(suite, "largest_difference", lambda results, exact: 1.0)
    assert cli.main(["--device", "cpu", "--out", str(tmp_path)], TINY) == 1
    assert "differs from float64" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(GateError):
        suite.run(TINY, torch.device("cpu"))


def test_who_has_no_time_left_is_told():
    record = suite.run(suite.Plan(TINY.cases[:1], (), (suite.FLOAT32,), 1), torch.device("cpu"), minutes=0)
    assert {row["error"] for row in record["ops"]} == {suite.OUT_OF_TIME}
    assert "no more time for" in report.full(record)


def test_too_little_memory_is_a_row_and_not_the_end(monkeypatch):
    def prepare(problem, threads):
        raise torch.OutOfMemoryError("no room\nand a long story")

    contender = suite.Contender("forward", "eager", "greedy", prepare)
    monkeypatch.setattr(suite, "_field", lambda case, precision, device: [contender])
    record = suite.run(suite.Plan(TINY.cases[:1], (), (suite.FLOAT32,), 1), torch.device("cpu"))
    assert record["ops"][0]["error"] == "no room"
    assert "no room" in report.full(record)


def photo(job, precision, family, milliseconds):
    return {
        "case": {"size": [1120, 1680], "batch": 1}, "precision": precision, "job": job, "family": family, "name": "it",
        "seconds": {"median": milliseconds / 1e3, "lower": 0, "upper": 0}, "difference": 0, "extra_bytes": 0,
    }  # fmt: skip


def test_targets_are_judged():
    rows = [
        photo("forward", "float32", "fused", 0.08),
        photo("training", "float32", "fused", 1),
        photo("training", "float32", "eager", 40),
        photo("training", "float32", "compiled", 4),
    ]
    lines = report.targets({"ops": rows, "roofline": {"copy_bytes_per_s": 4.3e12}}).splitlines()[2:]
    # 28 floats a pixel at 4.3 TB/s are 49 us; 28 + 53 are 142 us.
    assert ["met" if line.endswith("| met |") else "not met" for line in lines] == ["met", "not met", "met", "not met"]
    assert "| 1.63 |" in lines[0]
    assert "| 40.0 |" in lines[2]


def test_precision_is_put_back():
    before = torch.get_float32_matmul_precision()
    with suite.using(suite.TF32):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        cli.main([])
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_the_committed_readme_is_fresh():
    assert readme.main(["--check"]) == 0


def test_the_check_goes_on_after_a_failure_and_within_nine_minutes(tmp_path, capfd, monkeypatch):
    assert sum(step.limit_s for step in check.steps(tmp_path)) <= 540
    steps = [
        check.Step("fails", [sys.executable, "-c", "raise SystemExit(3)"], 20),
        check.Step("hangs", [sys.executable, "-c", "import time; time.sleep(60)"], 0.5),
        check.Step("works", [sys.executable, "-c", "import os; print(os.environ['X'])"], 20, {"X": "seen"}),
    ]
    monkeypatch.setattr(check, "steps", lambda results: steps)
    assert check.main(["--out", str(tmp_path)]) == 1
    told = capfd.readouterr().out
    for text in ("fails: failed, exit 3", "hangs: stopped after", "seen", "works: passed"):
        assert text in told
