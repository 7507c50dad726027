"""The CUDA kernels without a GPU: run by fibers on a processor, faults put in, and compiled for every architecture.

tests/cuda/shim.h is what makes a processor run them, tests/cuda/driver.cpp calls them as the binding does.
"""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from compiling import SANITIZERS, add_fault, compile_with, needs_compiler, run

CSRC = Path(__file__).parents[1] / "csrc"
HARNESS = Path(__file__).parent / "cuda"
SOURCES = sorted(path.name for path in (CSRC / "cuda").glob("*.cu"))
UNRUNNABLE = ["facts.cu"]  # asks CUDA itself
COMPILER = ["g++", "-std=c++20", "-g1", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]

# By the PTX that they are made of, as setup.py has it.
ARCHITECTURES = {80: (80, 86, 89, 90), 100: (100, 120)}
# The other types' kernels are of the same templates: two architectures would show a change of theirs.
FOR_ALL = ("generic_f32.cu", "banded_f32.cu", "composed.cu", "spread_f32.cu", "tailored.cu")
FEW = (80, 90)
# By Hopper's own instructions, and what stands in their place elsewhere.
STACKED = "stacked.cu"
COMPILED = [*((source, 80) for source in SOURCES), *((source, 100) for source in FOR_ALL), (STACKED, 90)]
# Bytes of stack a thread may take for registers that do not fit: none, but on matrix units, where a multiprocessor is
# to hold 12 warps or more.
MOST_STACK = {
    "banded": {"blur": 200, "blur_adjoint": 200, "correlate": 200, "grad_mix": 320},
    "composed": {"blur": 48, "correlate": 48},
    "stacked": {"blur": 112, "correlate": 96},
    "spread": {"blur_adjoint": 640},
    "tailored": {"blur": 64, "correlate": 48},
}
# Of those for any bank, by the PTX; none of it for registers that did not fit.
MOST_STACK_OF_ANY_BANK = {80: 0, 90: 0, 100: 16}
MOST_REGISTERS = 255
NVCC = shutil.which("nvcc")

# How many of its calls the driver makes, of all kinds in turn.
CALLS, CALLS_SANITIZED, CALLS_FAULTY = 200, 25, 1600
# Theirs are of many products, which take a processor long.
HALF_AS_OFTEN = ("stacked", "spread")
ALL_TYPES, FLOAT32, BFLOAT16 = -1, 0, 2
KERNELS = {"best": 0, "generic": 1, "banded": 2, "composed": 3, "stacked": 4, "spread": 5, "tailored": 6}


class Fault(NamedTuple):
    """What is put in the place of an expression, or of a statement, and the calls that have to find it.

    Attributes:
        around: what stands once in the file, with `text` in it, of which the first counts.
        kernels: as in `KERNELS`.
    """

    file: str
    around: str
    text: str
    instead: str = ""
    storage: int = FLOAT32
    kernels: str = "generic"

    def put_into(self, csrc, number):
        """Leaves the choice to the driver: the fault is there where it is called with this number."""
        add_fault(csrc / "cuda" / self.file, self.around, self.text, self.instead, f"gkm::shim::fault == {number}")


def of_banded(file, around, text=None, instead=""):
    """A fault of the kernels on matrix units; without a text all of what is around it."""
    return Fault(file, around, text or around, instead, kernels="banded")


def of_composed(around, text=None, instead=""):
    """A fault of the kernels that compose each pixel's own."""
    return Fault("composed.cuh", around, text or around, instead, kernels="composed")


def of_stacked(around, text=None, instead=""):
    """A fault of the kernels with products of four warps."""
    return Fault("stacked.cuh", around, text or around, instead, kernels="stacked")


def of_spread(around, text=None, instead=""):
    """A fault of the kernel of single warps."""
    return Fault("spread.cuh", around, text or around, instead, kernels="spread")


def of_tailored(file, around, text=None, instead=""):
    """A fault of the kernels that compose each pixel's own on matrix units."""
    return Fault(file, around, text or around, instead, kernels="tailored")


BARRIER = "__syncthreads();"
FAULTS = {
    "samples overwritten": Fault("generic.cuh", f"{BARRIER}  // the samples and the rows before", BARRIER),
    "samples not awaited": Fault("generic.cuh", f"{BARRIER}\n      if (warp * kPixels >= rows)", BARRIER),
    "rows not awaited": Fault("generic.cuh", f"{BARRIER}\n    visit(", BARRIER),
    "taps overwritten": Fault("generic.cuh", f"{BARRIER}  // those before have been used", BARRIER),
    "shares overwritten": Fault("generic.cuh", f"{BARRIER}  // the shares before have been used", BARRIER),
    "shares not awaited": Fault("generic.cuh", f"{BARRIER}\n  for (int warp = 1;", BARRIER),
    "a warp left out": Fault("generic.cuh", "warp = 1; threadIdx.x == 0", "1", "2"),
    "row pass short of the radius": Fault("generic.cuh", "lane + 2 * radius);", "2 * radius", "2 * radius - 1"),
    "column pass beyond the radius": Fault("generic.cuh", "reads > pixel + k + reach", "reach", "reach + 1"),
    "a span of samples left out": Fault("generic.cuh", "left += kSpan", "kSpan", "2 * kSpan"),
    "rows of the last chunk alone": Fault("generic.cuh", "top += kSide)", "kSide", "needed"),
    "a pixel beside the image": Fault("generic.cuh", "row(k) < form.H && column()", "form.H", "form.H + 1"),
    "reflection repeats the edge": Fault("form.cuh", "2 * (n - 1) - i;", "2 * (n - 1)", "2 * n - 1"),
    "edge folded onto itself": Fault("form.cuh", "if (i > 0 && i <= radius)", "i > 0", "i >= 0"),
    "replication folded short": Fault("form.cuh", "i == n - 1 && e <= radius", "radius", "radius - 1"),
    "colours of the first group alone": Fault("gather.cuh", "const int64_t o = from + i;", "from", "0"),
    "share of another slab": Fault("sums.cuh", "shares[slab * sums]", "slab * sums", "slab"),
    "tap sums not cleared": Fault("sums.cuh", "i < form.banks() * form.K;", "form.banks() * form.K", "form.K"),
    "kept sums not cleared": Fault("sums.cuh", "j <= highest; ++j) kept[", "highest", "highest - 1"),
    "first taps alone": Fault("sums.cuh", "lowest <= radius; lowest +=", "lowest <= radius", "lowest == -radius"),
    "sums of another tap": Fault("sums.cuh", "block_sum(kept[(j - lowest)", "j - lowest", "0"),
    "pivot without the ridge": Fault("ridge.cuh", "(i == j ? ridge : 0)", "i == j", "i < 0"),
    "mix of another kernel": Fault("adjoint.cuh", "(m * form.O + o) * form.C + c", "m", "0"),
    "bfloat16 cut off, not rounded": Fault("numbers.cuh", "0x7fffu + (bits >> 16 & 1)", "0x7fffu", "0u", BFLOAT16),
    "taps by the wrong axis": Fault("launch.cu", "std::swap(form.taps_w, form.taps_h);", "form.taps_w", "form.taps_h"),
    "windows overwritten": of_banded("banded_gather.cuh", f"{BARRIER}  // the windows before", BARRIER),
    "windows not awaited": of_banded("banded.cuh", f"{BARRIER}  // the windows and the findings", BARRIER),
    "windows overwritten by sums": of_banded("banded_gather.cuh", f"{BARRIER}  // the windows, or the sums", BARRIER),
    "colours' sums not awaited": of_banded("banded_gather.cuh", f"{BARRIER}  // all colours' sums", BARRIER),
    "parts' sums not awaited": of_banded("banded_gather.cuh", f"{BARRIER}  // the parts' sums", BARRIER),
    "y not awaited": of_banded("banded_adjoint.cuh", f"{BARRIER}  // y is there", BARRIER),
    "taps not awaited": of_banded("fragments.cuh", f"{BARRIER}\n    symmetric = true;", BARRIER),
    "edge not doubled": of_banded("banded_adjoint.cuh", "place.height, 2.0f)", "2.0f", "1.0f"),
    "edge not halved": of_banded("banded_adjoint.cuh", "int(form.H), 0.5f)", "0.5f", "1.0f"),
    "pixels that the border folds onto left out": of_banded(
        "banded_adjoint.cuh", "reach, form.padding, [&](int64_t) { folded", "reach", "0"
    ),
    "small terms left out": of_banded(
        "fragments.cuh", "j = product == 1 ? 1 : 0;\n  const uint32_t left[4]", "product == 1", "product < 0"
    ),
    "results of the wrong rows": of_banded("fragments.cuh", "lane.g + i / 2 * kBlock", "i / 2", "i % 2"),
    "a column of blocks late": of_banded("fragments.cuh", "int k = first - tile;", "first - tile", "first - tile - 1"),
    "a block of rows twice": of_banded("banded.cuh", "(rest, at + 2 * kBlock * kPitch);", "2 * kBlock", "kBlock"),
    "a four beside the image": of_banded("banded.cuh", "column >= 0 && column + 4", "column >= 0", "column >= -8"),
    "taps of the bank not awaited": of_composed(f"{BARRIER}  // the taps are there", BARRIER),
    "x not awaited": of_composed(f"{BARRIER}  // x is there, for all colours", BARRIER),
    "pairs overwritten": of_composed(f"{BARRIER}  // the pairs before have been used", BARRIER),
    "pairs not awaited": of_composed(f"{BARRIER}  // the pairs are there", BARRIER),
    "pairs of one side": of_composed("at[x - offset] + at[x + offset]", "at[x + offset]", "at[x - offset]"),
    "rows of one side": of_composed("rows[y - j] + rows[y + j]", "rows[y + j]", "rows[y - j]"),
    "taps of one side": of_composed("centre - offset);", "centre - offset", "centre + offset"),
    "coefficients of the kernel before": of_composed("load(n + kAhead, next)", "n + kAhead", "n + kAhead - 1"),
    "what became infinite left": of_composed("fmaf(sums[k], 0.0f, zero);\n        out[k", "sums[k]", "zero"),
    "what became infinite left in a map": of_composed("fmaf(sums[k], 0.0f, zero);\n        out[(m", "sums[k]", "zero"),
    "windows of stacks overwritten": of_stacked(f"{BARRIER}  // the windows before", BARRIER),
    "sums of stacks not awaited": of_stacked(f"{BARRIER}  // all warps' sums", BARRIER),
    "copies of other lanes not awaited": of_stacked("__syncwarp();  // all lanes' copies", "__syncwarp();"),
    "a product not awaited": of_stacked("await_products<0>(product);"),
    "a product taken while the next is under way": of_stacked(
        "await_products<1>(product);", instead="await_products<2>(product);"
    ),
    "a band overwritten under way": of_stacked(
        "await_products<1>(product);", instead="await_products<1>(product), left.load({bank, most(next, 0)});"
    ),
    "copies not awaited": of_stacked("await_copies<kSlots - 2>();"),
    "a step of rows twice": of_stacked("kPlane + 2 * step * kDown", "2 * step", "step"),
    "a wide kernel taken for a narrow one": of_stacked("form.radii[m] > kBlock;", "kBlock", "kBlock + 1"),
    "another's columns added up": of_stacked("(other * kTiles + warp) * 32", "warp", "0"),
    "left over tiles done by half": of_stacked("tiles % blocks : 0); }", "tiles % blocks", "0")._replace(
        storage=BFLOAT16
    ),
    "coefficients of the turn before": of_stacked("copy(slot == 0 ?", "slot == 0", "slot != 0"),
    "bank of single warps not awaited": of_spread(f"{BARRIER}  // the bank and the order", BARRIER),
    "y in another scale": of_spread("scale<BLOCKS>(lift);"),
    "sums in the scale before": of_spread("sums.at[n][p] *= change", "change", "1.0f"),
    "edge of single warps not doubled": of_spread("at_edge(place.rows[n], int(form.H), 2.0f)", "2.0f", "1.0f"),
    "what is beside the image weighed": of_spread("column < 0 || column >= form.W) {", "column >= form.W", "false"),
    "pixels in another order": of_spread("4 * step + i / 2 * 2 -", "4 * step", "4 - 4 * step"),
    "small terms of single warps left out": of_spread("b = which == 1 ? 1 : 0;", "which == 1", "which < 0"),
    "parts of a bank not awaited": of_spread(f"{BARRIER}  // all parts' sums", BARRIER),
    "what another part could not do": of_spread("by_taps |= found[kTiles * 32].x != 0;"),
    "a part's last kernel left out": of_spread("narrow * (part + 1) / parts) &&", "(part + 1)", "part"),
    "products put where it is not empty yet": of_tailored(
        "tailored_bank.cuh", f"{BARRIER}  // all of it is empty", BARRIER
    ),
    "places of kernels not awaited": of_tailored("tailored_bank.cuh", f"{BARRIER}  // the kernels' places", BARRIER),
    "taps of a tailored bank not awaited": of_tailored(
        "tailored_bank.cuh", f"{BARRIER}  // the taps are there", BARRIER
    ),
    "a tailored bank not awaited": of_tailored("tailored.cuh", f"{BARRIER}  // blur's bank is there", BARRIER),
    "a transposed bank not awaited": of_tailored(
        "tailored.cuh", f"{BARRIER}  // the transposed bank is there", BARRIER
    ),
    "tailored pairs not awaited": of_tailored(
        "tailored.cuh", f"{BARRIER}  // the pairs are there, to be weighed", BARRIER
    ),
    "tailored pairs overwritten": of_tailored("passes.cuh", f"{BARRIER}  // all warps have said it", BARRIER),
    "scratch overwritten": of_tailored("tailored.cuh", f"{BARRIER}  // the scratch has been used", BARRIER),
    "pairs of y's not awaited": of_tailored("tailored.cuh", f"{BARRIER}  // the pairs are there, for y", BARRIER),
    "scratch of correlate overwritten": of_tailored("tailored.cuh", f"{BARRIER}  // the scratch of correlate", BARRIER),
    "rows of a pass overwritten": of_tailored("passes.cuh", f"{BARRIER}  // the rows before", BARRIER),
    "rows of a pass not awaited": of_tailored("passes.cuh", f"{BARRIER}  // the rows are there", BARRIER),
    "a pass short of its radius": of_tailored("passes.cuh", "i < ROWS + 2 * radius;", "2 * radius", "radius"),
    "tailored pairs of one side": of_tailored("tailored_pairs.cuh", "[x - j] + read[of_two][x + j]", "x - j", "x + j"),
    "unequal taps taken": of_tailored("tailored_bank.cuh", "centre - offset)", "centre - offset", "centre + offset"),
    "a tile's rows beside the image": of_tailored(
        "tailored_pairs.cuh", "padding != Padding::zeros);", "Padding::zeros", "Padding(-1)"
    ),
    "a wide kernel in a narrow group": of_tailored(
        "tailored_bank.cuh", "form.radii[other] > form.radii[m] ||", "form.radii[other]", "-form.radii[other]"
    ),
    "what first terms leave left out": of_tailored("tailored.cuh", "mma_f16_k8(rest, rows, minus_one);"),
    "small products left out": of_tailored("tailored.cuh", "+ small[group][two][i];", "small[group][two][i]", "0.0f"),
    "sums of half a quad": of_tailored("tailored.cuh", "__shfl_xor_sync(kWholeWarp, given, 2);", "given", "0.0f"),
    "a result's infinity left in blur": of_tailored(
        "tailored.cuh", "fmaf(result, 0.0f, zero);  // of blur", "result", "zero"
    ),
    "a result's infinity left in correlate": of_tailored(
        "tailored.cuh", "fmaf(result, 0.0f, zero);  // of correlate", "result", "zero"
    ),
    "part of another row": of_banded("banded.cuh", "top(area.top + row)", "area.top + row", "area.top"),
}


def compile_all(csrc, folder, *options):
    """All kernels that a processor can run, and the driver, as C++."""
    sources = [*((csrc / "cuda" / name) for name in SOURCES if name not in UNRUNNABLE), HARNESS / "driver.cpp"]
    # The harness is read once: that takes longer than some kernels do.
    compile_with(*COMPILER, *options, "-x", "c++-header", HARNESS / "shim.h", "-o", folder / "shim.h.gch")
    includes = ["-include", folder / "shim.h", *(f"-I{path}" for path in (csrc, csrc / "cuda", HARNESS))]

    def compile_one(source):
        target = folder / f"{source.name}.o"
        compile_with(*COMPILER, *options, *includes, "-x", "c++", "-c", source, "-o", target)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, sources))
    compile_with("g++", *options, *objects, "-o", folder / "driver")
    return folder / "driver"


def call(driver, calls, storage, kernels, fault=0):
    # Threads of a block have stacks of their own, between which they jump.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"}
    return run(driver, calls, storage, KERNELS[kernels], fault, env=environment, timeout=600)


@needs_compiler
def test_kernels_agree_with_the_definition_and_faults_are_found(tmp_path):
    shutil.copytree(CSRC, tmp_path / "csrc")
    for number, fault in enumerate(FAULTS.values(), 1):
        fault.put_into(tmp_path / "csrc", number)
    driver = compile_all(tmp_path / "csrc", tmp_path, "-O1")

    for kernels in KERNELS:
        done = call(driver, CALLS // 2 if kernels in HALF_AS_OFTEN else CALLS, ALL_TYPES, kernels)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "calls agree with the definition" in done.stdout

    def is_found(name):
        fault = FAULTS[name]
        number = 1 + list(FAULTS).index(name)
        return call(driver, CALLS_FAULTY, fault.storage, fault.kernels, number).returncode != 0

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(FAULTS, pool.map(is_found, FAULTS), strict=True))
    assert all(found.values()), [name for name in FAULTS if not found[name]]


@needs_compiler
@pytest.mark.usefixtures("sanitizers")
def test_sanitizers_are_silent(tmp_path):
    # Hardly optimised: with the checks in unrolled code, an optimiser takes longer than it saves.
    driver = compile_all(CSRC, tmp_path, "-Og", *SANITIZERS)
    for kernels in KERNELS:
        done = call(driver, CALLS_SANITIZED, ALL_TYPES, kernels)
        assert done.returncode == 0, done.stdout + done.stderr


# What ptxas tells of a kernel, one line after the other.
RESOURCES = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for 'sm_(?P<architecture>\d+a?)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def most_stack(kernel, ptx):
    """Of a kernel by its mangled name."""
    bounds = {f"{space}{len(name)}{name}I": most for space, of in MOST_STACK.items() for name, most in of.items()}
    return next((most for name, most in bounds.items() if name in kernel), MOST_STACK_OF_ANY_BANK[ptx])


@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
@pytest.mark.parametrize(("source", "ptx"), COMPILED)
def test_compiles_for_every_architecture_and_spills_within_bounds(source, ptx, tmp_path):
    if source == STACKED and ptx == 90:
        target = ["arch=compute_90a,code=sm_90a", "-DGKM_STACKS"]
    else:
        architectures = ARCHITECTURES[ptx] if source in FOR_ALL else FEW
        target = [f"arch=compute_{ptx},code=[{','.join(f'sm_{architecture}' for architecture in architectures)}]"]
    told = compile_with(
        NVCC, "-std=c++17", "-O3", "-Werror=all-warnings", "-Xptxas=-v", '-DGKM_ARCHITECTURES="tested"',
        "-gencode", *target,
        "-c", CSRC / "cuda" / source, "-o", tmp_path / "object.o",
    )  # fmt: skip
    assert "wgmma.mma_async instructions are serialized" not in told
    kernels = [match.groupdict() for match in RESOURCES.finditer(told)]
    assert len(kernels) == told.count("Compiling entry function")
    for kernel in kernels:
        assert int(kernel["registers"]) <= MOST_REGISTERS, kernel
        assert int(kernel["stack"]) <= most_stack(kernel["kernel"], ptx), kernel
        assert any(space in kernel["kernel"] for space in MOST_STACK) or int(kernel["stores"]) == 0, kernel


def test_no_kernel_asks_for_its_architecture():
    for path in (CSRC / "cuda").glob("*.cu*"):
        assert not re.search(r"__CUDA_ARCH__ *[<>=]", path.read_text()), path.name
