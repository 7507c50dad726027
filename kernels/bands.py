"""Separable kernels as products with banded matrices, T_m x = A_h X A_w, in blocks of 16 x 16 (`fragments`).

A tile is 16 rows by 16 or 32 columns; its window X reaches 8 (n - 1) pixels further on every side, n blocks for a
kernel of radius up to 8 (n - 1):

             window, n = 2             block p of a band has in row i and column k the tap at
        +----+----+----+               16 p - 8 (n - 1) + k - i; A_w takes the same blocks, transposed
   A_h  |    |    |    |
 +----+----+--+----+----+              a column of the window's blocks times A_h is a block that is, where it lies,
 | a0 | a1 |  |    |    |              the left factor of its products with A_w
 +----+----+--+----+----+

Bands are tables in the order of the lanes, 16 bytes a lane and term, made by a small kernel of each call's taps: those
of a bank that learns change between the replays of a CUDA graph. A zero of a band times NaN is NaN: tiles whose windows
are not finite go tap by tap.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.fragments import (
    is_finite,
    lane_places,
    left_factor,
    left_places,
    magnitude,
    multiply,
    right_factor,
    right_places,
    scales,
    split,
    transposed_factor,
    zero_blocks,
)
from gkm_ops.kernels.taps import blurred_by_taps, border, spread, tap_at

# Binary exponents of a scaled window's largest number and of a kernel's summed taps. The first product stays below 2^6,
# or 2^6 times the radius where a transposed band has the border folded onto a pixel, which float16 holds; its smallest
# number is 2^-21 of the window's largest.
WINDOW_EXPONENT = tl.constexpr(-3)
TAPS_EXPONENT = tl.constexpr(7)
# Windows of so many blocks an axis stay loaded; larger ones are loaded again for every kernel.
MOST_BLOCKS_HELD = tl.constexpr(3)
# Further than any kernel reaches.
FAR = tl.constexpr(1 << 20)


# ---- Bands ----------------------------------------------------------------------------------------------------


@triton.jit
def tabulate_bands(
    taps, radii, blocks, plain, inverses, bands, rows, size, most_blocks, edge, length,
    TRANSPOSED: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """A kernel's taps in float32, what undoes their scale, and its band, [most_blocks, 2 terms, 256] for `as_left`.

    taps: [rows, size], centred; blocks: how many of each kernel's band are filled.
    TRANSPOSED: that the band is, once for each of the places of `border_slot` along an axis of a length.
    """
    kernel, slot = tl.program_id(0) % rows, tl.program_id(0) // rows
    radius, count = tl.load(radii + kernel), tl.load(blocks + kernel)
    centre = taps + kernel * size + size // 2
    total = 0.0
    for first in range(-radius, radius + 1, 64):
        offset = first + tl.arange(0, 64)
        tap = tap_at(centre, radius, offset, offset <= radius)
        tl.store(plain + kernel * size + size // 2 + offset, tap, mask=offset <= radius)
        total += tl.sum(tl.abs(tap))
    scale, inverse = scales(total.to(tl.int32, bitcast=True), TAPS_EXPONENT)
    tl.store(inverses + kernel, inverse)
    i, k = left_places()
    band = bands + tl.program_id(0).to(tl.int64) * most_blocks * 512 + lane_places()
    for p in range(count):
        reads = 16 * p - 8 * (count - 1) + k
        if TRANSPOSED:
            writes = _first_of_slot(slot, edge, length)
            extent = length if slot > 0 else 2 * FAR
            tap = spread(centre, radius, writes + reads, writes + i, extent, PADDING)
        else:
            tap = tap_at(centre, radius, reads - i, i >= 0)
        terms = split(tap * scale, 2)
        tl.store(band + 512 * p, terms[0])
        tl.store(band + 512 * p + 256, terms[1])


@triton.jit
def border_slot(block, edge, length):
    """Which of a transposed band's tables a block of an axis takes: 0 away from the border, where all are the same.

    edge: how many blocks from the first on may have the border folded onto them; as many up to the last, and one more.
    """
    last = (length - 1) // 16
    block = tl.minimum(block, last)
    return tl.where(block < edge, 1 + block, tl.where(block >= last - edge, 1 + 2 * edge + block - last, 0))


@triton.jit
def _first_of_slot(slot, edge, length):
    """Where the block of a slot begins: FAR from any border for 0."""
    block = tl.where(slot <= edge, slot - 1, slot - 1 - 2 * edge + (length - 1) // 16)
    return tl.where(slot == 0, FAR, 16 * block)


@triton.jit
def load_band(band, TERMS: tl.constexpr):
    """One of a kernel's blocks, for `left_factor` and `transposed_factor`."""
    band += lane_places()
    if TERMS == 1:
        return (tl.load(band),)
    else:
        return tl.load(band), tl.load(band + 256)


@triton.jit
def load_bands(band, BLOCKS: tl.constexpr, TERMS: tl.constexpr):
    blocks = ()
    for p in tl.static_range(BLOCKS):
        blocks = blocks + (load_band(band + 512 * p, TERMS),)
    return blocks


@triton.jit
def banded(window, bands_h, bands_w, BLOCKS: tl.constexpr, ACROSS: tl.constexpr, TERMS: tl.constexpr):
    """A_h X A_w: ACROSS blocks of results, each with bands_w of its own; window: right factors, row by row."""
    columns: tl.constexpr = ACROSS + BLOCKS - 1
    results = zero_blocks(ACROSS)
    for q in tl.static_range(columns):
        part = tl.zeros((16, 16), tl.float32)
        for p in tl.static_range(BLOCKS):
            part = multiply(left_factor(bands_h[p]), window[p * columns + q], part, TERMS)
        left = split(part, TERMS)
        added = ()
        for n in tl.static_range(ACROSS):
            result = results[n]
            if n <= q and q < n + BLOCKS:
                result = multiply(left, transposed_factor(bands_w[n][q - n]), result, TERMS)
            added = added + (result,)
        results = added
    return results


# ---- Windows of an image --------------------------------------------------------------------------------------


@triton.jit
def load_block(plane, row_stride, top, left, height, width, PADDING: tl.constexpr):
    """The pixels of one block of a window, which may lie on the border, as `right_factor` takes them."""
    i, j = right_places()
    rows, row_counts = border(top + i, height, PADDING)
    columns, column_counts = border(left + j, width, PADDING)
    pixels = plane + (rows.to(tl.int64) * row_stride + columns)
    if PADDING == "zeros":
        return tl.load(pixels, mask=row_counts & column_counts, other=0).to(tl.float32)
    else:
        return tl.load(pixels).to(tl.float32)


@triton.jit
def window_of(
    plane, row_stride, top, left, height, width,
    BLOCKS: tl.constexpr, ACROSS: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """What a tile's blurs by bands of so many blocks read: its factors where they are held, its scale, what undoes it,
    and whether it is finite."""
    top -= 8 * (BLOCKS - 1)
    left -= 8 * (BLOCKS - 1)
    pixels = ()
    bits = 0
    if BLOCKS <= MOST_BLOCKS_HELD:
        for p in tl.static_range(BLOCKS):
            for q in tl.static_range(ACROSS + BLOCKS - 1):
                at_top, at_left = top + 16 * p, left + 16 * q
                block = load_block(plane, row_stride, at_top, at_left, height, width, PADDING)
                pixels = pixels + (block,)
        if BLOCKS > 0:
            bits = magnitude(pixels)
    else:
        for p in range(BLOCKS):
            for q in range(ACROSS + BLOCKS - 1):
                block = load_block(plane, row_stride, top + 16 * p, left + 16 * q, height, width, PADDING)
                bits = tl.maximum(bits, magnitude((block,)))
    scale, back = scales(bits, WINDOW_EXPONENT)
    factors = ()
    for n in tl.static_range(len(pixels)):
        factors = factors + (right_factor(split(pixels[n] * scale, TERMS)),)
    return factors, scale, back, is_finite(bits)


@triton.jit
def _banded_wide(
    plane, row_stride, scale, band_h, band_w, top, left, height, width,
    BLOCKS: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """A_h X A_w for one block of results, whose window and bands are loaded block by block."""
    result = tl.zeros((16, 16), tl.float32)
    for q in range(BLOCKS):
        part = tl.zeros((16, 16), tl.float32)
        for p in range(BLOCKS):
            at_top, at_left = top + 16 * p - 8 * (BLOCKS - 1), left + 16 * q - 8 * (BLOCKS - 1)
            pixels = load_block(plane, row_stride, at_top, at_left, height, width, PADDING)
            band = left_factor(load_band(band_h + 512 * p, TERMS))
            part = multiply(band, right_factor(split(pixels * scale, TERMS)), part, TERMS)
        band = transposed_factor(load_band(band_w + 512 * q, TERMS))
        result = multiply(split(part, TERMS), band, result, TERMS)
    return result


@triton.jit
def _by_products(
    plane, row_stride, window, bank, kernel, top, left, height, width,
    BLOCKS: tl.constexpr, ACROSS: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """`blurred` of a finite window."""
    bands_w, bands_h, inverses_w, inverses_h, _, _, _, _, most_blocks = bank
    factors, scale, back, _ = window
    row = kernel.to(tl.int64) * most_blocks * 512
    bands_w += row
    bands_h += row
    if BLOCKS <= MOST_BLOCKS_HELD:
        blocks_h = load_bands(bands_h, BLOCKS, TERMS)
        if SAME:
            blocks_w = blocks_h
        else:
            blocks_w = load_bands(bands_w, BLOCKS, TERMS)
        products = banded(factors, blocks_h, (blocks_w,) * ACROSS, BLOCKS, ACROSS, TERMS)
    else:
        products = ()
        for n in tl.static_range(ACROSS):
            product = _banded_wide(
                plane, row_stride, scale, bands_h, bands_w, top, left + 16 * n, height, width, BLOCKS, TERMS, PADDING
            )
            products = products + (product,)
    inverse = tl.load(inverses_h + kernel)
    if SAME:
        inverse *= inverse * back
    else:
        inverse *= tl.load(inverses_w + kernel) * back
    results = ()
    for n in tl.static_range(ACROSS):
        results = results + (products[n] * inverse,)
    return results


@triton.jit
def _by_taps(plane, row_stride, bank, kernel, top, left, height, width, ACROSS: tl.constexpr, PADDING: tl.constexpr):
    """`blurred`, slow, and exact about NaN and infinity."""
    _, _, _, _, taps_w, taps_h, radii, size, _ = bank
    centre = kernel * size + size // 2
    results = ()
    for n in tl.static_range(ACROSS):
        rows, columns = top + tl.arange(0, 16), left + 16 * n + tl.arange(0, 16)
        result = blurred_by_taps(
            plane, row_stride, taps_h + centre, taps_w + centre, tl.load(radii + kernel), rows, columns,
            height, width, PADDING,
        )  # fmt: skip
        results = results + (result,)
    return results


@triton.jit
def blurred(
    plane, row_stride, window, bank, kernel, top, left, height, width,
    BLOCKS: tl.constexpr, ACROSS: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """T_m of a plane on a tile, by the kernel in one row of the bank: ACROSS blocks.

    window: of the plane (`window_of`).
    BLOCKS: of the window and the kernel's bands; 0 for tap by tap.
    bank: bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, size, most_blocks (`gather`).
    """
    if BLOCKS > 0:
        results = _by_products(
            plane, row_stride, window, bank, kernel, top, left, height, width, BLOCKS, ACROSS, SAME, TERMS, PADDING
        )
    else:
        results = _by_taps(plane, row_stride, bank, kernel, top, left, height, width, ACROSS, PADDING)
    return results
