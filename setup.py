"""Build of the compiled parts: the CPU kernels, behind LibTorch's stable ABI, and a module that tells about them."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

# The oldest torch that the built library loads into.
TORCH_TARGET_VERSION = "0x020b000000000000"  # 2.11

HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
KERNELS = sorted(str(path) for path in Path("csrc/cpu").glob("isa_*.cpp"))
FLAGS = ["-std=c++17", "-O3", "-Wall", "-Wextra", "-Wno-psabi", "-fvisibility=hidden"]

cpu = CppExtension(
    "gkm_ops._cpu",
    ["csrc/ops.cpp", *KERNELS],
    depends=HEADERS,
    extra_compile_args=[*FLAGS, f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"],
    libraries=["torch_cpu"],
    py_limited_api=True,
)
info = Pybind11Extension("gkm_ops._info", ["csrc/info.cpp"], depends=HEADERS, extra_compile_args=FLAGS)

setup(
    ext_modules=[cpu, info],
    cmdclass={"build_ext": BuildExtension.with_options(no_python_abi_suffix=False)},
)
