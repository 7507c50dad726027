// What Winograd's convolutions are made of: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR
// 2016. A tile of 4x4 values of the result takes 6x6 pixels for a kernel of 3x3, 8x8 for one of 5x5:
//
//   result = A^T [ sum over channels of (B^T d B) (G g G^T) ] A,   gradient by g = G^T [ sum over tiles of
//   (B^T d B) (A y A^T) ] G,   with pixels d, kernels g and the gradient y of the result
//
// so 36 products stand for 144, and 64 for 400. The matrices evaluate polynomials, the kernel's and the result's, at 0,
// 1, -1, 2, -2, for 5x5 at 1/2 and -1/2 too, and at infinity, where a polynomial is its last coefficient.
#pragma once

namespace {

constexpr int kTileMade = 4;
template <int Size>
constexpr int kTileRead = kTileMade + Size - 1;
template <int Size>
constexpr int kTilePoints = kTileRead<Size>* kTileRead<Size>;

// What the kernel's polynomial is multiplied by at 0, at 1 and -1, at 2 and -2, at 1/2 and -1/2.
template <int Size>
constexpr double kScales[] = {1 / 4., -1 / 6., 1 / 24.};
template <>
constexpr double kScales<5>[] = {1, -2 / 9., 1 / 90., 32 / 45.};

// The values at a point and at the point opposite, out of the parts of even and of odd powers.
template <class V>
GKM_INLINE void put_pair(V even, V odd, V* out, int64_t out_step) {
  out[0] = even + odd;
  out[out_step] = even - odd;
}

// B^T d along one axis.
template <int Size, class V>
GKM_INLINE void transform_pixels(const V* d, int64_t step, V* out, int64_t out_step) {
  const V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  if constexpr (Size == 3) {
    out[0] = 4 * d0 - 5 * d2 + d4;
    put_pair(d4 - 4 * d2, d3 - 4 * d1, out + out_step, out_step);
    put_pair(d4 - d2, 2 * (d3 - d1), out + 3 * out_step, out_step);
    out[5 * out_step] = 4 * d1 - 5 * d3 + d5;
  } else {
    const V d6 = d[6 * step], d7 = d[7 * step];
    out[0] = 5.25f * (d4 - d2) + (d0 - d6);
    put_pair(d2 - 4.25f * d4 + d6, d1 - 4.25f * d3 + d5, out + out_step, out_step);
    put_pair(0.25f * d2 - 1.25f * d4 + d6, 0.5f * d1 - 2.5f * d3 + 2 * d5, out + 3 * out_step, out_step);
    put_pair(4 * d2 - 5 * d4 + d6, 2 * d1 - 2.5f * d3 + 0.5f * d5, out + 5 * out_step, out_step);
    out[7 * out_step] = 5.25f * (d3 - d5) + (d7 - d1);
  }
}

// A^T m along one axis.
template <int Size, class V>
GKM_INLINE void transform_products(const V* m, int64_t step, V* out, int64_t out_step) {
  const V sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
  const V sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
  V made[] = {m[0] + sum + sum2, difference + 2 * difference2, sum + 4 * sum2, difference + 8 * difference2};
  if constexpr (Size == 5) {
    const V sum3 = m[5 * step] + m[6 * step], difference3 = m[5 * step] - m[6 * step];
    made[0] += sum3, made[1] += 0.5f * difference3, made[2] += 0.25f * sum3, made[3] += 0.125f * difference3;
  }
  made[3] += m[(kTileRead<Size> - 1) * step];
  for (int i = 0; i < kTileMade; ++i) out[i * out_step] = made[i];
}

// A y along one axis.
template <int Size, class V>
GKM_INLINE void transform_gradients(const V* y, int64_t step, V* out, int64_t out_step) {
  const V y0 = y[0], y1 = y[step], y2 = y[2 * step], y3 = y[3 * step];
  out[0] = y0;
  put_pair(y0 + y2, y1 + y3, out + out_step, out_step);
  put_pair(y0 + 4 * y2, 2 * y1 + 8 * y3, out + 3 * out_step, out_step);
  if constexpr (Size == 5) put_pair(y0 + 0.25f * y2, 0.5f * y1 + 0.125f * y3, out + 5 * out_step, out_step);
  out[(kTileRead<Size> - 1) * out_step] = y3;
}

// G^T, tap by tap.
template <int Size>
struct Evaluation {
  double of[Size][kTileRead<Size>] = {};

  constexpr Evaluation() {
    constexpr double points[] = {1, 2, 0.5};
    of[0][0] = kScales<Size>[0];
    for (int pair = 1; pair < kTileRead<Size> / 2; ++pair) {
      double power = kScales<Size>[pair];
      for (int k = 0; k < Size; ++k, power *= points[pair - 1]) {
        of[k][2 * pair - 1] = power;
        of[k][2 * pair] = k % 2 ? -power : power;
      }
    }
    of[Size - 1][kTileRead<Size> - 1] = 1;
  }
};

// G^T m along one axis.
template <int Size, class V>
GKM_INLINE void gather_taps(const V* m, int64_t step, V* out, int64_t out_step) {
  constexpr int last = kTileRead<Size> - 1;
  constexpr Evaluation<Size> evaluation;
  V tap[Size] = {};
  for (int point = 1; point < last; point += 2) {  // and the one opposite
    const V plus = m[point * step], minus = m[(point + 1) * step], sums[] = {plus + minus, plus - minus};
    for (int k = 0; k < Size; ++k) tap[k] += float(evaluation.of[k][point]) * sums[k % 2];
  }
  tap[0] += float(evaluation.of[0][0]) * m[0];
  tap[Size - 1] += m[last * step];
  for (int k = 0; k < Size; ++k) out[k * out_step] = tap[k];
}

// G g G^T for one kernel.
template <int Size>
GKM_INLINE void transform_weights(const float* g, double (&u)[kTilePoints<Size>]) {
  constexpr int read = kTileRead<Size>;
  constexpr Evaluation<Size> evaluation;
  double t[Size][read] = {};  // of each column of the kernel
  for (int k = 0; k < Size; ++k)
    for (int l = 0; l < Size; ++l)
      for (int i = 0; i < read; ++i) t[l][i] += evaluation.of[k][i] * double(g[Size * k + l]);
  for (double& value : u) value = 0;
  for (int i = 0; i < read; ++i)
    for (int l = 0; l < Size; ++l)
      for (int j = 0; j < read; ++j) u[read * i + j] += t[l][i] * evaluation.of[l][j];
}

}  // namespace
