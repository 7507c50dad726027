"""Windows of an image by chunks, for the gradients of the taps and the closed form; and, for all, borders and taps.

Triton cannot shift a tile in registers, so both passes of a separable kernel over a tile of T x T pixels are
products with small banded matrices, which is also what matrix units are for. Several warps share them, in TF32:

    T_m x = A_h X A_w        A_h [T, W], X [W, W], A_w [W, T]

X is the window of W = 2 T pixels around the tile. A kernel that reaches further than T / 2 takes a window of n x n
such chunks, whose products are added. A_h comes first, so that the left factor of the second product is the result
of the first, which stays in registers.

A zero of a band times NaN is NaN: where a window holds a NaN or an infinity, taps are summed one by one instead, so
that it spreads as far as the kernel reaches and no further.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Numbers of things, whose being 1 or a multiple of 16 makes no better code and would make more of it.
COUNTS = ("kernels", "size", "height", "tile_rows", "tile_columns", "groups")


@triton.jit
def tile_of(program, rows, columns, TILE: tl.constexpr):
    """First row and first column of a program's tile, and what is left of the program's number."""
    tile = program % (rows * columns)
    return tile // columns * TILE, tile % columns * TILE, program // (rows * columns)


@triton.jit
def halo_of(CHUNKS: tl.constexpr, TILE: tl.constexpr):
    """How far a window of so many chunks stands out of its tile."""
    return (2 * CHUNKS - 1) * TILE // 2


@triton.jit
def border(index, length, PADDING: tl.constexpr):
    """Which sample stands at each index of an axis and its border, always one that exists; and whether it counts."""
    counts = (index >= 0) & (index < length)
    if PADDING == "reflect":
        index = tl.abs(index)
        index = tl.minimum(index, 2 * (length - 1) - index)
    index = tl.minimum(tl.maximum(index, 0), length - 1)
    if PADDING != "zeros":
        counts = index >= 0
    return index, counts


@triton.jit
def load(plane, row_stride, column_stride, rows, columns, height, width, PADDING: tl.constexpr):
    """Pixels at rows x columns, which may lie on the border: float32."""
    rows, row_counts = border(rows, height, PADDING)
    columns, column_counts = border(columns, width, PADDING)
    offsets = rows.to(tl.int64)[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride
    return tl.load(plane + offsets, mask=row_counts[:, None] & column_counts[None, :], other=0).to(tl.float32)


@triton.jit
def store(out, plane, tile, rows, columns, height, width):
    """Write a tile into one plane of a contiguous result, in its type."""
    offsets = plane * height * width + rows.to(tl.int64)[:, None] * width + columns[None, :]
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    tl.store(out + offsets, tile.to(out.dtype.element_ty), mask=inside)


@triton.jit
def unfinite(pixels):
    """How many NaN and infinities a block holds."""
    return tl.sum(tl.where(tl.abs(pixels) < float("inf"), 0, 1))


@triton.jit
def tabulate(taps, radii, table, size, reach, BLOCK: tl.constexpr):
    """Each kernel's taps as float32 with zeros around, `reach` to either side of the centre: table [.., 2 reach + 1].

    With zeros in reach of every band, a band is loaded without a mask, from one address and constant offsets.
    """
    kernel = tl.program_id(0)
    radius = tl.load(radii + kernel)
    for first in range(-reach, reach + 1, BLOCK):
        offset = first + tl.arange(0, BLOCK)
        tap = tl.load(taps + kernel * size + size // 2 + offset, mask=tl.abs(offset) <= radius, other=0)
        tl.store(table + kernel * (2 * reach + 1) + reach + offset, tap.to(tl.float32), mask=offset <= reach)


@triton.jit
def blurred(
    plane, row_stride, column_stride, window, taps_h, taps_w, top, left, height, width,
    CHUNKS: tl.constexpr, PADDING: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """T_m of a plane on a tile, by products; where there is one chunk it is the window given.

    taps_h, taps_w: pointers to the kernel's centre taps in a table (`tabulate`).
    """
    writes = tl.arange(0, TILE)
    result = tl.zeros((TILE, TILE), tl.float32)
    for j in range(CHUNKS):
        columns = tl.arange(0, 2 * TILE) + 2 * TILE * j - halo_of(CHUNKS, TILE)
        part = tl.zeros((TILE, 2 * TILE), tl.float32)
        for i in range(CHUNKS):
            rows = tl.arange(0, 2 * TILE) + 2 * TILE * i - halo_of(CHUNKS, TILE)
            chunk = window
            if CHUNKS > 1:
                chunk = load(plane, row_stride, column_stride, top + rows, left + columns, height, width, PADDING)
            band = tl.load(taps_h + (rows[None, :] - writes[:, None]))
            part = tl.dot(band, chunk, part, input_precision=PRECISION)
        band = tl.load(taps_w + (columns[:, None] - writes[None, :]))
        result = tl.dot(part, band, result, input_precision=PRECISION)
    return result


@triton.jit
def row_by_taps(plane, row_stride, column_stride, taps, radius, rows, columns, height, width, PADDING: tl.constexpr):
    """Rows blurred along the width, tap by tap: slow, and exact about NaN and infinity."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for j in range(-radius, radius + 1):
        pixels = load(plane, row_stride, column_stride, rows, columns + j, height, width, PADDING)
        total += tl.load(taps + j).to(tl.float32) * pixels
    return total


@triton.jit
def blurred_by_taps(
    plane, row_stride, column_stride, taps_h, taps_w, radius, rows, columns, height, width, PADDING: tl.constexpr
):
    """T_m of a plane at rows x columns, as `row_by_taps`."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for i in range(-radius, radius + 1):
        line = row_by_taps(plane, row_stride, column_stride, taps_w, radius, rows + i, columns, height, width, PADDING)
        total += tl.load(taps_h + i).to(tl.float32) * line
    return total


@triton.jit
def tap_at(taps, radius, offset, counts):
    """A kernel's taps at offsets from its centre, zero beyond its radius or where they do not count."""
    return tl.where(counts, tl.load(taps + offset, mask=tl.abs(offset) <= radius, other=0).to(tl.float32), 0)


@triton.jit
def spread(taps, radius, reads, writes, length, PADDING: tl.constexpr):
    """The transposed band: what the sample at `reads` adds to the one at `writes`, the border folded back."""
    band = tap_at(taps, radius, writes - reads, writes >= 0)
    if PADDING == "reflect":
        band += tap_at(taps, radius, -writes - reads, writes > 0)
        band += tap_at(taps, radius, 2 * (length - 1) - writes - reads, writes < length - 1)
    if PADDING == "replicate":
        for beyond in range(1, radius + 1):
            band += tap_at(taps, radius, -beyond - reads, writes == 0)
            band += tap_at(taps, radius, length - 1 + beyond - reads, writes == length - 1)
    return band


@triton.jit
def reaches(radius, reads, writes, length, PADDING: tl.constexpr):
    """Whether `spread` has a tap there, be it zero."""
    is_reached = tl.abs(writes - reads) <= radius
    if PADDING == "reflect":
        is_reached |= (writes > 0) & (writes + reads <= radius)
        is_reached |= (writes < length - 1) & (2 * (length - 1) - writes - reads <= radius)
    if PADDING == "replicate":
        is_reached |= (writes == 0) & (reads < radius)
        is_reached |= (writes == length - 1) & (reads >= length - radius)
    return is_reached
