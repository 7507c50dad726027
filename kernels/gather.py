"""The kernels that read blurred images: blur, correlate and the gradient of the mix.

A program makes the result on one tile of one image. It loads each coefficient once for all colours, the window of
each colour once for all kernels that it suffices for, each band once for all colours that share the bank; no blurred
image is ever stored. With tiles of 16 x 16 the products take 96 multiply-adds a pixel, kernel and colour up to radius
8, and 320 for the four kernels of the published bank beyond it, against 2 to 42 by taps, which matrix units outweigh.

What all three take:
    image, its strides: x; for correlate and grad_mix also y, for blur and grad_mix also the coefficients
    taps_w, taps_h: [M, size] or [C, M, size], as `windows.tabulate` makes them; mix: [M, O, C] float32
    radii, order: int32 tables, the radius of each kernel and the kernels class by class
    CHANNELS, OUTPUTS: colours of x and of y that a program goes through
    CLASSES: (chunks of a window along an axis, first place in `order`, one past the last) for each class
    HELD: whether windows of one chunk stay loaded
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.windows import (
    COUNTS,
    blurred,
    blurred_by_taps,
    halo_of,
    load,
    store,
    tile_of,
    unfinite,
    weighed,
    zeros,
)


@triton.jit
def windows_of(
    image, channel_stride, row_stride, column_stride, top, left, height, width,
    CHANNELS: tl.constexpr, CHUNKS: tl.constexpr, HELD: tl.constexpr, PADDING: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A window of one chunk of each colour, where they are held, and whether the largest windows are finite."""
    windows = ()
    bad = 0
    chunk = tl.arange(0, 2 * TILE)
    for c in tl.static_range(CHANNELS):
        plane = image + c * channel_stride
        if HELD:
            rows, columns = top - halo_of(1, TILE) + chunk, left - halo_of(1, TILE) + chunk
            windows = windows + (load(plane, row_stride, column_stride, rows, columns, height, width, PADDING),)
        for i in range(CHUNKS):
            for j in range(CHUNKS):
                rows = top - halo_of(CHUNKS, TILE) + 2 * TILE * i + chunk
                columns = left - halo_of(CHUNKS, TILE) + 2 * TILE * j + chunk
                bad += unfinite(load(plane, row_stride, column_stride, rows, columns, height, width, PADDING))
    return windows, bad == 0


@triton.jit
def blurred_colours(
    image, channel_stride, row_stride, column_stride, windows, finite, taps_w, taps_h, radii, row, kernels, size,
    top, left, height, width,
    CHANNELS: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CHUNKS: tl.constexpr, HELD: tl.constexpr,
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
            if HELD and CHUNKS == 1:
                window = windows[c]
            else:
                window = 0.0
            result = blurred(
                plane, row_stride, column_stride, window, centre_h, centre_w, top, left, height, width,
                CHUNKS, HELD and CHUNKS == 1, PADDING, TILE, PRECISION,
            )  # fmt: skip
        else:
            result = blurred_by_taps(
                plane, row_stride, column_stride, centre_h, centre_w, tl.load(radii + kernel),
                top + tl.arange(0, TILE), left + tl.arange(0, TILE), height, width, PADDING,
            )  # fmt: skip
        results = results + (result,)
    return results


@triton.jit(do_not_specialize=COUNTS)
def blur(
    x, x_batch, x_channel, x_row, x_column,
    coeffs, coeffs_batch, coeffs_map, coeffs_channel, coeffs_row, coeffs_column,
    taps_w, taps_h, mix, radii, order, out, kernels, size, height, width, tile_rows, tile_columns, groups,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr,
    CHANNEL_MAPS: tl.constexpr, CLASSES: tl.constexpr, HELD: tl.constexpr, PADDING: tl.constexpr,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c; without a mix, `groups` programs share out the colours."""
    top, left, rest = tile_of(tl.program_id(0), tile_rows, tile_columns, TILE)
    b, group = (rest // groups).to(tl.int64), rest % groups
    image = x + b * x_batch + group.to(tl.int64) * CHANNELS * x_channel
    maps = coeffs + b * coeffs_batch + group.to(tl.int64) * CHANNELS * coeffs_channel
    rows, columns = top + tl.arange(0, TILE), left + tl.arange(0, TILE)
    windows, finite = windows_of(
        image, x_channel, x_row, x_column, top, left, height, width, CHANNELS, CLASSES[-1][0], HELD, PADDING, TILE
    )
    sums = zeros(OUTPUTS, TILE, TILE)
    for k in tl.static_range(len(CLASSES)):
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=True):
            m = tl.load(order + place)
            row = m + group * CHANNELS * kernels if CHANNEL_BANKS else m
            images = blurred_colours(
                image, x_channel, x_row, x_column, windows, finite, taps_w, taps_h, radii, row, kernels, size,
                top, left, height, width,
                CHANNELS, CHANNEL_BANKS, CLASSES[k][0], HELD, PADDING, TILE, PRECISION,
            )  # fmt: skip
            plane = maps + m.to(tl.int64) * coeffs_map
            weight = load(plane, coeffs_row, coeffs_column, rows, columns, height, width, "zeros")
            added = ()
            for o in tl.static_range(OUTPUTS):
                if MIXED:
                    image_o = tl.zeros((TILE, TILE), tl.float32)
                    for c in tl.static_range(CHANNELS):
                        image_o += tl.load(mix + (m * OUTPUTS + o) * CHANNELS + c) * images[c]
                else:
                    image_o = images[o]
                if CHANNEL_MAPS and o > 0:
                    channel = plane + o * coeffs_channel
                    weight = load(channel, coeffs_row, coeffs_column, rows, columns, height, width, "zeros")
                added = added + (sums[o] + weight * image_o,)
            sums = added
    for o in tl.static_range(OUTPUTS):
        store(out, (b * groups + group) * OUTPUTS + o, sums[o], rows, columns, height, width)


@triton.jit(do_not_specialize=COUNTS)
def correlate(
    x, x_batch, x_channel, x_row, x_column, y, y_batch, y_channel, y_row, y_column,
    taps_w, taps_h, mix, radii, order, out, kernels, size, height, width, tile_rows, tile_columns, groups,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr,
    CHANNEL_MAPS: tl.constexpr, CLASSES: tl.constexpr, HELD: tl.constexpr, PADDING: tl.constexpr,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """b_m = sum_o y_o * sum_c mix_m[o, c] T_m x_c; with CHANNEL_MAPS b_mc = y_c T_m x_c, colours shared out."""
    top, left, rest = tile_of(tl.program_id(0), tile_rows, tile_columns, TILE)
    b, group = (rest // groups).to(tl.int64), rest % groups
    first = group.to(tl.int64) * CHANNELS
    image = x + b * x_batch + first * x_channel
    rows, columns = top + tl.arange(0, TILE), left + tl.arange(0, TILE)
    windows, finite = windows_of(
        image, x_channel, x_row, x_column, top, left, height, width, CHANNELS, CLASSES[-1][0], HELD, PADDING, TILE
    )
    weights = ()
    for o in tl.static_range(OUTPUTS):
        plane = y + b * y_batch + (first + o) * y_channel
        weights = weights + (load(plane, y_row, y_column, rows, columns, height, width, "zeros"),)
    for k in tl.static_range(len(CLASSES)):
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=True):
            m = tl.load(order + place)
            row = m + group * CHANNELS * kernels if CHANNEL_BANKS else m
            images = blurred_colours(
                image, x_channel, x_row, x_column, windows, finite, taps_w, taps_h, radii, row, kernels, size,
                top, left, height, width,
                CHANNELS, CHANNEL_BANKS, CLASSES[k][0], HELD, PADDING, TILE, PRECISION,
            )  # fmt: skip
            total = tl.zeros((TILE, TILE), tl.float32)
            for c in tl.static_range(CHANNELS):
                product = weighed(weights, mix + m * OUTPUTS * CHANNELS, c, CHANNELS, OUTPUTS, MIXED) * images[c]
                if CHANNEL_MAPS:
                    plane = ((b * kernels + m) * groups + group) * CHANNELS + c
                    store(out, plane, product, rows, columns, height, width)
                total += product
            if not CHANNEL_MAPS:
                store(out, b * kernels + m, total, rows, columns, height, width)


@triton.jit(do_not_specialize=COUNTS[:-1])
def grad_mix(
    x, x_batch, x_channel, x_row, x_column, y, y_batch, y_channel, y_row, y_column,
    coeffs, coeffs_batch, coeffs_map, coeffs_row, coeffs_column,
    taps_w, taps_h, radii, order, partial, kernels, size, height, width, tile_rows, tile_columns,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr,
    HELD: tl.constexpr, PADDING: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sums of coeffs_m y_o T_m x_c over each program's tile: partial [programs, M, O, C], added up by torch."""
    program = tl.program_id(0)
    top, left, batch = tile_of(program, tile_rows, tile_columns, TILE)
    b = batch.to(tl.int64)
    image = x + b * x_batch
    rows, columns = top + tl.arange(0, TILE), left + tl.arange(0, TILE)
    windows, finite = windows_of(
        image, x_channel, x_row, x_column, top, left, height, width, CHANNELS, CLASSES[-1][0], HELD, PADDING, TILE
    )
    weights = ()
    for o in tl.static_range(OUTPUTS):
        plane = y + b * y_batch + o * y_channel
        weights = weights + (load(plane, y_row, y_column, rows, columns, height, width, "zeros"),)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    for k in tl.static_range(len(CLASSES)):
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=True):
            m = tl.load(order + place)
            images = blurred_colours(
                image, x_channel, x_row, x_column, windows, finite, taps_w, taps_h, radii, m, kernels, size,
                top, left, height, width,
                CHANNELS, CHANNEL_BANKS, CLASSES[k][0], HELD, PADDING, TILE, PRECISION,
            )  # fmt: skip
            plane = coeffs + b * coeffs_batch + m.to(tl.int64) * coeffs_map
            weight = load(plane, coeffs_row, coeffs_column, rows, columns, height, width, "zeros")
            sums = partial + ((program.to(tl.int64) * kernels + m) * OUTPUTS) * CHANNELS
            for c in tl.static_range(CHANNELS):
                pixels = weight * tl.where(inside, images[c], 0)
                for o in tl.static_range(OUTPUTS):
                    tl.store(sums + o * CHANNELS + c, tl.sum(pixels * weights[o]))
