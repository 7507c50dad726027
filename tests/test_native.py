"""The C++ kernels on their own: under sanitizers, and with faults put in that the driver must find."""

import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from compiling import SANITIZERS, add_fault, compile_with, needs_compiler, run

KERNELS = Path(__file__).parents[1] / "csrc" / "cpu"
NATIVE = Path(__file__).parent / "native"
COMPILER = ["g++", "-std=c++17", "-g1", "-Wno-psabi"]
# Kernels unoptimised, and each function once: what they force inline would be compiled, with all checks, at every call.
PLAIN = ["-O0", "-Dalways_inline="]
X86 = platform.machine() in ("x86_64", "AMD64")
ENTRIES = "evaluate", "convolve", "convolve_gradient", "convolve_thin", "attend", "normalize"
BASELINE = "sse2" if X86 else "generic"
needs_avx2 = pytest.mark.skipif("AVX" not in torch.backends.cpu.get_cpu_capability(), reason="there is no AVX2")


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
        optimisation = ["-O1"] if source.stem == "driver" else PLAIN
        compile_with(*COMPILER, *optimisation, *options, source, "-o", target)

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
    compile_with(*COMPILER, *PLAIN, "-I", KERNELS, "-S", KERNELS / f"isa_{name}.cpp", "-o", listing)
    register = {"avx2": "%ymm", "avx512": "%zmm"}[name]
    lines = listing.read_text().splitlines()
    assert any("vcvtph2ps" in line and register in line for line in lines)
    assert any("vcvtps2ph" in line and register in line for line in lines)


class Fault(NamedTuple):
    """What is put in the place of an expression, or of a statement.

    Attributes:
        around: what stands once in the file, with `text` in it.
    """

    file: str
    around: str
    text: str
    instead: str = ""


def whole(file, text, instead=""):
    """A fault in the place of all that stands once in the file."""
    return Fault(file, text, text, instead)


FAULTS = {
    "reflection repeats the edge": whole("bank.h", "2 * (n - 1) - i", "2 * n - 1 - i"),
    "replication of the wrong edge": whole("bank.h", "return i < 0 ? 0 : n - 1;", "return i < 0 ? n - 1 : 0;"),
    "row pass short of the radius": whole("passes.h", "j <= radii[kFirst]", "j < radii[kFirst]"),
    "column pass short of the radius": Fault("passes.h", "for (; j >= kRows; j -=", "j >= kRows", "j > kRows"),
    "terms of the wider kernels left out": whole("passes.h", "sum<kTerms + 1>(side, j);"),
    "terms of the step before lost": whole("adjoint.h", "write(kept + i, load(kept + kStep + i));"),
    "one sample beside the image": Fault("vector.h", "lanes : n - first;", "n - first", "n - first + 1"),
    "adjoint by taps not mirrored": whole("adjoint.h", "bank.taps_h_reversed_of(i)", "bank.taps_h_of(i)"),
    "fold that overwrites": whole("adjoint.h", "to[x] += from[x]", "to[x] = from[x]"),
    "product of the wrong colours": Fault("gather.h", "systems.add(c, o, at", "o", "0"),
    "ridge left out": Fault("ridge.h", "Wide pivot = l(j, j) + ridge;", "l(j, j) + ridge", "l(j, j)"),
    "transposed form with taps unswapped": whole("evaluate.h", "swap(form.taps_w, form.taps_h);"),
    "convolution with one transform's sign wrong": whole("winograd_transforms.h", "even + odd", "even - odd"),
    "convolution of 5x5 short of a point": whole("winograd_transforms.h", "0.125f * difference3", "0.0f * difference3"),
    "weights transformed along one axis": whole("winograd_transforms.h", "t[l][i] * evaluation.of[l][j]", "t[l][i]"),
    "convolution past the border": Fault("winograd.h", "form_.B || row < 0 ||", "row < 0", "row < -1"),
    "rows of tiles side by side not kept apart": whole("winograd.h", "at + kTileMade", "at"),
    "rows of the first image alone": Fault("winograd.h", "{row / tile_rows_, kTile", "row / tile_rows_", "int64_t(0)"),
    "last channels of a group unwritten": Fault("winograd.h", "o < kGroup && group", "o < kGroup", "o + 1 < kGroup"),
    "gradient by weights short of a tap": Fault(
        "winograd_transforms.h", "k < Size; ++k) out[", "k < Size", "k + 1 < Size"
    ),
    "gradient by weights of the last share alone": whole(
        "winograd_gradient.h", "sum += sums_of(share)[at];", "sum = sums_of(share)[at];"
    ),
    "gradient by weights past the border": Fault(
        "winograd_gradient.h", "form_.W - left < columns ?", "form_.W - left", "form_.W - left + 1"
    ),
    "gradient by bias of the wrong point": Fault(
        "winograd_gradient.h", "point != kRead + 1)", "kRead + 1", "kRead + 2"
    ),
    "convolution of few channels off by a row": Fault(
        "thin_convolution.h", "top - kHalo + i % rows;", "top - kHalo", "top - kHalo + 1"
    ),
    "gradient of few channels of the last band alone": whole(
        "thin_convolution.h", "sum += sums_[task * sums + i];", "sum = sums_[task * sums + i];"
    ),
    "one band's maxima lost": Fault("attention.h", "band == 0 ? read<V>(most_of", "band == 0", "band <= 1"),
    "sum along a row without its end": Fault("attention.h", "float sum = rest;", "rest", "0"),
    "maxima that are not shared": Fault(
        "attention.h", "/ read<V>(form_.made.over_c + c + w);", "read<V>(form_.made.over_c + c + w)", "V{} + 1"
    ),
    "gate of two axes": Fault("attention.h", "+ w) + over_w) *", "over_w", "0.0f"),
    "norm not rectified back": Fault("normalization.h", "<= 0 ? V{} : grad;", "V{}", "grad"),
    "statistics of one image": Fault("normalization.h", "b < form_.B; ++b", "b < form_.B", "b < 1"),
    "bfloat16 cut off, not rounded": whole("vector.h", "bits + 0x7fffu + ((bits >> 16) & 1u)", "bits"),
}

# In what is compiled for vectors of 64 bytes alone.
FAULTS_OF_COMBS = {
    "reflection repeats the edge of a comb": Fault("comb.h", "from < 0 ? 1 : n", "1", "0"),
    "comb without the pixel on its left": Fault("comb.h", "result[0] = pixel", "pixel", "0"),
    "comb without the pixel on its right": Fault("comb.h", "result[kToothLanes - 1] = pixel", "pixel", "0"),
    "pixel beside a comb off by one": Fault("comb_passes.h", "beside_[j - 1]", "j - 1", "j"),
    "one tooth of a pair twice": Fault("comb_passes.h", "at[-j] + at[j]", "-j", "j"),
    "columns beside combs too few to fold": whole("evaluate.h", "banks.radius() + 1", "0"),
    "row of x too low": Fault("comb_gather.h", "read_x(place(k + radius, comb)", "k + radius", "k + radius + 1"),
    "map of the last colour alone": Fault("comb_gather.h", "begins = c == 0 ||", "c == 0", "true"),
    "outermost pixels not doubled": whole("comb_adjoint.h", "scale_edges(at, 2, comb);"),
    "sums that share a place": Fault("comb_adjoint.h", "row % kRing : kRing", "row % kRing", "row % (kRing / 4)"),
    "rows written too early": Fault("comb_adjoint.h", "min(y - radius + 1,", "y - radius", "y - radius / 2"),
    "sums that are not cleared": whole("comb_adjoint.h", "__builtin_memset(row, 0, kTeethSize * sizeof(float));"),
    "sources above a band left out": whole("comb_adjoint.h", "max(top - radius, 0)", "top"),
}

# In what is compiled for 16 registers alone.
FAULTS_OF_WINDOWS = {
    "pair sum of the wrong row": Fault("comb_passes.h", "load(at + kRadius * kCombSize)", "kRadius", "(kRadius - 1)"),
    "second of two kernels by the taps of the first": Fault("comb_passes.h", "taps[n * size + j]", "n", "0"),
    "third kernel of a radius left out": Fault("comb_passes.h", "if (left > 0) blur_by", "left > 0", "left > 1"),
    "tooth on the left without its pixel": Fault("comb_passes.h", "from_left(beside[-j], load", "beside[-j]", "0"),
    "tooth on the right without its pixel": Fault("comb_passes.h", "* kToothLanes), beside[j - 1]", "j - 1", "j"),
    "tooth on the left of the wrong place": Fault("comb_passes.h", "(kTeeth - j)", "kTeeth - j", "kTeeth - 1"),
    "every window the first": Fault("comb_passes.h", "(comb + first * kToothLanes,", "first", "0"),
    "pixels beside a comb among its teeth": Fault("comb_gather.h", "(v < kTeethSize ? 0 : kKept)", "kKept", "L"),
    "map of the first window": Fault("comb.h", "(first + k) * kToothLanes); }", "first", "0"),
    "weights of the first window": Fault("comb_adjoint.h", "write(blurred + (first + k)", "first", "0"),
}


@needs_compiler
@pytest.mark.parametrize(
    ("faults", "entry"),
    [(FAULTS, BASELINE), (FAULTS_OF_COMBS, "avx512"), pytest.param(FAULTS_OF_WINDOWS, "avx2", marks=needs_avx2)],
    ids=["baseline", "combs", "windows"],
)
def test_driver_passes_the_kernels_as_they_are_and_finds_faults(faults, entry, tmp_path):
    """Those of AVX-512 in vectors that any processor can do."""
    shutil.copytree(KERNELS.parent, tmp_path / "csrc")
    kernels, program = tmp_path / "csrc" / "cpu", tmp_path / "driver"
    for number, fault in enumerate(faults.values(), 1):
        add_fault(kernels / fault.file, *fault[1:], f"gkm::tests::fault == {number}")
    options = [entries(entry), "-include", NATIVE / "fault.h", "-I", kernels, "-I", kernels.parent, "-c"]

    def compile_one(source, optimisation):
        target = tmp_path / f"{source.stem}.o"
        compile_with(*COMPILER, *optimisation, *options, source, "-o", target)
        return target

    with ThreadPoolExecutor(2) as pool:
        kernel_source = NATIVE / "wide.cpp" if entry == "avx512" else kernels / f"isa_{entry}.cpp"
        sources = kernel_source, NATIVE / "driver.cpp"
        objects = list(pool.map(compile_one, sources, (PLAIN, ["-O1"])))
        compile_with("g++", *objects, "-o", program)
        done = list(pool.map(lambda number: run(program, number, timeout=300), range(1 + len(faults))))

    assert done[0].returncode == 0, done[0].stdout
    survivors = []
    for name, faulty in zip(faults, done[1:], strict=True):
        told = any(f"{entry}_" in faulty.stdout for entry in ENTRIES)
        if faulty.returncode == 0 or not (told or faulty.returncode < 0):  # a wrong number, or a crash
            survivors.append(name)
    assert not survivors
