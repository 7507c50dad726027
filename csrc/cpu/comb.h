// The layout that lets both passes of a blur work on whole vectors in the first-level cache.
//
// A comb is a strip of a row, 8 pixels for each of 16 lanes, or 16 for each of 8. Its teeth are the strip's vectors: with
// 16 lanes, tooth k holds pixels k, 8 + k, 16 + k, .. So the pixels on the right of a tooth's are the next tooth, and
// beyond the last tooth the first one again, moved on by a lane: along a row as down a column, a kernel adds up whole
// vectors.
//
//   pixels   0  1  2 ..  7 |  8  9 10 .. 15 | 16 ..        tooth 0    0  8 16 ..
//            lane 0          lane 1           lane 2       tooth 1    1  9 17 ..
//
// Columns are blurred before rows here. A row of the result then needs no blurred rows but its own: 22 kernels' 10
// vectors of one colour, spent as soon as they are made, where blurred panels take turns in the second-level cache. And
// maps are read along rows, as far as images go on, which is how memory is fast. What it costs is to put pixels and maps
// into this order and results out of it: 32 shuffles and inserts for 8 vectors.
//
// Its passes are written out for each radius up to 10 (comb_passes.h). So it is for symmetric kernels no wider than that,
// for vectors of 32 bytes or more, and for images of at least one strip's width: what is left beside whole strips, and all
// else, is made in panels (gather.h, adjoint.h).
#pragma once

namespace {

template <class A>
constexpr bool kHasCombs = GKM_VECTOR_BYTES >= 32 && sizeof(A) == sizeof(float);

constexpr int64_t kCombWidth = 128;
constexpr int kToothLanes = kLanes<float>;
constexpr int kTeeth = int(kCombWidth) / kToothLanes;
// A comb's floats, and those with the pixels beside it: those that end on its left, then those that begin on its right,
// in their own order.
constexpr int64_t kBeside = 16;
constexpr int64_t kTeethSize = kCombWidth;
constexpr int64_t kCombSize = kTeethSize + 2 * kBeside;
constexpr int kCombVectors = int(kCombSize) / kToothLanes;
static_assert(kBeside >= kHeldRadius && kBeside % kToothLanes == 0);

// The columns, from the first on, that are made in combs. None, or at least `least`, are left beside them.
template <class A>
int64_t combed_columns(const gkm::Form& form, const Banks<A>& banks, int64_t least) {
  const bool maps_in_rows = form.coeffs.data == nullptr || form.coeffs.column == 1;
  if (!maps_in_rows || !banks.symmetric() || banks.radius() > kHeldRadius) return 0;
  const int64_t columns = form.W / kCombWidth * kCombWidth, left = form.W - columns;
  return left == 0 || left >= least || columns == 0 ? columns : columns - kCombWidth;
}

#if defined(__x86_64__) && GKM_VECTOR_BYTES == 32
// done(i, the i-th numbers of a, b, c and d), for either half.
template <class Done>
GKM_INLINE void transpose_quads(__m256 a, __m256 b, __m256 c, __m256 d, Done&& done) {
  const __m256d low0 = _mm256_castps_pd(_mm256_unpacklo_ps(a, b)), high0 = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
  const __m256d low1 = _mm256_castps_pd(_mm256_unpacklo_ps(c, d)), high1 = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
  done(0, _mm256_castpd_ps(_mm256_unpacklo_pd(low0, low1)));
  done(1, _mm256_castpd_ps(_mm256_unpackhi_pd(low0, low1)));
  done(2, _mm256_castpd_ps(_mm256_unpacklo_pd(high0, high1)));
  done(3, _mm256_castpd_ps(_mm256_unpackhi_pd(high0, high1)));
}
#endif

// to[lanes k + l] = from[kWords l + k] for k < kWords and each lane l: pixels to teeth.
template <int kWords>
void transpose(const float* from, float* to) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  // Vector i % 4 of a set of four holds 4 words of lanes i % 4, 4 + i % 4, 8 + i % 4 and 12 + i % 4.
  __m512 quads[kWords];
  if constexpr (kWords == 8) {
    // Halves of all 8 words of two lanes: loading is what a processor does least of at a time.
    const auto lanes_at = [=](int lane) GKM_LAMBDA {
      const __m512d low = _mm512_castpd256_pd512(_mm256_loadu_pd(reinterpret_cast<const double*>(from + 8 * lane)));
      const double* high = reinterpret_cast<const double*>(from + 8 * (lane + 4));
      return _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_loadu_pd(high), 1));
    };
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m512 first = lanes_at(i), second = lanes_at(8 + i);
      quads[i] = _mm512_shuffle_f32x4(first, second, 0x88);
      quads[4 + i] = _mm512_shuffle_f32x4(first, second, 0xdd);
    }
  } else {
    static_assert(kWords == 4);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* quad = from + 4 * i;
      __m512 rows = _mm512_castps128_ps512(_mm_loadu_ps(quad));
      rows = _mm512_insertf32x4(rows, _mm_loadu_ps(quad + 16), 1);
      rows = _mm512_insertf32x4(rows, _mm_loadu_ps(quad + 32), 2);
      quads[i] = _mm512_insertf32x4(rows, _mm_loadu_ps(quad + 48), 3);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kWords; i += 4) {
    const __m512d low0 = _mm512_castps_pd(_mm512_unpacklo_ps(quads[i], quads[i + 1]));
    const __m512d high0 = _mm512_castps_pd(_mm512_unpackhi_ps(quads[i], quads[i + 1]));
    const __m512d low1 = _mm512_castps_pd(_mm512_unpacklo_ps(quads[i + 2], quads[i + 3]));
    const __m512d high1 = _mm512_castps_pd(_mm512_unpackhi_ps(quads[i + 2], quads[i + 3]));
    _mm512_storeu_pd(to + 16 * i, _mm512_unpacklo_pd(low0, low1));
    _mm512_storeu_pd(to + 16 * i + 16, _mm512_unpackhi_pd(low0, low1));
    _mm512_storeu_pd(to + 16 * i + 32, _mm512_unpacklo_pd(high0, high1));
    _mm512_storeu_pd(to + 16 * i + 48, _mm512_unpackhi_pd(high0, high1));
  }
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
#pragma GCC unroll 4
  for (int k = 0; k < kWords; k += 4) {
    const auto lanes_at = [=](int lane) GKM_LAMBDA {
      const float* quad = from + kWords * lane + k;
      return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(quad)), _mm_loadu_ps(quad + 4 * kWords), 1);
    };
    transpose_quads(lanes_at(0), lanes_at(1), lanes_at(2), lanes_at(3), [=](int i, __m256 word) GKM_LAMBDA {
      _mm256_storeu_ps(to + 8 * (k + i), word);
    });
  }
#else
  for (int k = 0; k < kWords; ++k) {
    for (int l = 0; l < kToothLanes; ++l) write(to + kToothLanes * k + l, ::read<float>(from + kWords * l + k));
  }
#endif
}

// to[kTeeth l + k] = from[lanes k + l]: teeth to pixels.
inline void transpose_back(const float* from, float* to) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  // Of a half of the teeth, the 4 pixels of lane 4 q + i are at quad q of vector i.
  __m512d quads[2][4];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    const float* teeth = from + 64 * half;
    const __m512 tooth0 = _mm512_loadu_ps(teeth), tooth1 = _mm512_loadu_ps(teeth + 16);
    const __m512 tooth2 = _mm512_loadu_ps(teeth + 32), tooth3 = _mm512_loadu_ps(teeth + 48);
    const __m512d low0 = _mm512_castps_pd(_mm512_unpacklo_ps(tooth0, tooth1));
    const __m512d high0 = _mm512_castps_pd(_mm512_unpackhi_ps(tooth0, tooth1));
    const __m512d low1 = _mm512_castps_pd(_mm512_unpacklo_ps(tooth2, tooth3));
    const __m512d high1 = _mm512_castps_pd(_mm512_unpackhi_ps(tooth2, tooth3));
    quads[half][0] = _mm512_unpacklo_pd(low0, low1);
    quads[half][1] = _mm512_unpackhi_pd(low0, low1);
    quads[half][2] = _mm512_unpacklo_pd(high0, high1);
    quads[half][3] = _mm512_unpackhi_pd(high0, high1);
  }
  const __m512i quads01 = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i quads23 = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto store_lanes_at = [=](int lane, __m256d pixels) GKM_LAMBDA {
      _mm256_storeu_ps(to + 8 * lane, _mm256_castpd_ps(pixels));
    };
    const __m512d near = _mm512_permutex2var_pd(quads[0][i], quads01, quads[1][i]);
    const __m512d far = _mm512_permutex2var_pd(quads[0][i], quads23, quads[1][i]);
    store_lanes_at(i, _mm512_castpd512_pd256(near));
    store_lanes_at(4 + i, _mm512_extractf64x4_pd(near, 1));
    store_lanes_at(8 + i, _mm512_castpd512_pd256(far));
    store_lanes_at(12 + i, _mm512_extractf64x4_pd(far, 1));
  }
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
#pragma GCC unroll 4
  for (int k = 0; k < kTeeth; k += 4) {
    const auto tooth_at = [=](int i) GKM_LAMBDA { return _mm256_loadu_ps(from + 8 * (k + i)); };
    transpose_quads(tooth_at(0), tooth_at(1), tooth_at(2), tooth_at(3), [=](int lane, __m256 pixels) GKM_LAMBDA {
      _mm_storeu_ps(to + kTeeth * lane + k, _mm256_castps256_ps128(pixels));
      _mm_storeu_ps(to + kTeeth * (lane + 4) + k, _mm256_extractf128_ps(pixels, 1));
    });
  }
#else
  for (int k = 0; k < kTeeth; ++k) {
    for (int l = 0; l < kToothLanes; ++l) to[kTeeth * l + k] = from[kToothLanes * k + l];
  }
#endif
}

// kCombWidth pixels, `column` apart, without those beside them.
template <class S>
void read_teeth(const S* pixels, int64_t column, float* teeth) {
  if constexpr (sizeof(S) == sizeof(float)) {
    if (column == 1) return transpose<kTeeth>(pixels, teeth);
  }
  float line[kTeethSize];
  if (column == 1) {
    for (int64_t i = 0; i < kTeethSize; i += kToothLanes) write(line + i, load(pixels + i));
  } else {
    for (int64_t i = 0; i < kTeethSize; ++i) line[i] = to_acc(pixels[i * column]);
  }
  transpose<kTeeth>(line, teeth);
}

template <class S>
void write_teeth(const float* teeth, S* pixels) {
  if constexpr (sizeof(S) == sizeof(float)) {
    transpose_back(teeth, pixels);
  } else {
    float line[kTeethSize];
    transpose_back(teeth, line);
    for (int64_t i = 0; i < kTeethSize; i += kToothLanes) store(pixels + i, load(line + i));
  }
}

// The teeth of a map of coefficients, as they wait for their use: bfloat16 in pairs, two teeth to a vector, others as
// float.
template <class S>
struct MapTeeth {
  static constexpr int64_t kSize = kTeethSize;
  static void read(const S* pixels, float* teeth) { read_teeth(pixels, 1, teeth); }
  // Tooth k from tooth `first` on, which is even.
  GKM_INLINE static Vec<float> at(const float* teeth, int first, int k) { return load(teeth + (first + k) * kToothLanes); }
};

template <>
struct MapTeeth<bf16> {
  static constexpr int64_t kSize = kTeethSize / 2;
  static void read(const bf16* pixels, float* teeth) {
    transpose<kTeeth / 2>(reinterpret_cast<const float*>(pixels), teeth);
  }
  GKM_INLINE static Vec<float> at(const float* teeth, int first, int k) {
    const Bits pair = ::read<Bits>(teeth + (first / 2 + k / 2) * kToothLanes);
    return bit_cast<Vec<float>>(k % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
  }
};

GKM_INLINE Vec<float> reversed(Vec<float> v) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  const __m512i order = _mm512_set_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return bit_cast<Vec<float>>(_mm512_permutexvar_ps(order, bit_cast<__m512>(v)));
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
  const __m256i order = _mm256_set_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return bit_cast<Vec<float>>(_mm256_permutevar8x32_ps(bit_cast<__m256>(v), order));
#else
  Vec<float> result{};
  for (int l = 0; l < kToothLanes; ++l) result[l] = v[kToothLanes - 1 - l];
  return result;
#endif
}

// How kBeside pixels beside a comb are read, those of a row of n from `from` on: in whole vectors where they lie so, from
// left to right or reflected, else one by one from where the border says. The same for all rows of a strip.
class Side {
 public:
  Side(int64_t from, int64_t n, int64_t column, gkm::Padding padding)
      : from_(from), n_(n), column_(column), padding_(padding) {
    if (column != 1) return;
    const bool reflects = padding == gkm::Padding::reflect && n > kBeside;
    if (from >= 0 && from + kBeside <= n) {
      way_ = kStraight;
    } else if (reflects && (from == -kBeside || from == n)) {
      way_ = kReflected;
      from_ = from < 0 ? 1 : n - 1 - kBeside;
    }
  }

  template <class S>
  GKM_INLINE void read(const S* row, float* beside) const {
    if (way_ == kScattered) return gather(row, beside);
    for (int64_t i = 0; i < kBeside; i += kToothLanes) {
      const Vec<float> pixels = load(row + from_ + i);
      if (way_ == kStraight) {
        write(beside + i, pixels);
      } else {
        write(beside + kBeside - kToothLanes - i, reversed(pixels));
      }
    }
  }

 private:
  enum Way { kStraight, kReflected, kScattered };

  template <class S>
  void gather(const S* row, float* beside) const {
    for (int64_t i = 0; i < kBeside; ++i) {
      const int64_t source = border_index(from_ + i, n_, padding_);
      beside[i] = source < 0 || source >= n_ ? 0.0f : to_acc(row[source * column_]);
    }
  }

  int64_t from_, n_, column_;
  gkm::Padding padding_;
  Way way_ = kScattered;
};

// Reads combs from x on in rows of n pixels, `column` apart, with those beside them.
class CombReader {
 public:
  CombReader(int64_t x, int64_t n, int64_t column, gkm::Padding padding)
      : x_(x),
        column_(column),
        left_(x - kBeside, n, column, padding),
        right_(x + kCombWidth, n, column, padding) {}

  template <class S>
  GKM_INLINE void read(const S* row, float* comb) const {
    read_teeth(row + x_ * column_, column_, comb);
    read_beside(row, comb + kTeethSize);
  }

  // The same of a map.
  template <class S>
  GKM_INLINE void read_map(const S* row, float* comb) const {
    MapTeeth<S>::read(row + x_, comb);
    read_beside(row, comb + MapTeeth<S>::kSize);
  }

 private:
  template <class S>
  GKM_INLINE void read_beside(const S* row, float* beside) const {
    left_.read(row, beside);
    right_.read(row, beside + kBeside);
  }

  int64_t x_, column_;
  Side left_, right_;
};

// A tooth moved on by a lane, and the pixel that comes in: the tooth kTeeth to its left, or to its right.
GKM_INLINE Vec<float> from_left(float pixel, Vec<float> tooth) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  const __m512i in = _mm512_castps_si512(_mm512_set1_ps(pixel));
  return bit_cast<Vec<float>>(_mm512_alignr_epi32(bit_cast<__m512i>(tooth), in, kToothLanes - 1));
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
  const __m256i order = _mm256_setr_epi32(7, 0, 1, 2, 3, 4, 5, 6);
  const __m256 moved = _mm256_permutevar8x32_ps(bit_cast<__m256>(tooth), order);
  return bit_cast<Vec<float>>(_mm256_blend_ps(moved, _mm256_set1_ps(pixel), 1));
#else
  Vec<float> result{};
  result[0] = pixel;
  for (int l = 1; l < kToothLanes; ++l) result[l] = tooth[l - 1];
  return result;
#endif
}

GKM_INLINE Vec<float> from_right(Vec<float> tooth, float pixel) {
#if defined(__x86_64__) && GKM_VECTOR_BYTES == 64
  const __m512i in = _mm512_castps_si512(_mm512_set1_ps(pixel));
  return bit_cast<Vec<float>>(_mm512_alignr_epi32(in, bit_cast<__m512i>(tooth), 1));
#elif defined(__x86_64__) && GKM_VECTOR_BYTES == 32
  const __m256i order = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 0);
  const __m256 moved = _mm256_permutevar8x32_ps(bit_cast<__m256>(tooth), order);
  return bit_cast<Vec<float>>(_mm256_blend_ps(moved, _mm256_set1_ps(pixel), 1 << 7));
#else
  Vec<float> result{};
  for (int l = 1; l < kToothLanes; ++l) result[l - 1] = tooth[l];
  result[kToothLanes - 1] = pixel;
  return result;
#endif
}

// Combs side by side are made a row at a time, so that rows of maps are read on without a break: as many as leave their x
// or sums room in a second-level cache.
GKM_INLINE int64_t combs_across(int64_t colours) { return max(1, min(16, 48 / max(colours, 1))); }

// Where a comb begins.
struct Place {
  int64_t b, y, x;
};

// There, of kernel m's coefficients, for colour c where it has its own.
template <class S>
GKM_INLINE const S* coeffs_at(const gkm::Form& form, int64_t m, int64_t c, Place at) {
  return plane<S>(form.coeffs, at.b, m, c) + at.y * form.coeffs.row + at.x;
}

// There, of one of the `planes` that the result has for each image.
template <class S>
GKM_INLINE S* out_at(const gkm::Form& form, int64_t index, int64_t planes, Place at) {
  return static_cast<S*>(form.out) + ((at.b * planes + index) * form.H + at.y) * form.W + at.x;
}

// As colour c of the comb at `at` is begun, the one at `next` being made after it: ask(c, colours, place) for the maps that
// are wanted next, those of colour c at a place, while so many colours are made.
template <class Ask>
GKM_INLINE void ask_for_maps(const gkm::Form& form, int64_t c, Place at, Place next, Ask&& ask) {
  if (!form.channel_coeffs) {
    if (c == 0) ask(0, form.C, next);
  } else if (c + 1 < form.C) {
    ask(c + 1, 1, at);
  } else {
    ask(0, 1, next);
  }
}

// What is asked of the memory is spread evenly: so many vectors blurred down the columns by all kernels, or added there,
// take about as long as so many kernels along the row.
constexpr int64_t column_calls(int vectors) { return vectors * kToothLanes / 8; }

// Asks the memory for kCombWidth pixels.
template <Level kLevel, class S>
GKM_INLINE void fetch(const S* pixels) {
  constexpr int64_t kLine = 64 / int64_t(sizeof(S));
  for (int64_t i = 0; i < kCombWidth; i += kLine) __builtin_prefetch(pixels + i, 0, kLevel);
}

}  // namespace
