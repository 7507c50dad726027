"""Blocks of 16 x 16 numbers as a warp holds them for matrix units, and how they get there.

A program is one warp. Everything it loads or stores is [lanes, numbers of a lane] in the order in which the units hold
factors and results, and reshaped to the block that it is: such changes of layout cost nothing. The lanes come first,
and loads of different kinds have different shapes, since Triton gives all loads of one shape the widest access that any
of them has.

Factors are float16. Windows and taps are scaled by powers of two, so that what float32 holds is kept by two terms of 11
bits and three products of them; where float32 is not asked for one term is enough. Sums are float32.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Numbers of things, whose being 1 or a multiple of 16 makes no better code and would make more of it.
COUNTS = (
    "kernels", "size", "most_blocks", "rows", "edge", "height", "tile_rows", "tile_columns", "colours", "outputs",
)  # fmt: skip
# A tile of one colour: so many blocks side by side.
BLOCKS_ACROSS = tl.constexpr(2)


# ---- Tiles ---------------------------------------------------------------------------------------------------


@triton.jit
def tile_at(program, tile_rows, tile_columns, programs, ACROSS: tl.constexpr):
    """First row and first column of a program's tile, the image, and which of the tile's programs it is."""
    tile = program // programs
    top, left = tile // tile_columns % tile_rows * 16, tile % tile_columns * (16 * ACROSS)
    return top, left, (tile // tile_columns // tile_rows).to(tl.int64), program % programs


@triton.jit
def zero_blocks(COUNT: tl.constexpr):
    """A tuple of blocks to sum in."""
    blocks = ()
    for _ in tl.static_range(COUNT):
        blocks = blocks + (tl.zeros((16, 16), tl.float32),)
    return blocks


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
