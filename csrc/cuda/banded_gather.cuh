// blur, correlate and the gradient by the mix on matrix units; what they share is in banded.cuh.
//
// A warp loads the window of its colour once, keeps it in registers as right factors, and blurs it by every kernel of
// its part of the bank; a blurred image exists only as results in registers. Coefficients come from memory once: the
// warps of a tile's other colours find them in the first cache. They are asked for before the products that they weigh.
// Numbers: for the published bank a tile of 16 x 32 takes 297 products of 16 x 8 x 16 and 105 of 16 x 8 x 8, which is
// 1400 multiply-adds a pixel and colour, three times that in two terms; 4 bytes of coefficients a pixel and kernel.
#pragma once

#include "banded.cuh"
#include "sums.cuh"

namespace gkm::cuda::banded {

// y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c. IMAGES: of y that a warp sums up for, one unless they are mixed.
template <class S, int TERMS, int TILES, int IMAGES, int MOST>
__device__ void blur_part(const Form& form, const Task<TILES>& task, const Lane& lane, const Bank<TERMS>& bank,
                          unsigned char* memory, Results<TILES> (&sums)[IMAGES]) {
  Coefficients<S, TILES> staged(form, task, lane, memory);
  for (int i = 0; i + 1 < form.stages; ++i) staged.ask(form, bank.number(task.part, i));
  const Window<S, TERMS, MOST, TILES> window(form, task, lane, bank);
  for (int i = 0; i < bank.counts[task.part]; ++i) {
    const auto kernel = bank.kernel(task.part, i);
    staged.ask(form, bank.number(task.part, i + form.stages - 1));
    const Results<TILES> blurred = window.blurred(form, task, lane, bank, kernel);
    const Results<TILES> coeffs = staged.take(form, task, lane, kernel.m);
    float shares[IMAGES];
#pragma unroll
    for (int o = 0; o < IMAGES; ++o) {
      shares[o] = IMAGES == 1 ? 1.0f : o < form.O ? bank.mix[(kernel.m * form.O + o) * form.C + task.c] : 0.0f;
    }
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const float weighed = coeffs.at[tile][p] * blurred.at[tile][p];
#pragma unroll
        for (int o = 0; o < IMAGES; ++o) {
          if (o < form.O || IMAGES == 1) sums[o].at[tile][p] += IMAGES == 1 ? weighed : shares[o] * weighed;
        }
      }
    }
  }
  wait_for_copies<0>();
#pragma unroll
  for (int o = 0; o < IMAGES; ++o) {
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int p = 0; p < 4; ++p) sums[o].at[tile][p] = sums[o].at[tile][p] * window.inverse[0] * window.inverse[1];
    }
  }
}

template <class S, int TERMS, int TILES, int IMAGES>
__global__ void __launch_bounds__(kThreads, 1) blur(const __grid_constant__ Form form) {
  const Lane lane;
  unsigned char* const staged = block_memory() + exchanges_of(IMAGES) * Exchange<TILES>::bytes();
  const Bank<TERMS> bank(form, false, staged + Coefficients<S, TILES>::bytes(form));
  for (Task<TILES> task(form, form.C); !task.is_done(form); task.advance(form)) {
    Results<TILES> sums[IMAGES] = {};
    if (task.part == 0) {
      blur_part<S, TERMS, TILES, IMAGES, kMostBlocks>(form, task, lane, bank, staged, sums);
    } else {
      blur_part<S, TERMS, TILES, IMAGES, kMostBlocks - 1>(form, task, lane, bank, staged, sums);
    }
    add_up<S>(form, task, lane, form.O, sums, block_memory());
  }
}

// What y weighs the task's colour with: y_c, or sum_o mix_m[o, c] y_o from all of them.
template <class S, int TILES, int IMAGES>
struct Weights {
  Results<TILES> y[IMAGES];

  __device__ Weights(const Form& form, const Task<TILES>& task, const Lane& lane) {
    const bool in_pairs = task.is_whole(form) && paired<S>(form.y);
#pragma unroll
    for (int o = 0; o < IMAGES; ++o) {
      if (IMAGES > 1 && o >= form.O) break;
      const S* const plane = plane_of<S>(form.y, task.b, 0, IMAGES > 1 ? o : task.c);
      y[o] = pixels_of<S>(form, task, lane, plane, form.y.row, in_pairs);
    }
  }

  // Of a mix the entries for one kernel and colour, `step` apart.
  __device__ float of(int tile, int p, const float* mix, int64_t step, int64_t images) const {
    if constexpr (IMAGES == 1) return y[0].at[tile][p];
    float weight = mix[0] * y[0].at[tile][p];
#pragma unroll
    for (int o = 1; o < IMAGES; ++o) {
      if (o < images) weight += mix[o * step] * y[o].at[tile][p];
    }
    return weight;
  }
};

// b_m = sum_o y_o * sum_c mix_m[o, c] T_m x_c, or b_mc = y_c T_m x_c for maps of each colour's own.
//
// The colours' warps go through the kernels in step, and add up in shared memory, which has room for two kernels: while
// one is added up the next is put there.
template <class S, int TERMS, int TILES, int IMAGES, int MOST>
__device__ void correlate_part(const Form& form, const Task<TILES>& task, const Lane& lane, const Bank<TERMS>& bank,
                               int& turn, unsigned char* memory) {
  const Window<S, TERMS, MOST, TILES> window(form, task, lane, bank);
  const Weights<S, TILES, IMAGES> weights(form, task, lane);
  const int colour = task.warp % task.colours, first = task.warp - colour;
  for (int i = 0; i < bank.counts[task.part]; ++i) {
    const auto kernel = bank.kernel(task.part, i);
    Results<TILES> products = window.blurred(form, task, lane, bank, kernel);
    const float* const mix = bank.mix + kernel.m * form.O * form.C + task.c;
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        const float blurred = products.at[tile][p] * window.inverse[0] * window.inverse[1];
        products.at[tile][p] = weights.of(tile, p, mix, form.C, form.O) * blurred;
      }
    }
    if (form.channel_coeffs) {
      if (task.idle) continue;
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
        write<S>(form, task, lane, (int64_t(task.b) * form.M + kernel.m) * form.C + task.c, tile, products.at[tile]);
      }
      continue;
    }
    const Exchange<TILES> exchange(memory, turn);
    turn = 1 - turn;
    exchange.put(task.warp, products);
    sync_threads(1 + task.unit * 2 + task.part, task.colours * 32);
    // The warps take turns at the blocks.
    for (int tile = colour; tile < TILES; tile += task.colours) {
      float sum[4] = {};
      for (int warp = first; warp < first + task.colours; ++warp) exchange.add(warp, tile, sum);
      write<S>(form, task, lane, int64_t(task.b) * form.M + kernel.m, tile, sum);
    }
  }
}

template <class S, int TERMS, int TILES, int IMAGES>
__global__ void __launch_bounds__(kThreads, 1) correlate(const __grid_constant__ Form form) {
  const Lane lane;
  const Bank<TERMS> bank(form, false, block_memory() + 2 * Exchange<TILES>::bytes());
  int turn = 0;
  for (Task<TILES> task(form, form.C); !task.is_done(form); task.advance(form)) {
    if (task.part == 0) {
      correlate_part<S, TERMS, TILES, IMAGES, kMostBlocks>(form, task, lane, bank, turn, block_memory());
    } else {
      correlate_part<S, TERMS, TILES, IMAGES, kMostBlocks - 1>(form, task, lane, bank, turn, block_memory());
    }
  }
}

// The sums of coeffs_m y_o T_m x_c over shares of the tiles, [shares, M, O, C] in the workspace (sums.cuh adds them).
//
// The warps of a tile go through one share, each with its own colour and part of the bank.
template <class S, int TERMS, int TILES, int IMAGES, int MOST>
__device__ void grad_mix_part(const Form& form, const Task<TILES>& task, const Lane& lane, const Bank<TERMS>& bank,
                              unsigned char* memory, float* out, bool adds) {
  Coefficients<S, TILES> staged(form, task, lane, memory);
  for (int i = 0; i + 1 < form.stages; ++i) staged.ask(form, bank.number(task.part, i));
  const Window<S, TERMS, MOST, TILES> window(form, task, lane, bank);
  const Weights<S, TILES, IMAGES> weights(form, task, lane);
  for (int i = 0; i < bank.counts[task.part]; ++i) {
    const auto kernel = bank.kernel(task.part, i);
    staged.ask(form, bank.number(task.part, i + form.stages - 1));
    const Results<TILES> blurred = window.blurred(form, task, lane, bank, kernel);
    const Results<TILES> coeffs = staged.take(form, task, lane, kernel.m);
    float sums[IMAGES] = {};
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        // Left out beside the image, not weighed by zero: zero times infinity would count.
        if (task.top + row_of(lane, p) >= form.H || task.left + column_of(lane, tile, p) >= form.W) continue;
        const float pixel = coeffs.at[tile][p] * blurred.at[tile][p] * window.inverse[0] * window.inverse[1];
#pragma unroll
        for (int o = 0; o < IMAGES; ++o) {
          if (o < form.O) sums[o] += pixel * weights.y[o].at[tile][p];
        }
      }
    }
#pragma unroll
    for (int o = 0; o < IMAGES; ++o) {
      if (o >= form.O) break;
      for (int mask = 16; mask > 0; mask /= 2) sums[o] += __shfl_xor_sync(kWholeWarp, sums[o], mask);
      float& sum = out[(kernel.m * form.O + o) * form.C + task.c];
      if (threadIdx.x % 32 == 0) sum = adds ? sum + sums[o] : sums[o];
    }
  }
  wait_for_copies<0>();
}

template <class S, int TERMS, int TILES, int IMAGES>
__global__ void __launch_bounds__(kThreads, 1) grad_mix(const __grid_constant__ Form form) {
  const Lane lane;
  unsigned char* const staged = block_memory();
  const Bank<TERMS> bank(form, false, staged + Coefficients<S, TILES>::bytes(form));
  Task<TILES> task(form, form.C);
  const int shares = int(slabs_of(form)), share = task.tile;
  if (share >= shares) return;
  float* const out = static_cast<float*>(form.workspace) + int64_t(share) * form.M * form.O * form.C;
  for (; !task.is_done(form); task.tile += shares, task.place(form)) {
    const bool adds = task.tile != share;
    if (task.part == 0) {
      grad_mix_part<S, TERMS, TILES, IMAGES, kMostBlocks>(form, task, lane, bank, staged, out, adds);
    } else {
      grad_mix_part<S, TERMS, TILES, IMAGES, kMostBlocks - 1>(form, task, lane, bank, staged, out, adds);
    }
  }
}

}  // namespace gkm::cuda::banded
