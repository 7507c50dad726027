"""The closed form of coefficient maps: at every pixel (A A^T + ridge I)^-1 y, A [C, M] the blurred colours there.

A program goes through the bank on one tile, T = 16; it loads the window of each colour once for all kernels that one
chunk suffices for, keeps the products of the colours with each other, and solves with them at the end. Colours are so
alike that most of their digits cancel: in float64. Products take 96 multiply-adds a pixel, kernel and colour up to
radius 8, and 320 for the four kernels of the published bank beyond it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.windows import COUNTS, blurred, blurred_by_taps, halo_of, load, store, tile_of, unfinite


@triton.jit
def _windows(
    image, channel_stride, row_stride, column_stride, top, left, height, width,
    CHANNELS: tl.constexpr, CHUNKS: tl.constexpr, PADDING: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A window of one chunk of each colour, and whether the largest windows are finite."""
    windows = ()
    bad = 0
    chunk = tl.arange(0, 2 * TILE)
    for c in tl.static_range(CHANNELS):
        plane = image + c * channel_stride
        rows, columns = top - halo_of(1, TILE) + chunk, left - halo_of(1, TILE) + chunk
        windows = windows + (load(plane, row_stride, column_stride, rows, columns, height, width, PADDING),)
        for i in range(CHUNKS):
            for j in range(CHUNKS):
                rows = top - halo_of(CHUNKS, TILE) + 2 * TILE * i + chunk
                columns = left - halo_of(CHUNKS, TILE) + 2 * TILE * j + chunk
                bad += unfinite(load(plane, row_stride, column_stride, rows, columns, height, width, PADDING))
    return windows, bad == 0


@triton.jit
def _blurred_colours(
    image, channel_stride, row_stride, column_stride, windows, finite, taps_w, taps_h, radii, row, kernels, size,
    top, left, height, width,
    CHANNELS: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CHUNKS: tl.constexpr,
    PADDING: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """T_m x of each colour on the tile, for the kernel in one row of the taps; a colour's own bank is further on."""
    results = ()
    for c in tl.static_range(CHANNELS):
        plane = image + c * channel_stride
        if CHANNEL_BANKS:
            kernel = row + c * kernels
        else:
            kernel = row
        centre_h, centre_w = taps_h + kernel * size + size // 2, taps_w + kernel * size + size // 2
        if finite:
            result = blurred(
                plane, row_stride, column_stride, windows[c], centre_h, centre_w, top, left, height, width,
                CHUNKS, PADDING, TILE, PRECISION,
            )  # fmt: skip
        else:
            result = blurred_by_taps(
                plane, row_stride, column_stride, centre_h, centre_w, tl.load(radii + kernel),
                top + tl.arange(0, TILE), left + tl.arange(0, TILE), height, width, PADDING,
            )  # fmt: skip
        results = results + (result,)
    return results


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


@triton.jit(do_not_specialize=COUNTS[:-1])
def ridge_dual(
    x, x_batch, x_channel, x_row, x_column, y, y_batch, y_channel, y_row, y_column,
    taps_w, taps_h, radii, order, ridge, out, kernels, size, height, width, tile_rows, tile_columns,
    COLOURS: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr, PADDING: tl.constexpr,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """z of every pixel; `ridge` points to a float64.

    taps_w, taps_h: as `windows.tabulate` makes them; radii, order: int32 tables, the radius of each kernel and the
        kernels class by class; CLASSES: (chunks of a window along an axis, first place in `order`, one past the last)
    """
    top, left, batch = tile_of(tl.program_id(0), tile_rows, tile_columns, TILE)
    b = batch.to(tl.int64)
    image = x + b * x_batch
    rows, columns = top + tl.arange(0, TILE), left + tl.arange(0, TILE)
    windows, finite = _windows(
        image, x_channel, x_row, x_column, top, left, height, width, COLOURS, CLASSES[-1][0], PADDING, TILE
    )
    gram = ()
    for _ in tl.static_range(COLOURS * (COLOURS + 1) // 2):
        gram = gram + (tl.zeros((TILE, TILE), tl.float64),)
    for k in tl.static_range(len(CLASSES)):
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=True):
            m = tl.load(order + place)
            images = _blurred_colours(
                image, x_channel, x_row, x_column, windows, finite, taps_w, taps_h, radii, m, kernels, size,
                top, left, height, width, COLOURS, CHANNEL_BANKS, CLASSES[k][0], PADDING, TILE, PRECISION,
            )  # fmt: skip
            added = ()
            for i in tl.static_range(COLOURS):
                for j in tl.static_range(i + 1):
                    product = images[i].to(tl.float64) * images[j].to(tl.float64)
                    added = added + (_entry(gram, i, j) + product,)
            gram = added
    sides = ()
    for c in tl.static_range(COLOURS):
        plane = y + b * y_batch + c * y_channel
        sides = sides + (load(plane, y_row, y_column, rows, columns, height, width, "zeros").to(tl.float64),)
    z = _solution(_factorised(gram, tl.load(ridge), COLOURS), sides, COLOURS)
    for c in tl.static_range(COLOURS):
        store(out, b * COLOURS + c, z[COLOURS - 1 - c], rows, columns, height, width)
