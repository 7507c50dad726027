"""The gradient of the taps along the height; that along the width is the same of transposed images.

A program takes one kernel, or one colour's where each has its own, and one row of tiles. For each tile the window is
blurred along the width by a banded product, R [W, T], and meets the weighed pixels Z [T, T] in another, Z R^T [T, W]:
the sum along each diagonal of that is what one tap has touched. The products of all tiles of the row are added up
before the diagonals are taken.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gkm_ops.kernels.windows import COUNTS, load, row_by_taps, unfinite


@triton.jit
def _mixed(image, channel_stride, row_stride, column_stride, mix, colours, outputs, rows, columns, height, width):
    """What the images of y weigh a colour with: sum_o mix[o] y_o, one colour's column of a mix [O, C]."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for _ in range(outputs):
        total += tl.load(mix) * load(image, row_stride, column_stride, rows, columns, height, width, "zeros")
        image += channel_stride
        mix += colours
    return total


@triton.jit(do_not_specialize=(*COUNTS[:-1], "taps", "chunks", "banks", "colours", "outputs"))
def grad_taps_h(
    x, x_batch, x_channel, x_row, x_column, y, y_batch, y_channel, y_row, y_column,
    coeffs, coeffs_batch, coeffs_map, coeffs_channel, coeffs_row, coeffs_column,
    taps_w, mix, radii, partial, kernels, size, taps, chunks, banks, colours, outputs,
    height, width, tile_rows, tile_columns,
    MIXED: tl.constexpr, PADDING: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sum over pixels of coeffs_m * sum_o mix_m[o, c] y_o times the row that each tap reads, for one row of tiles.

    taps_w: [banks * M, size], as `windows.tabulate` makes them.
    partial: [B * tile_rows * chunks, banks * M, taps], of zeros: what each program finds in each chunk of its window.
    banks: 1 or C; a program goes through the colours that share its bank.
    """
    program = tl.program_id(0)
    kernel, strip = program % (banks * kernels), program // (banks * kernels)
    m, bank = kernel % kernels, kernel // kernels
    top, b = strip % tile_rows * TILE, (strip // tile_rows).to(tl.int64)
    radius = tl.load(radii + kernel)
    centre = taps_w + kernel * size + size // 2
    # The fewest chunks, evenly about the tile, that hold all that the kernel reaches.
    count = (2 * radius + 3 * TILE - 1) // (2 * TILE)
    halo = count * TILE - TILE // 2
    writes, chunk = tl.arange(0, TILE), tl.arange(0, 2 * TILE)
    for i in range(count):
        reads = 2 * TILE * i - halo + chunk
        products = tl.zeros((TILE, 2 * TILE), tl.float32)
        plane = x + b * x_batch + bank.to(tl.int64) * x_channel
        image = y + b * y_batch + bank.to(tl.int64) * y_channel
        weights = coeffs + b * coeffs_batch + m.to(tl.int64) * coeffs_map + bank.to(tl.int64) * coeffs_channel
        for c in range(bank, bank + colours // banks):
            for tile_column in tl.range(tile_columns, disable_licm=True):
                left = tile_column * TILE
                rows, columns = top + writes, left + writes
                pixels = load(weights, coeffs_row, coeffs_column, rows, columns, height, width, "zeros")
                if MIXED:
                    pixels *= _mixed(
                        y + b * y_batch, y_channel, y_row, y_column, mix + m * outputs * colours + c, colours, outputs,
                        rows, columns, height, width,
                    )  # fmt: skip
                else:
                    pixels *= load(image, y_row, y_column, rows, columns, height, width, "zeros")
                bad = unfinite(pixels)
                blurred = tl.zeros((2 * TILE, TILE), tl.float32)
                for j in range(count):
                    reads_w = 2 * TILE * j - halo + chunk
                    window = load(plane, x_row, x_column, top + reads, left + reads_w, height, width, PADDING)
                    band = tl.load(centre + (reads_w[:, None] - writes[None, :]))
                    blurred = tl.dot(window, band, blurred, input_precision=PRECISION)
                    bad += unfinite(window)
                if bad == 0:
                    products = tl.dot(pixels, tl.trans(blurred), products, input_precision=PRECISION)
                else:
                    inside = (rows < height)[:, None] & (columns < width)[None, :]
                    for offset in range(-radius, radius + 1):
                        line = row_by_taps(
                            plane, x_row, x_column, centre, radius, rows + offset, columns, height, width, PADDING
                        )
                        touched = tl.sum(tl.where(inside, pixels * line, 0), 1)[:, None]
                        products += tl.where(reads[None, :] - writes[:, None] == offset, touched, 0)
            plane += x_channel
            image += y_channel
            weights += coeffs_channel
        found = partial + ((strip.to(tl.int64) * chunks + i) * banks * kernels + kernel) * taps + taps // 2
        for offset in range(-radius, radius + 1):
            touched = tl.where(reads[None, :] - writes[:, None] == offset, products, 0)
            tl.store(found + offset, tl.sum(touched))
