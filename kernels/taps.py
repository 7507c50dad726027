"""Borders and single taps: what bands are made of, and what is summed up tap by tap where products would not do.

A zero of a band times NaN is NaN: where a window holds a NaN or an infinity, taps are summed one by one instead, so
that it spreads as far as the kernel reaches and no further.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def border(index, length, PADDING: tl.constexpr):
    """Which sample stands at each index of an axis and its border, always one that exists; and whether it counts."""
    counts = (index >= 0) & (index < length)
    if PADDING == "reflect":
        index = tl.abs(index)
        index = tl.minimum(index, 2 * (length - 1) - index)
    index = tl.minimum(tl.maximum(index, 0), length - 1)
    if PADDING != "zeros":
        counts = index >= 0
    return index, counts


@triton.jit
def load(plane, row_stride, column_stride, rows, columns, height, width, PADDING: tl.constexpr):
    """Pixels at rows x columns, which may lie on the border: float32."""
    rows, row_counts = border(rows, height, PADDING)
    columns, column_counts = border(columns, width, PADDING)
    offsets = rows.to(tl.int64)[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride
    return tl.load(plane + offsets, mask=row_counts[:, None] & column_counts[None, :], other=0).to(tl.float32)


@triton.jit
def row_by_taps(plane, row_stride, column_stride, taps, radius, rows, columns, height, width, PADDING: tl.constexpr):
    """Rows blurred along the width, tap by tap: slow, and exact about NaN and infinity."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for j in range(-radius, radius + 1):
        pixels = load(plane, row_stride, column_stride, rows, columns + j, height, width, PADDING)
        total += tl.load(taps + j).to(tl.float32) * pixels
    return total


@triton.jit
def blurred_by_taps(plane, row_stride, taps_h, taps_w, radius, rows, columns, height, width, PADDING: tl.constexpr):
    """T_m of a plane at rows x columns, as `row_by_taps`; its columns side by side."""
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for i in range(-radius, radius + 1):
        line = row_by_taps(plane, row_stride, 1, taps_w, radius, rows + i, columns, height, width, PADDING)
        total += tl.load(taps_h + i).to(tl.float32) * line
    return total


@triton.jit
def tap_at(taps, radius, offset, counts):
    """A kernel's taps at offsets from its centre, zero beyond its radius or where they do not count."""
    return tl.where(counts, tl.load(taps + offset, mask=tl.abs(offset) <= radius, other=0).to(tl.float32), 0)


@triton.jit
def spread(taps, radius, reads, writes, length, PADDING: tl.constexpr):
    """The transposed band: what the sample at `reads` adds to the one at `writes`, the border folded back."""
    band = tap_at(taps, radius, writes - reads, writes >= 0)
    if PADDING == "reflect":
        band += tap_at(taps, radius, -writes - reads, writes > 0)
        band += tap_at(taps, radius, 2 * (length - 1) - writes - reads, writes < length - 1)
    if PADDING == "replicate":
        for beyond in range(1, radius + 1):
            band += tap_at(taps, radius, -beyond - reads, writes == 0)
            band += tap_at(taps, radius, length - 1 + beyond - reads, writes == length - 1)
    return band


@triton.jit
def reaches(radius, reads, writes, length, PADDING: tl.constexpr):
    """Whether `spread` has a tap there, be it zero."""
    is_reached = tl.abs(writes - reads) <= radius
    if PADDING == "reflect":
        is_reached |= (writes > 0) & (writes + reads <= radius)
        is_reached |= (writes < length - 1) & (2 * (length - 1) - writes - reads <= radius)
    if PADDING == "replicate":
        is_reached |= (writes == 0) & (reads < radius)
        is_reached |= (writes == length - 1) & (reads >= length - radius)
    return is_reached
