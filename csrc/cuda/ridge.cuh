// The closed form of coefficient maps for any bank, up to a correlate. What it shares with other ops is in generic.cuh.
#pragma once

#include "generic.cuh"

namespace gkm::cuda {

// Where entry (i, j), j <= i, of a packed lower triangle stands.
__host__ __device__ constexpr int packed(int i, int j) { return i * (i + 1) / 2 + j; }

// Replaces y by (G + ridge I)^-1 y, from G + ridge I = L D L^T, which takes the place of G.
template <int N>
__device__ void solve(double (&g)[packed(N, 0)], double ridge, double (&y)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
#pragma unroll
    for (int j = 0; j <= i; ++j) {
      double value = g[packed(i, j)] + (i == j ? ridge : 0);
#pragma unroll
      for (int k = 0; k < j; ++k) value -= g[packed(i, k)] * g[packed(j, k)] * g[packed(k, k)];
      // A pivot is never below the ridge but by rounding; a NaN stays one.
      g[packed(i, j)] = i != j ? value / g[packed(j, j)] : value < ridge ? ridge : value;
    }
#pragma unroll
    for (int k = 0; k < i; ++k) y[i] -= g[packed(i, k)] * y[k];
  }
#pragma unroll
  for (int i = N - 1; i >= 0; --i) {
    y[i] /= g[packed(i, i)];
#pragma unroll
    for (int k = i + 1; k < N; ++k) y[i] -= g[packed(k, i)] * y[k];
  }
}

// z = (A A^T + ridge I)^-1 y at each pixel, A [N, M] the N blurred colours there.
//
// A block makes its tile of all colours; each thread holds its pixels' products of the colours with each other, and
// solves with them at the end. Colours are so alike that most of their digits cancel: in float64.
template <class S, int N>
__global__ void __launch_bounds__(kThreads, 1) ridge_dual(const __grid_constant__ Form form) {
  using A = Acc<S>;
  const Tile tile(form, blockIdx.x);
  const Memory<A> memory = Memory<A>::of_block(form.reach());
  double products[kPixels][packed(N, 0)] = {};
  for (int64_t m = 0; m < form.M; ++m) {
    A blurred[N][kPixels] = {};
#pragma unroll
    for (int c = 0; c < N; ++c) {
      memory.stage_taps(form, form.kernel(m, c));
      add_blurred(Blurring<S>(form, memory, tile.b, m, c), memory, tile, blurred[c]);
    }
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
#pragma unroll
        for (int j = 0; j <= i; ++j) products[k][packed(i, j)] += double(blurred[i][k]) * double(blurred[j][k]);
      }
    }
  }
  A z[N][kPixels];
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    double y[N];
#pragma unroll
    for (int c = 0; c < N; ++c) y[c] = tile.pixel(form, form.y, plane_of<S>(form.y, tile.b, 0, c), k);
    solve<N>(products[k], form.ridge, y);
#pragma unroll
    for (int c = 0; c < N; ++c) z[c][k] = A(y[c]);
  }
#pragma unroll
  for (int c = 0; c < N; ++c) tile.write<S>(form, tile.b * N + c, z[c]);
}

}  // namespace gkm::cuda
