"""What the kernels are made of: windows of an image, and the banded matrices that blur or spread them.

Triton cannot shift a tile in registers, so both passes of a separable kernel over a tile of T x T pixels are
products with small banded matrices, which is also what matrix units are for:

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
def weighed(images, mix, c: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, MIXED: tl.constexpr):
    """What the images of y weigh colour c with: sum_o mix[o, c] y_o, with one kernel's mix [O, C]; or y_c."""
    total = images[c % OUTPUTS]
    if MIXED:
        total = tl.load(mix + c) * images[0]
        for o in tl.static_range(1, OUTPUTS):
            total += tl.load(mix + o * CHANNELS + c) * images[o]
    return total


@triton.jit
def unfinite(pixels):
    """How many NaN and infinities a block holds."""
    return tl.sum(tl.where(tl.abs(pixels) < float("inf"), 0, 1))


@triton.jit
def zeros(COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """A tuple of blocks to sum in."""
    blocks = ()
    for _ in tl.static_range(COUNT):
        blocks = blocks + (tl.zeros((ROWS, COLUMNS), tl.float32),)
    return blocks


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
    CHUNKS: tl.constexpr, HELD: tl.constexpr, PADDING: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """T_m of a plane on a tile, by products; where HELD, the only chunk is the window given.

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
            if not HELD:
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
def spread(taps, radius, reads, writes, length, touches_border, PADDING: tl.constexpr):
    """The transposed band: what the sample at `reads` adds to the one at `writes`, the border folded back.

    touches_border: whether any of `writes` may be read through the border.
    """
    band = tl.load(taps + (writes - reads))
    if PADDING == "reflect":
        if touches_border:
            band += _folded(taps, radius, reads, -writes, writes > 0)
            band += _folded(taps, radius, reads, 2 * (length - 1) - writes, writes < length - 1)
    if PADDING == "replicate":
        if touches_border:
            for beyond in range(1, radius + 1):
                band += _folded(taps, radius, reads, -beyond, writes == 0)
                band += _folded(taps, radius, reads, length - 1 + beyond, writes == length - 1)
    return band


@triton.jit
def _folded(taps, radius, reads, source, counts):
    """The taps by which samples at `reads` were read at `source`, beyond the border."""
    offset = source - reads
    return tl.where(counts, tl.load(taps + offset, mask=tl.abs(offset) <= radius, other=0), 0)


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
