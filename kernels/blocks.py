"""What a warp does by itself: blocks of 16 x 16 pixels on matrix units, all factors in its registers.

Both passes of a separable kernel are products with banded matrices, T_m x = A_h X A_w. A program is one warp; its tile
is 16 rows by 16 or 32 columns, its window X reaches 8 (n - 1) pixels further on every side, n blocks for a kernel of
radius up to 8 (n - 1):

             window, n = 2                      row p of the bands' blocks: taps at 16 p - 8 (n - 1) + k - i
        +----+----+----+                        for row i of the tile and row k of the block
   A_h  |    |    |    |  A_w                   columns likewise, by the block transposed
 +----+----+    |    |    |
 | a0 | a1 |  x a0, a1 down every column of blocks -> left factors of the products along the rows
 +----+----+

The result of the first product is the left factor of the second where it lies. For that everything is loaded as
[lanes, numbers of a lane] in the order in which the units hold it, and reshaped: such changes of layout cost nothing.
The lanes come first, and loads of different kinds have different shapes, since Triton gives all loads of one shape the
widest access that any of them has.

Factors are float16. Windows and taps are scaled by powers of two, so that what float32 holds is kept by two terms of 11
bits and three products of them; where float32 is not asked for one term is enough. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.windows import blurred_by_taps, border

# Binary exponents of a scaled window's largest number and of a kernel's summed taps. The first product stays below
# 2^16 times what the border folds onto one pixel; small numbers go down to 2^-24, 2^-22 of the largest.
WINDOW_EXPONENT = tl.constexpr(-3)
TAPS_EXPONENT = tl.constexpr(7)
# Windows of so many blocks an axis stay loaded; larger ones are loaded again for every kernel.
MOST_BLOCKS_HELD = tl.constexpr(3)


# ---- Where a lane's numbers are, in blocks of 16 x 16 ---------------------------------------------------------


@triton.jit
def as_left(numbers):
    """[256], eight for each lane, to the left factor [16, 16] that they are."""
    numbers = tl.reshape(numbers, (8, 4, 2, 2, 2))  # row, column, column, row, column
    return tl.reshape(tl.permute(numbers, (3, 0, 2, 1, 4)), (16, 16))


@triton.jit
def left_places():
    """Rows and columns of the numbers that `as_left` takes: [256] each."""
    e = tl.arange(0, 256)
    return 8 * ((e >> 1) & 1) + (e >> 5), 8 * ((e >> 2) & 1) + 2 * ((e >> 3) & 3) + (e & 1)


@triton.jit
def as_right(numbers, REGISTERS: tl.constexpr):
    """[32, 8] to the right factor [16, 16] that they are; or [16, 16], by way of shared memory."""
    if REGISTERS:
        numbers = tl.reshape(numbers, (8, 4, 2, 2, 2))  # column, row, column, row, row
        numbers = tl.reshape(tl.permute(numbers, (3, 1, 4, 2, 0)), (16, 16))
    return numbers


@triton.jit
def right_places(REGISTERS: tl.constexpr):
    """Rows and columns of the numbers that `as_right` takes, to be broadcast."""
    if REGISTERS:
        lane, r = tl.arange(0, 32)[:, None], tl.arange(0, 8)[None, :]
        return 2 * (lane & 3) + (r & 1) + 8 * ((r >> 1) & 1), (lane >> 2) + 8 * (r >> 2)
    else:
        return tl.arange(0, 16)[:, None], tl.arange(0, 16)[None, :]


@triton.jit
def result_places():
    """Rows and columns of a result's numbers, pairs of neighbours: [32, 4, 2]."""
    lane, r, pair = tl.arange(0, 32)[:, None, None], tl.arange(0, 4)[None, :, None], tl.arange(0, 2)[None, None, :]
    return (lane >> 2) + 8 * (r & 1), 2 * (lane & 3) + 8 * (r >> 1) + pair


@triton.jit
def as_result(numbers):
    """[32, 4, 2] to [16, 16]."""
    numbers = tl.reshape(numbers, (8, 4, 2, 2, 2))  # row, column, column, row, column
    return tl.reshape(tl.permute(numbers, (3, 0, 2, 1, 4)), (16, 16))


@triton.jit
def of_result(block):
    """[16, 16] to [32, 4, 2]."""
    block = tl.reshape(block, (2, 8, 2, 4, 2))
    return tl.reshape(tl.permute(block, (1, 3, 2, 0, 4)), (32, 4, 2))


@triton.jit
def load_tile(tile, row_stride, rows_left, columns_left, ACROSS: tl.constexpr):
    """A tile's pixels as its results lie: a tuple of ACROSS blocks, zero beside the image.

    tile: pointer to its first pixel; rows_left, columns_left: so many the image has from there on.
    """
    i, j = result_places()
    blocks = ()
    for n in tl.static_range(ACROSS):
        pixels = tile + (i.to(tl.int64) * row_stride + (16 * n + j))
        block = tl.load(pixels, mask=(i < rows_left) & (16 * n + j < columns_left), other=0)
        blocks = blocks + (as_result(block).to(tl.float32),)
    return blocks


@triton.jit
def store_tile(tile, row_stride, blocks, rows_left, columns_left, ACROSS: tl.constexpr):
    """Write a tile, in the type of where it goes."""
    i, j = result_places()
    for n in tl.static_range(ACROSS):
        pixels = tile + (i.to(tl.int64) * row_stride + (16 * n + j))
        block = of_result(blocks[n]).to(tile.dtype.element_ty)
        tl.store(pixels, block, mask=(i < rows_left) & (16 * n + j < columns_left))


# ---- Factors --------------------------------------------------------------------------------------------------


@triton.jit
def magnitude(blocks):
    """The bits of the largest magnitude in a tuple of blocks: ordered as numbers are, infinity and NaN the largest."""
    largest = tl.abs(blocks[0])
    for n in tl.static_range(1, len(blocks)):
        largest = tl.maximum(largest, tl.abs(blocks[n]), propagate_nan=tl.PropagateNan.ALL)
    return tl.max(largest.to(tl.int32, bitcast=True))


@triton.jit
def is_finite(bits):
    return bits < 0x7F800000


@triton.jit
def scales(bits, EXPONENT: tl.constexpr):
    """The powers of two that bring a number's exponent to EXPONENT, nearly so far from 1, and back."""
    e = tl.minimum(tl.maximum(bits >> 23, 8), 247) - EXPONENT
    return ((254 - e) << 23).to(tl.float32, bitcast=True), (e << 23).to(tl.float32, bitcast=True)


@triton.jit
def split(numbers, TERMS: tl.constexpr):
    """Numbers as one float16, or as the sum of two."""
    high = numbers.to(tl.float16)
    if TERMS == 1:
        return (high,)
    else:
        return high, (numbers - high.to(tl.float32)).to(tl.float16)


@triton.jit
def right_factor(pixels, scale, TERMS: tl.constexpr, REGISTERS: tl.constexpr):
    terms = split(pixels * scale, TERMS)
    if TERMS == 1:
        return (as_right(terms[0], REGISTERS),)
    else:
        return as_right(terms[0], REGISTERS), as_right(terms[1], REGISTERS)


@triton.jit
def multiply(left, right, total, TERMS: tl.constexpr):
    """total + left right; the product of the two low terms is less than what float32 holds."""
    if TERMS == 2:
        total = tl.dot(left[1], right[0], total)
        total = tl.dot(left[0], right[1], total)
    return tl.dot(left[0], right[0], total)


@triton.jit
def transposed(factor, TERMS: tl.constexpr):
    if TERMS == 1:
        return (tl.trans(factor[0]),)
    else:
        return tl.trans(factor[0]), tl.trans(factor[1])


# ---- Bands ----------------------------------------------------------------------------------------------------


@triton.jit
def tabulate_bands(taps, radii, blocks, bands, inverses, size, most_blocks):
    """A kernel's band, [most_blocks, 2 terms, 256] as `as_left` takes it, and what undoes its scale.

    taps: [kernels, size], centred; blocks: how many of each kernel's are filled.
    """
    kernel = tl.program_id(0)
    radius, count = tl.load(radii + kernel), tl.load(blocks + kernel)
    centre = taps + kernel * size + size // 2
    total = 0.0
    for first in range(-radius, radius + 1, 64):
        offset = first + tl.arange(0, 64)
        total += tl.sum(tl.abs(tl.load(centre + offset, mask=offset <= radius, other=0).to(tl.float32)))
    scale, inverse = scales(total.to(tl.int32, bitcast=True), TAPS_EXPONENT)
    tl.store(inverses + kernel, inverse)
    i, k = left_places()
    band = bands + kernel.to(tl.int64) * most_blocks * 512 + tl.arange(0, 256)
    for p in range(count):
        offset = 16 * p - 8 * (count - 1) + k - i
        tap = tl.load(centre + offset, mask=tl.abs(offset) <= radius, other=0).to(tl.float32)
        terms = split(tap * scale, 2)
        tl.store(band + 512 * p, terms[0])
        tl.store(band + 512 * p + 256, terms[1])


@triton.jit
def load_band(band, TERMS: tl.constexpr):
    """One of a kernel's blocks."""
    e = tl.arange(0, 256)
    if TERMS == 1:
        return (as_left(tl.load(band + e)),)
    else:
        return as_left(tl.load(band + e)), as_left(tl.load(band + 256 + e))


@triton.jit
def load_bands(band, BLOCKS: tl.constexpr, TERMS: tl.constexpr):
    factors = ()
    for p in tl.static_range(BLOCKS):
        factors = factors + (load_band(band + 512 * p, TERMS),)
    return factors


@triton.jit
def banded(window, bands_h, bands_w, BLOCKS: tl.constexpr, ACROSS: tl.constexpr, TERMS: tl.constexpr):
    """A_h X A_w: ACROSS blocks of results of a window, a tuple of right factors, row by row."""
    columns: tl.constexpr = ACROSS + BLOCKS - 1
    parts = ()
    for q in tl.static_range(columns):
        part = tl.zeros((16, 16), tl.float32)
        for p in tl.static_range(BLOCKS):
            part = multiply(bands_h[p], window[p * columns + q], part, TERMS)
        parts = parts + (split(part, TERMS),)
    results = ()
    for n in tl.static_range(ACROSS):
        result = tl.zeros((16, 16), tl.float32)
        for q in tl.static_range(BLOCKS):
            result = multiply(parts[n + q], transposed(bands_w[q], TERMS), result, TERMS)
        results = results + (result,)
    return results


# ---- Windows of an image --------------------------------------------------------------------------------------


@triton.jit
def load_block(plane, row_stride, top, left, height, width, PADDING: tl.constexpr, REGISTERS: tl.constexpr):
    """The pixels of one block of a window, which may lie on the border, as `as_right` takes them."""
    i, j = right_places(REGISTERS)
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
    BLOCKS: tl.constexpr, ACROSS: tl.constexpr, REGISTERS: tl.constexpr,
    TERMS: tl.constexpr, PADDING: tl.constexpr,
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
                block = load_block(plane, row_stride, at_top, at_left, height, width, PADDING, REGISTERS)
                pixels = pixels + (block,)
        if BLOCKS > 0:
            bits = magnitude(pixels)
    else:
        for p in range(BLOCKS):
            for q in range(ACROSS + BLOCKS - 1):
                block = load_block(plane, row_stride, top + 16 * p, left + 16 * q, height, width, PADDING, True)
                bits = tl.maximum(bits, magnitude((block,)))
    scale, back = scales(bits, WINDOW_EXPONENT)
    factors = ()
    for n in tl.static_range(len(pixels)):
        factors = factors + (right_factor(pixels[n], scale, TERMS, REGISTERS),)
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
            pixels = load_block(plane, row_stride, at_top, at_left, height, width, PADDING, True)
            part = multiply(load_band(band_h + 512 * p, TERMS), right_factor(pixels, scale, TERMS, True), part, TERMS)
        result = multiply(split(part, TERMS), transposed(load_band(band_w + 512 * q, TERMS), TERMS), result, TERMS)
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
        factors_h = load_bands(bands_h, BLOCKS, TERMS)
        if SAME:
            factors_w = factors_h
        else:
            factors_w = load_bands(bands_w, BLOCKS, TERMS)
        products = banded(factors, factors_h, factors_w, BLOCKS, ACROSS, TERMS)
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
            plane, row_stride, 1, taps_h + centre, taps_w + centre, tl.load(radii + kernel), rows, columns,
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
