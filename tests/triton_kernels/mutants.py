"""Puts faults into copies of the Triton kernels and prints those that a few calls do not find.

    python mutants.py SHARE SHARES        every so many faults from one on

Run under TRITON_INTERPRET=1. Each fault is a text of one file and what it becomes.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from interpreter import hasten
from problems import IMAGE_OPS, OPS, Problem, call, expected
from tolerances import assert_image_close, assert_sum_close

import gkm_ops
from gkm_ops import backends

FAULTS = (
    ("taps.py", "2 * (length - 1) - index)", "2 * length - 1 - index)"),
    ("taps.py", "index = tl.minimum(tl.maximum(index, 0), length - 1)", "index = tl.minimum(index, length - 1)"),
    ("taps.py", "mask=tl.abs(offset) <= radius, other=0).to", "mask=offset < radius, other=0).to"),
    ("taps.py", "writes < length - 1)\n", "writes < length)\n"),
    ("fragments.py", "tile % tile_columns * (16 * ACROSS)", "tile % tile_rows * (16 * ACROSS)"),
    ("fragments.py", "total = tl.dot(left[1], right[0], total)", "total += 0"),
    ("fragments.py", "+ 8 * ((e >> 5) & 1), 2 * (e & 3)", "+ 8 * ((e >> 6) & 1), 2 * (e & 3)"),
    ("fragments.py", "8 * ((e >> 6) & 1), ((e >> 2) & 7)", "8 * ((e >> 5) & 1), ((e >> 2) & 7)"),
    ("fragments.py", "(2, 1, 4, 3, 0))  # column", "(3, 1, 4, 2, 0))  # column"),
    ("fragments.py", "tl.where(c == i,", "tl.where(c > i,"),
    ("bands.py", "reads - i, i >= 0)", "i - reads, i >= 0)"),
    ("bands.py", "at_top, at_left = top + 16 * p, left + 16 * q", "at_top, at_left = top + 16 * q, left + 16 * p"),
    ("bands.py", "bands_w[n][q - n]", "bands_w[n][q - ACROSS + 1]"),
    ("bands.py", "inverse *= tl.load(inverses_w + kernel) * back", "inverse *= inverse * back"),
    ("bands.py", "scales(bits, WINDOW_EXPONENT)\n    factors", "scales(bits, 12)\n    factors"),
    ("bands.py", "block >= last - edge", "block > last - edge"),
    ("bands.py", "block < edge", "block < edge - 1"),
    ("gather.py", "row = c * kernels if CHANNEL_BANKS", "row = 0 if CHANNEL_BANKS"),
    ("gather.py", "(sums[o * BLOCKS_ACROSS + n] + share", "(share"),
    ("gather.py", "own_row = row + c * kernels", "own_row = row"),
    ("gather.py", "tl.minimum(first + n, LAST - 1))\n                images", "(first + n))\n                images"),
    ("gather.py", "(totals[n] + weight[0] * images[0],)", "(weight[0] * images[0],)"),
    ("gather.py", "share = tl.load(mix + o * colours + c)", "share = tl.load(mix + c * outputs + o)"),
    ("gather.py", "tl.store(sums + (m * outputs + o) * colours", "tl.store(sums + (m * outputs) * colours"),
    ("adjoint.py", "(sums[n] + inverse * results[n],)", "(inverse * results[n],)"),
    ("adjoint.py", "(left > margin)", "(left > margin - 16)"),
    ("adjoint.py", "border_slot(left // 16 + n,", "border_slot(left // 16,"),
    ("adjoint.py", "mix + o * colours)\n                added", "mix)\n                added"),
    ("grad_taps.py", "weights += coeffs_channel", "weights += 0"),
    ("grad_taps.py", "(left >= margin)", "(left >= margin - 16)"),
    ("grad_taps.py", "lines[n + p], factors[n]", "lines[n + p], factors[0]"),
    ("grad_taps.py", "lowest = 16 * part - 8", "lowest = 16 * part - 16"),
    ("grad_taps.py", "(segment + 1) * TILES, tile_columns)", "(segment + 1) * TILES, tile_columns - 1)"),
)  # fmt: skip
# Between them: every op, borders near and far and out of reach, several tiles, bands of two to five blocks, a mix,
# banks and maps of each colour's own. The cheapest are first: most faults are found by one of them.
PROBLEMS = (
    Problem(batch=1, channels=1, height=7, width=17, bank="tiny_skew", padding_mode="replicate"),
    Problem(batch=1, channels=2, height=7, width=17, bank="tiny_skew", per_channel=True),
    Problem(batch=1, channels=2, height=26, width=33, bank="tiny_per_colour_skew", outputs=3),
    Problem(batch=1, channels=1, height=9, width=17, bank="block_edges", padding_mode="zeros"),
    Problem(batch=2, channels=1, height=42, width=75, bank="tiny_skew"),
    Problem(batch=1, channels=1, height=27, width=28, bank="large", padding_mode="replicate"),
    Problem(batch=1, channels=2, height=18, width=17, bank="wide_skew"),
)


# Whose kernels are in a file; the other files are everyone's.
OPS_OF = {
    "gather.py": ("blur", "correlate", "grad_mix"),
    "adjoint.py": ("blur_adjoint",),
    "grad_taps.py": ("grad_taps_w", "grad_taps_h"),
}


@functools.cache
def arguments_of(problem: Problem) -> dict:
    return problem.arguments(torch.float32)


@functools.cache
def wanted(problem: Problem, op: str):
    return expected(op, arguments_of(problem))


def use_kernels_of(folder: Path) -> None:
    for name in [name for name in sys.modules if name.startswith("gkm_ops.kernels")]:
        del sys.modules[name]
    backends._backends.pop("triton", None)
    spec = importlib.util.spec_from_file_location(
        "gkm_ops.kernels", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["gkm_ops.kernels"] = package
    spec.loader.exec_module(package)


def is_wrong(ops: tuple[str, ...]) -> bool:
    for problem in PROBLEMS:
        for op in ops:
            if op == "grad_mix" and problem.per_channel:
                continue
            try:
                check = assert_image_close if op in IMAGE_OPS else assert_sum_close
                check(call(op, arguments_of(problem)), wanted(problem, op), torch.float32)
            except AssertionError:
                return True
    return False


def main() -> int:
    share, shares = map(int, sys.argv[1:])
    kernels = Path(__file__).parents[2] / "kernels"
    survivors = []
    hasten()
    with gkm_ops.use_backend("triton"), tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(0)
        for number, (name, text, fault) in enumerate([("taps.py", "", ""), *FAULTS][share::shares]):
            folder = Path(scratch) / str(number)
            shutil.copytree(kernels, folder, ignore=shutil.ignore_patterns("__pycache__"))
            source = (folder / name).read_text()
            assert text in source, f"{name} has no {text!r}"
            (folder / name).write_text(source.replace(text, fault, 1) if text else source)
            use_kernels_of(folder)
            if is_wrong(OPS_OF.get(name, OPS)) != bool(text):
                survivors.append(f"{name}: {fault or 'as it is, and found wrong'}")
    print("\n".join(survivors))
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main())
