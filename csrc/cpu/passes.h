// The two passes of a separable blur over a tile, each a small matrix product held in registers.
//
// Both passes work on blocks of kVectors vectors and keep two rows of accumulators, 2 x kVectors registers, to
// which every vector they load is fed: two kernels share a term of the row pass, two output rows share a row of
// the column pass. That is 6 loads for 8 multiply-adds with 4 vectors, within what two load ports can do beside
// two multiply-add pipes, for any radius and any taps.
#pragma once

namespace {

constexpr int kVectors = 4;
#define GKM_EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v)

template <class A>
constexpr int64_t kBlock = kVectors * kLanes<A>;
// A tile is as wide as it takes to make good use of a page once it is touched.
template <class A>
constexpr int64_t kTileWidth = GKM_TILE_BYTES / int64_t(sizeof(A));

// Taps of one sum, used from `begin` to `end`.
template <class A>
struct Terms {
  const A* taps;
  int64_t begin, end;
};

// Two weighted sums of the same sources, each a block wide and `stride` after the one before:
// sum_a = sum over s of a.taps[s] * sources[s], sum_b likewise. One range holds the other.
template <class A>
GKM_INLINE void sum_pair(const A* sources, int64_t stride, const Terms<A>& a, const Terms<A>& b, A* sum_a, A* sum_b) {
  constexpr int L = kLanes<A>;
  Vec<A> acc_a[kVectors] = {}, acc_b[kVectors] = {};
  const auto add = [&](Vec<A>* acc, const A* taps, int64_t from, int64_t to) GKM_LAMBDA {
    for (int64_t s = from; s < to; ++s) {
      GKM_EACH_VECTOR(v) acc[v] += taps[s] * load(sources + s * stride + v * L);
    }
  };
  const int64_t begin = a.begin > b.begin ? a.begin : b.begin;
  const int64_t end = a.end < b.end ? a.end : b.end;
  add(acc_a, a.taps, a.begin, begin);
  add(acc_b, b.taps, b.begin, begin);
  for (int64_t s = begin; s < end; ++s) {
    const A tap_a = a.taps[s], tap_b = b.taps[s];
    GKM_EACH_VECTOR(v) {
      const Vec<A> value = in_register(load(sources + s * stride + v * L));
      acc_a[v] += tap_a * value;
      acc_b[v] += tap_b * value;
    }
  }
  add(acc_a, a.taps, end, a.end);
  add(acc_b, b.taps, end, b.end);
  GKM_EACH_VECTOR(v) {
    write(sum_a + v * L, acc_a[v]);
    write(sum_b + v * L, acc_b[v]);
  }
}

// Two rows of weighted sums with the same number of terms, known to the compiler: no loop to leave, no branch to
// guess. Row r takes its sources at sources + r * row_stride, kTileWidth apart, and goes to out + r * kTileWidth.
template <int kTerms, class A>
__attribute__((noinline)) void sum_rows(const A* sources, int64_t row_stride, const A* taps_a, const A* taps_b,
                                        int64_t rows, int64_t width, A* out_a, A* out_b) {
  constexpr int L = kLanes<A>;
  constexpr int64_t T = kTileWidth<A>;
  for (int64_t r = 0; r < rows; ++r, sources += row_stride, out_a += T, out_b += T) {
    for (int64_t x = 0; x < width; x += kBlock<A>) {
      Vec<A> acc_a[kVectors] = {}, acc_b[kVectors] = {};
#pragma GCC unroll 16
      for (int t = 0; t < kTerms; ++t) {
        GKM_EACH_VECTOR(v) {
          const Vec<A> value = in_register(load(sources + t * T + x + v * L));
          acc_a[v] += taps_a[t] * value;
          acc_b[v] += taps_b[t] * value;
        }
      }
      GKM_EACH_VECTOR(v) {
        write(out_a + x + v * L, acc_a[v]);
        write(out_b + x + v * L, acc_b[v]);
      }
    }
  }
}

template <class A>
using SumRows = void (*)(const A*, int64_t, const A*, const A*, int64_t, int64_t, A*, A*);
template <class A>
constexpr SumRows<A> kSumRows[] = {sum_rows<1, A>, sum_rows<2, A>, sum_rows<3, A>, sum_rows<4, A>,
                                   sum_rows<5, A>, sum_rows<6, A>, sum_rows<7, A>, sum_rows<8, A>,
                                   sum_rows<9, A>, sum_rows<10, A>, sum_rows<11, A>};
constexpr int64_t kSumRowsTerms = 11;  // the published bank's most

// The row pass: `count` rows of samples -> those rows blurred by every kernel of the group that reaches them.
//
// Row k of the block is row `first + k` of a tile of `tile_rows`; a kernel reaches as far above and below the
// tile as its radius. `samples` points at the tile's first column and is readable from -radius to kTileWidth +
// radius. Row r of the group's kernel i goes to out + (i - from) * out_stride + (r + radius) * kTileWidth, radius
// the group's; its lanes from `columns` on, as far as the next block, are zeroed, so that whatever lies beside the image never meets a
// weight. `pairs` is room for kRowBlock * (radius + 1) * kTileWidth values.
//
// Rows come in blocks so that a pair of kernels runs over several of them at one length of loop, which the
// processor's branch prediction can learn, and writes them side by side.
constexpr int64_t kRowBlock = 4;

template <class A>
void blur_rows(const Bank<A>& bank, Group group, const A* samples, int64_t samples_stride, int64_t first, int64_t count,
               int64_t tile_rows, int64_t columns, A* pairs, A* out, int64_t out_stride) {
  constexpr int L = kLanes<A>;
  constexpr int64_t T = kTileWidth<A>;
  const int64_t R = group_radius(bank, group), width = (columns + kBlock<A> - 1) / kBlock<A> * kBlock<A>;

  const A* sources = samples - bank.radius;
  int64_t stride = 1, row_stride = samples_stride;
  if (bank.symmetric) {
    for (int64_t k = 0; k < count; ++k) {
      const A* row = samples + k * samples_stride;
      A* sums = pairs + k * (R + 1) * T;
      for (int64_t x = 0; x < width; x += L) write(sums + x, load(row + x));
      for (int64_t j = 1; j <= R; ++j) {
        for (int64_t x = 0; x < width; x += L) write(sums + j * T + x, load(row + x - j) + load(row + x + j));
      }
    }
    sources = pairs;
    stride = T;
    row_stride = (R + 1) * T;
  }
  const auto terms = [&](int64_t i) {
    const int64_t centre = bank.symmetric ? 0 : bank.radius;
    return Terms<A>{bank.taps_w + i * bank.terms, bank.symmetric ? 0 : centre - bank.radii[i],
                    centre + bank.radii[i] + 1};
  };
  for (int64_t i = group.from; i < group.to; i += 2) {
    const int64_t next = i + 1 < group.to ? i + 1 : i;  // a lone last kernel is its own neighbour
    const Terms<A> narrow = terms(i), wide = terms(next);
    const int64_t reach = max(bank.radii[i], bank.radii[next]);
    const int64_t begin = max(first, -reach), end = min(first + count, tile_rows + reach);
    if (begin >= end) continue;
    const A* source = sources + (begin - first) * row_stride;
    A* row = out + (i - group.from) * out_stride + (begin + R) * T;
    A* row_next = out + (next - group.from) * out_stride + (begin + R) * T;
    if (bank.symmetric && narrow.end == wide.end && wide.end <= kSumRowsTerms) {
      kSumRows<A>[wide.end - 1](source, row_stride, narrow.taps, wide.taps, end - begin, width, row,
                                    row_next);
    } else {
      for (int64_t r = 0; r < end - begin; ++r) {
        for (int64_t x = 0; x < width; x += kBlock<A>) {
          sum_pair(source + r * row_stride + x, stride, narrow, wide, row + r * T + x, row_next + r * T + x);
        }
      }
    }
    for (int64_t r = 0; columns < width && r < end - begin; ++r) {
      __builtin_memset(row + r * T + columns, 0, size_t(width - columns) * sizeof(A));
      __builtin_memset(row_next + r * T + columns, 0, size_t(width - columns) * sizeof(A));
    }
  }
}

// The row pass transposed: rows of a group's kernels, `stride` apart and `width` wide in whole blocks -> the sum over
// those kernels of each row spread by its taps, added to out. Sources hold columns -halo .. columns + halo of the
// sum; out[x] is column x. `spread` is room for terms * width values and a vector.
template <class A>
void spread_row(const Bank<A>& bank, Group group, const A* sources, int64_t stride, int64_t width, int64_t halo,
                int64_t columns, A* spread, A* out) {
  constexpr int L = kLanes<A>;
  const int64_t R = bank.radius, reach = group_radius(bank, group);
  const int64_t begin = bank.symmetric ? 0 : R - reach, end = (bank.symmetric ? 0 : R) + reach + 1;

  const auto offset = [&](int64_t t) { return bank.symmetric ? t : t - R; };
  const auto kernels = [&](int64_t t) {
    const int64_t j = offset(t), first = bank.first[j < 0 ? -j : j];
    return Terms<A>{bank.taps_w_by_term + t * bank.M + group.from, max(first - group.from, 0), group.size()};
  };
  for (int64_t t = begin; t < end; t += 2) {
    const int64_t next = t + 1 < end ? t + 1 : t;
    for (int64_t x = 0; x < width; x += kBlock<A>) {
      sum_pair(sources + x, stride, kernels(t), kernels(next), spread + t * width + x, spread + next * width + x);
    }
  }
  for (int64_t x = 0; x < columns; x += L) {
    Vec<A> sum = load(out + x);
    for (int64_t t = begin; t < end; ++t) {
      const A* at = spread + t * width + halo + x;
      sum += load(at - offset(t));
      if (bank.symmetric && t > 0) sum += load(at + t);
    }
    write(out + x, sum);
  }
}

// The column pass: rows of one kernel, a block wide and `stride` apart -> `count` rows, each the sum of
// 2 * radius + 1 by its taps. Output row k reads rows k .. k + 2 * radius. done(k, sums) takes each result.
template <class A, class Done>
GKM_INLINE void blur_columns(const A* rows, int64_t stride, const A* taps, int64_t radius, int64_t count,
                             Done&& done) {
  constexpr int L = kLanes<A>;
  const int64_t last = 2 * radius;
  int64_t k = 0;
  for (; k + 1 < count; k += 2) {
    const A* row = rows + k * stride;
    Vec<A> upper[kVectors], lower[kVectors] = {};
    GKM_EACH_VECTOR(v) upper[v] = taps[0] * load(row + v * L);
    for (int64_t i = 1; i <= last; ++i) {
      row += stride;
      const A tap = taps[i], tap_before = taps[i - 1];
      GKM_EACH_VECTOR(v) {
        const Vec<A> value = in_register(load(row + v * L));
        upper[v] += tap * value;
        lower[v] += tap_before * value;
      }
    }
    row += stride;
    GKM_EACH_VECTOR(v) lower[v] += taps[last] * load(row + v * L);
    done(k, upper);
    done(k + 1, lower);
  }
  if (k < count) {
    Vec<A> sums[kVectors] = {};
    for (int64_t i = 0; i <= last; ++i) {
      GKM_EACH_VECTOR(v) sums[v] += taps[i] * load(rows + (k + i) * stride + v * L);
    }
    done(k, sums);
  }
}

}  // namespace
