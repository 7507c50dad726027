"""The transposed blur: what every blurred pixel around a tile hands back to it.

A program is one warp and makes 16 x 32 pixels of one colour of x. For each kernel it makes the window of weighed
pixels, coeffs_m * sum_o mix_m[o, c] y_o, anew, scales it by what it holds, and sends it through both transposed bands
(`bands`). Those are the bands of the flipped taps; blocks that the border is folded onto have bands of their own, with
what the border had read added. Gathered and not scattered: no two programs write to one place, and equal inputs give
equal bits.

Numbers, for the published bank: the products of `gather`, and for a pixel and kernel 3 weighed pixels by bands of two
blocks, 6 by bands of three, whose coefficients and y come mostly out of a cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.bands import (
    MOST_BLOCKS_HELD,
    WINDOW_EXPONENT,
    banded,
    border_slot,
    load_band,
    load_bands,
)
from gkm_ops.kernels.fragments import (
    BLOCKS_ACROSS,
    COUNTS,
    is_finite,
    left_factor,
    magnitude,
    multiply,
    right_factor,
    right_places,
    scales,
    split,
    store_tile,
    tile_at,
    transposed_factor,
    zero_blocks,
)
from gkm_ops.kernels.taps import reaches, spread

# ---- Windows --------------------------------------------------------------------------------------------------


@triton.jit
def _load(plane, row_stride, row, column, height, width, BORDER: tl.constexpr):
    """A block of a window as right factors have it, zero beside the image."""
    i, j = right_places()
    pixels = plane + row.to(tl.int64) * row_stride + column + (i.to(tl.int64) * row_stride + j)
    if BORDER:
        i += row
        j += column
        return tl.load(pixels, mask=(i >= 0) & (i < height) & (j >= 0) & (j < width), other=0).to(tl.float32)
    else:
        return tl.load(pixels).to(tl.float32)


@triton.jit
def _weighed(
    y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs, row, column, height, width,
    DOWN: tl.constexpr, BESIDE: tl.constexpr, MIXED: tl.constexpr, BORDER: tl.constexpr,
):  # fmt: skip
    """coeffs_m * sum_o mix_m[o, c] y_o, or coeffs_m y_c: DOWN x BESIDE blocks of a window, row by row."""
    pixels = ()
    # A row of blocks at a time: what is summed by the mix and what is on its way for it share the registers.
    for p in tl.static_range(DOWN):
        images = ()
        for q in tl.static_range(BESIDE):
            if MIXED:
                image = tl.zeros((256,), tl.float32)
            else:
                image = _load(y, y_row, row + 16 * p, column + 16 * q, height, width, BORDER)
            images = images + (image,)
        if MIXED:
            # The first as all others: what does not change from kernel to kernel would be kept for all of them.
            for o in tl.range(outputs, disable_licm=True):
                other = y + tl.cast(o, tl.int64) * y_channel
                share = tl.load(mix + o * colours)
                added = ()
                for q in tl.static_range(BESIDE):
                    image = _load(other, y_row, row + 16 * p, column + 16 * q, height, width, BORDER)
                    added = added + (images[q] + share * image,)
                images = added
        for q in tl.static_range(BESIDE):
            coeffs = _load(maps, coeffs_row, row + 16 * p, column + 16 * q, height, width, BORDER)
            pixels = pixels + (coeffs * images[q],)
    return pixels


# ---- A tile ---------------------------------------------------------------------------------------------------


@triton.jit
def _spread_held(
    image, bands_w, bands_h, top, left, height, width,
    BLOCKS: tl.constexpr, MIXED: tl.constexpr, BORDER: tl.constexpr, FOLDED: tl.constexpr, SAME: tl.constexpr,
    TERMS: tl.constexpr,
):  # fmt: skip
    """T_m^T of a window that stays in registers, scaled, and the bits of the window's largest magnitude."""
    y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs = image
    pixels = _weighed(
        y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs,
        top - 8 * (BLOCKS - 1), left - 8 * (BLOCKS - 1), height, width,
        BLOCKS, BLOCKS + BLOCKS_ACROSS - 1, MIXED, BORDER,
    )  # fmt: skip
    bits = magnitude(pixels)
    scale, back = scales(bits, WINDOW_EXPONENT)
    window = ()
    for n in tl.static_range(len(pixels)):
        window = window + (right_factor(split(pixels[n] * scale, TERMS)),)
    factors_h = load_bands(bands_h, BLOCKS, TERMS)
    factors_w = ()
    for n in tl.static_range(BLOCKS_ACROSS):
        if FOLDED:
            factors = load_bands(bands_w[n], BLOCKS, TERMS)
        elif SAME:
            factors = factors_h
        elif n == 0:
            factors = load_bands(bands_w[0], BLOCKS, TERMS)
        else:
            factors = factors_w[0]
        factors_w = factors_w + (factors,)
    return banded(window, factors_h, factors_w, BLOCKS, BLOCKS_ACROSS, TERMS), back, bits


@triton.jit
def _spread_wide(
    image, bands_w, bands_h, top, left, height, width,
    BLOCKS: tl.constexpr, MIXED: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """The same block by block, for a window of any size."""
    y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs = image
    first_row, first_column = top - 8 * (BLOCKS - 1), left - 8 * (BLOCKS - 1)
    bits = 0
    for p in range(BLOCKS):
        for q in range(BLOCKS + BLOCKS_ACROSS - 1):
            pixels = _weighed(
                y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs,
                first_row + 16 * p, first_column + 16 * q, height, width, 1, 1, MIXED, True,
            )  # fmt: skip
            bits = tl.maximum(bits, magnitude(pixels))
    scale, back = scales(bits, WINDOW_EXPONENT)
    results = ()
    for n in tl.static_range(BLOCKS_ACROSS):
        result = tl.zeros((16, 16), tl.float32)
        for q in range(BLOCKS):
            part = tl.zeros((16, 16), tl.float32)
            for p in range(BLOCKS):
                pixels = _weighed(
                    y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs,
                    first_row + 16 * p, first_column + 16 * (n + q), height, width, 1, 1, MIXED, True,
                )  # fmt: skip
                band = left_factor(load_band(bands_h + 512 * p, TERMS))
                part = multiply(band, right_factor(split(pixels[0] * scale, TERMS)), part, TERMS)
            band = transposed_factor(load_band(bands_w[n] + 512 * q, TERMS))
            result = multiply(split(part, TERMS), band, result, TERMS)
        results = results + (result,)
    return results, back, bits


@triton.jit
def _add_class(
    sums, image, bank, row, order, coeffs_map, top, left, height, width,
    BLOCKS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, MIXED: tl.constexpr, BORDER: tl.constexpr,
    SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Adds what the kernels of one class hand back to a tile, and tells whether it is finite.

    BORDER: whether the tile may read beside the image, or has the border folded onto it.
    """
    y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs = image
    bands_w, bands_h, inverses_w, inverses_h, rows, most_blocks, edge = bank
    folded: tl.constexpr = BORDER and PADDING != "zeros"
    if folded:
        bands_h += border_slot(top // 16, edge, height).to(tl.int64) * rows * most_blocks * 512
    tables_w = ()
    for n in tl.static_range(BLOCKS_ACROSS):
        table = bands_w
        if folded:
            table += border_slot(left // 16 + n, edge, width).to(tl.int64) * rows * most_blocks * 512
        tables_w = tables_w + (table,)
    finite = True
    next_m = tl.load(order + FIRST)
    for place in tl.range(FIRST, LAST, disable_licm=True):
        m = next_m
        next_m = tl.load(order + place + 1)
        band = (row + m).to(tl.int64) * most_blocks * 512
        weighing = (
            y, y_channel, y_row, maps + m.to(tl.int64) * coeffs_map, coeffs_row, mix + m * outputs * colours, colours,
            outputs,
        )  # fmt: skip
        own_w = ()
        for n in tl.static_range(BLOCKS_ACROSS):
            own_w = own_w + (tables_w[n] + band,)
        if BLOCKS <= MOST_BLOCKS_HELD:
            results, back, bits = _spread_held(
                weighing, own_w, bands_h + band, top, left, height, width, BLOCKS, MIXED, BORDER, folded, SAME, TERMS
            )
        else:
            results, back, bits = _spread_wide(
                weighing, own_w, bands_h + band, top, left, height, width, BLOCKS, MIXED, TERMS
            )
        finite &= is_finite(bits)
        inverse = tl.load(inverses_h + row + m) * tl.load(inverses_w + row + m) * back
        added = ()
        for n in tl.static_range(BLOCKS_ACROSS):
            added = added + (sums[n] + inverse * results[n],)
        sums = added
    return sums, finite


@triton.jit
def _add_by_taps(total, image, kernel, top, left, height, width, MIXED: tl.constexpr, PADDING: tl.constexpr):
    """One kernel's share in a block, pixel by pixel: slow, and exact about NaN and infinity."""
    y, y_channel, y_row, maps, coeffs_row, mix, colours, outputs = image
    taps_w, taps_h, radius = kernel
    rows, columns = top + tl.arange(0, 16), left + tl.arange(0, 16)
    first_row, first_column = tl.maximum(top - radius, 0), tl.maximum(left - radius, 0)
    y += first_row.to(tl.int64) * y_row + first_column
    maps += first_row.to(tl.int64) * coeffs_row + first_column
    for i in range(first_row, tl.minimum(top + 16 + radius, height)):
        along_h = spread(taps_h, radius, i, rows, height, PADDING)[:, None]
        reached_h = reaches(radius, i, rows, height, PADDING)[:, None]
        pixel, map_pixel = y, maps
        for j in range(first_column, tl.minimum(left + 16 + radius, width)):
            along_w = spread(taps_w, radius, j, columns, width, PADDING)[None, :]
            reached_w = reaches(radius, j, columns, width, PADDING)[None, :]
            if MIXED:
                value = 0.0
                own_pixel = pixel
                for o in range(outputs):
                    value += tl.load(mix + o * colours) * tl.load(own_pixel).to(tl.float32)
                    own_pixel += y_channel
            else:
                value = tl.load(pixel).to(tl.float32)
            value *= tl.load(map_pixel).to(tl.float32)
            total += tl.where(reached_h & reached_w, along_h * along_w * value, 0)
            pixel += 1
            map_pixel += 1
        y += y_row
        maps += coeffs_row
    return total


@triton.jit(do_not_specialize=COUNTS)
def blur_adjoint(
    y, y_batch, y_channel, y_row, coeffs, coeffs_batch, coeffs_map, coeffs_channel, coeffs_row,
    bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, mix, radii, order, out,
    kernels, size, most_blocks, rows, edge, height, width, tile_rows, tile_columns, colours, outputs,
    MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr, SAME: tl.constexpr,
    TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """x_c = sum_m T_m^T (coeffs_m * sum_o mix_m[o, c] y_o); arguments as in `gather`, the bands transposed.

    bands_w, bands_h: [slots, rows, ..] of all `rows` kernels, with the border of so many blocks from the `edge` on.
    """
    top, left, b, c = tile_at(tl.program_id(0), tile_rows, tile_columns, colours, BLOCKS_ACROSS)
    y += b * y_batch
    coeffs += b * coeffs_batch + c.to(tl.int64) * coeffs_channel
    if MIXED:
        mix += c
    else:
        y += c.to(tl.int64) * y_channel
    row = c * kernels if CHANNEL_BANKS else 0
    image = (y, y_channel, y_row, coeffs, coeffs_row, mix, colours, outputs)
    bank = (bands_w, bands_h, inverses_w, inverses_h, rows, most_blocks, edge)
    sums = zero_blocks(BLOCKS_ACROSS)
    finite = True
    for k in tl.static_range(len(CLASSES)):
        margin = 8 * (CLASSES[k][0] - 1)
        inside = (
            (top > margin)
            & (top + 16 + margin < height)
            & (left > margin)
            & (left + 16 * BLOCKS_ACROSS + margin < width)
        )
        if inside:
            sums, class_finite = _add_class(
                sums, image, bank, row, order, coeffs_map, top, left, height, width,
                CLASSES[k][0], CLASSES[k][1], CLASSES[k][2], MIXED, False, SAME, TERMS, PADDING,
            )  # fmt: skip
        else:
            sums, class_finite = _add_class(
                sums, image, bank, row, order, coeffs_map, top, left, height, width,
                CLASSES[k][0], CLASSES[k][1], CLASSES[k][2], MIXED, True, SAME, TERMS, PADDING,
            )  # fmt: skip
        finite &= class_finite
    if not finite:
        sums = zero_blocks(BLOCKS_ACROSS)
        for m in range(kernels):
            centre = (row + m) * size + size // 2
            kernel = (taps_w + centre, taps_h + centre, tl.load(radii + row + m))
            weighing = (y, y_channel, y_row, coeffs, coeffs_row, mix, colours, outputs)
            added = ()
            for n in tl.static_range(BLOCKS_ACROSS):
                block = _add_by_taps(sums[n], weighing, kernel, top, left + 16 * n, height, width, MIXED, PADDING)
                added = added + (block,)
            sums = added
            coeffs += coeffs_map
            mix += outputs * colours
    tile = out + ((b * colours + c) * height + top) * width + left
    store_tile(tile, width, sums, height - top, width - left, BLOCKS_ACROSS)
