"""What setup.py decides to build, and the binding of the CUDA kernels beside a torch without CUDA."""

import os
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import setuptools
import torch
from compiling import compile_with, needs_compiler, run

from gkm_ops import cuda

ROOT = Path(__file__).parents[1]
NVCC = shutil.which("nvcc")


@pytest.fixture
def setup(monkeypatch):
    """Runs setup.py up to what it would build: the names of extensions, and what it defines."""
    pytest.importorskip("pybind11")
    monkeypatch.chdir(ROOT)
    for variable in ("GKM_OPS_CUDA", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(variable, raising=False)
    asked = {}
    monkeypatch.setattr(setuptools, "setup", asked.update)

    def execute():
        defined = runpy.run_path("setup.py")
        return [extension.name for extension in asked["ext_modules"]], defined

    return execute


@pytest.fixture
def no_nvcc(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, **options: None)


def with_cuda(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")


def test_cuda_is_built_where_torch_has_it_and_nvcc_is_there(setup, monkeypatch):
    if NVCC is None:
        pytest.skip("there is no nvcc")
    with_cuda(monkeypatch)
    assert "gkm_ops._cuda" in setup()[0]
    monkeypatch.setenv("GKM_OPS_CUDA", "0")
    assert "gkm_ops._cuda" not in setup()[0]
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setenv("GKM_OPS_CUDA", "")
    assert "gkm_ops._cuda" not in setup()[0]
    monkeypatch.setenv("GKM_OPS_CUDA", "1")
    assert "gkm_ops._cuda" in setup()[0]


@pytest.mark.usefixtures("no_nvcc")
def test_without_nvcc_the_install_goes_on_and_says_so(setup, monkeypatch, capfd):
    with_cuda(monkeypatch)
    assert setup()[0] == ["gkm_ops._cpu", "gkm_ops._info"]
    assert "there is no nvcc, so the CUDA kernels are not built; on a GPU Triton serves" in capfd.readouterr().err


@pytest.mark.usefixtures("no_nvcc")
def test_without_nvcc_insisting_fails(setup, monkeypatch):
    monkeypatch.setenv("GKM_OPS_CUDA", "1")
    with pytest.raises(SystemExit, match="GKM_OPS_CUDA=1 asks for the CUDA kernels, and there is no nvcc"):
        setup()


def test_what_is_neither_yes_nor_no_is_refused(setup, monkeypatch):
    monkeypatch.setenv("GKM_OPS_CUDA", "yes")
    with pytest.raises(SystemExit, match="GKM_OPS_CUDA: got 'yes', wanted 0 or 1"):
        setup()


@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
def test_architectures(setup, monkeypatch):
    architectures, generated_code = (setup()[1][name] for name in ("architectures", "generated_code"))
    assert architectures(NVCC)[0] == "80"
    assert architectures(NVCC)[-1].endswith("+PTX")
    assert generated_code(["80", "86", "89", "90", "100", "120+PTX"]) == [
        "-gencode=arch=compute_80,code=[sm_80,sm_86,sm_89,sm_90]",
        "-gencode=arch=compute_100,code=[sm_100,sm_120,compute_100]",
    ]
    flags_for = setup()[1]["flags_for"]
    hopper = ["-gencode=arch=compute_90a,code=sm_90a", "-DGKM_STACKS"]
    assert flags_for(Path("stacked.cu"), ["80", "90", "120+PTX"]) == flags_for(Path("stacked.cu"), ["90a"]) == hopper
    assert flags_for(Path("stacked.cu"), ["80"]) == flags_for(Path("banded.cu"), ["80"]) == generated_code(["80"])
    assert flags_for(Path("banded.cu"), ["80", "90"]) == generated_code(["80", "90"])
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "7.5;9.0a 12.0+PTX")
    assert architectures(NVCC) == ["90a", "120+PTX"]
    assert generated_code(architectures(NVCC)) == [
        "-gencode=arch=compute_80,code=[sm_90a]",
        "-gencode=arch=compute_100,code=[sm_120,compute_100]",
    ]
    for wrong, reason in (("Hopper", "got 'Hopper', wanted capabilities such as 9.0"), ("7.0", "wanted 8.0 or more")):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", wrong)
        with pytest.raises(SystemExit, match=reason):
            architectures(NVCC)


def test_an_sdist_holds_all_sources_wherever_it_is_made(tmp_path):
    pytest.importorskip("pybind11")
    done = run(sys.executable, "setup.py", "egg_info", "--egg-base", tmp_path, cwd=ROOT,
               env={**os.environ, "GKM_OPS_CUDA": "0"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    held = set((tmp_path / "gkm_ops.egg-info" / "SOURCES.txt").read_text().splitlines())
    sources = [*ROOT.glob("csrc/**/*.*"), *ROOT.glob("kernels/*.py"), *ROOT.glob("gkm_ops/**/*.py")]
    assert held >= {path.relative_to(ROOT).as_posix() for path in sources}
    assert held >= {
        "LICENSE", "README.md", "pyproject.toml", "setup.py", "csrc/cuda_ops.cpp", "csrc/cuda/launch.cu",
        "gkm_ops/_info.pyi", "gkm_ops/data/gkmnet.safetensors", "gkm_ops/py.typed",
    }  # fmt: skip


KERNELS_THAT_ARE_NOT_THERE = """
#include "cuda/launch.h"
namespace gkm::cuda {
size_t workspace_bytes(const Form&) { return 0; }
bool wants_plain_rows(Form) { return false; }
int launch(const Form&, void*) { return 0; }
const char* message_of(int) { return "no GPU of theirs"; }
int presence() { return 1; }
const char* build() { return "sm_00"; }
}
"""


@needs_compiler
@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch has CUDA")
def test_the_binding_loads_beside_a_torch_without_cuda(tmp_path):
    source, library = tmp_path / "kernels.cpp", tmp_path / "_cuda.so"
    source.write_text(KERNELS_THAT_ARE_NOT_THERE)
    torch_folder = Path(torch.__file__).parent
    compile_with(
        "g++", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-DUSE_CUDA",
        "-DTORCH_TARGET_VERSION=0x020b000000000000", f"-I{torch_folder / 'include'}", f"-I{ROOT / 'csrc'}",
        ROOT / "csrc" / "cuda_ops.cpp", source, f"-L{torch_folder / 'lib'}", "-Wl,--no-as-needed", "-ltorch",
        "-ltorch_cpu", "-o", library,
    )  # fmt: skip
    done = run(
        sys.executable, "-c",
        "import sys, torch; from gkm_ops import cuda, compiled\n"
        "compiled.library_path = lambda name: sys.argv[1]\n"
        "cuda._library, cuda._problem = cuda._load()\n"
        "assert cuda.built() == 'sm_00', cuda.built()\n"
        "assert 'no GPU of theirs' in cuda._problem_here()\n"
        "print(torch.ops.gkm_ops_cuda.evaluate.default._schema)",
        library, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "gkm_ops_cuda::evaluate(int target, Tensor(a!) out" in done.stdout


def test_a_backend_that_was_not_built_or_has_no_gpu_says_so(monkeypatch):
    monkeypatch.setattr(cuda, "_problem", "its library was not built")
    assert cuda.refusal(torch.device("cuda"), torch.float32) == cuda.built() == "its library was not built"
    monkeypatch.setattr(cuda, "_problem", None)
    assert cuda.refusal(torch.device("cpu"), torch.float32) == "it serves GPUs, not cpu"
    monkeypatch.setattr(cuda, "has_gpu", lambda: False)
    assert cuda.refusal(torch.device("cuda"), torch.float32) == "torch finds no GPU"
    monkeypatch.setattr(cuda, "has_gpu", lambda: True)
    assert cuda.refusal(torch.device("cuda"), torch.int32) == "it has no kernels for torch.int32"
    monkeypatch.setattr(cuda, "_problem_of", "GPU {} is none of its".format)
    assert cuda.refusal(torch.device("cuda:1"), torch.float32) == "GPU 1 is none of its"
