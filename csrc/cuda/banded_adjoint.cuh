// blur_adjoint with a mix on matrix units; what it shares with the other ops is in banded.cuh. Without one, spread.cuh is
// faster, and takes from here what is done tap by tap.
//
// x_c = sum_m T_m^T (coeffs_m * sum_o mix_m[o, c] y_o) is gathered: kernel by kernel a block fills the windows of its
// tile with weighed pixels, and its warps, one for each part of the tile and colour, multiply them by the transposed
// bands. The windows of all kernels have one scale: where the weighed pixels leave its range it changes, and with it what
// has been summed. y stays in shared memory for all kernels, and the coefficients of the next kernel are on their way
// while the products of the last are made.
// Numbers: the products of banded_gather.cuh; for a tile of 80 x 32 and the published bank 1.7 weighed pixels are made
// for one of the image, and as many coefficients are loaded.
//
// The border: with zeros what it had read is nothing. The adjoint of reflection by symmetric taps is reflection with the
// image's outermost pixels, which stand once in a reflected line where all others stand twice, doubled before and
// halved after. In the other cases the pixels that the border had read are made anew, tap by tap.
#pragma once

#include "banded.cuh"

namespace gkm::cuda::banded {

constexpr int kSpreadWarps = 15;  // of a block, at most; it has a multiprocessor to itself

// Calls visit(e) for i and every index that the border folds onto it.
template <class Visit>
__device__ void each_source(int i, int n, int radius, Padding padding, const Visit& visit) {
  visit(i);
  each_folded(int64_t(i), int64_t(n), radius, padding, [&](int64_t e) { visit(int(e)); });
}

// A pixel of x_c, tap by tap: slow, and exact about borders, NaN and infinity. Rows, kernels and all are summed apart: ten
// thousand terms in one sum would be less exact than float32 is.
template <class S>
__device__ float spread_by_taps(const Form& form, int b, int c, int row, int column) {
  float sum = 0;
  for (int m = 0; m < form.M; ++m) {
    const int64_t kernel = form.kernel(m, c), centre = kernel * form.K + form.K / 2;
    const int radius = form.radii[kernel];
    const S* const map = plane_of<S>(form.coeffs, b, m, c);
    const S* const image = plane_of<S>(form.y, b, 0, form.mixed() ? 0 : c);
    float of_kernel = 0;
    each_source(row, int(form.H), radius, form.padding, [&](int e) {
      for (int i = most(e - radius, 0); i <= least(e + radius, int(form.H) - 1); ++i) {
        float of_row = 0;
        each_source(column, int(form.W), radius, form.padding, [&](int f) {
          for (int j = most(f - radius, 0); j <= least(f + radius, int(form.W) - 1); ++j) {
            float weight = form.mixed() ? 0.0f : widened(image[i * form.y.row + j]);
            for (int o = 0; form.mixed() && o < form.O; ++o) {
              const float share = entry_of<float>(form.mix, (m * form.O + o) * form.C + c);
              weight += share * widened(image[o * form.y.channel + i * form.y.row + j]);
            }
            const float tap = entry_of<float>(form.taps_h, centre + e - i) * entry_of<float>(form.taps_w, centre + f - j);
            of_row += tap * (widened(map[i * form.coeffs.row + j]) * weight);
          }
        });
        of_kernel += of_row;
      }
    });
    sum += of_kernel;
  }
  return sum;
}

// A factor for the first and the last of an axis of n.
__device__ inline float at_edge(int i, int n, float factor) { return i == 0 || i == n - 1 ? factor : 1.0f; }

// A window's place in the image: where its rows and columns are in it, -1 beside it.
struct Place {
  int top, left, height, width;
  Padding padding;

  __device__ Place(const Form& form, const Area& area, int margin, bool reflects)
      : top(area.top - margin),
        left(area.left - margin),
        height(int(form.H)),
        width(int(form.W)),
        padding(reflects ? Padding::reflect : Padding::zeros) {}

  __device__ int row(int i) const { return border_index(top + i, height, padding); }
  __device__ int column(int i) const { return border_index(left + i, width, padding); }
};

// y around a tile, and windows of it weighed by map after map.
template <class S, int TERMS>
struct Weighing {
  using Kernel = typename Bank<TERMS>::Kernel;
  static constexpr int kAhead = 3;  // fours of coefficients that a thread asks for before their turn

  const Form& form;
  const Bank<TERMS>& bank;
  const Windows<TERMS> windows;
  S* const images;  // [planes, rows, kWidth] of the largest window, as they lie in memory
  const bool reflects;
  float lift[kColours] = {1, 1, 1};  // of the weighed pixels, powers of two
  Numbers ahead[kAhead];

  __device__ Weighing(const Form& f, const Bank<TERMS>& b, unsigned char* memory)
      : form(f),
        bank(b),
        windows(f, memory),
        images(reinterpret_cast<S*>(memory + Windows<TERMS>::bytes(f))),
        reflects(f.padding == Padding::reflect && b.symmetric) {}

  __host__ __device__ static size_t bytes(const Form& form) { return size_t(form.O) * pixels_of(form) * sizeof(S); }

  // Brings in y around a tile.
  __device__ __forceinline__ void stage(const Area& area) const {
    const Place place(form, area, kMostMargin, reflects);
    const bool even = is_even<S>(form.y, 4);
    for (int o = 0; o < int(form.O); ++o) {
      const S* const plane = plane_of<S>(form.y, area.b, 0, o);
      for (Fours at(area, kMostBlocks); at.are_left(); at.advance()) {
        const int row = place.row(at.row), column = place.left + at.column;
        *reinterpret_cast<Four<S>*>(images + o * pixels_of(form) + at.row * kWidth + at.column) =
            four_at(plane, form.y.row, row, column, place.width, place.padding, even);
      }
    }
  }

  // Asks for the first coefficients of a kernel's window. Whole: all of the window is in the image, and its rows can be
  // read in fours.
  template <bool WHOLE>
  __device__ __forceinline__ void ask(const Area& area, Kernel kernel) {
    const Place place(form, area, margin_of(kernel.blocks), reflects);
    Fours at(area, kernel.blocks);
#pragma unroll
    for (int i = 0; i < kAhead; ++i, at.advance()) ahead[i] = coeffs_at<WHOLE>(area, place, kernel.m, at);
  }

  // Fills the windows for a kernel whose first coefficients have been asked for.
  template <bool WHOLE>
  __device__ __forceinline__ void fill(const Area& area, Kernel kernel, Findings& findings) const {
    const Place place(form, area, margin_of(kernel.blocks), reflects);
    float shares[kColours][kColours];
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
#pragma unroll
      for (int o = 0; o < kColours; ++o) {
        shares[c][o] = c < form.C && o < form.O ? bank.mix[(kernel.m * form.O + o) * form.C + c] : 0.0f;
      }
    }
    const int inset = kMostMargin - margin_of(kernel.blocks);
    Fours at(area, kernel.blocks);
#pragma unroll
    for (int i = 0; i < kAhead; ++i, at.advance()) {
      if (at.are_left()) weigh<WHOLE>(area, place, inset, at, ahead[i], shares, findings);
    }
    for (; at.are_left(); at.advance()) {
      weigh<WHOLE>(area, place, inset, at, coeffs_at<WHOLE>(area, place, kernel.m, at), shares, findings);
    }
  }

 private:
  static constexpr int kWidth = kColumns + 2 * kMostMargin;

  __host__ __device__ static int pixels_of(const Form& form) { return (form.parts * kRows + 2 * kMostMargin) * kWidth; }

  // Past the last some that exist.
  template <bool WHOLE>
  __device__ __forceinline__ Numbers coeffs_at(const Area& area, const Place& place, int m, const Fours& at) const {
    const S* const map = plane_of<S>(form.coeffs, area.b, m, area.first);
    if constexpr (WHOLE) {
      const int row = place.top + (at.are_left() ? at.row : 0);
      return numbers_of<S>(*reinterpret_cast<const Four<S>*>(map + row * form.coeffs.row + place.left + at.column));
    }
    const int row = place.row(at.row), column = place.left + at.column;
    return numbers_of<S>(four_at(map, form.coeffs.row, row, column, place.width, place.padding, is_even<S>(form.coeffs, 4)));
  }

  template <bool WHOLE>
  __device__ __forceinline__ void weigh(const Area& area, const Place& place, int inset, const Fours& at,
                                        const Numbers& coeffs, const float (&shares)[kColours][kColours],
                                        Findings& findings) const {
    const S* const pixels = images + (at.row + inset) * kWidth + at.column + inset;
    Numbers y[kColours] = {};
#pragma unroll
    for (int o = 0; o < kColours; ++o) {
      if (o < int(form.O)) {
        y[o] = numbers_of<S>(*reinterpret_cast<const Four<S>*>(pixels + o * pixels_of(form)));
      }
    }
    Numbers doubled = {{1, 1, 1, 1}};
    if (!WHOLE && reflects) {
      const float row = at_edge(place.row(at.row), place.height, 2.0f);
#pragma unroll
      for (int i = 0; i < 4; ++i) doubled.at[i] = row * at_edge(place.column(at.column + i), place.width, 2.0f);
    }
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
      if (c >= area.colours) continue;
      Numbers numbers;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float weight = shares[c][0] * y[0].at[i];
#pragma unroll
        for (int o = 1; o < kColours; ++o) weight += shares[c][o] * y[o].at[i];
        numbers.at[i] = coeffs.at[i] * weight;
        if (!WHOLE) numbers.at[i] *= doubled.at[i];
      }
      findings.note(c, numbers);
#pragma unroll
      for (int i = 0; i < 4; ++i) numbers.at[i] *= lift[c];
      windows.put(c, at.row, at.column, numbers);
    }
  }
};

// Has a warp write pixels of its tile tap by tap, all or those that the border folds others onto.
template <class S, int ROWS = kRows, int COLUMNS = kColumns>
__device__ __attribute__((noinline)) void write_by_taps(const Form& form, int b, int c, int top, int left, bool all) {
  const int reach = form.reach();
  const auto is_folded_onto = [&](int i, int n) {
    bool folded = false;
    each_folded(int64_t(i), int64_t(n), reach, form.padding, [&](int64_t) { folded = true; });
    return folded;
  };
  for (int i = threadIdx.x % 32; i < ROWS * COLUMNS; i += 32) {
    const int row = top + i / COLUMNS, column = left + i % COLUMNS;
    if (row >= form.H || column >= form.W) continue;
    if (!all && !is_folded_onto(row, int(form.H)) && !is_folded_onto(column, int(form.W))) continue;
    const float sum = spread_by_taps<S>(form, b, c, row, column);
    static_cast<S*>(form.out)[((b * form.C + c) * form.H + row) * form.W + column] = narrowed<S>(sum);
  }
}

// The sums on a tile, scaled; returns what has been found.
template <bool WHOLE, class S, int TERMS>
__device__ __forceinline__ Findings sum_up(Weighing<S, TERMS>& weighing, const Area& area, const Part& part, int c,
                                           Results& sums) {
  const Bank<TERMS>& bank = weighing.bank;
  const int kernels = int(weighing.form.M);
  const unsigned char* const window = weighing.windows.at(c, part.row, 0);
  Findings findings;
  auto next = bank.kernel(0);
  weighing.template ask<WHOLE>(area, next);
  for (int i = 0; i < kernels; ++i) {
    const auto kernel = next;
    if (i + 1 < kernels) next = bank.kernel(i + 1);
    __syncthreads();  // y is there, and the windows before have been used
    // Once more where the lifts have changed; what is found stays the same.
    while (true) {
      weighing.template fill<WHOLE>(area, kernel, findings);
      findings.share(weighing.windows.found);
      if (findings.are_extreme()) return findings;
      const float lift = own(weighing.lift, c);
      if (!findings.adapt(weighing.lift)) break;
      // Sums only come down: what they were made of has been found before.
      const float ratio = fminf(own(weighing.lift, c) / lift, 1.0f);
      each_result([&](int tile, int p) { sums.at[tile][p] *= ratio; });
    }
    if (i + 1 < kernels) weighing.template ask<WHOLE>(area, next);
    if (c >= area.colours) continue;
    const int of_colour = int(weighing.form.kernel(kernel.m, area.first + c));
    // Matrix units cut sums off, so each kernel's is a short one of its own.
    Results results = {};
    if (kernel.blocks == 3) {
      weighing.windows.add_blurred(bank.template bands<3>(of_colour), window, results);
    } else if (kernel.blocks == 2) {
      weighing.windows.add_blurred(bank.template bands<2>(of_colour), window, results);
    } else {
      weighing.windows.add_blurred(bank.template bands<4>(of_colour), window, results);
    }
    each_result([&](int tile, int p) { sums.at[tile][p] += results.at[tile][p]; });
  }
  return findings;
}

template <class S, int TERMS>
__global__ void __launch_bounds__(32 * kSpreadWarps, 1) blur_adjoint(const __grid_constant__ Form form) {
  unsigned char* const memory = block_memory();
  unsigned char* const images = memory + Windows<TERMS>::bytes(form);
  const Bank<TERMS> bank(form, true, images + Weighing<S, TERMS>::bytes(form), memory);
  Weighing<S, TERMS> weighing(form, bank, memory);
  const Lane lane;
  const int c = threadIdx.x / 32 / form.parts;
  for (int index = blockIdx.x; index < Area::count(form); index += gridDim.x) {
    const Area area(form, index);
    const Part part(area, threadIdx.x / 32 % form.parts);
    const int64_t plane = area.b * form.C + area.first + c;
    weighing.stage(area);  // y of the tile before was last used ahead of a barrier
    Results sums = {};
    const bool whole = area.is_inside(form, kMostMargin) && is_even<S>(form.coeffs, 4);
    const Findings findings =
        whole ? sum_up<true>(weighing, area, part, c, sums) : sum_up<false>(weighing, area, part, c, sums);
    if (c >= area.colours) continue;
    const bool by_taps = !bank.usable || findings.are_extreme();
    const float inverse = 1 / (own(weighing.lift, c) * (bank.scale * bank.scale));
    if (!by_taps) {
      write<S>(form, part, lane, plane, [&](int tile, int p) {
        if (!weighing.reflects) return sums.at[tile][p] * inverse;
        const float of_row = at_edge(part.top + row_of(lane, p), int(form.H), 0.5f);
        return sums.at[tile][p] * inverse * (of_row * at_edge(part.left + column_of(lane, tile, p), int(form.W), 0.5f));
      });
    }
    __syncwarp();  // what is written twice is in order
    if (by_taps || (form.padding != Padding::zeros && !weighing.reflects)) {
      write_by_taps<S>(form, area.b, area.first + c, part.top, part.left, by_taps);
    }
  }
}

}  // namespace gkm::cuda::banded
