"""The kernels that read blurred images: blur, correlate and the gradient of the mix.

A program is one warp and makes the result on one tile (`bands`). Blur and the gradient of the mix take a colour at a
time, 16 x 32 pixels: its window stays in registers for all kernels of as many blocks, no blurred image is ever stored,
and programs of one tile are neighbours, so that coefficients come once from memory and then out of a cache. To
correlate, a program adds up colours, 16 x 16 pixels where they are more than one: it holds all of their windows, or,
for bands of three blocks, one at a time and the sums of a few kernels.

With factors in two terms nothing is made before the loops over kernels that could be made in them, as registers would
not do; with one term they do, and the window is packed once and not for every kernel.

Numbers, for the published bank and 16 x 32 pixels of a colour: 18 kernels of two blocks take 10 products of
16 x 16 x 16 each, 4 of three take 18; that is 2016 multiply-adds a pixel and colour, three times that in two terms.

What all three take:
    image, batch, channel and row strides, columns side by side: x; for correlate and grad_mix also y, for blur and
        grad_mix also the coefficients
    bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h: what `bands.tabulate_bands` makes of a bank of M kernels,
        or of C banks; mix: [M, O, C] float32
    radii, order: int32 tables, the radius of each kernel and the kernels class by class, with one more to read ahead
    CLASSES: (blocks of a band, first place in `order`, one past the last) for each class
    SAME: whether both axes have the same taps
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.bands import MOST_BLOCKS_HELD, blurred, window_of
from gkm_ops.kernels.fragments import (
    BLOCKS_ACROSS,
    COUNTS,
    as_result,
    image_of,
    load_tile,
    result_places,
    store_tile,
    tile_at,
    zero_blocks,
)

# So many maps' sums stay in registers where the colours take turns.
MOST_SUMS = tl.constexpr(4)


@triton.jit
def _add_colour(
    sums, plane, x_row, maps, coeffs_map, coeffs_row, mix, of_kernel, of_output, bank, row, order,
    top, left, height, width,
    OUTPUTS: tl.constexpr, MIXED: tl.constexpr, CLASSES: tl.constexpr, SAME: tl.constexpr,
    TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Adds coeffs_m mix_m T_m x_c of one colour to the images of y, and tells whether it is finite.

    mix: pointer to the colour's entry for the first kernel and the first output; of_kernel, of_output: its strides.
    row: of the colour's first kernel in the bank.
    """
    finite = True
    for k in tl.static_range(len(CLASSES)):
        window = window_of(plane, x_row, top, left, height, width, CLASSES[k][0], BLOCKS_ACROSS, TERMS, PADDING)
        finite &= window[3]
        next_m = tl.load(order + CLASSES[k][1])
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=TERMS == 2):
            m = next_m
            next_m = tl.load(order + place + 1)
            tile = maps + m.to(tl.int64) * coeffs_map
            weights = load_tile(tile, coeffs_row, height - top, width - left, BLOCKS_ACROSS)
            images = blurred(
                plane, x_row, window, bank, row + m, top, left, height, width,
                CLASSES[k][0], BLOCKS_ACROSS, SAME, TERMS, PADDING,
            )  # fmt: skip
            added = ()
            for o in tl.static_range(OUTPUTS):
                share = 1.0
                if MIXED:
                    share = tl.load(mix + m * of_kernel + o * of_output)
                for n in tl.static_range(BLOCKS_ACROSS):
                    added = added + (sums[o * BLOCKS_ACROSS + n] + share * (weights[n] * images[n]),)
            sums = added
    return sums, finite


@triton.jit
def _blurred_tile(
    image, x_channel, x_row, maps, coeffs_map, coeffs_channel, coeffs_row, mix, bank, order, group,
    top, left, height, width, kernels, colours, outputs,
    OUTPUTS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr,
    SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """A tile of OUTPUTS images of y, and whether what they are made of is finite."""
    sums = zero_blocks(OUTPUTS * BLOCKS_ACROSS)
    finite = True
    if MIXED:
        mix += group * OUTPUTS * colours
        for c in range(colours):
            row = c * kernels if CHANNEL_BANKS else 0
            sums, own_finite = _add_colour(
                sums, image, x_row, maps, coeffs_map, coeffs_row, mix + c, outputs * colours, colours, bank, row, order,
                top, left, height, width, OUTPUTS, True, CLASSES, SAME, TERMS, PADDING,
            )  # fmt: skip
            finite &= own_finite
            image += x_channel
    else:
        row = group * kernels if CHANNEL_BANKS else 0
        image += group.to(tl.int64) * x_channel
        maps += group.to(tl.int64) * coeffs_channel
        sums, finite = _add_colour(
            sums, image, x_row, maps, coeffs_map, coeffs_row, mix, 0, 0, bank, row, order,
            top, left, height, width, OUTPUTS, False, CLASSES, SAME, TERMS, PADDING,
        )  # fmt: skip
    return sums, finite


@triton.jit(do_not_specialize=COUNTS)
def blur(
    x, x_batch, x_channel, x_row, coeffs, coeffs_batch, coeffs_map, coeffs_channel, coeffs_row,
    bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, mix, radii, order, out,
    kernels, size, most_blocks, height, width, tile_rows, tile_columns, colours, outputs,
    OUTPUTS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr,
    BY_TAPS: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c; OUTPUTS of them a program, one without a mix."""
    top, left, b, group = tile_at(tl.program_id(0), tile_rows, tile_columns, outputs // OUTPUTS, BLOCKS_ACROSS)
    bank = (bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, size, most_blocks)
    image, maps = x + b * x_batch, coeffs + b * coeffs_batch + top.to(tl.int64) * coeffs_row + left
    sums, finite = _blurred_tile(
        image, x_channel, x_row, maps, coeffs_map, coeffs_channel, coeffs_row, mix, bank, order, group,
        top, left, height, width, kernels, colours, outputs,
        OUTPUTS, MIXED, CHANNEL_BANKS, CLASSES, SAME, TERMS, PADDING,
    )  # fmt: skip
    if not finite:
        sums, _ = _blurred_tile(
            image, x_channel, x_row, maps, coeffs_map, coeffs_channel, coeffs_row, mix, bank, order, group,
            top, left, height, width, kernels, colours, outputs,
            OUTPUTS, MIXED, CHANNEL_BANKS, BY_TAPS, SAME, TERMS, PADDING,
        )  # fmt: skip
    first = group * OUTPUTS
    for o in tl.static_range(OUTPUTS):
        tile = out + ((b * outputs + first + o) * height + top) * width + left
        blocks = ()
        for n in tl.static_range(BLOCKS_ACROSS):
            blocks = blocks + (sums[o * BLOCKS_ACROSS + n],)
        store_tile(tile, width, blocks, height - top, width - left, BLOCKS_ACROSS)


@triton.jit
def _weighed(
    tile, channel_stride, row_stride, mix, c, colours, outputs, rows_left, columns_left,
    ACROSS: tl.constexpr, MIXED: tl.constexpr,
):  # fmt: skip
    """What y weighs colour c with: sum_o mix[o, c] y_o, with one kernel's mix [O, C], from the tile of y's first image;
    or y_c, from its own."""
    if MIXED:
        total = zero_blocks(ACROSS)
        for o in range(outputs):
            blocks = load_tile(tile, row_stride, rows_left, columns_left, ACROSS)
            share = tl.load(mix + o * colours + c)
            added = ()
            for n in tl.static_range(ACROSS):
                added = added + (total[n] + share * blocks[n],)
            total = added
            tile += channel_stride
    else:
        total = load_tile(tile, row_stride, rows_left, columns_left, ACROSS)
    return total


@triton.jit
def _correlate_side_by_side(
    image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
    top, left, height, width, kernels, colours, outputs,
    BLOCKS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, COLOURS: tl.constexpr, ACROSS: tl.constexpr,
    MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Writes a tile of the maps of one class, the windows of all colours held; tells whether x is finite around it."""
    finite = True
    windows = ()
    plane = image
    for _ in tl.static_range(COLOURS):
        window = window_of(plane, x_row, top, left, height, width, BLOCKS, ACROSS, TERMS, PADDING)
        windows = windows + (window,)
        finite &= window[3]
        plane += x_channel
    next_m = tl.load(order + FIRST)
    for place in tl.range(FIRST, LAST, disable_licm=TERMS == 2):
        m = next_m
        next_m = tl.load(order + place + 1)
        total = zero_blocks(ACROSS)
        plane = image
        own_weights = weights
        for c in tl.static_range(COLOURS):
            own_row = row + c * kernels if CHANNEL_BANKS else row
            images = blurred(
                plane, x_row, windows[c], bank, own_row + m, top, left, height, width,
                BLOCKS, ACROSS, SAME, TERMS, PADDING,
            )  # fmt: skip
            weight = _weighed(
                own_weights, y_channel, y_row, mix + m * outputs * colours, c, colours, outputs,
                height - top, width - left, ACROSS, MIXED,
            )  # fmt: skip
            added = ()
            for n in tl.static_range(ACROSS):
                added = added + (total[n] + weight[n] * images[n],)
            total = added
            plane += x_channel
            if not MIXED:
                own_weights += y_channel
        store_tile(tile + m * map_stride, width, total, height - top, width - left, ACROSS)
    return finite


@triton.jit
def _correlate_in_turn(
    image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
    top, left, height, width, kernels, colours, outputs,
    BLOCKS: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, COLOURS: tl.constexpr,
    MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """The same, 16 columns, for windows of which one is held at a time: the sums of a few maps are, meanwhile."""
    finite = True
    groups: tl.constexpr = (LAST - FIRST + MOST_SUMS - 1) // MOST_SUMS
    size: tl.constexpr = (LAST - FIRST + groups - 1) // groups
    for first in tl.range(FIRST, LAST, size):
        totals = zero_blocks(size)
        for c in range(COLOURS):
            plane = image_of(image, x_channel, c, COLOURS)
            own_weights = weights
            if not MIXED:
                own_weights = image_of(weights, y_channel, c, COLOURS)
            own_row = row + c * kernels if CHANNEL_BANKS else row
            window = window_of(plane, x_row, top, left, height, width, BLOCKS, 1, TERMS, PADDING)
            finite &= window[3]
            added = ()
            for n in tl.static_range(size):
                # The last group's last may be there twice: equal numbers are written to one place.
                m = tl.load(order + tl.minimum(first + n, LAST - 1))
                images = blurred(
                    plane, x_row, window, bank, own_row + m, top, left, height, width,
                    BLOCKS, 1, SAME, TERMS, PADDING,
                )  # fmt: skip
                weight = _weighed(
                    own_weights, y_channel, y_row, mix + m * outputs * colours, c, colours, outputs,
                    height - top, width - left, 1, MIXED,
                )  # fmt: skip
                added = added + (totals[n] + weight[0] * images[0],)
            totals = added
        for n in tl.static_range(size):
            m = tl.load(order + tl.minimum(first + n, LAST - 1))
            store_tile(tile + m * map_stride, width, (totals[n],), height - top, width - left, 1)
    return finite


@triton.jit
def _correlate_tile(
    image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
    top, left, height, width, kernels, colours, outputs,
    COLOURS: tl.constexpr, ACROSS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr,
    CLASSES: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Writes a tile of every map, and tells whether x is finite around it."""
    finite = True
    for k in tl.static_range(len(CLASSES)):
        if COLOURS > 1 and CLASSES[k][0] == MOST_BLOCKS_HELD:
            finite &= _correlate_in_turn(
                image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
                top, left, height, width, kernels, colours, outputs,
                CLASSES[k][0], CLASSES[k][1], CLASSES[k][2], COLOURS, MIXED, CHANNEL_BANKS, SAME, TERMS, PADDING,
            )  # fmt: skip
        else:
            finite &= _correlate_side_by_side(
                image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
                top, left, height, width, kernels, colours, outputs,
                CLASSES[k][0], CLASSES[k][1], CLASSES[k][2], COLOURS, ACROSS, MIXED, CHANNEL_BANKS, SAME, TERMS,
                PADDING,
            )  # fmt: skip
    return finite


@triton.jit(do_not_specialize=COUNTS)
def correlate(
    x, x_batch, x_channel, x_row, y, y_batch, y_channel, y_row,
    bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, mix, radii, order, out,
    kernels, size, most_blocks, height, width, tile_rows, tile_columns, colours, outputs,
    COLOURS: tl.constexpr, ACROSS: tl.constexpr, MIXED: tl.constexpr, CHANNEL_BANKS: tl.constexpr,
    CLASSES: tl.constexpr, BY_TAPS: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """b_m = sum_o y_o * sum_c mix_m[o, c] T_m x_c over COLOURS colours: all, or one, for maps of each colour's own."""
    groups = colours // COLOURS
    top, left, b, group = tile_at(tl.program_id(0), tile_rows, tile_columns, groups, ACROSS)
    bank = (bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, size, most_blocks)
    first = group.to(tl.int64) * COLOURS
    image = x + b * x_batch + first * x_channel
    weights = y + b * y_batch + first * y_channel + top.to(tl.int64) * y_row + left
    row = group * COLOURS * kernels if CHANNEL_BANKS else 0
    tile = out + ((b * kernels * groups + group) * height + top) * width + left
    map_stride = groups.to(tl.int64) * height * width
    finite = _correlate_tile(
        image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
        top, left, height, width, kernels, colours, outputs,
        COLOURS, ACROSS, MIXED, CHANNEL_BANKS, CLASSES, SAME, TERMS, PADDING,
    )  # fmt: skip
    if not finite:
        tl.debug_barrier()  # what is written twice is in order
        _correlate_tile(
            image, x_channel, x_row, weights, y_channel, y_row, mix, bank, row, order, tile, map_stride,
            top, left, height, width, kernels, colours, outputs,
            COLOURS, ACROSS, MIXED, CHANNEL_BANKS, BY_TAPS, SAME, TERMS, PADDING,
        )  # fmt: skip


@triton.jit
def _sum_tile(
    image, x_row, weights, y_channel, y_row, maps, coeffs_map, coeffs_row, bank, row, order, sums,
    top, left, height, width, colours, outputs,
    CLASSES: tl.constexpr, SAME: tl.constexpr, TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """Writes a tile's sums for one colour and every kernel and image of y, and tells whether x is finite around it."""
    finite = True
    i, j = result_places()
    for k in tl.static_range(len(CLASSES)):
        window = window_of(image, x_row, top, left, height, width, CLASSES[k][0], BLOCKS_ACROSS, TERMS, PADDING)
        finite &= window[3]
        next_m = tl.load(order + CLASSES[k][1])
        for place in tl.range(CLASSES[k][1], CLASSES[k][2], disable_licm=TERMS == 2):
            m = next_m
            next_m = tl.load(order + place + 1)
            coeffs = load_tile(
                maps + m.to(tl.int64) * coeffs_map, coeffs_row, height - top, width - left, BLOCKS_ACROSS
            )
            images = blurred(
                image, x_row, window, bank, row + m, top, left, height, width,
                CLASSES[k][0], BLOCKS_ACROSS, SAME, TERMS, PADDING,
            )  # fmt: skip
            weighed = ()
            for n in tl.static_range(BLOCKS_ACROSS):
                # Left out beside the image, not weighed by zero: zero times infinity would count.
                inside = as_result((i < height - top) & (16 * n + j < width - left))
                weighed = weighed + (coeffs[n] * tl.where(inside, images[n], 0),)
            tile = weights
            for o in range(outputs):
                pixels = load_tile(tile, y_row, height - top, width - left, BLOCKS_ACROSS)
                total = weighed[0] * pixels[0]
                for n in tl.static_range(1, BLOCKS_ACROSS):
                    total += weighed[n] * pixels[n]
                tl.store(sums + (m * outputs + o) * colours, tl.sum(total))
                tile += y_channel
    return finite


@triton.jit(do_not_specialize=COUNTS)
def grad_mix(
    x, x_batch, x_channel, x_row, y, y_batch, y_channel, y_row, coeffs, coeffs_batch, coeffs_map, coeffs_row,
    bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, order, partial,
    kernels, size, most_blocks, height, width, tile_rows, tile_columns, colours, outputs,
    CHANNEL_BANKS: tl.constexpr, CLASSES: tl.constexpr, BY_TAPS: tl.constexpr, SAME: tl.constexpr,
    TERMS: tl.constexpr, PADDING: tl.constexpr,
):  # fmt: skip
    """The sums of coeffs_m y_o T_m x_c over each tile, a colour a program: partial [tiles, M, O, C], added by torch."""
    program = tl.program_id(0)
    top, left, b, c = tile_at(program, tile_rows, tile_columns, colours, BLOCKS_ACROSS)
    bank = (bands_w, bands_h, inverses_w, inverses_h, taps_w, taps_h, radii, size, most_blocks)
    image = x + b * x_batch + c.to(tl.int64) * x_channel
    weights = y + b * y_batch + top.to(tl.int64) * y_row + left
    maps = coeffs + b * coeffs_batch + top.to(tl.int64) * coeffs_row + left
    row = c * kernels if CHANNEL_BANKS else 0
    sums = partial + (program // colours).to(tl.int64) * kernels * outputs * colours + c
    finite = _sum_tile(
        image, x_row, weights, y_channel, y_row, maps, coeffs_map, coeffs_row, bank, row, order, sums,
        top, left, height, width, colours, outputs, CLASSES, SAME, TERMS, PADDING,
    )  # fmt: skip
    if not finite:
        tl.debug_barrier()  # what is written twice is in order
        _sum_tile(
            image, x_row, weights, y_channel, y_row, maps, coeffs_map, coeffs_row, bank, row, order, sums,
            top, left, height, width, colours, outputs, BY_TAPS, SAME, TERMS, PADDING,
        )  # fmt: skip
