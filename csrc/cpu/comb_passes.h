// The two passes of a blur over a comb: down the columns by all kernels, then kernel by kernel along the row.
#pragma once

namespace {

// Some vectors of a comb, side by side, blurred down the columns by all kernels. Where registers are too few to hold the
// pair sums, those wait in memory, and kernels of the same radius take them two at a time.
constexpr int kColumnVectors = kRegisters == 32 ? kHeld : 4;
constexpr int64_t kPairsSize = kRegisters == 32 ? 0 : (kHeldRadius + 1) * kColumnVectors * kToothLanes;

class WaitingPairs {
 public:
  // x is the first vector's, the rows kCombSize apart; `pairs` has room for kPairsSize floats.
  WaitingPairs(const Bank<float>& bank, const float* x, float* pairs) : bank_(bank), x_(x), pairs_(pairs) {}

  // Kernels of a radius of at least kRadius, kernel i's vectors to out + i * stride.
  template <int kRadius>
  GKM_INLINE void blur(float* out, int64_t stride) {
    if (kRadius > bank_.radius) return;
#pragma GCC unroll 4
    for (int v = 0; v < kColumnVectors; ++v) {
      const float* at = x_ + v * kToothLanes;
      const auto pair = [=]() GKM_LAMBDA { return load(at - kRadius * kCombSize) + load(at + kRadius * kCombSize); };
      write(pairs_ + (kRadius * kColumnVectors + v) * kToothLanes, kRadius == 0 ? load(at) : pair());
    }
    const int64_t first = bank_.first[kRadius], size = bank_.taps_size();
    const float* taps = bank_.taps_h_of(first);
    float* to = out + first * stride;
    int64_t left = bank_.first[kRadius + 1] - first;
    for (; left > 1; left -= 2, taps += 2 * size, to += 2 * stride) blur_by<kRadius, 2>(taps, size, to, stride);
    if (left > 0) blur_by<kRadius, 1>(taps, size, to, stride);
    if constexpr (kRadius < kHeldRadius) blur<kRadius + 1>(out, stride);
  }

 private:
  template <int kRadius, int kKernels>
  GKM_INLINE void blur_by(const float* taps, int64_t size, float* to, int64_t stride) const {
    Vec<float> sums[kKernels][kColumnVectors] = {};
#pragma GCC unroll 16
    for (int j = 0; j <= kRadius; ++j) {
      Vec<float> tap[kKernels];
#pragma GCC unroll 2
      for (int n = 0; n < kKernels; ++n) tap[n] = in_register(broadcast(taps[n * size + j]));
#pragma GCC unroll 4
      for (int v = 0; v < kColumnVectors; ++v) {
        const Vec<float> pair = in_register(load(pairs_ + (j * kColumnVectors + v) * kToothLanes));
#pragma GCC unroll 2
        for (int n = 0; n < kKernels; ++n) sums[n][v] += tap[n] * pair;
      }
    }
#pragma GCC unroll 2
    for (int n = 0; n < kKernels; ++n) {
#pragma GCC unroll 4
      for (int v = 0; v < kColumnVectors; ++v) write(to + n * stride + v * kToothLanes, sums[n][v]);
    }
  }

  const Bank<float>& bank_;
  const float* x_;
  float* pairs_;
};

// All kernels, kernel i's vectors to out + i * stride; x and pairs as for WaitingPairs.
GKM_INLINE void blur_columns_of(const Bank<float>& bank, const float* x, float* pairs, float* out, int64_t stride) {
  if constexpr (kRegisters == 32) {
    HeldPairs<float, kCombSize>(bank, bank.taps_h_of(0), x, kToothLanes).template blur<0>(0, out, stride);
  } else {
    WaitingPairs(bank, x, pairs).blur<0>(out, stride);
  }
}

// So many teeth are blurred along the row at a time. Where that is the whole comb, the teeth beside it are made in
// registers; else they are kept in memory, so many on either side, and the pixels beside the comb after them.
constexpr int kWindow = kRegisters / 4;
constexpr int64_t kKept = kWindow < kTeeth ? kHeldRadius * kToothLanes : 0;
constexpr int64_t kKeptBeside = kTeethSize + kKept;
constexpr int64_t kKeptSize = kCombSize + 2 * kKept;

#define GKM_EACH_TOOTH(k) _Pragma("GCC unroll 8") for (int k = 0; k < kWindow; ++k)

// A window of teeth blurred along the row by a symmetric kernel, from its centre to its ends: the two teeth that share a
// tap are added first, as there may be units for additions that multiply-adds leave free. What a step wants beside the
// teeth of the step before is one more on the left and on the right.
template <int kRadius>
class WideningTeeth {
 public:
  // `window` is the first tooth of a window of a comb, `beside` the pixel on the right of the comb.
  GKM_INLINE WideningTeeth(const float* window, const float* beside, const float* taps)
      : window_(window), beside_(beside), taps_(taps) {
    GKM_EACH_TOOTH(k) teeth_[kRadius + k] = in_register(load(window + k * kToothLanes));
  }

  template <int j = 0>
  GKM_INLINE void sum(Vec<float>* sums) {
    const Vec<float> tap = in_register(broadcast(taps_[j]));
    if constexpr (j > 0) {
      Vec<float>& left = teeth_[kRadius - j];
      Vec<float>& right = teeth_[kRadius + kWindow - 1 + j];
      if constexpr (kKept > 0) {
        left = in_register(load(window_ - j * kToothLanes));
        right = in_register(load(window_ + (kWindow - 1 + j) * kToothLanes));
      } else {
        left = in_register(from_left(beside_[-j], teeth_[kRadius - j + kTeeth]));
        right = in_register(from_right(teeth_[kRadius - 1 + j], beside_[j - 1]));
      }
    }
    GKM_EACH_TOOTH(k) {
      const Vec<float>* at = teeth_ + kRadius + k;
      // Held, or the compiler would put the first product off until after the second.
      sums[k] = j == 0 ? in_register(tap * *at) : sums[k] + tap * (at[-j] + at[j]);
    }
    if constexpr (j < kRadius) sum<j + 1>(sums);
  }

 private:
  const float* window_;
  const float* beside_;  // the pixels on the left end before it
  const float* taps_;
  Vec<float> teeth_[kWindow + 2 * kRadius];
};

// The pass along the row: a comb, with room for what is kept beside it, blurred by kernel i, whose radius is kRadius.
// done(first, sums) takes window by window.
template <int kRadius, class Done>
GKM_INLINE void blur_teeth(const Bank<float>& bank, int64_t i, float* comb, Done&& done) {
  const float* beside = comb + kKeptBeside + kBeside;
  if constexpr (kKept > 0) {
    for (int j = 1; j <= kRadius; ++j) {
      write(comb - j * kToothLanes, from_left(beside[-j], load(comb + (kTeeth - j) * kToothLanes)));
      write(comb + (kTeeth - 1 + j) * kToothLanes, from_right(load(comb + (j - 1) * kToothLanes), beside[j - 1]));
    }
  }
  for (int first = 0; first < kTeeth; first += kWindow) {
    Vec<float> sums[kWindow];
    WideningTeeth<kRadius>(comb + first * kToothLanes, beside, bank.taps_w_of(i)).sum(sums);
    done(first, sums);
  }
}

template <int kNumber>
struct Constant {
  constexpr operator int() const { return kNumber; }
};

// each(radius, i) for each kernel, its radius as a constant.
template <int kRadius = 0, class Each>
GKM_INLINE void each_kernel(const Bank<float>& bank, Each&& each) {
  for (int64_t i = bank.first[kRadius]; i < bank.first[kRadius + 1]; ++i) each(Constant<kRadius>(), i);
  if constexpr (kRadius < kHeldRadius) {
    if (kRadius < bank.radius) each_kernel<kRadius + 1>(bank, each);
  }
}

}  // namespace
