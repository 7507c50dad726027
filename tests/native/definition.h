// What the kernels have to compute, term by term and in double, and the numbers to try it on; for CPU and CUDA kernels.
//
// Every buffer is a heap block of its exact size, filled with NaN before it is handed over, so that a sanitizer sees
// each byte read or written beside it and a comparison sees what was left unwritten.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

#include "operands.h"

namespace gkm::tests {

// A heap block of exactly n bytes, at the alignment that vectors want.
class Block {
 public:
  explicit Block(size_t n = 0) : data_(::operator new(n, std::align_val_t(64))), size_(n) {
    std::memset(data_, 0xff, n);
  }
  Block(Block&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  Block& operator=(Block&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Block() { ::operator delete(data_, std::align_val_t(64)); }
  void* data() const { return data_; }

 private:
  void* data_;
  size_t size_;
};

// Numbers. All inputs are small multiples of 1/16, which every storage type holds exactly, or infinite.

inline size_t size_of(Storage storage) { return storage == Storage::f64 ? 8 : storage == Storage::f32 ? 4 : 2; }

inline void encode(double value, Storage storage, char* to) {
  const float single = float(value);
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  uint16_t half = uint16_t(bits >> 16);
  if (storage == Storage::f16) {
    const uint32_t magnitude = value == 0 ? 0 : ((bits & 0x7fffffffu) >> 13) - (112u << 10);
    half = uint16_t((bits >> 31 << 15) | (std::isinf(value) ? 0x7c00u : magnitude));
  }
  if (storage == Storage::f64) std::memcpy(to, &value, 8);
  if (storage == Storage::f32) std::memcpy(to, &single, 4);
  if (size_of(storage) == 2) std::memcpy(to, &half, 2);
}

inline double decode(Storage storage, const char* from) {
  double value;
  float single;
  uint16_t half = 0;
  std::memcpy(&value, from, size_of(storage) == 8 ? 8 : 0);
  if (storage == Storage::f64) return value;
  if (storage == Storage::f32) {
    std::memcpy(&single, from, 4);
    return single;
  }
  std::memcpy(&half, from, 2);
  if (storage == Storage::bf16) {
    const uint32_t bits = uint32_t(half) << 16;
    std::memcpy(&single, &bits, 4);
    return single;
  }
  const int exponent = half >> 10 & 31, fraction = half & 1023;
  double magnitude = exponent > 0 ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
  if (exponent == 31) magnitude = fraction == 0 ? INFINITY : NAN;
  return half >> 15 ? -magnitude : magnitude;
}

// What sums held in float may be off by, as a share of the largest.
constexpr double kOfFloatSums = 1e-5;

// Half a unit in the last place of the type, and what sums may add to it.
inline double bound(Storage storage, double want, double largest, double of_sums) {
  if (storage == Storage::f64) return 1e-12 * largest;
  const double rounding = storage == Storage::bf16 ? 0x1p-8 : storage == Storage::f16 ? 0x1p-11 : 0;
  return rounding * std::fabs(want) + of_sums * largest;
}

inline uint64_t random_state = 1;
inline double random_number() {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return double(int64_t(random_state >> 33) % 33 - 16) / 16;
}

inline std::vector<double> random_numbers(int64_t n) {
  std::vector<double> numbers(n);
  for (double& number : numbers) number = random_number();
  return numbers;
}

constexpr double kRidge = 0.5;

// What a call may be asked for beside sizes, a bank and a border.
enum class Variant { plain, with_mix, channel_coeffs, infinite, infinite_unmixed };

struct Bank {
  std::vector<int64_t> radii;  // of each kernel; one colour's after another's
  bool per_colour, symmetric;
};

// One call's sizes and numbers, dense and in double.
struct Call {
  int64_t B, C, O, M, K = 1, H, W;
  Padding padding;
  bool with_mix, channel_banks, channel_coeffs;
  bool exact_images = true, exact_parameters = true;  // in every storage type; otherwise in double, or in float too
  std::vector<int64_t> radii;
  std::vector<double> x, y, coeffs, taps_w, taps_h, mix;

  Call(int64_t height, int64_t width, const Bank& bank, Padding border, Variant variant, int64_t colours_of_x = 2)
      : C(colours_of_x), O(colours_of_x), H(height), W(width), padding(border),
        with_mix(variant == Variant::with_mix || variant == Variant::infinite), channel_banks(bank.per_colour),
        channel_coeffs(variant == Variant::channel_coeffs), radii(bank.radii) {
    B = H * W < 200 ? 2 : 1;
    if (with_mix) O = C + 1;
    const int64_t kernels = int64_t(radii.size());
    M = kernels / colours(channel_banks);
    for (int64_t r : radii) K = std::max(K, 2 * r + 1);
    x = random_numbers(B * C * H * W);
    y = random_numbers(B * O * H * W);
    coeffs = random_numbers(B * M * colours(channel_coeffs) * H * W);
    taps_w = random_numbers(kernels * K);
    taps_h = random_numbers(kernels * K);
    mix = random_numbers(with_mix ? M * O * C : 0);
    if (bank.symmetric) mirror_taps();
    if (variant == Variant::infinite || variant == Variant::infinite_unmixed) spread_infinities();
  }

  void mirror_taps() {
    for (auto* taps : {&taps_w, &taps_h}) {
      for (size_t i = 0; i < taps->size(); ++i) (*taps)[i] = (*taps)[i - i % K + std::min(i % K, K - 1 - i % K)];
    }
  }

  // Gives every number all the digits of float32.
  void refine() {
    for (auto* numbers : {&x, &y, &coeffs, &taps_w, &taps_h, &mix}) {
      for (double& number : *numbers) number = float(number * (1 + random_number() / 3));
    }
    exact_images = exact_parameters = false;
  }

  int64_t colours(bool own) const { return own ? C : 1; }
  double mix_of(int64_t m, int64_t o, int64_t c) const { return with_mix ? mix[(m * O + o) * C + c] : o == c; }

 private:
  // Positive numbers, two samples infinite: then a sum is infinite or finite, and never NaN.
  void spread_infinities() {
    for (auto* numbers : {&x, &y, &coeffs, &mix}) {
      for (double& number : *numbers) number = std::fabs(number) + 1;
    }
    for (auto* taps : {&taps_w, &taps_h}) {
      for (double& tap : *taps) tap = (std::fabs(tap) + 1) / double(K);
    }
    exact_parameters = false;
    x[W - 1] = x.back() = INFINITY;
  }
};

// The sample that an axis of n shows at index i, or -1 for a zero.
inline int64_t border_source(int64_t i, int64_t n, Padding padding) {
  if (i >= 0 && i < n) return i;
  if (padding == Padding::zeros) return -1;
  if (padding == Padding::replicate) return i < 0 ? 0 : n - 1;
  return i < 0 ? -i : 2 * n - 2 - i;
}

// The form F, summed term by term with the target's own factor left out of each.
inline std::vector<double> defined(const Call& call, Target target) {
  const int64_t B = call.B, C = call.C, O = call.O, M = call.M, K = call.K, H = call.H, W = call.W, HW = H * W;
  const int64_t sizes[] = {B * O * HW, B * C * HW, B * M * call.colours(call.channel_coeffs) * HW, M * O * C,
                           call.colours(call.channel_banks) * M * K, call.colours(call.channel_banks) * M * K};
  std::vector<double> out(sizes[int64_t(target)]);
  for (int64_t index = 0; index < B * M * C * HW; ++index) {
    const int64_t b = index / (M * C * HW), m = index / (C * HW) % M, c = index / HW % C, h = index / W % H, w = index % W;
    const int64_t kernel = call.channel_banks ? c * M + m : m, pixel = h * W + w;
    const int64_t map = (call.channel_coeffs ? (b * M + m) * C + c : b * M + m) * HW + pixel;
    const double beta = call.coeffs[map];
    double weight = 0;
    for (int64_t o = 0; o < O; ++o) weight += call.mix_of(m, o, c) * call.y[(b * O + o) * HW + pixel];
    for (int64_t i = -call.radii[kernel]; i <= call.radii[kernel]; ++i) {
      const int64_t row = border_source(h + i, H, call.padding);
      for (int64_t j = -call.radii[kernel]; row >= 0 && j <= call.radii[kernel]; ++j) {
        const int64_t column = border_source(w + j, W, call.padding);
        if (column < 0) continue;
        const int64_t tap_h = kernel * K + K / 2 + i, tap_w = kernel * K + K / 2 + j;
        const int64_t source = (b * C + c) * HW + row * W + column;
        const double th = call.taps_h[tap_h], tw = call.taps_w[tap_w], x = call.x[source];
        switch (target) {
          case Target::blur:
            for (int64_t o = 0; o < O; ++o) {
              if (!call.with_mix && o != c) continue;  // not weighed by zero: infinity stays in its colour
              out[(b * O + o) * HW + pixel] += beta * call.mix_of(m, o, c) * th * tw * x;
            }
            break;
          case Target::blur_adjoint:
            out[source] += beta * weight * th * tw;
            break;
          case Target::correlate:
            out[map] += weight * th * tw * x;
            break;
          case Target::grad_mix:
            for (int64_t o = 0; o < O; ++o) out[(m * O + o) * C + c] += beta * call.y[(b * O + o) * HW + pixel] * th * tw * x;
            break;
          case Target::grad_taps_w:
            out[tap_w] += beta * weight * th * x;
            break;
          case Target::grad_taps_h:
            out[tap_h] += beta * weight * tw * x;
            break;
          case Target::ridge_dual:  // not of the form
            break;
        }
      }
    }
  }
  return out;
}

// (A A^T + ridge I)^-1 y of each pixel, by elimination.
inline std::vector<double> defined_ridge_dual(const Call& call) {
  const int64_t B = call.B, C = call.C, M = call.M, H = call.H, W = call.W, HW = H * W;
  std::vector<double> out(B * C * HW), blurred(C);
  for (int64_t at = 0; at < B * HW; ++at) {
    const int64_t b = at / HW, h = at / W % H, w = at % W, pixel = at % HW;
    std::vector<std::vector<double>> rows(C, std::vector<double>(C + 1));
    for (int64_t c = 0; c < C; ++c) {
      rows[c][c] = kRidge;
      rows[c][C] = call.y[(b * C + c) * HW + pixel];
    }
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t c = 0; c < C; ++c) {
        const int64_t kernel = call.channel_banks ? c * M + m : m, centre = kernel * call.K + call.K / 2;
        blurred[c] = 0;
        for (int64_t i = -call.radii[kernel]; i <= call.radii[kernel]; ++i) {
          for (int64_t j = -call.radii[kernel]; j <= call.radii[kernel]; ++j) {
            const int64_t row = border_source(h + i, H, call.padding), column = border_source(w + j, W, call.padding);
            if (row < 0 || column < 0) continue;
            blurred[c] += call.taps_h[centre + i] * call.taps_w[centre + j] * call.x[(b * C + c) * HW + row * W + column];
          }
        }
      }
      for (int64_t i = 0; i < C * C; ++i) rows[i / C][i % C] += blurred[i / C] * blurred[i % C];
    }
    for (int64_t k = 0; k < C; ++k) {
      for (int64_t c = 0; c < C; ++c) {
        const double share = rows[c][k] / rows[k][k];
        for (int64_t i = k; c != k && i <= C; ++i) rows[c][i] -= share * rows[k][i];
      }
    }
    for (int64_t c = 0; c < C; ++c) out[(b * C + c) * HW + pixel] = rows[c][C] / rows[c][c];
  }
  return out;
}

enum class Layout { contiguous, channels_last, every_second_column };

// Planes [batch, maps, channels, H, W] in a block that ends with the last element.
inline Planes lay_out(const std::vector<double>& numbers, int64_t batch, int64_t maps, int64_t channels, const Call& call,
                    Layout layout, Storage storage, Block& block) {
  const int64_t H = call.H, W = call.W, planes = maps * channels;
  Planes view;
  view.column = layout == Layout::channels_last ? planes : layout == Layout::every_second_column ? 2 : 1;
  view.row = W * view.column;
  view.channel = layout == Layout::channels_last ? 1 : H * view.row;
  view.map = channels * view.channel;
  view.batch = planes * H * W * (layout == Layout::every_second_column ? 2 : 1);
  const int64_t last = (batch - 1) * view.batch + (maps - 1) * view.map + (channels - 1) * view.channel +
                       (H - 1) * view.row + (W - 1) * view.column;
  const size_t size = size_of(storage);
  block = Block(size_t(last + 1) * size);
  for (size_t i = 0; i < numbers.size(); ++i) {
    const int64_t plane = int64_t(i) / (H * W);
    const int64_t at = plane / planes * view.batch + plane / channels % maps * view.map + plane % channels * view.channel +
                       int64_t(i) / W % H * view.row + int64_t(i) % W * view.column;
    encode(numbers[i], storage, static_cast<char*>(block.data()) + size_t(at) * size);
  }
  view.data = block.data();
  if (channels == 1) view.channel = 0;
  return view;
}

inline bool sums_over_pixels(Target target) { return target >= Target::grad_mix && target != Target::ridge_dual; }

// A call's images and maps, as laid out for one target.
struct Buffers {
  Block x, y, coeffs;
};

// Fills in what a form holds but for its parameters and its output.
inline Buffers describe(Operands& form, const Call& call, Target target, Storage storage, Layout layout) {
  Buffers buffers;
  form.target = target, form.storage = storage, form.padding = call.padding;
  form.B = call.B, form.C = call.C, form.O = call.O, form.M = call.M, form.K = call.K, form.H = call.H, form.W = call.W;
  form.channel_banks = call.channel_banks, form.channel_coeffs = call.channel_coeffs;
  if (target != Target::blur_adjoint) form.x = lay_out(call.x, call.B, 1, call.C, call, layout, storage, buffers.x);
  if (target != Target::blur) form.y = lay_out(call.y, call.B, 1, call.O, call, layout, storage, buffers.y);
  if (target != Target::correlate && target != Target::ridge_dual) {
    const int64_t colours = call.colours(call.channel_coeffs);
    form.coeffs = lay_out(call.coeffs, call.B, call.M, colours, call, layout, storage, buffers.coeffs);
  }
  form.ridge = kRidge;
  return buffers;
}

// Whether what a call gave is what it should give; tells where it differs.
inline bool agrees(const char* name, const Call& call, Target target, Storage storage, Layout layout, const Block& out,
                   Storage out_storage, const std::vector<double>& want, double of_sums = kOfFloatSums) {
  double largest = 0;
  for (double value : want) largest = std::isinf(value) ? largest : std::fmax(largest, std::fabs(value));
  for (size_t i = 0; i < want.size(); ++i) {
    const double got = decode(out_storage, static_cast<const char*>(out.data()) + i * size_of(out_storage));
    const Storage precision = sums_over_pixels(target) && storage != Storage::f64 ? Storage::f32 : storage;
    if (got == want[i] || std::fabs(got - want[i]) <= bound(precision, want[i], largest, of_sums)) continue;
    std::printf("%s: target %d, storage %d, layout %d, padding %d, %d x %d, M %d: element %zu is %g, not %g\n", name,
                int(target), int(storage), int(layout), int(call.padding), int(call.H), int(call.W), int(call.M), i, got,
                want[i]);
    return false;
  }
  return true;
}

constexpr std::pair<int64_t, int64_t> kSizes[] = {{1, 1}, {5, 9}, {9, 35}, {40, 17}, {82, 7}, {8, 141}};
inline const Bank kBanks[] = {
    {{2, 0, 4, 1, 2, 3, 1, 0, 4, 2}, false, true},
    {{3, 0, 2}, false, false},
    {{1, 0, 4, 2, 3, 3}, true, false},
    {{7, 1}, false, true},
    {{11, 10}, false, true},
};
constexpr Padding kPaddings[] = {Padding::zeros, Padding::reflect, Padding::replicate};
constexpr Variant kVariants[] = {Variant::plain, Variant::with_mix, Variant::channel_coeffs, Variant::infinite};

// What a call should give.
inline std::vector<double> wanted(const Call& call, Target target) {
  return target == Target::ridge_dual ? defined_ridge_dual(call) : defined(call, target);
}

inline bool has(Variant variant, Target target) {
  const bool with_mix = variant == Variant::with_mix || variant == Variant::infinite;
  if (target == Target::grad_mix) return with_mix;
  return target != Target::ridge_dual || variant == Variant::plain;
}

}  // namespace gkm::tests
