"""The C++ kernels on their own: under sanitizers, and with faults put in that the driver must find."""

import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from compiling import SANITIZERS, compile_with, needs_compiler, replace_once, run

KERNELS = Path(__file__).parents[1] / "csrc" / "cpu"
NATIVE = Path(__file__).parent / "native"
COMPILER = ["g++", "-std=c++17", "-g1", "-Wno-psabi"]
X86 = platform.machine() in ("x86_64", "AMD64")
BASELINE = "sse2" if X86 else "generic"


def entries(*names):
    return "-DGKM_ENTRIES=" + "".join(f"GKM_ENTRY({name})" for name in names)


@needs_compiler
@pytest.mark.usefixtures("sanitizers")
def test_sanitizers_are_silent_and_all_calls_right(tmp_path):
    """The baseline, AVX2 where it runs, and the loops of AVX-512 in vectors that any processor can do."""
    sources = [KERNELS / f"isa_{name}.cpp" for name in ([BASELINE, "avx2"] if X86 else [BASELINE])]
    sources += [NATIVE / "wide.cpp", NATIVE / "driver.cpp"]
    names = [source.stem.removeprefix("isa_") for source in sources[:-2]] + ["avx512"]
    objects = [tmp_path / f"{source.stem}.o" for source in sources]
    options = [*SANITIZERS, entries(*names), "-I", KERNELS, "-I", KERNELS.parent, "-c"]

    def compile_one(source, target):
        # Kernels unoptimised: with the checks in inlined vector code, an optimiser takes ten times as long as it saves.
        compile_with(*COMPILER, "-O1" if source.stem == "driver" else "-O0", *options, source, "-o", target)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_one, sources, objects))
    program = tmp_path / "driver"
    compile_with(*COMPILER, *SANITIZERS, *objects, "-o", program)
    done = run(program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "calls agree with the definition" in done.stdout


@needs_compiler
@pytest.mark.skipif(not X86, reason="the instructions are those of x86")
@pytest.mark.parametrize("name", ["avx2", "avx512"])
def test_half_precision_is_converted_by_the_processor(name, tmp_path):
    """Results are the same without: only the time would tell."""
    listing = tmp_path / "kernels.s"
    compile_with(*COMPILER, "-O0", "-I", KERNELS, "-S", KERNELS / f"isa_{name}.cpp", "-o", listing)
    register = {"avx2": "%ymm", "avx512": "%zmm"}[name]
    lines = listing.read_text().splitlines()
    assert any("vcvtph2ps" in line and register in line for line in lines)
    assert any("vcvtps2ph" in line and register in line for line in lines)


# A fault: the file, what stands there, and what is put in its place.
FAULTS = {
    "reflection repeats the edge": ("bank.h", "2 * (n - 1) - i", "2 * n - 1 - i"),
    "replication of the wrong edge": ("bank.h", "return i < 0 ? 0 : n - 1;", "return i < 0 ? n - 1 : 0;"),
    "row pass short of the radius": ("passes.h", "j <= radii[kFirst]", "j < radii[kFirst]"),
    "column pass short of the radius": ("passes.h", "for (; j >= kRows; j -= kRows)", "for (; j > kRows; j -= kRows)"),
    "terms of the wider kernels left out": ("passes.h", "sum<kTerms + 1>(side, j);", "{}"),
    "terms of the step before lost": ("adjoint.h", "write(kept + i,", "if (false) write(kept + i,"),
    "one sample beside the image": ("vector.h", "lanes : n - first;", "lanes : n - first + 1;"),
    "adjoint by taps not mirrored": ("adjoint.h", "bank.taps_h_reversed_of(i)", "bank.taps_h_of(i)"),
    "fold that overwrites": ("adjoint.h", "to[x] += from[x]", "to[x] = from[x]"),
    "product of the wrong colours": ("gather.h", "systems.add(c, o, at", "systems.add(c, 0, at"),
    "ridge left out": ("ridge.h", "Wide pivot = l(j, j) + ridge;", "Wide pivot = l(j, j);"),
    "transposed form with taps unswapped": ("evaluate.h", "swap(form.taps_w, form.taps_h);", ""),
    "convolution with one transform's sign wrong": ("winograd.h", "even + odd", "even - odd"),
    "convolution that repeats the edge": (
        "winograd.h",
        "if (row < 0 || row >= form_.H)",
        "if (row < -1 || row > form_.H)",
    ),
    "last channels of a group unwritten": ("winograd.h", "o < kGroup && group", "o + 1 < kGroup && group"),
    "bfloat16 cut off, not rounded": ("vector.h", "bits + 0x7fffu + ((bits >> 16) & 1u)", "bits"),
}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """The driver, compiled for the baseline and not yet linked with any kernels."""
    target = tmp_path_factory.mktemp("driver") / "driver.o"
    includes = ["-I", KERNELS, "-I", KERNELS.parent]
    compile_with(*COMPILER, "-O1", entries(BASELINE), *includes, "-c", NATIVE / "driver.cpp", "-o", target)
    return target


def build_and_run(driver, sources, folder):
    program = folder / "driver"
    compile_with(*COMPILER, "-O0", "-I", sources, sources / f"isa_{BASELINE}.cpp", driver, "-o", program)
    return run(program, timeout=300)


@needs_compiler
def test_driver_passes_the_kernels_as_they_are(driver, tmp_path):
    done = build_and_run(driver, KERNELS, tmp_path)
    assert done.returncode == 0, done.stdout


@needs_compiler
@pytest.mark.parametrize(("file", "text", "replacement"), FAULTS.values(), ids=FAULTS)
def test_driver_finds_a_fault(driver, tmp_path, file, text, replacement):
    shutil.copytree(KERNELS.parent, tmp_path / "csrc")
    sources = tmp_path / "csrc" / "cpu"
    replace_once(sources / file, text, replacement)
    done = build_and_run(driver, sources, tmp_path)
    assert done.returncode != 0
    assert "evaluate_" in done.stdout or "convolve_" in done.stdout or done.returncode < 0  # a wrong number, or a crash
