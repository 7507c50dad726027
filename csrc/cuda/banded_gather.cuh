// blur, correlate and the gradient by the mix on matrix units; what they share is in banded.cuh.
//
// A block fills the windows of its tile's colours once for the bands of an even number of blocks and once for the others.
// In between its warps go on by themselves, and a blurred image exists only as results in their registers. To blur, each
// has a part of the tile and a colour, and asks for the coefficients of the next kernel as soon as those of the last
// have been used; the other colours' warps find them in the first cache. To correlate, three share the kernels for a
// part and add up colours. Two blocks share a multiprocessor, so that one fills windows while the other multiplies.
// Numbers: for the published bank 16 x 32 pixels of a colour take 278 products of 16 x 8 x 16 and 166 of 16 x 8 x 8, which
// is 1444 multiply-adds a pixel and colour, three times that in two terms; 482 blocks of 128 bytes from shared memory, and
// as many again in two terms; 4 bytes of coefficients a pixel and kernel from memory.
#pragma once

#include "banded.cuh"
#include "sums.cuh"

namespace gkm::cuda::banded {

constexpr int kGatherWarps = 6;   // of a block, at most
constexpr int kGatherBlocks = 2;  // on a multiprocessor
constexpr int kShares = 3;        // of the kernels
// Kernels whose coefficients are on their way to the GPU's cache: with one product a turn is shorter than their way, and
// with a mix registers are too short to ask for them early.
template <int TERMS, bool MIXED>
constexpr int kAhead = TERMS == 1 || MIXED ? 5 : 0;

// T_m x on a warp's part, tap by tap: slow, and exact about NaN and infinity.
template <class S>
__device__ __attribute__((noinline)) void blur_by_taps(const Form& form, int top, int left, int kernel, const S* plane,
                                                       Results& results) {
  const Lane lane;
  const int radius = form.radii[kernel];
  const int64_t centre = kernel * form.K + form.K / 2;
  results = {};
  for (int i = -radius; i <= radius; ++i) {
    for (int j = -radius; j <= radius; ++j) {
      const float tap = entry_of<float>(form.taps_h, centre + i) * entry_of<float>(form.taps_w, centre + j);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          const int row = border_index(top + row_of(lane, p) + i, int(form.H), form.padding);
          const int column = border_index(left + column_of(lane, tile, p) + j, int(form.W), form.padding);
          const float sample = row < 0 || column < 0 ? 0.0f : widened(plane[row * form.x.row + column]);
          results.at[tile][p] += tap * sample;
        }
      }
    }
  }
}

// A tile's x, and its blurs.
template <class S, int TERMS>
struct Gathering {
  const Form& form;
  const Bank<TERMS>& bank;
  const Windows<TERMS> windows;
  const Lane lane;
  float lift[kColours] = {1, 1, 1};  // of x in the windows, powers of two
  bool by_taps;                      // x or the bank is none for float16: taps are summed one by one

  __device__ Gathering(const Form& f, const Bank<TERMS>& b, unsigned char* memory) : form(f), bank(b), windows(f, memory) {}

  // What brings results of a colour back to scale.
  __device__ float inverse(int c) const { return by_taps ? 1.0f : 1 / (own(lift, c) * (bank.scale * bank.scale)); }

  // Calls turn(Way<..>(), i, m, m of the next or -1) for every few of the kernels, with the way to blur by kernel m, which
  // is number i in the bank's order.
  template <int SHARES, class Turn>
  __device__ __forceinline__ void each(const Area& area, int share, const Turn& turn) {
    const int kernels = int(form.M), evens = bank.evens;
    const auto after = [&](int i) { return SHARES > 1 && i < evens && i + SHARES >= evens ? evens + share : i + SHARES; };
    const auto kernel_at = [&](int i) { return bank.kernel(least(i, kernels - 1)); };
    int i = SHARES == 1 ? share : first_of(share);
    auto next = kernel_at(i);
    for (int phase = 0; phase < 2; ++phase) {
      const int first = phase == 0 ? 0 : evens, last = phase == 0 ? evens : kernels;
      if (first == last) continue;
      if (phase == 0) {
        fill<4>(area, true);
      } else {
        fill<3>(area, first == 0);
      }
      for (; i < last; i = after(i)) {
        const auto kernel = next;
        next = kernel_at(after(i));
        const int m = kernel.m, m_next = after(i) < kernels ? next.m : -1;
        if (by_taps) {
          turn(Way<0>(), i, m, m_next);
        } else if (kernel.blocks == 3) {
          turn(Way<3>(), i, m, m_next);
        } else if (kernel.blocks == 2) {
          turn(Way<2>(), i, m, m_next);
        } else {
          turn(Way<4>(), i, m, m_next);
        }
      }
    }
  }

  // The number of a share's first kernel, M or more where it has none.
  __device__ int first_of(int share) const { return share < bank.evens ? share : bank.evens + share; }

  // Calls visit(c, bands) for each of a tile's colours, with the bands of kernel m.
  template <class How, class Visit>
  __device__ __forceinline__ void each_colour(How way, const Area& area, int m, const Visit& visit) const {
    auto of_colour = bands(way, area, m, 0);
    for (int c = 0; c < area.colours; ++c) {
      if (c > 0 && form.channel_banks) of_colour = bands(way, area, m, c);
      visit(c, of_colour);
    }
  }

  // T_m x_c on a part, scaled.
  template <int BLOCKS>
  __device__ __forceinline__ Results blurred(Way<BLOCKS>, const Bands<BLOCKS, TERMS>& bands, const Area&, const Part& part,
                                             int, int c) const {
    Results results = {};
    constexpr int kInset = margin_of(BLOCKS == 2 ? 4 : BLOCKS) - margin_of(BLOCKS);  // in the window that stands
    windows.add_blurred(bands, windows.at(c, part.row + kInset, kInset), results);
    return results;
  }

  __device__ __forceinline__ Results blurred(Way<0>, const Bands<0, TERMS>&, const Area& area, const Part& part, int m,
                                             int c) const {
    Results results;
    blur_by_taps<S>(form, part.top, part.left, int(form.kernel(m, area.first + c)), plane(area, c), results);
    return results;
  }

  template <int BLOCKS>
  __device__ __forceinline__ Bands<BLOCKS, TERMS> bands(Way<BLOCKS>, const Area& area, int m, int c) const {
    return bank.template bands<BLOCKS>(int(form.kernel(m, area.first + c)));
  }

 private:
  __device__ const S* plane(const Area& area, int c) const { return plane_of<S>(form.x, area.b, 0, area.first + c); }

  // Fills the windows for bands of so many blocks; the first of a tile's, which are the largest, decide on the lifts.
  template <int BLOCKS>
  __device__ __forceinline__ void fill(const Area& area, bool first) {
    Findings findings;
    __syncthreads();  // the windows before have been used
    // Once more where the lifts have changed; what is found stays the same.
    while (true) {
      put<BLOCKS>(area, findings);
      findings.share(windows.found);
      if (first) by_taps = !bank.usable || findings.are_extreme();
      if (!first || by_taps || !findings.adapt(lift)) return;
    }
  }

  // Several loads are under way before the first is waited for.
  template <int BLOCKS>
  __device__ __forceinline__ void put(const Area& area, Findings& findings) const {
    const int top = area.top - margin_of(BLOCKS), left = area.left - margin_of(BLOCKS);
    if (is_even<S>(form.x, 4) && area.is_inside(form, margin_of(BLOCKS))) {
      const S* const first = plane(area, 0) + top * form.x.row + left;
      const int64_t further[kColours] = {
          0, area.colours > 1 ? form.x.channel : 0, area.colours > 2 ? 2 * form.x.channel : 0};
      constexpr int kAtOnce = 2;
      for (Fours at(area, BLOCKS); at.are_left();) {
        Four<S> fours[kAtOnce][kColours];
        Fours from = at;
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
          // Past the last once more the first.
          const S* const pixels = from.are_left() ? first + from.row * form.x.row + from.column : first;
#pragma unroll
          for (int c = 0; c < kColours; ++c) fours[i][c] = *reinterpret_cast<const Four<S>*>(pixels + further[c]);
          from.advance();
        }
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
          for (int c = 0; c < kColours; ++c) {
            if (at.are_left() && c < area.colours) put(at.row, at.column, c, numbers_of<S>(fours[i][c]), findings);
          }
          at.advance();
        }
      }
      return;
    }
    const bool even = is_even<S>(form.x, 4);
    for (Fours at(area, BLOCKS); at.are_left(); at.advance()) {
      const int row = border_index(top + at.row, int(form.H), form.padding);
#pragma unroll
      for (int c = 0; c < kColours; ++c) {
        if (c >= area.colours) continue;
        const Four<S> four = four_at(plane(area, c), form.x.row, row, left + at.column, int(form.W), form.padding, even);
        put(at.row, at.column, c, numbers_of<S>(four), findings);
      }
    }
  }

  __device__ __forceinline__ void put(int row, int column, int c, Numbers numbers, Findings& findings) const {
    findings.note(c, numbers);
#pragma unroll
    for (int i = 0; i < 4; ++i) numbers.at[i] *= lift[c];
    windows.put(c, row, column, numbers);
  }
};

// y_o = sum_m coeffs_m * sum_c mix_m[o, c] T_m x_c. With a mix a warp sums up what its colour adds to all images of y.
template <class S, int TERMS, bool MIXED>
__global__ void __launch_bounds__(32 * kGatherWarps, kGatherBlocks) blur(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const Bank<TERMS> bank(form, false, memory + Windows<TERMS>::bytes(form), memory);
  Gathering<S, TERMS> gathering(form, bank, memory);
  const Lane lane;
  const int parts = form.parts, number = threadIdx.x / 32 % parts, c = threadIdx.x / 32 / parts;
  for (int i = blockIdx.x; i < Area::count(form); i += gridDim.x) {
    const Area area(form, i);
    const Part part(area, number);
    const bool in_twos = part.is_whole(form) && is_even<S>(form.coeffs, 2);
    const S* const maps = plane_of<S>(form.coeffs, area.b, 0, area.first);
    Pixels<S> coeffs;
    const auto load = [&](int m) { coeffs.load(form, part, lane, maps + m * form.coeffs.map, form.coeffs.row, in_twos); };
    const auto fetch = [&](int i) {
      if (c == 0 && in_twos && i < int(form.M)) fetch_part(part, maps + bank.kernel(i).m * form.coeffs.map, form.coeffs.row);
    };
    for (int i = 1; i <= kAhead<TERMS, MIXED>; ++i) fetch(i);
    if (!MIXED) load(bank.kernel(0).m);
    Results sums[MIXED ? kColours : 1] = {};
    gathering.template each<1>(area, 0, [&](auto way, int i, int m, int next) {
      if (c >= area.colours) return;
      if constexpr (kAhead<TERMS, MIXED> > 0) fetch(i + kAhead<TERMS, MIXED>);
      const Results blurred = gathering.blurred(way, gathering.bands(way, area, m, c), area, part, m, c);
      if constexpr (!MIXED) {
        each_result([&](int tile, int p) { sums[0].at[tile][p] += coeffs(tile, p) * blurred.at[tile][p]; });
        if (next >= 0) load(next);
      } else {
        load(m);  // no earlier, for want of registers
        const float* const mix = bank.mix + m * form.O * form.C + c;
        const float inverse = gathering.inverse(c);
        const float shares[kColours] = {mix[0], form.O > 1 ? mix[form.C] : 0.0f, form.O > 2 ? mix[2 * form.C] : 0.0f};
        each_result([&](int tile, int p) {
          const float weighed = coeffs(tile, p) * (blurred.at[tile][p] * inverse);
#pragma unroll
          for (int o = 0; o < kColours; ++o) sums[o].at[tile][p] += shares[o] * weighed;
        });
      }
    });
    if constexpr (!MIXED) {
      const float inverse = gathering.inverse(c);
      if (c < area.colours) {
        write<S>(form, part, lane, area.b * form.O + area.first + c,
                 [&](int tile, int p) { return inverse * sums[0].at[tile][p]; });
      }
    } else {
      // An image of y after the other, by the first colour's warps.
      float* const exchanged = reinterpret_cast<float*>(memory);  // [warps, kRows kColumns]
      const auto place = [&](int colour, int tile, int p) {
        return ((colour * parts + number) * kTiles * 4 + tile * 4 + p) * 32 + int(threadIdx.x) % 32;
      };
#pragma unroll
      for (int o = 0; o < kColours; ++o) {
        if (o >= form.O) continue;
        __syncthreads();  // the windows, or the sums before, have been used
        each_result([&](int tile, int p) { exchanged[place(c, tile, p)] = sums[o].at[tile][p]; });
        __syncthreads();  // all colours' sums are there
        if (c != 0) continue;
        write<S>(form, part, lane, area.b * form.O + o, [&](int tile, int p) {
          float sum = sums[o].at[tile][p];
          for (int other = 1; other < area.colours; ++other) sum += exchanged[place(other, tile, p)];
          return sum;
        });
      }
    }
  }
}

// b_m = sum_o y_o * sum_c mix_m[o, c] T_m x_c, or b_mc = y_c T_m x_c for maps of each colour's own. y comes anew from the
// first cache for every kernel.
template <class S, int TERMS, bool MIXED>
__global__ void __launch_bounds__(32 * kGatherWarps, kGatherBlocks) correlate(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const Bank<TERMS> bank(form, false, memory + Windows<TERMS>::bytes(form), memory);
  Gathering<S, TERMS> gathering(form, bank, memory);
  const Lane lane;
  const int parts = form.parts, number = threadIdx.x / 32 % parts, share = threadIdx.x / 32 / parts;
  for (int i = blockIdx.x; i < Area::count(form); i += gridDim.x) {
    const Area area(form, i);
    const Part part(area, number);
    const bool in_twos = part.is_whole(form) && is_even<S>(form.y, 2);
    Results sum = {};
    const auto one = [&](auto way, const auto& bands, int m, int c) {
      const Results blurred = gathering.blurred(way, bands, area, part, m, c);
      const float inverse = gathering.inverse(c);
      Results weights = {};
      Pixels<S> y;
      if constexpr (!MIXED) {
        y.load(form, part, lane, plane_of<S>(form.y, area.b, 0, area.first + c), form.y.row, in_twos);
        each_result([&](int tile, int p) { weights.at[tile][p] = y(tile, p); });
      } else {
        for (int o = 0; o < form.O; ++o) {
          y.load(form, part, lane, plane_of<S>(form.y, area.b, 0, o), form.y.row, in_twos);
          const float entry = bank.mix[(m * form.O + o) * form.C + c];
          each_result([&](int tile, int p) { weights.at[tile][p] += entry * y(tile, p); });
        }
      }
      each_result([&](int tile, int p) {
        const float product = weights.at[tile][p] * (inverse * blurred.at[tile][p]);
        sum.at[tile][p] = c > 0 ? sum.at[tile][p] + product : product;
      });
    };
    gathering.template each<kShares>(area, share, [&](auto way, int, int m, int) {
      gathering.each_colour(way, area, m, [&](int c, const auto& bands) { one(way, bands, m, c); });
      const int64_t map = area.b * form.M + m;
      write<S>(form, part, lane, form.channel_coeffs ? map * form.C + area.first : map,
               [&](int tile, int p) { return sum.at[tile][p]; });
    });
  }
}

// The sums of coeffs_m y_o T_m x_c over shares of the tiles, [shares, M, O, C] in the workspace (sums.cuh adds them).
//
// A block goes through one share. Its warps sum up by themselves, in shared memory, and are added in their order.
template <class S, int TERMS>
__global__ void __launch_bounds__(32 * kGatherWarps, kGatherBlocks) grad_mix(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  const int entries = int(form.M * form.O * form.C), parts = form.parts;
  const int number = threadIdx.x / 32 % parts, share = threadIdx.x / 32 / parts;
  float* const of_parts = reinterpret_cast<float*>(memory + Windows<TERMS>::bytes(form));  // [parts, M, O, C]
  const Bank<TERMS> bank(form, false, reinterpret_cast<unsigned char*>(of_parts + parts * entries), memory);
  Gathering<S, TERMS> gathering(form, bank, memory);
  const Lane lane;
  for (int i = threadIdx.x; i < parts * entries; i += blockDim.x) of_parts[i] = 0;
  for (int i = blockIdx.x; i < Area::count(form); i += int(slabs_of(form))) {
    const Area area(form, i);
    const Part part(area, number);
    const bool whole = part.is_whole(form), y_in_twos = whole && is_even<S>(form.y, 2);
    const S* const maps = plane_of<S>(form.coeffs, area.b, 0, 0);
    Pixels<S> y[kColours] = {}, coeffs;
#pragma unroll
    for (int o = 0; o < kColours; ++o) {
      if (o < form.O) y[o].load(form, part, lane, plane_of<S>(form.y, area.b, 0, o), form.y.row, y_in_twos);
    }
    const auto load = [&](int m) {
      coeffs.load(form, part, lane, maps + m * form.coeffs.map, form.coeffs.row, whole && is_even<S>(form.coeffs, 2));
    };
    if (const int first = gathering.first_of(share); first < form.M) load(bank.kernel(first).m);
    const auto one = [&](auto way, const auto& bands, int m, int c) {
      const Results blurred = gathering.blurred(way, bands, area, part, m, c);
      const float inverse = gathering.inverse(c);
      float sums[kColours] = {};
      each_result([&](int tile, int p) {
        // Left out beside the image, not weighed by zero: zero times infinity would count.
        if (!whole && (part.top + row_of(lane, p) >= form.H || part.left + column_of(lane, tile, p) >= form.W)) return;
        const float weighed = coeffs(tile, p) * (inverse * blurred.at[tile][p]);
#pragma unroll
        for (int o = 0; o < kColours; ++o) sums[o] += weighed * y[o](tile, p);
      });
#pragma unroll
      for (int o = 0; o < kColours; ++o) {
        for (int mask = 16; mask > 0; mask /= 2) sums[o] += __shfl_xor_sync(kWholeWarp, sums[o], mask);
        if (threadIdx.x % 32 == 0 && o < form.O) of_parts[number * entries + (m * form.O + o) * form.C + c] += sums[o];
      }
    };
    gathering.template each<kShares>(area, share, [&](auto way, int, int m, int next) {
      gathering.each_colour(way, area, m, [&](int c, const auto& bands) { one(way, bands, m, c); });
      if (next >= 0) load(next);
    });
  }
  __syncthreads();  // the parts' sums are there
  float* const out = static_cast<float*>(form.workspace) + int64_t(blockIdx.x) * entries;
  for (int i = threadIdx.x; i < entries; i += blockDim.x) {
    float sum = 0;
    for (int other = 0; other < parts; ++other) sum += of_parts[other * entries + i];
    out[i] = sum;
  }
}

}  // namespace gkm::cuda::banded
