"""Compiles every Triton kernel for GPUs that are not here, and prints what each takes, as JSON lines.

    python ahead_of_time.py CAPABILITY PRECISION        80, 90 or 100 for sm_80 and so on; float32, TF32 or bfloat16

The launches are those of the published bank on a photo of 1680x1120, caught on their way to the device.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import gkm_ops
from gkm_ops.kernels import backend

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
}
ALIGNED = [["tt.divisibility", 16]]


def launches(dtype: torch.dtype) -> dict:
    """What each op would launch: name -> (kernel, arguments, constants, options)."""
    bank = gkm_ops.GaussianBank.gkmnet()
    taps, radii = bank.taps, bank.radii
    x, coeffs = torch.empty(1, 3, 1120, 1680, dtype=dtype), torch.empty(1, 22, 1120, 1680, dtype=dtype)
    mix = torch.empty(22, 3, 3)
    calls = {
        "blur": lambda: backend.blur(x, coeffs, taps, taps, None, radii, "reflect"),
        "blur, mix": lambda: backend.blur(x, coeffs, taps, taps, mix, radii, "reflect"),
        "blur_adjoint": lambda: backend.blur_adjoint(x, coeffs, taps, taps, None, radii, "reflect"),
        "blur_adjoint, mix": lambda: backend.blur_adjoint(x, coeffs, taps, taps, mix, radii, "reflect"),
        "correlate": lambda: backend.correlate(x, x, taps, taps, None, radii, "reflect", False),
        "grad_mix": lambda: backend.grad_mix(x, x, coeffs, taps, taps, radii, "reflect"),
        "grad_taps": lambda: backend.grad_taps_h(x, x, coeffs, taps, None, radii, "reflect"),
    }
    if dtype == torch.float32:
        calls["ridge_dual"] = lambda: backend.ridge_dual(x, x, taps, taps, radii, 1e-4, "reflect")
    caught = {}
    for name, call in calls.items():

        def catch(kernel, programs, device, *args, registers=backend._MOST_REGISTERS, name=name, **constants):
            if kernel.fn.__name__ == "tabulate_bands":
                name = "bands"
            elif "BLOCKS" in constants:
                name += f", {constants['BLOCKS']} blocks"
            options = {"num_warps": 1, "num_stages": 1, "maxnreg": registers, "enable_fp_fusion": True}
            caught[name] = kernel, args, constants, options

        backend._launch = catch
        call()
    return caught


def compile_for(capability: int, kernel, args, constants, options):
    """As the first launch on such a device would, its special cases for ones and multiples of 16 included."""
    signature, constants, attributes = {}, dict(constants), {}
    plain = {parameter.name for parameter in kernel.params if parameter.do_not_specialize}
    for i, name in enumerate(kernel.arg_names):
        value = constants.get(name) if name in constants else args[i]
        if name in constants:
            signature[name] = "constexpr"
        elif isinstance(value, torch.Tensor):
            signature[name], attributes[(i,)] = POINTERS[value.dtype], ALIGNED
        elif value == 1 and name not in plain:
            signature[name], constants[name] = "constexpr", 1
        else:
            signature[name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0 and name not in plain:
                attributes[(i,)] = ALIGNED
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=options)


def told_of(cubin: bytes, option: str) -> str:
    """What NVIDIA's cuobjdump, which comes with Triton, says about machine code."""
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([cuobjdump, option, file.name], capture_output=True, text=True, check=True).stdout


def resources(cubin: bytes) -> dict[str, int]:
    """Registers a thread and bytes of its stack, which is what spills."""
    told = told_of(cubin, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    assert found is not None, told
    return {"registers": int(found[1]), "stack": int(found[2])}


def loops(cubin: bytes) -> list[dict[str, int]]:
    """The instructions of every loop of matrix products, and those among them that go to or from shared memory."""
    found = re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?(.*?);", told_of(cubin, "--dump-sass"), re.MULTILINE)
    places = {int(address, 16): place for place, (address, _) in enumerate(found)}
    counts = []
    for last, (address, text) in enumerate(found):
        target = re.search(r"^BRA.*0x([0-9a-f]+)", text)
        if target is None or int(target[1], 16) >= int(address, 16):
            continue
        body = [instruction for _, instruction in found[places[int(target[1], 16)] : last + 1]]
        products, shared = (sum(text.startswith(kinds) for text in body) for kinds in (("HMMA",), ("STS", "LDS")))
        if products > 0:
            counts.append({"instructions": len(body), "matrix_products": products, "shared": shared})
    return counts


def main() -> None:
    capability, precision = int(sys.argv[1]), sys.argv[2]
    if precision == "TF32":
        torch.set_float32_matmul_precision("high")
    for name, launch in launches(torch.float32 if precision == "TF32" else getattr(torch, precision)).items():
        compiled = compile_for(capability, *launch)
        row = {"op": name, "precision": precision, "capability": capability, "triton": triton.__version__}
        row |= resources(compiled.asm["cubin"]) | {"loops": loops(compiled.asm["cubin"])}
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
