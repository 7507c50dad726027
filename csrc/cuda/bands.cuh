// The second of a blur's two products with banded matrices, by one warp whose first product is in its registers.
#pragma once

#include "fragments.cuh"

namespace gkm::cuda::banded {

// Columns of blocks that a tile's band reads.
template <int BLOCKS>
constexpr int kReads = kTiles + BLOCKS - 1;

// Where a lane looks up a kernel's bands, along height (axis 0) or width: blocks of taps, of which those before and behind
// the band are zero, as all beyond the largest radius is.
template <int BLOCKS, int TERMS>
struct Blocks {
  const uint32_t* first;

  __device__ Blocks(const Bank<TERMS>& bank, int kernel) : first(bank.own + kernel * 2 * TERMS * Bank<TERMS>::kWords) {}

  __device__ uint32_t operator()(int axis, int term, int j) const {
    constexpr int kBeyond = kMostRadius + kBlock;
    const int offset = j < 0 || j >= BLOCKS ? kBeyond : kBlock * j - kBlock / 2 * (BLOCKS - 1);
    return load_anew(first + (axis * TERMS + term) * Bank<TERMS>::kWords + offset);
  }
};

// A kernel's band as right factors, each in registers of its own, for tiles of even and of odd number, which pair them
// otherwise.
template <int BLOCKS, int TERMS>
struct RightBand {
  Pair<TERMS> of[2][BLOCKS];

  __device__ __forceinline__ RightBand(const Blocks<BLOCKS, TERMS>& blocks, int axis) {
#pragma unroll
    for (int term = 0; term < TERMS; ++term) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < BLOCKS; ++j) of[i][j].term[term] = blocks(axis, term, j);
      }
    }
  }
};

// results = A_h X A_w, given the blocks of columns of A_h X.
template <int BLOCKS, int TERMS>
__device__ __forceinline__ void multiply_rows(const Left<TERMS> (&columns)[kReads<BLOCKS>], const RightBand<BLOCKS, TERMS>& band,
                                              Results& results) {
#pragma unroll
  for (int p = 0; p < kProducts<TERMS>; ++p) {
    const int product = (p + 1) % kProducts<TERMS>;  // the largest last
#pragma unroll
    for (int step = 0; step <= BLOCKS / 2; ++step) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        // Two blocks at a time that begin at an even one; the band's first or last by itself.
        const int k = 2 * step - tile % 2;
        const Pair<TERMS>(&w)[BLOCKS] = band.of[tile % 2];
        float(&sum)[4] = results.at[tile];
        if (k < 0) {
          multiply(product, sum, columns[tile], w[0]);
        } else if (k == BLOCKS - 1) {
          multiply(product, sum, columns[tile + k], w[k]);
        } else if (k < BLOCKS) {
          multiply(product, sum, columns[tile + k], columns[tile + k + 1], w[k], w[k + 1]);
        }
      }
    }
  }
}

}  // namespace gkm::cuda::banded
