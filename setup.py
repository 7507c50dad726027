"""Build of the compiled parts: CPU and CUDA kernels, behind LibTorch's stable ABI, and a module that tells about them.

The CUDA kernels are built when torch has CUDA and nvcc is there; `GKM_OPS_CUDA=0` leaves them out and `GKM_OPS_CUDA=1`
insists on them. No GPU is looked for: `TORCH_CUDA_ARCH_LIST` says for which they are.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

# The oldest torch that the built libraries load into.
TORCH_TARGET_VERSION = "0x020b000000000000"  # 2.11

HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
KERNELS = sorted(str(path) for path in Path("csrc/cpu").glob("isa_*.cpp"))
FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Wno-psabi", "-fvisibility=hidden"]
STABLE_FLAGS = [*FLAGS, f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]

CUDA_SOURCES = sorted(Path("csrc/cuda").glob("*.cu"))
CUDA_HEADERS = sorted(str(path) for path in Path("csrc/cuda").glob("*.cuh"))
NVCC_FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden"]
ARCHITECTURES = "8.0 8.6 8.9 9.0 10.0 12.0"  # and PTX of the last, for those to come
# Where architectures' own PTX begins to make other machine code than that of the ones before: it is made once for each.
PTX = (80, 100)
LEAST_CAPABILITY = PTX[0]
# Kernels of instructions that one architecture alone has, machine code of which is asked for by another name.
STACKED, STACKED_CAPABILITY = "stacked.cu", 90


def find_nvcc():
    """nvcc of CUDA_HOME, or on the path, or where it usually is; None where there is none."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    folders = [Path(home) / "bin" for home in homes if home]
    places = [*map(str, folders), os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(places))


def wanted_nvcc():
    """The nvcc to build the CUDA kernels with, or None to leave them out."""
    asked = os.environ.get("GKM_OPS_CUDA", "")
    if asked not in ("", "0", "1"):
        sys.exit(f"GKM_OPS_CUDA: got {asked!r}, wanted 0 or 1, or nothing to let torch and nvcc decide")
    nvcc = find_nvcc()
    if asked == "1" and nvcc is None:
        sys.exit("GKM_OPS_CUDA=1 asks for the CUDA kernels, and there is no nvcc: set CUDA_HOME, or put it on the path")
    if asked == "0" or (asked == "" and torch.version.cuda is None):
        return None
    if nvcc is None:
        print("gkm_ops: there is no nvcc, so the CUDA kernels are not built; on a GPU Triton serves", file=sys.stderr)
    return nvcc


def architectures(nvcc):
    """Capabilities such as "90", and "120+PTX", from TORCH_CUDA_ARCH_LIST or those of the default that nvcc knows."""
    asked = re.split(r"[\s;,]+", os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip())
    if asked == [""]:
        known = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout.split()
        chosen = [name.replace(".", "") for name in ARCHITECTURES.split() if f"sm_{name.replace('.', '')}" in known]
        return [*chosen[:-1], f"{chosen[-1]}+PTX"]
    chosen = []
    for name in asked:
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", name)
        if match is None:
            sys.exit(f"TORCH_CUDA_ARCH_LIST: got {name!r}, wanted capabilities such as 9.0 or 9.0+PTX")
        if int(match[1] + match[2]) >= LEAST_CAPABILITY:
            chosen.append(match[1] + match[2] + match[3] + (match[4] or ""))
    if not chosen:
        sys.exit(f"TORCH_CUDA_ARCH_LIST: got {' '.join(asked)}, wanted 8.0 or more; GKM_OPS_CUDA=0 does without")
    return chosen


def generated_code(architectures):
    """nvcc's flags for machine code of each, and PTX where it is asked for."""
    codes = {}
    for name in architectures:
        number = name.removesuffix("+PTX")
        ptx = max(least for least in PTX if least <= int(number.rstrip("af")))
        codes.setdefault(ptx, []).append(f"sm_{number}")
        if name.endswith("+PTX"):
            codes[ptx].append(f"compute_{ptx}")
    return [f"-gencode=arch=compute_{ptx},code=[{','.join(of_ptx)}]" for ptx, of_ptx in codes.items()]


def flags_for(source, architectures):
    """What nvcc takes for one of the sources: those of one architecture's own instructions are for no other."""
    if source.name == STACKED and STACKED_CAPABILITY in (
        int(name.removesuffix("+PTX").rstrip("af")) for name in architectures
    ):
        return [f"-gencode=arch=compute_{STACKED_CAPABILITY}a,code=sm_{STACKED_CAPABILITY}a", "-DGKM_STACKS"]
    return generated_code(architectures)


def library_folders(nvcc):
    """Where nvcc's own run-time library is, as it tells itself."""
    told = subprocess.run(
        [nvcc, "--dryrun", "-o", os.devnull, "x.o"], check=True, capture_output=True, text=True
    ).stderr
    return [flag[2:] for flag in shlex.split(re.search(r"LIBRARIES=(.*)", told)[1]) if flag.startswith("-L")]


class Build(BuildExtension):
    """torch's, with nvcc called by ourselves: torch would look for a GPU, and refuse where it has no CUDA itself."""

    def build_extensions(self):
        with ThreadPoolExecutor(1) as beside:
            self.kernels = beside.submit(self.compile_kernels) if cuda in self.extensions else None
            super().build_extensions()

    def build_extension(self, ext):
        if ext is not cuda:
            super().build_extension(ext)
            return
        ext.extra_objects = self.kernels.result()
        unforced, self.force = self.force, True  # what was linked may be of other architectures
        super().build_extension(ext)
        self.force = unforced

    def compile_kernels(self):
        names = architectures(NVCC)
        folder = Path(self.build_temp) / f"cuda-{'-'.join(names)}"
        folder.mkdir(parents=True, exist_ok=True)
        told = f'-DGKM_ARCHITECTURES="{" ".join(f"sm_{name}" for name in names)}"'
        jobs = int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))
        # A few of the sources take most of the time, each for every architecture.
        threads = f"--threads={min(len(names), max(1, jobs // 4))}"
        newest = max(Path(source).stat().st_mtime for source in [*CUDA_SOURCES, *CUDA_HEADERS, *HEADERS, "setup.py"])

        def compile_one(source):
            target = folder / f"{source.stem}.o"
            if not target.exists() or target.stat().st_mtime < newest:
                options = [*NVCC_FLAGS, *flags_for(source, names), told, threads, "-c", str(source), "-o", str(target)]
                subprocess.run([NVCC, *options], check=True)
            return str(target)

        try:
            with ThreadPoolExecutor(jobs) as pool:
                return list(pool.map(compile_one, CUDA_SOURCES))
        except subprocess.CalledProcessError as error:
            sys.exit(f"nvcc fails: {shlex.join(error.cmd)}\nGKM_OPS_CUDA=0 leaves the CUDA kernels out.")


cpu = CppExtension(
    "gkm_ops._cpu",
    ["csrc/ops.cpp", *KERNELS],
    depends=HEADERS,
    extra_compile_args=STABLE_FLAGS,
    libraries=["torch_cpu"],
    py_limited_api=True,
)
info = Pybind11Extension("gkm_ops._info", ["csrc/info.cpp"], depends=HEADERS, extra_compile_args=FLAGS)
extensions = [cpu, info]

NVCC = wanted_nvcc()
cuda = None
if NVCC is not None:
    cuda = CppExtension(
        "gkm_ops._cuda",
        ["csrc/cuda_ops.cpp"],
        depends=[*HEADERS, *CUDA_HEADERS, *map(str, CUDA_SOURCES)],
        extra_compile_args=[*STABLE_FLAGS, "-DUSE_CUDA"],
        library_dirs=library_folders(NVCC),
        libraries=["torch_cpu", "cudart_static", "rt", "dl", "pthread"],
        # What knows of streams is in a library that libtorch brings along, where torch has CUDA.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch"],
        py_limited_api=True,
    )
    extensions.append(cuda)

setup(
    ext_modules=extensions,
    cmdclass={"build_ext": Build},
)
