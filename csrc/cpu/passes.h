// The two passes of a separable blur over a panel of a tile, each a small matrix product held in registers.
//
// A panel is one cache line wide. The row pass blurs its rows by all kernels and leaves each kernel's rows one below
// the other, so that the column pass walks down memory that lies in one piece. Both passes add the two samples of a
// symmetric kernel that share a tap before they multiply: adds run beside multiply-adds where a processor has
// separate units for them, and the row pass shares its sums among the kernels.
#pragma once

namespace {

template <class A>
constexpr int64_t kPanel = 64 / int64_t(sizeof(A));
constexpr int kPanelVectors = 64 / GKM_VECTOR_BYTES;

#if GKM_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

// The rows of a panel blurred by each kernel. Row r of kernel i is at of(i) + r * kPanel; there are rows from -radius to
// rows + radius + 3, as the passes take several rows at a time.
template <class A>
struct BlurredRows {
  A* first;
  int64_t stride, radius;

  static int64_t stride_for(int64_t rows, int64_t radius) {
    return ((rows + 2 * radius + 3) | 1) * kPanel<A>;  // odd lines, so that the kernels' rows spread over a cache's sets
  }
  A* of(int64_t i) const { return first + i * stride + radius * kPanel<A>; }
};

// A panel's samples: `at` points at its first row and column and is readable as far around it as the bank's radius,
// and one row more below.
template <class A>
struct Samples {
  const A* at;
  int64_t stride;
};

// Registers enough for all pair sums of kHeld vectors: one kernel after the other takes its share of them. The samples
// that a kernel adds up are kStep apart, 1 along a row.
constexpr int kHeldRadius = 10;
constexpr int kHeld = kRegisters / 16;

template <class A, int64_t kStep>
class HeldPairs {
 public:
  // taps is the first kernel's centre; the second vector's samples lie `stride` from the first's.
  HeldPairs(const Bank<A>& bank, const A* taps, const A* samples, int64_t stride)
      : bank_(bank), taps_(taps), samples_(samples), stride_(stride) {}

  // Kernels of a radius of at least kRadius, and of `least`, to out: kernel 0's first vector, which the second follows;
  // the next kernel's are `out_stride` on.
  template <int kRadius>
  GKM_INLINE void blur(int64_t least, A* out, int64_t out_stride) {
    if (kRadius > bank_.radius) return;
#pragma GCC unroll 2
    for (int v = 0; v < kHeld; ++v) {
      const A* at = samples_ + v * stride_;
      const auto pair = [=]() GKM_LAMBDA { return load(at - kRadius * kStep) + load(at + kRadius * kStep); };
      pairs_[kRadius][v] = in_register(kRadius == 0 ? load(at) : pair());
    }
    if (kRadius >= least) {
      for (int64_t i = bank_.first[kRadius]; i < bank_.first[kRadius + 1]; ++i) {
        const A* taps = taps_ + i * bank_.taps_size();
        Vec<A> sums[kHeld] = {};
#pragma GCC unroll 16
        for (int j = 0; j <= kRadius; ++j) {
          const Vec<A> tap = in_register(broadcast(taps[j]));
#pragma GCC unroll 2
          for (int v = 0; v < kHeld; ++v) sums[v] += tap * pairs_[j][v];
        }
#pragma GCC unroll 2
        for (int v = 0; v < kHeld; ++v) write(out + i * out_stride + v * kPanel<A>, sums[v]);
      }
    }
    if constexpr (kRadius < kHeldRadius) blur<kRadius + 1>(least, out, out_stride);
  }

 private:
  const Bank<A>& bank_;
  const A* taps_;
  const A* samples_;
  int64_t stride_;
  Vec<A> pairs_[kHeldRadius + 1][kHeld];
};

// Registers too few, a bank without symmetry or a large radius: a few kernels at a time share each term.
constexpr int kRowKernels = kRegisters / 4;
constexpr int kRowVectors = kPanelVectors < 2 ? 1 : 2;

// Some columns of a row blurred by kRowKernels kernels, the narrowest first. A term is a sample, or where the kernels
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

// The pass for the kernels from i on that share their terms.
template <bool kSymmetric, int kCommon, class A>
void blur_rows_of(const Bank<A>& bank, Samples<A> samples, int64_t rows, BlurredRows<A> out, int64_t i) {
  const int kernels = int(min(kRowKernels, bank.M - i));
  // The last kernels may be few: those after them are run along, and not kept.
  int64_t radii[kRowKernels];
  for (int n = 0; n < kRowKernels; ++n) radii[n] = bank.radii[min(i + n, bank.M - 1)];
  const int64_t reach = bank.radii[i + kernels - 1];
  for (int64_t r = -reach; r < rows + reach; ++r) {
    for (int64_t x = 0; x < kPanel<A>; x += kRowVectors * kLanes<A>) {
      RowBlock<A> block(samples.at + r * samples.stride + x, bank.taps_w_at(0) + i, bank.taps_w_stride);
      block.template sum<kSymmetric, kCommon>(radii);
      block.write_to(out.of(i) + r * kPanel<A> + x, out.stride, kernels);
    }
  }
}

// Up to the published bank's radii the terms common to the kernels are unrolled.
template <class A>
constexpr void (*kBlurRowsOf[])(const Bank<A>&, Samples<A>, int64_t, BlurredRows<A>, int64_t) = {
    blur_rows_of<true, 0, A>, blur_rows_of<true, 1, A>, blur_rows_of<true, 2, A>, blur_rows_of<true, 3, A>,
    blur_rows_of<true, 4, A>, blur_rows_of<true, 5, A>, blur_rows_of<true, 6, A>, blur_rows_of<true, 7, A>,
    blur_rows_of<true, 8, A>, blur_rows_of<true, 9, A>, blur_rows_of<true, 10, A>};
constexpr int64_t kMostCommon = 10;

// The row pass: `rows` rows of a panel, and as many around them as each kernel needs, blurred by all kernels.
template <class A>
void blur_rows(const Bank<A>& bank, Samples<A> samples, int64_t rows, BlurredRows<A> out) {
  int64_t i = 0;
  if (kRegisters == 32 && bank.symmetric_w) {
    i = bank.first[min(kHeldRadius, bank.radius) + 1];
    const int64_t reach = i > 0 ? bank.radii[i - 1] : -1;
    for (int64_t r = -reach; r < rows + reach; r += kHeld) {
      // How far the nearer of these rows lies outside: kernels that do not reach it have no use for them.
      const int64_t outside = r < 0 ? -r - (kHeld - 1) : r - (rows - 1);
      for (int64_t x = 0; x < kPanel<A>; x += kLanes<A>) {
        HeldPairs<A, 1> held(bank, bank.taps_w_of(0), samples.at + r * samples.stride + x, samples.stride);
        held.template blur<0>(outside, out.of(0) + r * kPanel<A> + x, out.stride);
      }
    }
  }
  for (; i < bank.M; i += kRowKernels) {
    if (bank.symmetric_w) {
      kBlurRowsOf<A>[min(bank.radii[i], kMostCommon)](bank, samples, rows, out, i);
    } else {
      blur_rows_of<false, 0, A>(bank, samples, rows, out, i);
    }
  }
}

// The row pass transposed. Before the kernels' rows are spread they are summed into terms, what all kernels have to
// spread by the same offset: a kernel's row weighs into term j by its tap j.

// Where terms go: term j of row r at first + r * row_stride + j * stride, negative j only for banks without symmetry.
template <class A>
struct Terms {
  A* first;
  int64_t row_stride, stride;
  A* of(int64_t row, int64_t j) const { return first + row * row_stride + j * stride; }
};

// All terms of kHeld vectors in registers: one kernel after the other adds its share to them.
template <class A>
class HeldTerms {
 public:
  // Kernels of a radius of kRadius or more; taps_of_first is the first one's centre, kernel i's vectors are at
  // sources + i * stride, the second kPanel on.
  template <int kRadius>
  GKM_INLINE void sum(const Bank<A>& bank, const A* taps_of_first, const A* sources, int64_t stride) {
    for (int64_t i = bank.first[kRadius]; i < bank.first[kRadius + 1]; ++i) {
      const A* taps = taps_of_first + i * bank.taps_size();
      Vec<A> values[kHeld];
#pragma GCC unroll 2
      for (int v = 0; v < kHeld; ++v) values[v] = in_register(load(sources + i * stride + v * kPanel<A>));
#pragma GCC unroll 16
      for (int j = 0; j <= kRadius; ++j) {
        const Vec<A> tap = in_register(broadcast(taps[j]));
#pragma GCC unroll 2
        for (int v = 0; v < kHeld; ++v) terms_[j][v] += tap * values[v];
      }
    }
    if constexpr (kRadius < kHeldRadius) {
      if (kRadius < bank.radius) sum<kRadius + 1>(bank, taps_of_first, sources, stride);
    }
  }

  // done(j, vectors) for term j, from the centre outwards.
  template <class Done>
  GKM_INLINE void spend(int64_t radius, Done&& done) const {
#pragma GCC unroll 16
    for (int j = 0; j <= kHeldRadius; ++j) {
      if (j > radius) break;
      done(j, terms_[j]);
    }
  }

 private:
  Vec<A> terms_[kHeldRadius + 1][kHeld] = {};
};

// Registers too few, a bank without symmetry or a large radius: a few terms at a time, on one side, share each row.
template <class A>
class TermBlock {
 public:
  TermBlock(const Bank<A>& bank, const A* rows, int64_t stride) : bank_(bank), rows_(rows), stride_(stride) {}

  // Terms side * j, side * (j + 1), ..: kernels that have no more than the first kTerms, then those that have more.
  template <int kTerms>
  GKM_INLINE void sum(int64_t side, int64_t j) {
    const int64_t more = kTerms < kRowKernels && j + kTerms <= bank_.radius ? bank_.first[j + kTerms] : bank_.M;
    for (int64_t i = bank_.first[j + kTerms - 1]; i < more; ++i) {
      const A* taps = bank_.taps_w_of(i) + side * j;
      Vec<A> values[kRowVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kRowVectors; ++v) values[v] = in_register(load(rows_ + i * stride_ + v * kLanes<A>));
#pragma GCC unroll 8
      for (int n = 0; n < kTerms; ++n) {
#pragma GCC unroll 2
        for (int v = 0; v < kRowVectors; ++v) acc_[n][v] += taps[side * n] * values[v];
      }
    }
    if constexpr (kTerms < kRowKernels) {
      if (j + kTerms <= bank_.radius) sum<kTerms + 1>(side, j);
    }
  }

  GKM_INLINE void write_to(A* out, int64_t stride, int64_t terms) const {
#pragma GCC unroll 8
    for (int n = 0; n < kRowKernels; ++n) {
      if (n == terms) break;
#pragma GCC unroll 2
      for (int v = 0; v < kRowVectors; ++v) write(out + n * stride + v * kLanes<A>, acc_[n][v]);
    }
  }

 private:
  const Bank<A>& bank_;
  const A* rows_;
  int64_t stride_;
  Vec<A> acc_[kRowKernels][kRowVectors] = {};
};

// `rows` rows of a panel by each kernel, kernel i's at sources + i * stride -> their terms. Writes a row more where
// rows is odd.
template <class A>
void sum_terms(const Bank<A>& bank, const A* sources, int64_t stride, int64_t rows, Terms<A> out) {
  if (kRegisters == 32 && bank.symmetric_w && bank.radius <= kHeldRadius) {
    for (int64_t r = 0; r < rows; r += kHeld) {
      for (int64_t x = 0; x < kPanel<A>; x += kLanes<A>) {
        HeldTerms<A> held;
        held.template sum<0>(bank, bank.taps_w_of(0), sources + r * kPanel<A> + x, stride);
        held.spend(bank.radius, [&](int j, const Vec<A>* terms) GKM_LAMBDA {
#pragma GCC unroll 2
          for (int v = 0; v < kHeld; ++v) write(out.of(r + v, j) + x, terms[v]);
        });
      }
    }
    return;
  }
  for (int64_t side = 1; side >= (bank.symmetric_w ? 1 : -1); side -= 2) {
    for (int64_t j = side > 0 ? 0 : 1; j <= bank.radius; j += kRowKernels) {
      const int64_t terms = min(kRowKernels, bank.radius + 1 - j);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t x = 0; x < kPanel<A>; x += kRowVectors * kLanes<A>) {
          TermBlock<A> block(bank, sources + r * kPanel<A> + x, stride);
          block.template sum<1>(side, j);
          block.write_to(out.of(r, side * j) + x, side * out.stride, terms);
        }
      }
    }
  }
}

// What sum_terms makes of sources that are zero.
template <class A>
void clear_terms(const Bank<A>& bank, int64_t rows, Terms<A> out) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = bank.symmetric_w ? 0 : -bank.radius; j <= bank.radius; ++j) {
      for (int64_t x = 0; x < kPanel<A>; x += kLanes<A>) write(out.of(r, j) + x, Vec<A>{});
    }
  }
}

// A row's terms -> the row: `columns` of them, each the sum of what lies offset columns before it in term `offset`.
// `terms` is term 0 at the first column.
template <class A>
void spread_terms(const Bank<A>& bank, const A* terms, int64_t stride, int64_t columns, A* out) {
  const int64_t radius = bank.radius, mirrored = bank.symmetric_w ? stride : -stride;
  for (int64_t x = 0; x < columns; x += kLanes<A>) {
    const A* at = terms + x;
    Vec<A> sum = load(at), other = {};
    for (int64_t j = 1; j <= radius; ++j) {
      sum += load(at + j * stride - j);
      other += load(at + j * mirrored + j);
    }
    write(out + x, sum + other);
  }
}

// The column pass makes this many rows at a time, one vector wide.
constexpr int kRows = 4;
#define GKM_EACH_ROW(k) _Pragma("GCC unroll 4") for (int k = 0; k < kRows; ++k)
GKM_INLINE int64_t whole_blocks(int64_t rows) { return divided(rows, kRows) * kRows; }

// kRows sums by a symmetric kernel, from its ends to its centre. The samples above and below that share a tap are
// two windows of rows, held in registers, that close in on the centre by a row a step: each step loads two rows.
template <class A>
class ClosingWindows {
 public:
  // `centre` is the sample of the first sum's own row, the rows kPanel apart; taps[j] belongs to the rows j away.
  GKM_INLINE ClosingWindows(const A* centre, const A* taps, int64_t radius) : centre_(centre), taps_(taps) {
    GKM_EACH_ROW(k) {
      above_[k] = in_register(load(centre + (k - radius) * kPanel<A>));
      below_[k] = in_register(load(centre + (k + radius) * kPanel<A>));
    }
  }

  // After kRows steps every window is back where it began in its array, so steps are written by their number
  // modulo kRows.
  template <int kRemainder>
  GKM_INLINE void close(int64_t radius) {
    int64_t j = radius;
    for (; j >= kRows; j -= kRows) {
      step<0>(j);
      step<1>(j - 1);
      step<2>(j - 2);
      step<3>(j - 3);
    }
    if constexpr (kRemainder > 0) step<0>(kRemainder);
    if constexpr (kRemainder > 1) step<1>(kRemainder - 1);
    if constexpr (kRemainder > 2) step<2>(kRemainder - 2);
    const Vec<A> tap = in_register(broadcast(taps_[0]));
    GKM_EACH_ROW(k) sums[k] += tap * above_[(k + kRemainder) % kRows];
  }

  Vec<A> sums[kRows] = {};

 private:
  template <int kStep>
  GKM_INLINE void step(int64_t j) {
    const Vec<A> tap = in_register(broadcast(taps_[j]));
    GKM_EACH_ROW(k) sums[k] += tap * (above_[(k + kStep) % kRows] + below_[(k - kStep + kRows) % kRows]);
    above_[kStep] = in_register(load(centre_ + (kRows - j) * kPanel<A>));
    below_[kRows - 1 - kStep] = in_register(load(centre_ + (j - 1) * kPanel<A>));
  }

  const A* centre_;
  const A* taps_;
  Vec<A> above_[kRows], below_[kRows];
};

template <int kRemainder, class A, class Done>
GKM_INLINE void blur_symmetric_columns(const A* rows, const A* taps, int64_t radius, int64_t count, Done&& done) {
  for (int v = 0; v < kPanelVectors; ++v) {
    for (int64_t k = 0; k < count; k += kRows) {
      ClosingWindows<A> windows(rows + k * kPanel<A> + v * kLanes<A>, taps, radius);
      windows.template close<kRemainder>(radius);
      done(k, v * kLanes<A>, windows.sums);
    }
  }
}

template <class A, class Done>
GKM_INLINE void blur_any_columns(const A* rows, const A* taps, int64_t radius, int64_t count, Done&& done) {
  for (int v = 0; v < kPanelVectors; ++v) {
    for (int64_t k = 0; k < count; k += kRows) {
      const A* at = rows + k * kPanel<A> + v * kLanes<A>;
      Vec<A> sums[kRows] = {};
      for (int64_t j = -radius; j <= radius; ++j) {
        GKM_EACH_ROW(row) sums[row] += taps[j] * load(at + (row + j) * kPanel<A>);
      }
      done(k, v * kLanes<A>, sums);
    }
  }
}

// The column pass: one kernel's rows of a panel -> `count` rows of sums by its taps, in whole blocks of kRows.
// `rows` is row 0; taps[j] belongs to the row j below. done(at, sums) takes rows k .. k + kRows of one vector,
// whose place in a panel is `at`, a row further at + kPanel.
template <class A, class Done>
GKM_INLINE void blur_columns(const A* rows, const A* taps, int64_t radius, bool symmetric, int64_t count,
                             Done&& done) {
  switch (symmetric ? radius % kRows : kRows) {
    case 0:
      return blur_symmetric_columns<0>(rows, taps, radius, count, done);
    case 1:
      return blur_symmetric_columns<1>(rows, taps, radius, count, done);
    case 2:
      return blur_symmetric_columns<2>(rows, taps, radius, count, done);
    case 3:
      return blur_symmetric_columns<3>(rows, taps, radius, count, done);
    default:
      return blur_any_columns(rows, taps, radius, count, done);
  }
}

}  // namespace
