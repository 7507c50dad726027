// The storage types, and the types that sums are held in: float64 for float64, float32 for all narrower ones.
#pragma once

#include <cstdint>
#include <cstring>

#include "platform.cuh"

namespace gkm::cuda {

struct bf16 {
  uint16_t bits;
};

struct f16 {
  uint16_t bits;
};

template <class S>
struct Accumulated {
  using type = float;
};
template <>
struct Accumulated<double> {
  using type = double;
};
template <class S>
using Acc = typename Accumulated<S>::type;

__device__ inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

__device__ inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

__device__ inline float widened(float value) { return value; }
__device__ inline double widened(double value) { return value; }
__device__ inline float widened(bf16 value) { return float_of(uint32_t(value.bits) << 16); }

__device__ inline float widened(f16 value) {
#if defined(__CUDA_ARCH__)
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#else
  const uint32_t sign = uint32_t(value.bits >> 15) << 31, exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  if (exponent == 31) return float_of(sign | 0x7f800000u | fraction << 13);
  const float magnitude = exponent == 0 ? float(fraction) * 0x1p-24f : float_of((exponent + 112) << 23 | fraction << 13);
  return float_of(sign | bits_of(magnitude));
#endif
}

// To the nearest, ties to even.
template <class S>
__device__ inline S narrowed(Acc<S> value) {
  return value;
}

template <>
__device__ inline bf16 narrowed<bf16>(float value) {
  const uint32_t bits = bits_of(value);
  if (value != value) return bf16{uint16_t(bits >> 16 | 0x40)};
  return bf16{uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
}

template <>
__device__ inline f16 narrowed<f16>(float value) {
#if defined(__CUDA_ARCH__)
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return f16{bits};
#else
  const uint32_t bits = bits_of(value), sign = bits >> 31 << 15, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return f16{uint16_t(sign | 0x7e00)};
  if (magnitude >= 0x477ff000u) return f16{uint16_t(sign | 0x7c00)};
  // Added to a half, the smallest subnormals' bits come to stand last, rounded as float32 rounds.
  if (magnitude < 0x38800000u) return f16{uint16_t(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)))};
  return f16{uint16_t(sign | (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1)) >> 13)};
#endif
}

// The larger, or NaN where one is.
__device__ inline float max_or_nan(float a, float b) {
#if defined(__CUDA_ARCH__)
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
#else
  return a != a || b != b ? a + b : a < b ? b : a;
#endif
}

// Two float16 in a word, as matrix units take them.
__device__ inline uint32_t pack_f16(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return narrowed<f16>(low).bits | uint32_t(narrowed<f16>(high).bits) << 16;
#endif
}

// Two bfloat16 in a word.
__device__ inline uint32_t pack_bf16(float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
#else
  return narrowed<bf16>(low).bits | uint32_t(narrowed<bf16>(high).bits) << 16;
#endif
}

__device__ inline float low_f16(uint32_t word) { return widened(f16{uint16_t(word)}); }
__device__ inline float high_f16(uint32_t word) { return widened(f16{uint16_t(word >> 16)}); }

}  // namespace gkm::cuda
