"""The gradient of the taps along the height; that along the width is the same of transposed images.

A program is one warp and takes one kernel, or one colour's where each has its own, and some tiles of 32 x 16 pixels
side by side. For each tile the window is blurred along the width by a banded product, R = X A_w, and meets the weighed
pixels Z in another, R Z^T: the sum along each of its diagonals is what one tap has touched. The products of all tiles
are added up before the diagonals are taken. Nothing changes lanes on the way: R is a left factor where it lies, and Z,
held as a result is, the right factor that is its transpose.

Numbers: bands of two blocks take 10 products of 16 x 16 x 16 for a tile, those of three 18. Of larger ones (`bands`) a
program sums up one block of diagonals only, and loads the window block by block.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.bands import MOST_BLOCKS_HELD, WINDOW_EXPONENT, load_band, load_bands
from gkm_ops.kernels.fragments import (
    as_result,
    is_finite,
    magnitude,
    multiply,
    result_places,
    scales,
    split,
    transposed_factor,
    transposed_result,
    zero_blocks,
)
from gkm_ops.kernels.taps import border, row_by_taps

# Numbers of things, whose being 1 or a multiple of 16 makes no better code and would make more of it.
COUNTS = (
    "first", "count", "kernels", "size", "most_blocks", "parts", "banks", "colours", "outputs",
    "height", "tile_rows", "tile_columns", "segments",
)  # fmt: skip
# Blocks below one another in a tile, and tiles that a program takes.
BLOCKS_DOWN = tl.constexpr(2)
TILES = tl.constexpr(32)


@triton.jit
def _window_block(plane, row_stride, column_stride, top, left, height, width, PADDING: tl.constexpr):
    """The pixels of one block of a window, as results lie: [128, 2]; PADDING of None: it lies inside of the image."""
    i, j = result_places()
    i += top
    j += left
    if PADDING is None:
        pixels = plane + (i.to(tl.int64) * row_stride + j.to(tl.int64) * column_stride)
        return tl.load(pixels).to(tl.float32)
    else:
        rows, row_counts = border(i, height, PADDING)
        columns, column_counts = border(j, width, PADDING)
        pixels = plane + (rows.to(tl.int64) * row_stride + columns.to(tl.int64) * column_stride)
        return tl.load(pixels, mask=row_counts & column_counts, other=0).to(tl.float32)


@triton.jit
def _pixels(plane, row_stride, column_stride, top, left, height, width):
    """One block of a tile in the same order, zero beside the image."""
    i, j = result_places()
    i += top
    j += left
    pixels = plane + (i.to(tl.int64) * row_stride + j.to(tl.int64) * column_stride)
    return tl.load(pixels, mask=(i < height) & (j < width), other=0).to(tl.float32)


@triton.jit
def _weighed(
    weights, coeffs_row, coeffs_column, image, y_channel, y_row, y_column, mix, colours, outputs,
    top, left, height, width, MIXED: tl.constexpr,
):  # fmt: skip
    """coeffs_m * sum_o mix_m[o, c] y_o, or coeffs_m y_c: the blocks of a tile."""
    blocks = ()
    for n in tl.static_range(BLOCKS_DOWN):
        if MIXED:
            own_image = image
            total = tl.zeros((128, 2), tl.float32)
            for o in range(outputs):
                pixels = _pixels(own_image, y_row, y_column, top + 16 * n, left, height, width)
                total += tl.load(mix + o * colours) * pixels
                own_image += y_channel
        else:
            total = _pixels(image, y_row, y_column, top + 16 * n, left, height, width)
        block = total * _pixels(weights, coeffs_row, coeffs_column, top + 16 * n, left, height, width)
        blocks = blocks + (block,)
    return blocks


@triton.jit
def _blurred_rows(
    plane, x_row, x_column, band, top, left, height, width,
    ROWS: tl.constexpr, BLOCKS: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """R for 16 columns, from the row `top` on: ROWS left factors, what undoes the window's scale, and the bits of its
    largest magnitude."""
    left -= 8 * (BLOCKS - 1)
    pixels = ()
    bits = 0
    if BLOCKS <= MOST_BLOCKS_HELD:
        for r in tl.static_range(ROWS):
            for q in tl.static_range(BLOCKS):
                at_top, at_left = top + 16 * r, left + 16 * q
                pixels = pixels + (_window_block(plane, x_row, x_column, at_top, at_left, height, width, PADDING),)
        bits = magnitude(pixels)
    else:
        for r in range(ROWS):
            for q in range(BLOCKS):
                at_top, at_left = top + 16 * r, left + 16 * q
                block = _window_block(plane, x_row, x_column, at_top, at_left, height, width, PADDING)
                bits = tl.maximum(bits, magnitude((block,)))
    scale, back = scales(bits, WINDOW_EXPONENT)
    lines = ()
    if BLOCKS <= MOST_BLOCKS_HELD:
        blocks = load_bands(band, BLOCKS, TERMS)
        for r in tl.static_range(ROWS):
            line = tl.zeros((16, 16), tl.float32)
            for q in tl.static_range(BLOCKS):
                factor = split(as_result(pixels[r * BLOCKS + q] * scale), TERMS)
                line = multiply(factor, transposed_factor(blocks[q]), line, TERMS)
            lines = lines + (split(line, TERMS),)
    else:
        for r in tl.static_range(ROWS):
            line = tl.zeros((16, 16), tl.float32)
            for q in range(BLOCKS):
                at_top, at_left = top + 16 * r, left + 16 * q
                block = _window_block(plane, x_row, x_column, at_top, at_left, height, width, PADDING)
                factor = split(as_result(block * scale), TERMS)
                line = multiply(factor, transposed_factor(load_band(band + 512 * q, TERMS)), line, TERMS)
            lines = lines + (split(line, TERMS),)
    return lines, back, bits


@triton.jit
def _add_by_taps(
    sums, weighed, plane, x_row, x_column, taps, radius, lowest, top, left, height, width,
    SUMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """What products would add, tap by tap, on one place of each diagonal: slow, and exact about NaN and infinity."""
    i, k = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    rows, columns = top + tl.arange(0, 16), left + tl.arange(0, 16)
    for offset in range(-radius, radius + 1):
        touched = tl.zeros((16, 16), tl.float32)
        for n in tl.static_range(BLOCKS_DOWN):
            line = row_by_taps(
                plane, x_row, x_column, taps, radius, rows + 16 * n + offset, columns, height, width, PADDING
            )
            inside = (rows + 16 * n < height)[:, None] & (columns < width)[None, :]
            touched += tl.where(inside, as_result(weighed[n]) * line, 0)
        added = ()
        for p in tl.static_range(SUMS):
            # Other rows of the tile meet this tap in other products, and those may be finite.
            down = offset - lowest - 16 * p
            own = tl.sum(tl.where((i + down >= 0) & (i + down < 16), touched, 0))
            place = (i == tl.maximum(down, 0)) & (k == tl.maximum(-down, 0))
            added = added + (sums[p] + tl.where(place, own, 0),)
        sums = added
    return sums


@triton.jit(do_not_specialize=COUNTS)
def grad_taps_h(
    x, x_batch, x_channel, x_row, x_column, y, y_batch, y_channel, y_row, y_column,
    coeffs, coeffs_batch, coeffs_map, coeffs_channel, coeffs_row, coeffs_column,
    bands_w, inverses_w, taps_w, mix, radii, order, partial,
    first, count, kernels, size, most_blocks, parts, banks, colours, outputs,
    height, width, tile_rows, tile_columns, segments,
    BLOCKS: tl.constexpr, MIXED: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """The sum over pixels of coeffs_m * sum_o mix_m[o, c] y_o times the row that each tap reads, for some tiles.

    bands_w, inverses_w, taps_w, radii, order: as in `gather`; of the kernels in `order`, `count` from the `first` on.
    banks: 1 or C; a program goes through the colours that share its bank.
    partial: [B * tile_rows * segments, parts, banks * M, size], of zeros.
    BLOCKS: of a band; a program sums up the diagonals of all, or, of more than are held, of one.
    """
    own_parts: tl.constexpr = 1 if BLOCKS <= MOST_BLOCKS_HELD else BLOCKS
    sums_held: tl.constexpr = BLOCKS // own_parts
    rows: tl.constexpr = BLOCKS_DOWN + sums_held - 1
    program = tl.program_id(0)
    m, bank, part = program % count, program // count % banks, program // (count * banks) % own_parts
    group = program // (count * banks * own_parts)
    segment, strip = group % segments, group // segments
    top, b = strip % tile_rows * (16 * BLOCKS_DOWN), (strip // tile_rows).to(tl.int64)
    m = tl.load(order + first + m)
    kernel = bank * kernels + m
    radius = tl.load(radii + kernel)
    centre = kernel * size + size // 2
    band = bands_w + kernel.to(tl.int64) * most_blocks * 512
    # Rows of R from `lowest` on, below which no tile's row reaches by these diagonals.
    lowest = 16 * part - 8 * (BLOCKS - 1)
    plane = x + b * x_batch + bank.to(tl.int64) * x_channel
    image = y + b * y_batch
    if not MIXED:
        image += bank.to(tl.int64) * y_channel
    weights = coeffs + b * coeffs_batch + m.to(tl.int64) * coeffs_map + bank.to(tl.int64) * coeffs_channel
    sums = zero_blocks(sums_held)
    for c in range(bank, bank + colours // banks):
        for tile in tl.range(segment * TILES, tl.minimum((segment + 1) * TILES, tile_columns), disable_licm=True):
            left = 16 * tile
            weighed = _weighed(
                weights, coeffs_row, coeffs_column, image, y_channel, y_row, y_column, mix + m * outputs * colours + c,
                colours, outputs, top, left, height, width, MIXED,
            )  # fmt: skip
            bits = magnitude(weighed)
            scale, back = scales(bits, WINDOW_EXPONENT)
            margin = 8 * (BLOCKS - 1)
            inside = (
                (top + lowest >= 0)
                & (top + lowest + 16 * rows <= height)
                & (left >= margin)
                & (left + 16 + margin <= width)
            )
            if inside:
                lines, lines_back, lines_bits = _blurred_rows(
                    plane, x_row, x_column, band, top + lowest, left, height, width, rows, BLOCKS, TERMS, None
                )
            else:
                lines, lines_back, lines_bits = _blurred_rows(
                    plane, x_row, x_column, band, top + lowest, left, height, width, rows, BLOCKS, TERMS, PADDING
                )
            if is_finite(bits) & is_finite(lines_bits):
                inverse = tl.load(inverses_w + kernel) * lines_back
                factors = ()
                for n in tl.static_range(BLOCKS_DOWN):
                    factors = factors + (transposed_result(split(weighed[n] * scale, TERMS)),)
                added = ()
                for p in tl.static_range(sums_held):
                    product = tl.zeros((16, 16), tl.float32)
                    for n in tl.static_range(BLOCKS_DOWN):
                        product = multiply(lines[n + p], factors[n], product, TERMS)
                    added = added + (sums[p] + inverse * product * back,)  # both scales together may overflow
                sums = added
            else:
                sums = _add_by_taps(
                    sums, weighed, plane, x_row, x_column, taps_w + centre, radius, lowest, top, left, height, width,
                    sums_held, PADDING,
                )  # fmt: skip
        plane += x_channel
        if not MIXED:
            image += y_channel
        weights += coeffs_channel
    found = partial + ((group.to(tl.int64) * parts + part) * banks * kernels + kernel) * size + size // 2
    i, k = tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]
    for offset in range(-radius, radius + 1):
        touched = tl.zeros((16, 16), tl.float32)
        for p in tl.static_range(sums_held):
            touched += tl.where(i - k == offset - lowest - 16 * p, sums[p], 0)
        tl.store(found + offset, tl.sum(touched))
