"""Which implementation serves a call, how one is forced, and what a refusal says."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import instruction_sets

import gkm_ops
from gkm_ops import backends, cpu, reference

BANK = gkm_ops.GaussianBank([0.0, 1.0])
X, COEFFS = torch.rand(1, 1, 9, 9), torch.rand(1, 2, 9, 9)


@pytest.fixture
def served(monkeypatch):
    """The names of the backends that served blurs, in order."""
    names = []
    for name, module in (("cpu", cpu), ("eager", reference)):

        def note(*args, name=name, blur=module.blur):
            names.append(name)
            return blur(*args)

        monkeypatch.setattr(module, "blur", note)
    return names


def blur(x=X, coeffs=COEFFS):
    return gkm_ops.gkm_blur(x, coeffs, BANK)


def test_the_compiled_backend_is_there_and_first():
    answers = gkm_ops.available_backends()
    assert answers["cpu"] == answers["eager"] == "available"
    assert answers["triton"] != "available"
    assert next(iter(answers)) == "cpu"
    assert gkm_ops.available_backends("cuda")["cpu"] == "it serves the CPU alone, not cuda"
    assert "torch.int32" in gkm_ops.available_backends("cpu", torch.int32)["cpu"]


def test_the_best_serves_by_itself(served):
    blur()
    assert served == ["cpu"]


def test_forcing_for_a_block_and_for_good(served):
    with gkm_ops.use_backend("eager"):
        blur()
        with gkm_ops.use_backend("cpu"):
            blur()
        blur()
    blur()
    previous = gkm_ops.use_backend("eager")
    blur()
    with gkm_ops.use_backend(None):
        blur()
    previous.__exit__(None, None, None)
    blur()
    assert served == ["eager", "cpu", "eager", "cpu", "eager", "cpu", "cpu"]


def test_blocks_that_overlap_end_each_its_own(served):
    first, second = (gkm_ops.use_backend(name) for name in ("eager", "cpu"))
    for step in (first.__enter__, second.__enter__):  # as on two threads
        step()
    blur()
    first.__exit__(None, None, None)
    blur()
    second.__exit__(None, None, None)
    assert served == ["cpu", "cpu"]
    assert backends.forced() is None


def test_a_block_counts_from_when_it_is_entered(served):
    block = gkm_ops.use_backend("eager")
    last = gkm_ops.use_backend("cpu")
    blur()
    with block:
        blur()
    blur()
    last.__exit__(None, None, None)
    assert served == ["cpu", "eager", "cpu"]


def test_plain_calls_replace_each_other_and_outlast_blocks(monkeypatch):
    monkeypatch.setattr(backends, "_settings", [])
    gkm_ops.use_backend("cpu")
    with gkm_ops.use_backend("eager"):
        assert backends.forced() == "eager"
    assert backends.forced() == "cpu"
    with gkm_ops.use_backend("cpu"):
        for _ in range(9):
            gkm_ops.use_backend("eager")
    assert backends.forced() == "eager"
    gkm_ops.use_backend(None)
    assert backends.forced() is None
    assert len(backends._settings) <= 2


def test_one_object_serves_several_blocks(served):
    eager, cpu_block = gkm_ops.use_backend("eager"), gkm_ops.use_backend("cpu")
    with eager, cpu_block, eager:
        with eager:
            pass
        blur()
    with eager:
        blur()
    blur()
    assert served == ["eager", "eager", "cpu"]


def test_a_block_left_by_an_error_is_over(served):
    with pytest.raises(ZeroDivisionError), gkm_ops.use_backend("eager"):
        1 / 0  # noqa: B018
    blur()
    assert served == ["cpu"]


def test_the_environment_forces_and_use_backend_outranks_it(served, monkeypatch):
    monkeypatch.setenv("GKM_OPS_BACKEND", "eager")
    blur()
    for name in ("cpu", None):
        with gkm_ops.use_backend(name):
            blur()
    monkeypatch.setenv("GKM_OPS_BACKEND", "")
    blur()
    assert served == ["eager", "cpu", "cpu", "cpu"]


def test_unknown_names_are_refused(monkeypatch):
    for name in ("gpu", []):
        with pytest.raises(ValueError, match=r"use_backend: got .*, wanted one of .*'cpu', 'cuda', 'eager'"):
            gkm_ops.use_backend(name)
    with pytest.raises(TypeError, match=r"dtype: got 'float32', wanted a torch.dtype"):
        gkm_ops.available_backends("cpu", "float32")
    monkeypatch.setenv("GKM_OPS_BACKEND", "gpu")
    with pytest.raises(ValueError, match="GKM_OPS_BACKEND: got 'gpu', wanted one of"):
        blur()


def test_a_forced_backend_that_cannot_serve_says_why(monkeypatch):
    monkeypatch.setattr(cpu, "_problem", "its library was not built")
    assert gkm_ops.available_backends()["cpu"] == "its library was not built"
    with gkm_ops.use_backend("cpu"), pytest.raises(RuntimeError, match=r"'cpu' was asked for .*library was not built"):
        blur()


def test_without_the_library_the_next_backend_serves(served, monkeypatch):
    monkeypatch.setattr(cpu, "_problem", "its library was not built")
    blur()
    assert served == ["eager"]


def test_backward_passes_follow_the_forced_backend(monkeypatch):
    calls = []

    def note(*args, adjoint=reference.blur_adjoint):
        calls.append("eager")
        return adjoint(*args)

    monkeypatch.setattr(reference, "blur_adjoint", note)
    with gkm_ops.use_backend("eager"):
        blur(X.clone().requires_grad_()).sum().backward()
    assert calls == ["eager"]


def test_an_instruction_set_that_the_processor_lacks_is_refused(monkeypatch):
    monkeypatch.setenv("GKM_OPS_CPU_ISA", "mmx")
    reason = "GKM_OPS_CPU_ISA: got 'mmx', wanted one of"
    assert gkm_ops.available_backends()["cpu"].startswith(reason)
    for asked in ("cpu", None):  # not even another backend serves, unasked and slowly
        with gkm_ops.use_backend(asked), pytest.raises(ValueError, match=reason):
            blur()


def test_the_best_instruction_set_that_the_processor_has_serves(monkeypatch):
    from gkm_ops import _info

    needs = {"avx512": ("avx512f", "avx512vl", "avx512dq", "avx512bw"), "avx2": ("avx2", "fma", "f16c")}
    features = _info.cpu_features()
    able = [name for name in instruction_sets() if all(features[feature] for feature in needs.get(name, ()))]
    monkeypatch.delenv("GKM_OPS_CPU_ISA", raising=False)
    assert _info.instruction_set() == able[0]
    for name in able:
        monkeypatch.setenv("GKM_OPS_CPU_ISA", name)
        assert _info.instruction_set() == name


def run(*command, **environment):
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_info_from_the_command_line():
    done = run("-m", "gkm_ops", "info")
    assert done.returncode == 0, done.stderr
    for word in ("cpu", "eager", "available", torch.__version__, *instruction_sets()):
        assert word in done.stdout


def test_info_tells_of_a_backend_that_is_asked_for():
    assert "forced backend eager" in run("-m", "gkm_ops", "info", GKM_OPS_BACKEND="eager").stdout
    done = run("-m", "gkm_ops", "info", GKM_OPS_BACKEND="fast")
    assert (done.returncode, done.stdout) == (1, "")
    assert "GKM_OPS_BACKEND: got 'fast', wanted one of" in done.stderr


def test_the_command_line_explains_itself():
    done = run("-m", "gkm_ops")
    assert done.returncode == 2
    assert "info" in done.stderr


def test_the_environment_forces_from_the_start():
    done = run("-c", "import gkm_ops, torch; from gkm_ops import backends; "
               "print(backends.choose(torch.device('cpu'), torch.float32).name)", GKM_OPS_BACKEND="eager")  # fmt: skip
    assert done.stdout.strip() == "eager", done.stderr
