"""The transposed blur: what every blurred pixel around a tile hands back to it.

A program makes one tile of x for the colours that share coefficients. For each kernel the window of weighed pixels,
coeffs_m * sum_o mix_m[o, c] y_o, goes through the two transposed bands, whose second product adds straight to the
tile's sum. Gathered and not scattered: no two programs write to one place, and equal inputs give equal bits.
Each coefficient is read by the programs of the four tiles around it, mostly out of the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.windows import COUNTS, halo_of, load, reaches, spread, store, tile_of, unfinite, weighed, zeros


@triton.jit
def _windows(image, channel_stride, row_stride, column_stride, rows, columns, height, width, COUNT: tl.constexpr):
    """The same rows and columns of each of the images, zero beyond them."""
    windows = ()
    for o in tl.static_range(COUNT):
        plane = image + o * channel_stride
        windows = windows + (load(plane, row_stride, column_stride, rows, columns, height, width, "zeros"),)
    return windows


@triton.jit
def _added_by_taps(
    total, y, y_channel, y_row, y_column, plane, coeffs_row, coeffs_column, mix, taps_h, taps_w, radius,
    top, left, height, width,
    c: tl.constexpr, CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, MIXED: tl.constexpr, PADDING: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """One kernel's share, pixel by pixel: slow, and exact about NaN and infinity."""
    rows, columns = top + tl.arange(0, TILE), left + tl.arange(0, TILE)
    first_row, first_column = tl.maximum(top - radius, 0), tl.maximum(left - radius, 0)
    y += first_row.to(tl.int64) * y_row + first_column.to(tl.int64) * y_column
    plane += first_row.to(tl.int64) * coeffs_row + first_column.to(tl.int64) * coeffs_column
    for i in range(first_row, tl.minimum(top + TILE + radius, height)):
        along_h = spread(taps_h, radius, i, rows, height, True, PADDING)[:, None]
        reached_h = reaches(radius, i, rows, height, PADDING)[:, None]
        pixel, map_pixel = y, plane
        for j in range(first_column, tl.minimum(left + TILE + radius, width)):
            along_w = spread(taps_w, radius, j, columns, width, True, PADDING)[None, :]
            reached_w = reaches(radius, j, columns, width, PADDING)[None, :]
            if MIXED:
                value = 0.0
                for o in tl.static_range(OUTPUTS):
                    value += tl.load(mix + o * CHANNELS + c) * tl.load(pixel + o * y_channel).to(tl.float32)
            else:
                value = tl.load(pixel + c * y_channel).to(tl.float32)
            value *= tl.load(map_pixel).to(tl.float32)
            total += tl.where(reached_h & reached_w, along_h * along_w * value, 0)
            pixel += y_column
            map_pixel += coeffs_column
        y += y_row
        plane += coeffs_row
    return total


@triton.jit(do_not_specialize=COUNTS)
def blur_adjoint(
    y, y_batch, y_channel, y_row, y_column,
    coeffs, coeffs_batch, coeffs_map, coeffs_channel, coeffs_row, coeffs_column,
    taps_w, taps_h, mix, radii, order, out, kernels, size, height, width, tile_rows, tile_columns, groups,
    CHANNELS: tl.constexpr, OUTPUTS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr,
    CHANNEL_MAPS: tl.constexpr, CLASSES: tl.constexpr, HELD: tl.constexpr, PADDING: tl.constexpr,
    TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """x_c = sum_m T_m^T (coeffs_m * sum_o mix_m[o, c] y_o); arguments as in `gather`."""
    top, left, rest = tile_of(tl.program_id(0), tile_rows, tile_columns, TILE)
    b, group = (rest // groups).to(tl.int64), rest % groups
    first = group.to(tl.int64) * CHANNELS
    image = y + b * y_batch + first * y_channel
    maps = coeffs + b * coeffs_batch + first * coeffs_channel
    writes_h, writes_w = top + tl.arange(0, TILE), left + tl.arange(0, TILE)
    reach: tl.constexpr = halo_of(CLASSES[-1][0], TILE)
    touches_h = (top <= reach) | (top + TILE + reach >= height)
    touches_w = (left <= reach) | (left + TILE + reach >= width)

    chunk = tl.arange(0, 2 * TILE)
    windows = ()
    if HELD:
        rows, columns = top - halo_of(1, TILE) + chunk, left - halo_of(1, TILE) + chunk
        windows = _windows(image, y_channel, y_row, y_column, rows, columns, height, width, OUTPUTS)

    sums = zeros(CHANNELS, TILE, TILE)
    for k in tl.static_range(len(CLASSES)):
        chunks = CLASSES[k][0]
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=True):
            m = tl.load(order + place)
            row = m + group * CHANNELS * kernels if CHANNEL_BANKS else m
            for j in range(chunks):
                columns = left - halo_of(chunks, TILE) + 2 * TILE * j + chunk
                parts = zeros(CHANNELS, TILE, 2 * TILE)
                for i in range(chunks):
                    rows = top - halo_of(chunks, TILE) + 2 * TILE * i + chunk
                    images = windows
                    if not (HELD and chunks == 1):
                        images = _windows(image, y_channel, y_row, y_column, rows, columns, height, width, OUTPUTS)
                    plane = maps + m.to(tl.int64) * coeffs_map
                    weight = load(plane, coeffs_row, coeffs_column, rows, columns, height, width, "zeros")
                    added = ()
                    for c in tl.static_range(CHANNELS):
                        if CHANNEL_MAPS and c > 0:
                            channel = plane + c * coeffs_channel
                            weight = load(channel, coeffs_row, coeffs_column, rows, columns, height, width, "zeros")
                        kernel = row + c * kernels if CHANNEL_BANKS else row
                        band = spread(
                            taps_h + kernel * size + size // 2, tl.load(radii + kernel),
                            rows[None, :], writes_h[:, None], height, touches_h, PADDING,
                        )  # fmt: skip
                        pixels = weight * weighed(images, mix + m * OUTPUTS * CHANNELS, c, CHANNELS, OUTPUTS, MIXED)
                        added = added + (tl.dot(band, pixels, parts[c], input_precision=PRECISION),)
                    parts = added
                added = ()
                for c in tl.static_range(CHANNELS):
                    kernel = row + c * kernels if CHANNEL_BANKS else row
                    band = spread(
                        taps_w + kernel * size + size // 2, tl.load(radii + kernel),
                        columns[:, None], writes_w[None, :], width, touches_w, PADDING,
                    )  # fmt: skip
                    added = added + (tl.dot(parts[c], band, sums[c], input_precision=PRECISION),)
                sums = added

    bad = 0
    for c in tl.static_range(CHANNELS):
        bad += unfinite(sums[c])
    if bad > 0:
        sums = zeros(CHANNELS, TILE, TILE)
        plane = maps
        for m in range(kernels):
            added = ()
            for c in tl.static_range(CHANNELS):
                kernel = m + (group * CHANNELS + c) * kernels if CHANNEL_BANKS else m
                centre = kernel * size + size // 2
                added = added + (
                    _added_by_taps(
                        sums[c], image, y_channel, y_row, y_column,
                        plane + c * coeffs_channel if CHANNEL_MAPS else plane, coeffs_row, coeffs_column,
                        mix + m * OUTPUTS * CHANNELS, taps_h + centre, taps_w + centre, tl.load(radii + kernel),
                        top, left, height, width, c, CHANNELS, OUTPUTS, MIXED, PADDING, TILE,
                    ),
                )  # fmt: skip
            sums = added
            plane += coeffs_map
    for c in tl.static_range(CHANNELS):
        store(out, (b * groups + group) * CHANNELS + c, sums[c], writes_h, writes_w, height, width)
