"""The Triton backend: what each op launches, compiled on first use for the device it meets.

Checked arguments come in (`gkm_ops.ops`); nothing here waits for the device or copies to it, but for two small tables
the first time a bank is met there, so a call can be captured into a CUDA graph after one outside of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gkm_ops import reference
from gkm_ops.cuda import has_gpu, index_of

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# A tile, or a block of one: a small one wastes few multiply-adds on the halo.
_TILE = 16
_ACROSS = 2  # blocks side by side that a warp takes of one colour (`fragments.BLOCKS_ACROSS`)
_MOST_REGISTERS = 255
# So many colours a program holds at once.
_MOST_HELD = 4
_LEAST_CAPABILITY = (8, 0)  # multiplies blocks of 16 x 8 x 16
_HAS_TRITON = find_spec("triton") is not None


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot serve a device and dtype, or None where it can."""
    if not _HAS_TRITON:
        return "triton is not installed"
    if device.type == "cpu":
        if os.environ.get("TRITON_INTERPRET") != "1":
            return "it serves GPUs; the CPU only in Triton's interpreter, under TRITON_INTERPRET=1"
    elif device.type != "cuda":
        return f"it serves GPUs, not {device.type}"
    elif not has_gpu():
        return "torch finds no GPU"
    elif (capability := _capability(index_of(device))) < _LEAST_CAPABILITY:
        return f"it wants compute capability {_LEAST_CAPABILITY}, not {capability}"
    if dtype not in _DTYPES:
        return f"it has no kernels for {dtype}"
    return None


@functools.cache
def _capability(device: int) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


class _Classes(NamedTuple):
    """The kernels of a bank by the blocks of their bands.

    Attributes:
        radii: int32 table, one for each kernel, or C * M of them.
        blocks: int32 table of how many blocks the band of each of them has.
        order: int32 table of the M kernels, class by class, and one more.
        classes: (blocks, first place in `order`, one past the last), ascending.
    """

    radii: Tensor
    blocks: Tensor
    order: Tensor
    classes: tuple[tuple[int, int, int], ...]


@functools.cache  # for good: a CUDA graph that was captured goes on to read its tables
def _classes(radii: tuple[int, ...], kernels: int, device: torch.device) -> _Classes:
    # A colour's own radii: the largest decides on the class.
    blocks = [_blocks(max(radii[m::kernels])) for m in range(kernels)]
    order = sorted(range(kernels), key=blocks.__getitem__)
    classes = tuple((n, sum(b < n for b in blocks), sum(b <= n for b in blocks)) for n in sorted(set(blocks)))
    rows = blocks * (len(radii) // kernels)
    # Plain tensors even under inference mode, and there for every stream: the copies are waited for.
    with torch.inference_mode(False):
        tables = [torch.tensor(table, dtype=torch.int32).to(device) for table in (radii, rows, [*order, 0])]
    return _Classes(tables[0], tables[1], tables[2], classes)


def _blocks(radius: int) -> int:
    """How many blocks a band has along an axis."""
    return max(2, 1 + -(-2 * radius // _TILE))


class _Bands(NamedTuple):
    """What the kernels are told of a bank (`gather`).

    Attributes:
        tables: bands, scales and taps of both axes.
        edge: so many blocks from an axis' first on have transposed bands of their own (`bands.border_slot`).
    """

    tables: tuple[Tensor, ...]
    classes: _Classes
    kernels: int
    size: int
    most_blocks: int
    edge: int
    channel_banks: bool
    same: bool

    @property
    def by_taps(self) -> tuple[tuple[int, int, int], ...]:
        """The classes where kernels go tap by tap: one, of no blocks."""
        return ((0, 0, self.kernels),)


def _bands(
    taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], transposed: tuple[str, int, int] | None = None
) -> _Bands:
    """The tables of a bank; transposed: for a padding, and images of such a height and width."""
    from gkm_ops.kernels.bands import tabulate_bands

    kernels, size = taps_w.shape[-2:]
    classes = _classes(tuple(radii), kernels, taps_w.device)
    rows, most_blocks = len(radii), classes.classes[-1][0]
    padding, height, width = transposed or ("zeros", 1, 1)
    edge = 0 if padding == "zeros" else (most_blocks + 1) // 2
    slots = 1 if edge == 0 else 2 * edge + 2

    def tabulated(taps: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        bands = taps.new_empty(slots, rows, most_blocks, 2, _TILE**2, dtype=torch.float16)
        inverses, plain = (taps.new_empty(rows, n, dtype=torch.float32) for n in (1, size))
        _launch(
            tabulate_bands, slots * rows, taps.device,
            taps.contiguous(), classes.radii, classes.blocks, plain, inverses, bands,
            rows, size, most_blocks, edge, length, TRANSPOSED=transposed is not None, PADDING=padding,
        )  # fmt: skip
        return bands, inverses, plain

    of_w = tabulated(taps_w, width)
    same = _are_same(taps_w, taps_h)
    of_h = of_w if same and (edge == 0 or height == width) else tabulated(taps_h, height)
    tables = tuple(table for pair in zip(of_w, of_h, strict=True) for table in pair)
    return _Bands(tables, classes, kernels, size, most_blocks, edge, taps_w.dim() == 3, same)


def _are_same(taps_w: Tensor, taps_h: Tensor) -> bool:
    """Whether one bank's taps serve both axes."""
    return taps_w is taps_h or (
        taps_w.data_ptr() == taps_h.data_ptr() and taps_w.stride() == taps_h.stride() and taps_w.dtype == taps_h.dtype
    )


def _mix(mix: Tensor | None, bank: _Bands) -> Tensor:
    """The mix as kernels take it; without one, a tensor at which they will not look."""
    return bank.classes.radii if mix is None else mix.to(torch.float32).contiguous()


def _share(channels: int) -> int:
    """How many colours a program takes where each has a result of its own; the rest is for other programs."""
    return max(count for count in range(1, _MOST_HELD + 1) if channels % count == 0)


def _terms(dtype: torch.dtype) -> int:
    """In how many terms matrix units take a factor: two keep float32's digits, one where that is enough."""
    lower = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return 1 if lower or dtype == torch.bfloat16 else 2


def _registers(dtype: torch.dtype) -> int:
    """Most a thread may take: what leaves room for 12 programs, each of one warp, or 16 of one term."""
    return 128 if _terms(dtype) == 1 else 168


def _tiles(image: Tensor, across: int = 1) -> tuple[int, int]:
    return -(-image.shape[2] // _TILE), -(-image.shape[3] // (_TILE * across))


def _rows(image: Tensor) -> Tensor:
    """An image or map whose columns lie side by side."""
    return image if image.stride(-1) == 1 else image.contiguous()


def _map_strides(coeffs: Tensor) -> tuple[int, ...]:
    """Of [B, M, C, H, W], where C may be one for all."""
    return coeffs.stride() if coeffs.dim() == 5 else (*coeffs.stride()[:2], 0, *coeffs.stride()[2:])


# What Triton has compiled, by all that it compiled it for; of so many, then it begins anew.
_compiled: dict[tuple[Any, ...], Any] = {}
_MOST_COMPILED = 1024


def _launch(
    kernel: Any, programs: int, device: torch.device, *args: Any, registers: int = _MOST_REGISTERS, **constants: Any
) -> None:  # fmt: skip
    # All that Triton tells launches apart by, and more: it compiles anew for numbers of 1 and multiples of 16, and for
    # tensors that do not begin at one. To find that out by itself takes it longer than to start a kernel.
    key = (
        kernel.fn, device, registers, *constants.items(),
        *[arg if type(arg) is int else (arg.dtype, arg.data_ptr() % 16) for arg in args],
    )  # fmt: skip
    on_device = torch.cuda.device(device.index) if device.type == "cuda" else contextlib.nullcontext()
    with on_device:
        compiled = _compiled.get(key)
        if compiled is not None:
            compiled[(programs, 1, 1)](*args, *[constants[name] for name in kernel.arg_names[len(args) :]])
            return
        compiled = kernel[(programs,)](
            *args, **constants, num_warps=1, num_stages=1, maxnreg=registers, enable_fp_fusion=True
        )
        if compiled is None:  # interpreted
            return
        if len(_compiled) >= _MOST_COMPILED:
            _compiled.clear()
        _compiled[key] = compiled


def blur(
    x: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    from gkm_ops.kernels.gather import blur as kernel

    B, C, H, W = x.shape
    O = C if mix is None else mix.shape[1]  # noqa: E741
    x, coeffs = _rows(x), _rows(coeffs)
    bank, tiles = _bands(taps_w, taps_h, radii), _tiles(x, _ACROSS)
    share = 1 if mix is None else _share(O)
    out = x.new_empty(B, O, H, W)
    _launch(
        kernel, B * tiles[0] * tiles[1] * (O // share), x.device,
        x, *x.stride()[:3], coeffs, *_map_strides(coeffs)[:4],
        *bank.tables, _mix(mix, bank), bank.classes.radii, bank.classes.order, out,
        bank.kernels, bank.size, bank.most_blocks, H, W, *tiles, C, O,
        OUTPUTS=share, MIXED=mix is not None, CHANNEL_BANKS=bank.channel_banks, CLASSES=bank.classes.classes,
        BY_TAPS=bank.by_taps, SAME=bank.same, TERMS=_terms(x.dtype), PADDING=padding,
        registers=_registers(x.dtype) if mix is None else _MOST_REGISTERS,
    )  # fmt: skip
    return out


def blur_adjoint(
    y: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    from gkm_ops.kernels.adjoint import blur_adjoint as kernel

    B, O, H, W = y.shape  # noqa: E741
    C = O if mix is None else mix.shape[2]
    y, coeffs = _rows(y), _rows(coeffs)
    bank, tiles = _bands(taps_w, taps_h, radii, transposed=(padding, H, W)), _tiles(y, _ACROSS)
    out = y.new_empty(B, C, H, W)
    _launch(
        kernel, B * tiles[0] * tiles[1] * C, y.device,
        y, *y.stride()[:3], coeffs, *_map_strides(coeffs)[:4],
        *bank.tables, _mix(mix, bank), bank.classes.radii, bank.classes.order, out,
        bank.kernels, bank.size, bank.most_blocks, len(radii), bank.edge, H, W, *tiles, C, O,
        MIXED=mix is not None, CHANNEL_BANKS=bank.channel_banks, CLASSES=bank.classes.classes, SAME=bank.same,
        TERMS=_terms(y.dtype), PADDING=padding,
    )  # fmt: skip
    return out


def correlate(
    x: Tensor,
    y: Tensor,
    taps_w: Tensor,
    taps_h: Tensor,
    mix: Tensor | None,
    radii: Sequence[int],
    padding: str,
    per_channel: bool,
) -> Tensor:
    B, C, H, W = x.shape
    M = taps_w.shape[-2]
    x, y = _rows(x), _rows(y)
    if per_channel or C <= _MOST_HELD:
        out = x.new_empty(B, M, *([C] if per_channel else []), H, W)
        _correlate(x, y, taps_w, taps_h, mix, radii, padding, 1 if per_channel else C, out)
        return out
    # More colours than a program holds, by as many at a time.
    total = x.new_zeros(B, M, H, W, dtype=torch.float32)
    out = torch.empty_like(total)
    for first in range(0, C, _MOST_HELD):
        part = slice(first, min(first + _MOST_HELD, C))
        banks = taps_w, taps_h, radii
        if taps_w.dim() == 3:
            banks = taps_w[part], taps_h[part], radii[part.start * M : part.stop * M]
        own_y, own_mix = (y[:, part], None) if mix is None else (y, mix[..., part])
        _correlate(x[:, part], own_y, *banks[:2], own_mix, banks[2], padding, part.stop - part.start, out)
        total += out
    return total.to(x.dtype)


def _correlate(
    x: Tensor, y: Tensor, taps_w: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str,
    colours: int, out: Tensor,
) -> None:  # fmt: skip
    """Into `out`, so many colours a program."""
    from gkm_ops.kernels.gather import correlate as kernel

    B, C, H, W = x.shape
    across = _ACROSS if colours == 1 else 1
    bank, tiles = _bands(taps_w, taps_h, radii), _tiles(x, across)
    _launch(
        kernel, B * tiles[0] * tiles[1] * (C // colours), x.device,
        x, *x.stride()[:3], y, *y.stride()[:3],
        *bank.tables, _mix(mix, bank), bank.classes.radii, bank.classes.order, out,
        bank.kernels, bank.size, bank.most_blocks, H, W, *tiles, C, y.shape[1],
        COLOURS=colours, ACROSS=across, MIXED=mix is not None, CHANNEL_BANKS=bank.channel_banks,
        CLASSES=bank.classes.classes, BY_TAPS=bank.by_taps, SAME=bank.same, TERMS=_terms(x.dtype), PADDING=padding,
    )  # fmt: skip


def grad_mix(
    x: Tensor, y: Tensor, coeffs: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], padding: str
) -> Tensor:
    from gkm_ops.kernels.gather import grad_mix as kernel

    B, C, H, W = x.shape
    x, y, coeffs = _rows(x), _rows(y), _rows(coeffs)
    bank, tiles = _bands(taps_w, taps_h, radii), _tiles(x, _ACROSS)
    programs = B * tiles[0] * tiles[1]
    partial = x.new_empty(programs, bank.kernels, y.shape[1], C, dtype=torch.float32)
    _launch(
        kernel, programs * C, x.device,
        x, *x.stride()[:3], y, *y.stride()[:3], coeffs, *coeffs.stride()[:3],
        *bank.tables, bank.classes.radii, bank.classes.order, partial,
        bank.kernels, bank.size, bank.most_blocks, H, W, *tiles, C, y.shape[1],
        CHANNEL_BANKS=bank.channel_banks, CLASSES=bank.classes.classes, BY_TAPS=bank.by_taps, SAME=bank.same,
        TERMS=_terms(x.dtype), PADDING=padding, registers=_registers(x.dtype),
    )  # fmt: skip
    return partial.sum(0)


def grad_taps_w(
    x: Tensor, y: Tensor, coeffs: Tensor, taps_h: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    return grad_taps_h(x.mT, y.mT, coeffs.mT, taps_h, mix, radii, padding)


def grad_taps_h(
    x: Tensor, y: Tensor, coeffs: Tensor, taps_w: Tensor, mix: Tensor | None, radii: Sequence[int], padding: str
) -> Tensor:
    from gkm_ops.kernels.bands import MOST_BLOCKS_HELD
    from gkm_ops.kernels.grad_taps import BLOCKS_DOWN, TILES
    from gkm_ops.kernels.grad_taps import grad_taps_h as kernel

    B, C, H, W = x.shape
    bank = _bands(taps_w, taps_w, radii)
    banks = C if bank.channel_banks else 1
    tiles = -(-H // (_TILE * BLOCKS_DOWN.value)), -(-W // _TILE)
    segments = -(-tiles[1] // TILES.value)
    groups, size = B * tiles[0] * segments, taps_w.shape[-1]
    parts = {blocks: 1 if blocks <= MOST_BLOCKS_HELD.value else blocks for blocks, _, _ in bank.classes.classes}
    most_parts = max(parts.values())
    partial = x.new_zeros(groups * most_parts, banks * bank.kernels * size, dtype=torch.float32)
    bands, _, inverses, _, taps, _ = bank.tables
    for blocks, first, last in bank.classes.classes:
        _launch(
            kernel, groups * parts[blocks] * banks * (last - first), x.device,
            x, *x.stride(), y, *y.stride(), coeffs, *_map_strides(coeffs),
            bands, inverses, taps, _mix(mix, bank), bank.classes.radii, bank.classes.order, partial,
            first, last - first, bank.kernels, size, bank.most_blocks, most_parts, banks, C, y.shape[1],
            H, W, *tiles, segments,
            BLOCKS=blocks, MIXED=mix is not None, TERMS=_terms(x.dtype), PADDING=padding,
        )  # fmt: skip
    return partial.sum(0).view(taps_w.shape)


def ridge_dual(
    x: Tensor, y: Tensor, taps_w: Tensor, taps_h: Tensor, radii: Sequence[int], ridge: float, padding: str
) -> Tensor:
    from gkm_ops.kernels.ridge import ridge_dual as kernel

    B, C, H, W = x.shape
    if C > _MOST_HELD:  # a program holds the products of all its colours
        return reference.ridge_dual(x, y, taps_w, taps_h, radii, ridge, padding)
    x, y = _rows(x), _rows(y)
    bank, tiles = _bands(taps_w, taps_h, radii), _tiles(x)
    out = y.new_empty(y.shape)
    _launch(
        kernel, B * tiles[0] * tiles[1], x.device,
        x, *x.stride()[:3], y, *y.stride()[:3],
        *bank.tables, bank.classes.radii, bank.classes.order,
        torch.full((), ridge, dtype=torch.float64, device=x.device), out,
        bank.kernels, bank.size, bank.most_blocks, H, W, *tiles,
        COLOURS=C, CHANNEL_BANKS=bank.channel_banks, CLASSES=bank.classes.classes, BY_TAPS=bank.by_taps,
        SAME=bank.same, PADDING=padding,
    )  # fmt: skip
    return out
