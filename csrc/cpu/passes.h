// The two passes of a separable blur over a tile, each a small matrix product held in registers.
//
// The row pass feeds each term of a row to several kernels, the column pass each row to two output rows: every
// vector that is loaded serves as many multiply-adds as the registers allow, for any radius and any taps.
#pragma once

namespace {

constexpr int kVectors = 4;
#define GKM_EACH_VECTOR(v) _Pragma("GCC unroll 4") for (int v = 0; v < kVectors; ++v)

template <class A>
constexpr int64_t kBlock = kVectors * kLanes<A>;
// A tile is as wide as it takes to make good use of a page once it is touched: 256 bytes.
template <class A>
constexpr int64_t kTileWidth = 256 / int64_t(sizeof(A));

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

// How many kernels share a term of the row pass, over how many vectors: 8 accumulators of 16 registers, 16 of 32.
constexpr int kRowKernels = GKM_VECTOR_BYTES == 64 ? 8 : 4;
constexpr int kRowVectors = 2;
template <class A>
constexpr int64_t kRowBlock = kRowVectors * kLanes<A>;

// One block of a row blurred by kRowKernels kernels, the narrowest first. A term is a sample, or where the kernels
// are symmetric the pair sum x[-j] + x[j], made in registers for all of them. Terms that only the wider kernels
// have are left to those; nothing outside a kernel's radius is ever multiplied, not even by zero.
template <class A>
class RowBlock {
 public:
  // taps[j * stride + n] is kernel n's tap for sample x[j].
  RowBlock(const A* samples, const A* taps, int64_t stride) : samples_(samples), taps_(taps), stride_(stride) {}

  // The first kCommon terms on either side of the centre, which all kernels have, without a loop to leave.
  template <bool kSymmetric, int kCommon>
  GKM_INLINE void sum(const int64_t* radii) {
    add<0>(0, [&](int v) GKM_LAMBDA { return load(samples_ + v * kLanes<A>); });
#pragma GCC unroll 16
    for (int j = 1; j <= kCommon; ++j) add_offset<kSymmetric, 0>(j);
    phase<kSymmetric, 0>(radii, kCommon + 1);
  }
  GKM_INLINE void write_to(A* out, int64_t out_stride, int kernels) const {
#pragma GCC unroll 8
    for (int n = 0; n < kRowKernels; ++n) {
      if (n == kernels) break;
#pragma GCC unroll 2
      for (int v = 0; v < kRowVectors; ++v) write(out + n * out_stride + v * kLanes<A>, acc_[n][v]);
    }
  }

 private:
  // The terms that kernels kFirst .. have and kernel kFirst - 1 has not.
  template <bool kSymmetric, int kFirst>
  GKM_INLINE void phase(const int64_t* radii, int64_t from) {
    for (int64_t j = from; j <= radii[kFirst]; ++j) add_offset<kSymmetric, kFirst>(j);
    if constexpr (kFirst + 1 < kRowKernels) phase<kSymmetric, kFirst + 1>(radii, max(from, radii[kFirst] + 1));
  }

  template <bool kSymmetric, int kFirst>
  GKM_INLINE void add_offset(int64_t j) {
    const A* left = samples_ - j;
    const A* right = samples_ + j;
    if constexpr (kSymmetric) {
      add<kFirst>(j, [=](int v) GKM_LAMBDA { return load(left + v * kLanes<A>) + load(right + v * kLanes<A>); });
    } else {
      add<kFirst>(-j, [=](int v) GKM_LAMBDA { return load(left + v * kLanes<A>); });
      add<kFirst>(j, [=](int v) GKM_LAMBDA { return load(right + v * kLanes<A>); });
    }
  }

  template <int kFirst, class Term>
  GKM_INLINE void add(int64_t j, const Term& term) {
    Vec<A> values[kRowVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kRowVectors; ++v) values[v] = in_register(term(v));
    const A* taps = taps_ + j * stride_;
#pragma GCC unroll 8
    for (int n = kFirst; n < kRowKernels; ++n) {
#pragma GCC unroll 2
      for (int v = 0; v < kRowVectors; ++v) acc_[n][v] += taps[n] * values[v];
    }
  }

  const A* samples_;
  const A* taps_;
  int64_t stride_;
  Vec<A> acc_[kRowKernels][kRowVectors] = {};
};

// A row pass over a tile of `rows` x `columns`, and where its results go.
//
// `samples` points at the tile's first row and column and is readable as far around it as the bank's radius, and to
// whole blocks on the right. Row r of the group's kernel i goes to out + (i - from) * out_stride + (r + radius) *
// kTileWidth, radius the group's; a kernel reaches as far above and below the tile as its own.
template <class A>
struct RowPass {
  const Bank<A>& bank;
  Group group;
  const A* samples;
  int64_t samples_stride;
  int64_t rows, columns;
  A* out;
  int64_t out_stride;
};

// The pass for the kernels from i on that share their terms. Lanes from `columns` on are zeroed, so that whatever
// lies beside the image never meets a weight.
template <bool kSymmetric, int kCommon, class A>
void blur_rows_of(const RowPass<A>& pass, int64_t i) {
  const Bank<A>& bank = pass.bank;
  const int kernels = int(min(kRowKernels, pass.group.to - i));
  const int64_t padded = (pass.columns + kBlock<A> - 1) / kBlock<A> * kBlock<A>;
  // The last kernels of a group may be few: those after them are run along, and not kept.
  int64_t radii[kRowKernels];
  for (int n = 0; n < kRowKernels; ++n) radii[n] = bank.radii[min(i + n, pass.group.to - 1)];
  const int64_t reach = bank.radii[i + kernels - 1];
  A* row = pass.out + (i - pass.group.from) * pass.out_stride + (group_radius(bank, pass.group) - reach) * kTileWidth<A>;
  for (int64_t r = -reach; r < pass.rows + reach; ++r, row += kTileWidth<A>) {
    for (int64_t x = 0; x < padded; x += kRowBlock<A>) {
      RowBlock<A> block(pass.samples + r * pass.samples_stride + x, bank.taps_w_at(0) + i, bank.taps_w_stride);
      block.template sum<kSymmetric, kCommon>(radii);
      block.write_to(row + x, pass.out_stride, kernels);
    }
    for (int n = 0; pass.columns < padded && n < kernels; ++n) {
      __builtin_memset(row + n * pass.out_stride + pass.columns, 0, size_t(padded - pass.columns) * sizeof(A));
    }
  }
}

// Up to the published bank's radii the terms common to the kernels are unrolled.
template <class A>
constexpr void (*kBlurRowsOf[])(const RowPass<A>&, int64_t) = {
    blur_rows_of<true, 0, A>, blur_rows_of<true, 1, A>, blur_rows_of<true, 2, A>, blur_rows_of<true, 3, A>,
    blur_rows_of<true, 4, A>, blur_rows_of<true, 5, A>, blur_rows_of<true, 6, A>, blur_rows_of<true, 7, A>,
    blur_rows_of<true, 8, A>, blur_rows_of<true, 9, A>, blur_rows_of<true, 10, A>};
constexpr int64_t kMostCommon = 10;

template <class A>
void blur_rows(const RowPass<A>& pass) {
  for (int64_t i = pass.group.from; i < pass.group.to; i += kRowKernels) {
    if (pass.bank.symmetric) {
      kBlurRowsOf<A>[min(pass.bank.radii[i], kMostCommon)](pass, i);
    } else {
      blur_rows_of<false, 0, A>(pass, i);
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
  const int64_t reach = group_radius(bank, group), terms = bank.symmetric ? reach + 1 : 2 * reach + 1;

  const auto offset = [&](int64_t t) { return bank.symmetric ? t : t - reach; };
  const auto kernels = [&](int64_t t) {
    const int64_t j = offset(t), first = bank.first[j < 0 ? -j : j];
    return Terms<A>{bank.taps_w_at(j) + group.from, max(first - group.from, 0), group.size()};
  };
  for (int64_t t = 0; t < terms; t += 2) {
    const int64_t next = t + 1 < terms ? t + 1 : t;
    for (int64_t x = 0; x < width; x += kBlock<A>) {
      sum_pair(sources + x, stride, kernels(t), kernels(next), spread + t * width + x, spread + next * width + x);
    }
  }
  for (int64_t x = 0; x < columns; x += L) {
    Vec<A> sum = load(out + x);
    for (int64_t t = 0; t < terms; ++t) {
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
