// One 3x3 convolution as plain data, with what often follows it: what the binding hands to the kernels.
#pragma once

#include <cstdint>

#include "form.h"

namespace gkm {

// Stride 1, zeros beyond the border, float32. Strides count elements; the columns of a row lie side by side.
struct Convolution {
  int64_t B, C, O, H, W;
  const float* x = nullptr;
  int64_t x_batch = 0, x_channel = 0, x_row = 0;
  const float* weight = nullptr;  // contiguous [O, C, 3, 3]
  const float* bias = nullptr;    // contiguous [O], or null
  bool rectified = false;         // max(., 0) after the bias
  const float* added = nullptr;   // contiguous [B, O, H, W], added last, or null
  float* out = nullptr;           // contiguous [B, O, H, W]
};

void convolve_sse2(const Convolution&, const Runtime&);
void convolve_avx2(const Convolution&, const Runtime&);
void convolve_avx512(const Convolution&, const Runtime&);
void convolve_generic(const Convolution&, const Runtime&);

}  // namespace gkm
