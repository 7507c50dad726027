"""The timing of kernels by themselves, with stand-ins for the compiler and the GPU."""

import json
import shutil
import subprocess

import pytest
import torch

from benchmarks.gpu import kernels, suite, units


def row(way="float32", kind="best", time=2.0, difference=0.0, op="blur"):
    return {
        "batch": 1, "height": 64, "width": 96, "way": way, "op": op, "kernels": kind, "microseconds": time,
        "difference": difference,
    }  # fmt: skip


def sources(folder, names="best, generic, banded"):
    folder.mkdir()
    (folder / "form.h").write_text(f"enum class Kernels : uint8_t {{ {names} }};\n")
    return folder


def test_kinds_are_those_that_a_version_knows(tmp_path):
    assert kernels.kinds(units.KERNELS)["tailored"] == 6
    assert kernels.kinds(sources(tmp_path / "a")) == {"best": 0, "banded": 2}
    (tmp_path / "a" / "form.h").write_text("struct Form {};")
    with pytest.raises(ValueError, match="does not say what kinds"):
        kernels.kinds(tmp_path / "a")


def test_times_are_medians_and_wrong_results_have_none():
    rounds = [
        [row(time=3.0), row("bfloat16", difference=1.5e-2)],
        [row(time=1.0), row("bfloat16")],
        [row(), row("bfloat16")],
    ]
    first, second = kernels.medians(rounds)
    assert (first["microseconds"], second["microseconds"], second["difference"]) == (2.0, 2.0, 1.5e-2)
    for difference in (2e-5, 1e30, float("nan")):
        assert kernels.medians([[row()], [row(difference=difference)]])[0]["microseconds"] is None


def test_versions_stand_side_by_side():
    versions = [
        {"sources": "a", "rows": [row(), row(kind="banded", time=None), row(op="correlate")]},
        {"sources": "b", "rows": [row(time=1.25)]},
    ]
    head, _, *lines = kernels.tables(versions).splitlines()
    assert head == "| size | op | in | best of a | best of b | banded of a |"
    assert lines == [
        "| 96x64, batch 1 | blur | float32 | 2.0 | 1.2 | wrong |",
        "| 96x64, batch 1 | correlate | float32 | 2.0 |  |  |",
    ]
    assert kernels.tables(versions[:1]).splitlines()[0] == "| size | op | in | best | banded |"


def test_versions_take_turns_and_are_written(tmp_path, monkeypatch, capsys):
    folders = [sources(tmp_path / name) for name in "ab"]
    order = []

    def build(nvcc, of, capability, folder):
        assert (nvcc, capability) == ("nvcc", "9.0")
        program = tmp_path / f"time-{of.name}"
        told = json.dumps([row(difference=1.0 if of.name == "b" else 0.0)])
        program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/calls\necho '{told}'\n")
        program.chmod(0o755)
        order.append(folder)
        return program

    monkeypatch.setattr(kernels, "build", build)
    monkeypatch.setattr(units, "find_nvcc", lambda: "nvcc")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(suite, "machine", lambda _: {"gpu": "Some GPU"})
    arguments = ["--sources", *map(str, folders), "--build", str(tmp_path / "build"), "--out", str(tmp_path / "out")]
    assert kernels.main([*arguments, "--rounds", "2"]) == 1  # as one of them is wrong
    assert order == [tmp_path / "build" / "0", tmp_path / "build" / "1"]
    assert (tmp_path / "calls").read_text() == "best=0 banded=2\n" * 4
    first, second = json.loads((tmp_path / "out" / "some-gpu.json").read_text())["versions"]
    assert (first["rows"][0]["microseconds"], second["rows"][0]["microseconds"]) == (2.0, None)
    assert "| 96x64, batch 1 | blur | float32 | 2.0 | wrong |" in capsys.readouterr().out


def test_what_cannot_be_timed_is_said(tmp_path, monkeypatch, capsys):
    def refused(*arguments):
        with pytest.raises(SystemExit):
            kernels.main(list(arguments))
        return capsys.readouterr().err

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(units, "find_nvcc", lambda: None)
    assert "there is no nvcc" in refused()
    monkeypatch.setattr(units, "find_nvcc", lambda: "nvcc")
    assert "no GPU whose --capability is known" in refused()
    assert "--capability: got sm_90, wanted two numbers" in refused("--capability", "sm_90")
    assert f"{tmp_path} is no csrc/cuda" in refused("--capability", "9.0", "--sources", str(tmp_path))
    monkeypatch.setattr(kernels, "build", lambda *_: tmp_path / "time")
    assert kernels.main(["--capability", "9.0", "--build", str(tmp_path)]) == 0
    assert "made, and not run, as there is no GPU" in capsys.readouterr().out
    program = tmp_path / "time"
    program.write_text("#!/bin/sh\necho no such device >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(SystemExit, match="no such device"):
        kernels.run(program, units.KERNELS)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_program_compiles(tmp_path):
    options = ["-std=c++17", "-O1", "-Werror=all-warnings", "-I", units.KERNELS, "-arch=sm_80"]
    subprocess.run(["nvcc", *options, "-c", kernels.PROGRAM, "-o", tmp_path / "kernels.o"], check=True)
