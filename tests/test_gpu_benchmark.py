"""The GPU benchmark on tiny cases on the CPU, whose clock and counters stand in; and what the check would run."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
import torch
from conftest import CUDA_KERNELS

from benchmarks import readme
from benchmarks.gpu import ahead, check, cli, clock, network, outcomes, profile, report, sanitized, suite, sums, units
from benchmarks.gpu.precision import BFLOAT16, FLOAT32, TF32, using
from benchmarks.network.cases import INFERENCE, TRAINING
from benchmarks.network.cases import Case as NetworkCase
from gkm_ops import cpu

TINY = suite.Plan(
    (suite.Case((48, 64)), suite.Case((32, 40), batch=2, others=False)),
    (NetworkCase(INFERENCE, "v2", (48, 64)), NetworkCase(TRAINING, "v2", (48, 48), 2)),
    precisions=(FLOAT32, TF32),
    rounds=1,
    sums=(40, 56),
)


class CompilerError(Exception):
    """As those of Triton are, which are no RuntimeErrors."""


def cannot_compile(*_):
    raise CompilerError("no kernel\nand a long story")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(clock, "_LEAST_S", 0)
    monkeypatch.setattr(suite, "_TOUCHED_BYTES", 0)
    monkeypatch.setattr(clock.copy_bytes_per_s, "__defaults__", (1 << 20,))


@pytest.fixture
def _nothing_is_compiled(monkeypatch):
    """By torch.compile, which takes long."""
    field = suite.field
    monkeypatch.setattr(suite, "field", lambda *args: [c for c in field(*args) if c.family != "compiled"])
    monkeypatch.setattr(network, "compiled", list)


@pytest.mark.usefixtures("_nothing_is_compiled")
def test_a_run_is_written_and_told(tmp_path, capsys):
    assert cli.main(["--device", "cpu", "--out", str(tmp_path)], TINY) == 0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".md", ".png"]
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    rows = record["ops"]
    assert {(row["case"]["batch"], row["family"]) for row in rows} >= {(1, "fused"), (1, "eager"), (2, "fused")}
    assert (2, "eager") not in {(row["case"]["batch"], row["family"]) for row in rows}
    assert {(row["job"], row["name"]) for row in rows} >= {("forward", "dense"), ("training", "dense")}
    assert all(row["difference"] < 1e-5 and row["seconds"]["median"] > 0 for row in rows)
    contenders = {(row["case"]["job"], row["contender"]) for row in record["network"]}
    assert contenders >= {(INFERENCE, "gkm_ops"), (TRAINING, "published"), (TRAINING, "gkm_ops: gkm train")}
    assert all(row["seconds"]["median"] > 0 for row in record["network"])
    assert {row["name"] for row in record["launches"]} >= {"torch.ops.gkm_ops.blur", "gkm_ops.gkm_blur"}
    rows = record["sums"]
    assert {row["name"] for row in rows} == sums.OPS.keys()
    assert all(row["difference"] < 1e-5 and row["seconds"]["median"] > 0 for row in rows)
    told = capsys.readouterr().out
    assert "| float32 | fused | gkm_blur, cpu |" in told
    assert "| closed form | float32 | cpu |" in told
    assert "| training v2, 48x48, batch 2 | gkm_ops: gkm train --amp |" in told
    assert "| cpu | gkm_ops.gkm_blur |" in told
    assert "Not measured: there is no GPU." in told


def test_a_wrong_result_has_no_time_and_fails_the_run(tmp_path, capsys, monkeypatch):
    def prepare(problem, threads):
        return lambda: (problem.x.zero_(),)

    right = suite.field(TINY.cases[1], FLOAT32, torch.device("cpu"))[0]
    field = [right, suite.Contender("forward", "fused", "hasty", prepare)]
    monkeypatch.setattr(suite, "field", lambda *args: field)
    plan = suite.Plan(TINY.cases[1:], (), (FLOAT32,), 1)
    assert cli.main(["--device", "cpu", "--out", str(tmp_path)], plan) == 1
    assert "hasty" in capsys.readouterr().err
    good, bad = json.loads(next(tmp_path.glob("*.json")).read_text())["ops"]
    assert good["seconds"] is not None
    assert bad["seconds"] is None
    assert outcomes.is_wrong(bad["error"])


def test_an_op_that_breaks_when_launched_is_told_and_fails_the_run(tmp_path, capsys, monkeypatch):
    def refuse(call, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(suite.launches, "_host_seconds", refuse)
    assert cli.main(["--device", "cpu", "--out", str(tmp_path)], suite.Plan(TINY.cases[1:], (), (FLOAT32,), 1)) == 1
    told = capsys.readouterr()
    assert "not permitted" in told.err
    assert "| cpu | gkm_ops.gkm_blur |  |  | operation not permitted" in told.out


def test_what_went_wrong_is_told_in_a_line():
    assert outcomes.first_line(CompilerError("no kernel\nand a long story")) == "no kernel"
    assert outcomes.first_line(CompilerError("at 12:8:\ndef blur(\n^\nValueError('no')")) == "ValueError('no')"
    assert outcomes.first_line(CompilerError()) == "CompilerError"


def test_a_wrong_network_has_no_time(monkeypatch):
    case = TINY.network[0]
    prepare = network.contenders(INFERENCE)[1].prepare
    broken = network.Contender("broken", lambda *args: lambda: tuple(1.01 * y for y in prepare(*args)()))
    entries = network.planned(case, [*network.contenders(INFERENCE)[:1], broken])
    network.measure(case, entries, 1, torch.device("cpu"), deadline=float("inf"))
    (_, published), (_, row) = entries
    assert published["seconds"] is not None
    assert row["seconds"] is None
    assert "differs from published" in row["error"]


def test_what_is_killed_leaves_what_was_measured_before(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(suite, "field", lambda *args: [])
    suite.run(suite.Plan((), (), (FLOAT32,), 1), torch.device("cpu"), save=lambda record: saved.append(dict(record)))
    assert len(saved) == len(suite.ORDER) + 2
    assert not saved[0]["launches"]
    assert saved[1]["launches"]


def test_ours_come_first_with_every_case_and_precision():
    cpu = torch.device("cpu")
    record = suite.run(suite.Plan(TINY.cases, (), (FLOAT32, BFLOAT16), 1), cpu, minutes=0)
    families = [row["family"] for row in record["ops"]]
    ours = [row for row in record["ops"] if row["family"] == "fused"]
    assert families[: len(ours)] == ["fused"] * len(ours)
    assert {(row["case"]["batch"], row["precision"]) for row in ours} == {
        (1, FLOAT32), (1, BFLOAT16), (2, FLOAT32), (2, BFLOAT16),
    }  # fmt: skip
    compiled = [row for row in record["ops"] if row["family"] == "compiled"]
    assert {(row["job"], row["name"]) for row in compiled} >= {("forward", "dense"), ("training", "dense")}


def test_slow_calls_have_few_figures_and_inputs_take_turns(monkeypatch):
    called = []
    monkeypatch.setattr(clock, "timed", lambda calls, device: sum(call() for call in calls))
    calls = [lambda i=i: called.append(i) or 1.0 for i in range(3)]
    assert clock.seconds_per_call(calls, torch.device("cpu"), rounds=9) == [1.0] * 3
    assert called[2:] == [0, 1, 2]
    quick = [lambda: 1e-3] * 3
    assert len(clock.seconds_per_call(quick, torch.device("cpu"), rounds=9)) == 9


def test_what_is_compiled_is_compiled_ahead(monkeypatch):
    groups = list(ahead.groups(suite.FULL))
    assert {(precision, families) for _, precision, families in groups} == {
        (FLOAT32, ("compiled",)), (BFLOAT16, ("compiled",)),
        *((precision, ("fused", "variant")) for precision in (FLOAT32, BFLOAT16, TF32)),
    }  # fmt: skip
    assert {case for case, *_ in groups} == set(suite.FULL.cases)
    ran = []

    def contender(family, name):
        return suite.Contender("forward", family, name, lambda problem, threads: lambda: ran.append(name))

    field = [contender("fused", "blur, cuda"), contender("fused", "blur, triton"), contender("compiled", "dense")]
    monkeypatch.setattr(suite, "field", lambda *args: field)
    ahead.compile_ops((TINY.cases[0], FLOAT32, ("compiled", "fused")), torch.device("cpu"))
    assert ran == ["blur, triton", "dense"]


def test_compiling_ahead_runs():
    plan = suite.Plan(TINY.cases[1:], (), (FLOAT32,), 1)
    assert ahead.main(["--device", "cpu", "--processes", "1"], plan) == 0


def test_who_has_no_time_left_is_told():
    record = suite.run(suite.Plan(TINY.cases[:1], (), (FLOAT32,), 1), torch.device("cpu"), minutes=0)
    assert {row["error"] for row in record["ops"]} == {suite.OUT_OF_TIME}
    assert "no more time for" in report.full(record)


def test_who_is_at_work_when_time_is_out_is_stopped(monkeypatch):
    def prepare(problem, threads):
        time.sleep(60)

    monkeypatch.setattr(suite, "field", lambda *args: [suite.Contender("forward", "fused", "slow", prepare)])
    began = time.monotonic()
    record = suite.run(suite.Plan(TINY.cases[1:], (), (FLOAT32,), 1), torch.device("cpu"), minutes=0.1)
    assert time.monotonic() - began < 30
    assert [row["error"] for row in record["ops"]] == [suite.OUT_OF_TIME]


def test_too_little_memory_is_a_row_and_not_the_end(monkeypatch):
    def prepare(problem, threads):
        raise torch.OutOfMemoryError("no room\nand a long story")

    contender = suite.Contender("forward", "eager", "greedy", prepare)
    monkeypatch.setattr(suite, "field", lambda *args: [contender])
    record = suite.run(suite.Plan(TINY.cases[:1], (), (FLOAT32,), 1), torch.device("cpu"))
    assert record["ops"][0]["error"] == "no room"
    assert "no room" in report.full(record)


def test_too_little_memory_for_the_inputs_is_told_in_every_row_of_theirs(monkeypatch):
    def problems(case, *args, every=suite.problems):
        if case == TINY.cases[0]:
            raise torch.OutOfMemoryError("no room")
        return every(case, *args)

    right = suite.field(TINY.cases[1], FLOAT32, torch.device("cpu"))[:2]
    monkeypatch.setattr(suite, "field", lambda *args: right)
    monkeypatch.setattr(suite, "problems", problems)
    record = suite.run(suite.Plan(TINY.cases, (), (FLOAT32,), 1), torch.device("cpu"))
    assert [row["error"] for row in record["ops"]] == ["no room", "no room", None, None]


def test_what_cannot_be_compiled_is_a_row_and_not_the_end(monkeypatch):
    cpu, case = torch.device("cpu"), TINY.network[0]
    monkeypatch.setattr(suite, "field", lambda *args: [suite.Contender("forward", "fused", "it", cannot_compile)])
    monkeypatch.setattr(network, "contenders", lambda job: [network.Contender("it", cannot_compile)])
    monkeypatch.setattr(network, "compiled", lambda: network.contenders(INFERENCE))
    monkeypatch.setattr(suite.launches, "_host_seconds", cannot_compile)
    record = suite.run(suite.Plan(TINY.cases[1:], (case,), (FLOAT32,), 1), cpu)
    for part in ("ops", "network", "launches"):
        assert {row["error"] for row in record[part]} == {"no kernel"}
    ahead.compile_network(case, cpu)
    monkeypatch.setattr(suite, "field", lambda *args: [suite.Contender("forward", "compiled", "it", cannot_compile)])
    ahead.compile_ops((TINY.cases[1], FLOAT32, ("compiled",)), cpu)
    monkeypatch.setattr(suite, "problems", cannot_compile)
    ahead.compile_ops((TINY.cases[1], FLOAT32, ("compiled",)), cpu)


def photo(job, precision, family, milliseconds, name="it", size=(1120, 1680)):
    return {
        "case": {"size": list(size), "batch": 1}, "precision": precision, "job": job, "family": family, "name": name,
        "seconds": {"median": milliseconds / 1e3, "lower": 0, "upper": 0}, "difference": 0, "extra_bytes": 0,
        "error": None,
    }  # fmt: skip


def test_targets_are_judged():
    rows = [
        photo("forward", "float32", "fused", 0.08),
        photo("training", "float32", "fused", 1),
        photo("training", "float32", "eager", 40),
        photo("training", "float32", "compiled", 4),
    ]
    lines = report.targets({"ops": rows, "roofline": {"copy_bytes_per_s": 4.3e12}, "device": "cuda"}).splitlines()[2:]
    # 28 floats a pixel at 4.3 TB/s are 49 us; 28 + 53 are 142 us.
    assert ["met" if line.endswith("| met |") else "not met" for line in lines] == ["met", "not met", "met", "not met"]
    assert "| 1.63 |" in lines[0]
    assert "| 40.0 |" in lines[2]
    rows.append(photo("training", "float32", "eager", 1) | {"seconds": None, "error": outcomes.OUT_OF_TIME})
    lines = report.targets({"ops": rows, "roofline": {"copy_bytes_per_s": 4.3e12}, "device": "cuda"}).splitlines()[2:]
    assert lines[2].endswith("times faster than the best eager | at least 30.0 |  | not known |")
    assert lines[3].endswith("(it) | at least 8.0 | 4.0 | not met |")


def test_units_are_compiled_run_and_told(tmp_path, monkeypatch):
    rate = {"name": "by a warp", "warps": 12, "multiply_adds_per_s": 3.157e14, "multiply_adds_per_cycle": 1360}
    made, nvcc = tmp_path / "made", tmp_path / "nvcc"
    made.write_text(f"#!/bin/sh\necho '{json.dumps([rate])}'\n")
    nvcc.write_text(f"#!/bin/sh\nfor program; do :; done\ncp {made} $program\n")
    for script in (made, nvcc):
        script.chmod(0o755)
    monkeypatch.setattr(units, "find_nvcc", lambda: str(nvcc))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    found = units.measure(torch.device("cuda"))
    assert found == {"rates": [rate], "error": None}
    record = suite.run(suite.Plan((), (), (FLOAT32,), 1), torch.device("cpu"))
    assert "| by a warp | 12 | 315.7 T | 1360 |" in report.full(record | {"units": found})


def test_units_that_cannot_be_asked_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for nvcc, error in ((None, "there is no nvcc"), (shutil.which("false"), "non-zero exit"), (tmp_path, "denied")):
        monkeypatch.setattr(units, "find_nvcc", lambda nvcc=nvcc: nvcc)
        found = units.measure(torch.device("cuda"))
        assert found["rates"] == []
        assert error in found["error"]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
@pytest.mark.parametrize("capability", [(8, 0), (9, 0), (12, 0)])
def test_units_are_asked_on_every_architecture(capability, tmp_path):
    subprocess.run(units.compilation(shutil.which("nvcc"), capability, tmp_path / "units"), check=True)


def test_profiles_are_read_and_told(tmp_path, capsys, monkeypatch):
    stall = "smsp__average_warps_issue_stalled_{}_per_issue_active.ratio".format
    counters = ["gpu__time_duration.sum", "smsp__inst_executed.avg", stall("long_scoreboard"), stall("gmma")]
    page = [
        ["ID", "Kernel Name", "Block Size", *counters],
        ["", "", "", "nsecond", "inst", "inst", "inst"],
        ["0", "blur<float, 2>(Form)", "(128, 1, 1)", "258,016", "1,404.5", "3", "1"],
    ]
    lines = "\n".join(",".join(f'"{field}"' for field in row) for row in page)
    ncu = tmp_path / "ncu"
    ncu.write_text(f"#!/bin/sh\ncat <<'END'\n==PROF== Connected to process 1\n{lines}\nEND\n")
    ncu.chmod(0o755)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(suite, "machine", lambda _: {"gpu": "Some GPU"})
    monkeypatch.setattr(profile.shutil, "which", lambda _: str(ncu))
    assert profile.main(["--out", str(tmp_path / "out")]) == 0
    assert (
        "| blur<float, 2>(Form) | 258.0 us | 1.4e+03 |  |  |  | long scoreboard 75 %, gmma 25 % |"
        in capsys.readouterr().out
    )
    (kernel,) = json.loads((tmp_path / "out" / "some-gpu.json").read_text())["kernels"]
    assert kernel["smsp__inst_executed.avg"] == 1404.5
    ncu.write_text("#!/bin/sh\necho '==ERROR== ERR_NVGPUCTRPERM'; exit 1\n")
    assert profile.main([]) == 0
    assert "may not count" in capsys.readouterr().out
    ncu.write_text("#!/bin/sh\necho nothing at all; exit 9\n")
    assert profile.main([]) == 1
    assert "nothing at all" in capsys.readouterr().err
    monkeypatch.setattr(profile.shutil, "which", lambda _: None)
    assert profile.main([]) == 0


def test_every_op_is_profiled_once_by_cuda(monkeypatch):
    marks, made = [], []

    def contender(job, family, name):
        return suite.Contender(job, family, name, lambda problem, threads: lambda: made.append((job, bool(marks[-1:]))))

    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda.profiler, "start", lambda: marks.append(1))
    monkeypatch.setattr(torch.cuda.profiler, "stop", marks.clear)
    monkeypatch.setattr(profile, "_CASE", suite.Case((8, 8)))
    field = [contender(job, "fused", "it, cuda") for job in ("forward", "adjoint", "training")]
    field += [contender("forward", "fused", "it, triton"), contender("forward", "variant", "it, cuda banded")]
    field += [contender("correlate", "variant", "it, cuda tailored")]
    monkeypatch.setattr(suite, "field", lambda *_: field)
    profile.make_calls(torch.device("cpu"))
    assert made == [(job, marked) for job in ("forward", "adjoint", "correlate") for marked in (False, True)] * 3


def test_backends_and_launches_are_judged():
    def launch(backend, name, host_s, graph_s):
        return {"backend": backend, "name": name, "host_s": host_s, "device_s": 1e-5, "graph_s": graph_s}

    rows = [
        photo("adjoint", "float32", "fused", 2, "it, cuda"), photo("adjoint", "float32", "fused", 4, "it, triton"),
        photo("forward", "float32", "fused", 3, "it, cuda", (64, 64)),
        photo("forward", "float32", "fused", 2, "it, triton", (64, 64)),
        photo("forward", "float32", "fused", 9, "it, cuda", (256, 256)),  # which triton has not run
    ]  # fmt: skip
    launches = [launch("cuda", "a", 8e-6, 2e-6), launch("cuda", "b", 9e-6, None), launch("triton", "a", 5e-5, 3e-6)]
    record = {"ops": rows, "launches": launches, "roofline": {"copy_bytes_per_s": 4.3e12}, "device": "cuda"}
    backends, *lines = report.targets(record).splitlines()[2:]
    assert backends.startswith("| cuda, times the time of triton, at its worst of 2 (forward, float32, 64x64) |")
    assert backends.endswith("| at most 1.00 | 1.50 | not met |")
    assert lines == [
        "| 64x64: the host's time for a call without gradients, at worst (b by cuda) | at most 10 us | 9.0 us | met |",
        "| ops of all backends recorded in CUDA graphs, replayed to the same bits | 3 of 3 | 2 of 3 | not met |",
    ]


def test_precision_is_put_back():
    def state():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark

    before = state()
    with using(TF32, search=True):
        assert state() == ("high", True, True)
    assert state() == before


def test_without_a_gpu_it_says_so(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit):
        cli.main([])
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_the_committed_readme_is_fresh():
    assert readme.main(["--check"]) == 0


def test_the_check_asks_for_the_gpu_without_holding_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # where other processes find a torch with a GPU, or without
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    for name in ("is_available", "get_device_capability"):
        monkeypatch.setattr(torch.cuda, name, cannot_compile)
    (tmp_path / "torch.py").write_text("class cuda:\n    get_device_capability = lambda: (9, 0)\n")
    assert check._this_gpu_alone() == {"TORCH_CUDA_ARCH_LIST": "9.0"}
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0")
    assert check._this_gpu_alone() == {"TORCH_CUDA_ARCH_LIST": "8.0"}
    (tmp_path / "torch.py").write_text("")
    assert check._this_gpu_alone() == {}


# Has tests collected as where there is a GPU.
COLLECT = (
    "import sys, torch; torch.cuda.is_available = lambda: True; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
)


def test_the_check_s_share_of_the_tests_has_every_border_mix_and_type_for_every_kind_of_kernels(tmp_path):
    tests = next(step for stage in check.stages(tmp_path) for step in stage if step.name == "tests").command
    stride = tests[tests.index("--every") + 1]
    options = ["-q", "-p", "no:cacheprovider", "-k", "cuda", "--every", stride, "tests/test_ops.py"]
    command = [sys.executable, "-c", COLLECT, "--collect-only", *options]
    told = subprocess.run(command, cwd=check.ROOT, capture_output=True, text=True, check=True).stdout
    cases = re.findall(r"\[(.*)\]", told)
    assert 250 < len(cases) < 450
    for served in ("cuda-cuda", "triton-cuda", *(f"cuda-{kernels}" for kernels in CUDA_KERNELS)):
        own = [case for case in cases if case.startswith(served)]
        for value in ("zeros", "reflect", "replicate", "-mix", "-no_mix", "float32", "bfloat16"):
            assert any(value in case for case in own), (served, value)


def test_what_is_sanitized_calls_every_op_of_every_kind(monkeypatch):
    seen, ops = [], ("blur", "blur_adjoint", "correlate", "grad_mix")
    for op in ops:
        ours = getattr(cpu, op)

        def spy(*args, op=op, ours=ours):
            seen.append(
                (os.environ["GKM_OPS_CUDA_KERNELS"], op, args[0].dtype, all(t.is_contiguous() for t in args[:2]))
            )
            return ours(*args)

        monkeypatch.setattr(cpu, op, spy)
    monkeypatch.setenv("GKM_OPS_CUDA_KERNELS", "")
    sanitized.main("cpu", sizes=((1, 12, 13),))
    assert set(seen) == {
        (kernels, op, dtype, True)
        for kernels in (*CUDA_KERNELS, "") for op in ops for dtype in (torch.float32, torch.bfloat16)
    }  # fmt: skip


def test_the_check_goes_on_after_a_failure_and_within_nine_minutes(tmp_path, capfd, monkeypatch):
    stages = check.stages(tmp_path)
    assert sum(max(step.limit_s for step in stage) for stage in stages) <= 540
    assert ["benchmarks"] in [[step.name for step in stage] for stage in stages]  # with nothing beside them
    steps = [
        check.Step("fails", [sys.executable, "-c", "raise SystemExit(3)"], 20),
        check.Step("hangs", ["sh", "-c", "(sleep 2; touch $0) & sleep 60", str(tmp_path / "late")], 0.5),
        check.Step("is not there", [str(tmp_path / "nothing")], 20),
        check.Step("works", [sys.executable, "-c", "import os; print(os.environ['X'])"], 20, {"X": "seen"}),
    ]
    monkeypatch.setattr(check, "stages", lambda results: [steps[:3], steps[3:]])
    assert check.main(["--out", str(tmp_path)]) == 1
    told = capfd.readouterr().out
    for text in ("fails: failed, exit 3", "hangs: stopped after", "could not run", "seen", "works: passed"):
        assert text in told
    time.sleep(2)
    assert not (tmp_path / "late").exists()  # what it started has not outlived it
