"""The closed form of coefficient maps: at every pixel (A A^T + ridge I)^-1 y, A [C, M] the blurred colours there.

A program is one warp and goes through the bank on 16 x 16 pixels. It holds the windows of all colours, as to correlate
(`gather`), or, of bands of three blocks, makes each colour's anew for every kernel; keeps the products of the blurred
colours with each other; and solves with them at the end. Colours are so alike that most of their digits cancel: in
float64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.bands import MOST_BLOCKS_HELD, blurred, window_of
from gkm_ops.kernels.fragments import COUNTS, image_of, load_tile, store_tile, tile_at, zero_blocks

# Of factors: one is not enough, whatever precision is asked for.
TERMS = tl.constexpr(2)


@triton.jit
def _entry(entries, i: tl.constexpr, j: tl.constexpr):
    """(i, j), j <= i, of a packed lower triangle."""
    return entries[i * (i + 1) // 2 + j]


@triton.jit
def _factorised(gram, ridge, COLOURS: tl.constexpr):
    """L and, on its diagonal, D of gram + ridge I = L D L^T; packed, as gram is."""
    factors = ()
    for i in tl.static_range(COLOURS):
        for j in tl.static_range(i + 1):
            value = _entry(gram, i, j)
            if i == j:
                value += ridge
            for k in tl.static_range(j):
                value -= _entry(factors, i, k) * _entry(factors, j, k) * _entry(factors, k, k)
            if i == j:
                value = tl.where(value < ridge, ridge, value)  # never below it but by rounding
            else:
                value = value / _entry(factors, j, j)
            factors = factors + (value,)
    return factors


@triton.jit
def _solution(factors, sides, COLOURS: tl.constexpr):
    """(L D L^T)^-1 of the right sides, last colour first."""
    forward = ()
    for i in tl.static_range(COLOURS):
        value = sides[i]
        for k in tl.static_range(i):
            value -= _entry(factors, i, k) * forward[k]
        forward = forward + (value,)
    backward = ()
    for n in tl.static_range(COLOURS):
        value = forward[COLOURS - 1 - n] / _entry(factors, COLOURS - 1 - n, COLOURS - 1 - n)
        for k in tl.static_range(n):
            value -= _entry(factors, COLOURS - 1 - k, COLOURS - 1 - n) * backward[k]
        backward = backward + (value,)
    return backward


@triton.jit
def _add_class(
    gram, image, x_channel, x_row, bank, order, top, left, height, width, kernels,
    BLOCKS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, COLOURS: tl.constexpr,
    CHANNEL_BANKS: tl.constexpr, SAME: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Adds the products of the blurred colours with each other, for the kernels of one class; and tells whether x is
    finite around the tile."""
    held: tl.constexpr = COLOURS == 1 or BLOCKS != MOST_BLOCKS_HELD
    finite = True
    windows = ()
    plane = image
    for _ in tl.static_range(COLOURS if held else 0):
        window = window_of(plane, x_row, top, left, height, width, BLOCKS, 1, TERMS, PADDING)
        windows = windows + (window,)
        finite &= window[3]
        plane += x_channel
    for place in tl.range(FIRST, LAST, disable_licm=True):
        m = tl.load(order + place)
        plane = image
        if held:
            images = ()
            for c in tl.static_range(COLOURS):
                row = m + c * kernels * CHANNEL_BANKS
                blocks = blurred(
                    plane, x_row, windows[c], bank, row, top, left, height, width, BLOCKS, 1, SAME, TERMS, PADDING
                )
                images = images + (blocks[0],)
                plane += x_channel
        else:
            images = zero_blocks(COLOURS)
            for c in tl.range(COLOURS, disable_licm=True):
                plane, row = image_of(image, x_channel, c, COLOURS), m + c * kernels * CHANNEL_BANKS
                window = window_of(plane, x_row, top, left, height, width, BLOCKS, 1, TERMS, PADDING)
                finite &= window[3]
                blocks = blurred(
                    plane, x_row, window, bank, row, top, left, height, width, BLOCKS, 1, SAME, TERMS, PADDING
                )
                chosen = ()
                for i in tl.static_range(COLOURS):
                    chosen = chosen + (tl.where(c == i, blocks[0], images[i]),)
                images = chosen
        added = ()
        for i in tl.static_range(COLOURS):
            for j in tl.static_range(i + 1):
                added = added + (_entry(gram, i, j) + images[i].to(tl.float64) * images[j].to(tl.float64),)
        gram = added
    return gram, finite


@triton.jit
def _gram(
    image, x_channel, x_row, bank, order, top, left, height, width, kernels,
    COLOURS: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr, SAME: tl.constexpr,
    PADDING: tl.constexpr,
):  # fmt: skip
    """A A^T on a tile, its lower triangle packed; and whether x is finite around it."""
    gram = ()
    for _ in tl.static_range(COLOURS * (COLOURS + 1) // 2):
        gram = gram + (tl.zeros((16, 16), tl.float64),)
    finite = True
    for k in tl.static_range(len(CLASSES)):
        gram, class_finite = _add_class(
            gram, image, x_channel, x_row, bank, order, top, left, height, width, kernels,
            CLASSES[k][0], CLASSES[k][1], CLASSES[k][2], COLOURS, CHANNEL_BANKS, SAME, PADDING,
        )  # fmt: skip
        finite &= class_finite
    return gram, finite


@triton.jit(do_not_specialize=COUNTS)
def ridge_dual(
    x, x_batch, x_channel, x_row, y, y_batch, y_channel, y_row,
    bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, order, ridge, out,
    kernels, size, most_blocks, height, width, tile_rows, tile_columns,
    COLOURS: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr, BY_TAPS: tl.constexpr,
    SAME: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """z of every pixel; arguments as in `gather`, and `ridge` points to a float64."""
    top, left, b, _group = tile_at(tl.program_id(0), tile_rows, tile_columns, 1, 1)
    bank = (bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, size, most_blocks)
    image = x + b * x_batch
    gram, finite = _gram(
        image, x_channel, x_row, bank, order, top, left, height, width, kernels,
        COLOURS, CHANNEL_BANKS, CLASSES, SAME, PADDING,
    )  # fmt: skip
    if not finite:
        gram, finite = _gram(
            image, x_channel, x_row, bank, order, top, left, height, width, kernels,
            COLOURS, CHANNEL_BANKS, BY_TAPS, SAME, PADDING,
        )  # fmt: skip
    y += b * y_batch + top.to(tl.int64) * y_row + left
    sides = ()
    for _ in tl.static_range(COLOURS):
        blocks = load_tile(y, y_row, height - top, width - left, 1)
        sides = sides + (blocks[0].to(tl.float64),)
        y += y_channel
    z = _solution(_factorised(gram, tl.load(ridge), COLOURS), sides, COLOURS)
    out += (b * COLOURS * height + top) * width + left
    for c in tl.static_range(COLOURS):
        tile = out + tl.cast(c, tl.int64) * height * width
        store_tile(tile, width, (z[COLOURS - 1 - c],), height - top, width - left, 1)
