"""Blocks of 16 x 16 numbers as a warp holds them for matrix units, and how they get there.

A program is one warp. Everything it loads or stores is in the order in which the units hold factors and results, and
reshaped to the block that it is: such changes of layout cost nothing. What a lane has side by side in memory is an axis
of its own, [32, 8] or [128, 2]; along the other, or the only one of [256], the lanes come first and then their next
numbers. Triton leaves no other order to an axis, where of two it might take either for the lanes, and has: releases
differ. And loads of different kinds have different shapes, since all of one shape get the widest access that any has.

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
def image_of(images, stride, c, COLOURS: tl.constexpr):
    """The c-th of a few images, which may be further apart than 32 bits count.

    Chosen, not reckoned: LLVM would step from one to the next with registers of its own for each address of a window.
    """
    offset = tl.cast(0, tl.int64)
    for i in tl.static_range(1, COLOURS):
        offset = tl.where(c == i, tl.cast(i, tl.int64) * stride, offset)
    return images + offset


@triton.jit
def zero_blocks(COUNT: tl.constexpr):
    """A tuple of blocks to sum in."""
    blocks = ()
    for _ in tl.static_range(COUNT):
        blocks = blocks + (tl.zeros((16, 16), tl.float32),)
    return blocks


# ---- Where a lane's numbers are, in blocks of 16 x 16 ---------------------------------------------------------


@triton.jit
def lane_places():
    """Where those of a table of 256 are, eight for each lane, side by side."""
    return 8 * tl.arange(0, 32)[:, None] + tl.arange(0, 8)[None, :]


@triton.jit
def left_places():
    """Rows and columns of the numbers that `left_factor` takes, to be broadcast."""
    lane, r = tl.arange(0, 32)[:, None], tl.arange(0, 8)[None, :]
    return (lane >> 2) + 8 * ((r >> 1) & 1), 2 * (lane & 3) + 8 * (r >> 2) + (r & 1)


@triton.jit
def right_places():
    """Rows and columns of the numbers that `right_factor` takes: [256]."""
    e = tl.arange(0, 256)
    return 2 * (e & 3) + ((e >> 5) & 1) + 8 * ((e >> 6) & 1), ((e >> 2) & 7) + 8 * (e >> 7)


@triton.jit
def result_places():
    """Rows and columns of a result's numbers, a pair of neighbours of every lane and then the next: [128, 2]."""
    e, pair = tl.arange(0, 128)[:, None], tl.arange(0, 2)[None, :]
    return ((e >> 2) & 7) + 8 * ((e >> 5) & 1), 2 * (e & 3) + 8 * (e >> 6) + pair


@triton.jit
def as_result(numbers):
    """[128, 2] to [16, 16]."""
    numbers = tl.reshape(numbers, (2, 2, 8, 4, 2))  # column, row, row, column, column
    return tl.reshape(tl.permute(numbers, (1, 2, 0, 3, 4)), (16, 16))


@triton.jit
def of_result(block):
    """[16, 16] to [128, 2]."""
    block = tl.reshape(block, (2, 8, 2, 4, 2))
    return tl.reshape(tl.permute(block, (2, 0, 1, 3, 4)), (128, 2))


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
def _arranged(terms, SHAPE: tl.constexpr, ORDER: tl.constexpr):
    """Terms of a factor, as the lanes hold them, as the blocks [16, 16] that they are."""
    factor = ()
    for t in tl.static_range(len(terms)):
        factor = factor + (tl.reshape(tl.permute(tl.reshape(terms[t], SHAPE), ORDER), (16, 16)),)
    return factor


# The axes of their shapes are a block's rows and columns in turns, as each comment tells.


@triton.jit
def left_factor(terms):
    """Terms of [32, 8], eight numbers of each lane, to the left factor that they are."""
    return _arranged(terms, (8, 4, 2, 2, 2), (3, 0, 2, 1, 4))  # row, column, column, row, column


@triton.jit
def transposed_factor(terms):
    """The same to the right factor that is its transpose: the lanes hold both alike."""
    return _arranged(terms, (8, 4, 2, 2, 2), (2, 1, 4, 3, 0))  # column, row, row, column, row


@triton.jit
def right_factor(terms):
    """Terms of [256], a number of every lane and then the next, to the right factor that they are."""
    return _arranged(terms, (2, 2, 2, 8, 4), (1, 4, 2, 0, 3))  # column, row, row, column, row


@triton.jit
def transposed_result(terms):
    """Terms of [128, 2], which lie as a result does, to the right factor that is its transpose."""
    return _arranged(terms, (2, 2, 8, 4, 2), (0, 3, 4, 1, 2))  # row, column, column, row, row


@triton.jit
def multiply(left, right, total, TERMS: tl.constexpr):
    """total + left right; the product of the two low terms is less than what float32 holds."""
    if TERMS == 2:
        total = tl.dot(left[1], right[0], total)
        total = tl.dot(left[0], right[1], total)
    return tl.dot(left[0], right[0], total)
