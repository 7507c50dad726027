// Vectors of the compiler's own, as wide as the instruction set, and the storage types they load and store.
#pragma once

namespace {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class A>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(GKM_VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(GKM_VECTOR_BYTES)));
};
template <class A>
using Vec = typename VectorOf<A>::type;
typedef uint32_t Bits __attribute__((vector_size(GKM_VECTOR_BYTES)));
typedef uint16_t HalfBits __attribute__((vector_size(GKM_VECTOR_BYTES / 2)));

template <class A>
constexpr int kLanes = GKM_VECTOR_BYTES / int(sizeof(A));

#define GKM_INLINE inline __attribute__((always_inline))

template <class To, class From>
GKM_INLINE To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
GKM_INLINE T read(const void* from) {
  T to;
  __builtin_memcpy(&to, from, sizeof(to));
  return to;
}

template <class T>
GKM_INLINE void write(void* to, const T& value) {
  __builtin_memcpy(to, &value, sizeof(value));
}

// Holds a vector that is used twice: left to itself, the compiler would load it twice.
template <class V>
GKM_INLINE V in_register(V value) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  asm("" : "+v"(value));
#elif defined(__x86_64__)
  asm("" : "+x"(value));
#endif
  return value;
}

// Taking away zero is nothing to the compiler; adding it would turn -0 into 0 and so cost an addition.
template <class A>
GKM_INLINE Vec<A> broadcast(A value) {
  return value - Vec<A>{};
}

// The four conversions below are written once for a scalar (F = float, U = uint32_t) and a vector.

template <class F, class U>
GKM_INLINE F widen_bf16(U bits) {
  return bit_cast<F>(bits << 16);
}

template <class F, class U>
GKM_INLINE U narrow_bf16(F value) {
  const U bits = bit_cast<U>(value);
  const U rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  const U quiet = (bits >> 16) | 0x40u;
  return (bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
}

// Multiplying by 2^112 moves a half's exponent, put in a float's place, to its true value, subnormals too.
template <class F, class U>
GKM_INLINE F widen_f16(U bits) {
  const U magnitude = bits & 0x7fffu;
  const U finite = bit_cast<U>(bit_cast<F>(magnitude << 13) * 0x1p112f);
  const U special = (magnitude << 13) | 0x7f800000u;
  return bit_cast<F>((magnitude >= 0x7c00u ? special : finite) | ((bits & 0x8000u) << 16));
}

template <class F, class U>
GKM_INLINE U narrow_f16(F value) {
  const U bits = bit_cast<U>(value);
  const U magnitude = bits & 0x7fffffffu;
  // Normal results: round the 13 bits that go, ties to even, and shift the exponent's bias.
  const U normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  // Subnormal results: adding 0.5 leaves the float's last bit worth 2^-24, a half's smallest step.
  const U subnormal = bit_cast<U>(bit_cast<F>(magnitude) + 0.5f) - 0x3f000000u;
  const U not_finite = magnitude > 0x7f800000u ? (bits & 0u) + 0x7e00u : (bits & 0u) + 0x7c00u;
  const U small_or_normal = magnitude < 0x38800000u ? subnormal : normal;
  return (magnitude >= 0x477ff000u ? not_finite : small_or_normal) | ((bits >> 16) & 0x8000u);
}

GKM_INLINE float to_acc(float v) { return v; }
GKM_INLINE double to_acc(double v) { return v; }
GKM_INLINE float to_acc(bf16 v) { return widen_bf16<float, uint32_t>(v.bits); }
GKM_INLINE float to_acc(f16 v) { return widen_f16<float, uint32_t>(v.bits); }

template <class S>
using Acc = decltype(to_acc(S{}));

GKM_INLINE Vec<float> load(const float* p) { return read<Vec<float>>(p); }
GKM_INLINE Vec<double> load(const double* p) { return read<Vec<double>>(p); }
GKM_INLINE Vec<float> load(const bf16* p) {
  return widen_bf16<Vec<float>>(__builtin_convertvector(read<HalfBits>(p), Bits));
}
// The processor's own conversions, here and in the store. The vectors' width stands for the instruction set: __F16C__
// and its like are not defined by a `#pragma GCC target` in C++.
GKM_INLINE Vec<float> load(const f16* p) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  return bit_cast<Vec<float>>(_mm512_cvtph_ps(read<__m256i>(p)));
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
  return bit_cast<Vec<float>>(_mm256_cvtph_ps(read<__m128i>(p)));
#else
  return widen_f16<Vec<float>>(__builtin_convertvector(read<HalfBits>(p), Bits));
#endif
}

GKM_INLINE void store(float* p, Vec<float> v) { write(p, v); }
GKM_INLINE void store(double* p, Vec<double> v) { write(p, v); }
GKM_INLINE void store(bf16* p, Vec<float> v) {
  write(p, __builtin_convertvector(narrow_bf16<Vec<float>, Bits>(v), HalfBits));
}
GKM_INLINE void store(f16* p, Vec<float> v) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  write(p, _mm512_cvtps_ph(bit_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
  write(p, _mm256_cvtps_ph(bit_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
#else
  write(p, __builtin_convertvector(narrow_f16<Vec<float>, Bits>(v), HalfBits));
#endif
}

// The first n lanes, 0 <= n <= kLanes.
template <class S>
GKM_INLINE void store_lanes(S* p, Vec<Acc<S>> v, int64_t n) {
  S lanes[kLanes<Acc<S>>];
  store(lanes, v);
  __builtin_memcpy(p, lanes, size_t(n) * sizeof(S));
}

// Elements first .. first + kLanes of a row of n, with zeros outside the row.
template <class S>
GKM_INLINE Vec<Acc<S>> load_bounded(const S* row, int64_t first, int64_t n, int64_t stride) {
  constexpr int lanes = kLanes<Acc<S>>;
  if (__builtin_expect(first >= 0 && first + lanes <= n && stride == 1, 1)) return load(row + first);
  const int64_t from = first < 0 ? -first : 0, to = first + lanes < n ? lanes : n - first;
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  // Lanes that are masked out are not read. By way of memory, the load would wait for the stores.
  if constexpr (sizeof(S) == sizeof(float)) {
    if (stride == 1 && from < to)
      return bit_cast<Vec<float>>(_mm512_maskz_loadu_ps(__mmask16((1u << to) - (1u << from)), row + first));
  }
#endif
  S values[lanes] = {};
  for (int64_t i = from; i < to; ++i) values[i] = row[(first + i) * stride];
  return load(values);
}

// Of the first n lanes, or of all where there are fewer.
template <class A>
GKM_INLINE double horizontal_sum(Vec<A> v, int64_t n) {
  double sum = 0;
  for (int i = 0; i < kLanes<A> && i < n; ++i) sum += double(v[i]);
  return sum;
}

}  // namespace
