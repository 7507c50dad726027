// The two passes of a separable blur over a tile, each a small matrix product held in registers.
//
// A tile is kVectors vectors wide. Both passes keep two rows of accumulators, 2 x kVectors registers, and
// feed every vector they load to both: two kernels share a term of the row pass, two output rows share a
// row of the column pass. That is 6 loads for 8 multiply-adds with 4 vectors, within what two load ports
// can do beside two multiply-add pipes, for any radius and any taps, with no code per radius.
#pragma once

namespace {

constexpr int kVectors = GKM_TILE_VECTORS;
template <class A>
constexpr int64_t kTileWidth = kVectors * kLanes<A>;

// Taps of one sum, used from `begin` to `end`.
template <class A>
struct Terms {
  const A* taps;
  int64_t begin, end;
};

// Two weighted sums of the same sources, rows of one tile width that are `stride` apart:
// sum_a = sum over s of a.taps[s] * sources[s], sum_b likewise. One range holds the other.
template <class A>
GKM_INLINE void sum_pair(const A* sources, int64_t stride, const Terms<A>& a, const Terms<A>& b, Vec<A>* sum_a,
                         Vec<A>* sum_b) {
  constexpr int L = kLanes<A>;
  Vec<A> acc_a[kVectors] = {}, acc_b[kVectors] = {};
  const auto add = [&](Vec<A>* acc, const A* taps, int64_t from, int64_t to) GKM_LAMBDA {
    for (int64_t s = from; s < to; ++s) {
      for (int v = 0; v < kVectors; ++v) acc[v] += taps[s] * load(sources + s * stride + v * L);
    }
  };
  const int64_t begin = a.begin > b.begin ? a.begin : b.begin;
  const int64_t end = a.end < b.end ? a.end : b.end;
  add(acc_a, a.taps, a.begin, begin);
  add(acc_b, b.taps, b.begin, begin);
  for (int64_t s = begin; s < end; ++s) {
    const A tap_a = a.taps[s], tap_b = b.taps[s];
    for (int v = 0; v < kVectors; ++v) {
      const Vec<A> value = load(sources + s * stride + v * L);
      acc_a[v] += tap_a * value;
      acc_b[v] += tap_b * value;
    }
  }
  add(acc_a, a.taps, end, a.end);
  add(acc_b, b.taps, end, b.end);
  for (int v = 0; v < kVectors; ++v) {
    sum_a[v] = acc_a[v];
    sum_b[v] = acc_b[v];
  }
}

// The row pass: samples of one row -> that row blurred by kernels first .. M.
//
// `samples` points at the tile's first column and is readable from -radius to kTileWidth + radius. Kernel i's
// result goes to out + i * out_stride; lanes from `columns` on are zeroed, so that whatever lies beside the
// image never meets a weight. `pairs` is room for terms * kTileWidth values.
template <class A>
void blur_row(const Bank<A>& bank, const A* samples, int64_t first, int64_t columns, A* pairs, A* out,
              int64_t out_stride) {
  constexpr int L = kLanes<A>;
  constexpr int64_t T = kTileWidth<A>;
  const int64_t M = bank.M, R = bank.radius;

  const A* sources = samples - R;
  int64_t stride = 1;
  if (bank.symmetric) {
    sources = pairs;
    stride = T;
    for (int v = 0; v < kVectors; ++v) write(pairs + v * L, load(samples + v * L));
    for (int64_t j = 1; j <= R; ++j) {
      for (int v = 0; v < kVectors; ++v) {
        write(pairs + j * T + v * L, load(samples + v * L - j) + load(samples + v * L + j));
      }
    }
  }
  const auto terms = [&](int64_t i) {
    const int64_t centre = bank.symmetric ? 0 : R;
    return Terms<A>{bank.taps_w + i * bank.terms, bank.symmetric ? 0 : centre - bank.radii[i],
                    centre + bank.radii[i] + 1};
  };
  for (int64_t i = first; i < M; i += 2) {
    const int64_t next = i + 1 < M ? i + 1 : i;  // a lone last kernel is its own neighbour
    Vec<A> sums[2][kVectors];
    sum_pair(sources, stride, terms(i), terms(next), sums[0], sums[1]);
    A* rows[2] = {out + i * out_stride, out + next * out_stride};
    for (int n = 0; n < 2; ++n) {
      for (int v = 0; v < kVectors; ++v) write(rows[n] + v * L, sums[n][v]);
      for (int64_t x = columns; x < T; ++x) rows[n][x] = 0;
    }
  }
}

// The row pass transposed: rows of all kernels, `stride` apart and kTileWidth * groups wide -> the sum over
// kernels of each row spread by its taps. Readable sources and `spread` hold columns -radius .. columns + radius
// of the sum; out[x] is column x. `spread` is room for terms * width values.
template <class A>
void spread_row(const Bank<A>& bank, const A* sources, int64_t stride, int64_t groups, int64_t columns, A* spread,
                A* out) {
  constexpr int L = kLanes<A>;
  constexpr int64_t T = kTileWidth<A>;
  const int64_t M = bank.M, R = bank.radius, width = groups * T;

  const auto offset = [&](int64_t t) { return bank.symmetric ? t : t - R; };
  const auto kernels = [&](int64_t t) {
    const int64_t j = offset(t);
    return Terms<A>{bank.taps_w_by_term + t * M, bank.first[j < 0 ? -j : j], M};
  };
  for (int64_t t = 0; t < bank.terms; t += 2) {
    const int64_t next = t + 1 < bank.terms ? t + 1 : t;
    for (int64_t g = 0; g < groups; ++g) {
      Vec<A> sums[2][kVectors];
      sum_pair(sources + g * T, stride, kernels(t), kernels(next), sums[0], sums[1]);
      for (int v = 0; v < kVectors; ++v) {
        write(spread + t * width + g * T + v * L, sums[0][v]);
        write(spread + next * width + g * T + v * L, sums[1][v]);
      }
    }
  }
  for (int64_t x = 0; x < columns; x += L) {
    Vec<A> sum = {};
    for (int64_t t = 0; t < bank.terms; ++t) {
      const A* at = spread + t * width + R + x;
      sum += load(at - offset(t));
      if (bank.symmetric && t > 0) sum += load(at + t);
    }
    write(out + x, sum);
  }
}

// The column pass: rows of one kernel -> `count` rows, each the sum of 2 * radius + 1 by its taps.
//
// Output row k reads rows k .. k + 2 * radius; rows are kTileWidth apart. done(k, sums) takes each result.
template <class A, class Done>
GKM_INLINE void blur_columns(const A* rows, const A* taps, int64_t radius, int64_t count, Done&& done) {
  constexpr int L = kLanes<A>;
  constexpr int64_t T = kTileWidth<A>;
  const int64_t last = 2 * radius;
  int64_t k = 0;
  for (; k + 1 < count; k += 2) {
    const A* row = rows + k * T;
    Vec<A> upper[kVectors], lower[kVectors] = {};
    for (int v = 0; v < kVectors; ++v) upper[v] = taps[0] * load(row + v * L);
    for (int64_t i = 1; i <= last; ++i) {
      row += T;
      const A tap = taps[i], tap_before = taps[i - 1];
      for (int v = 0; v < kVectors; ++v) {
        const Vec<A> value = load(row + v * L);
        upper[v] += tap * value;
        lower[v] += tap_before * value;
      }
    }
    row += T;
    for (int v = 0; v < kVectors; ++v) lower[v] += taps[last] * load(row + v * L);
    done(k, upper);
    done(k + 1, lower);
  }
  if (k < count) {
    Vec<A> sums[kVectors] = {};
    for (int64_t i = 0; i <= last; ++i) {
      for (int v = 0; v < kVectors; ++v) sums[v] += taps[i] * load(rows + (k + i) * T + v * L);
    }
    done(k, sums);
  }
}

}  // namespace
