// Convolutions as plain data: what the binding hands to the kernels.
#pragma once

#include <cstdint>

#include "form.h"

namespace gkm {

// All of them of stride 1, the size kept by zeros beyond the border, float32. Strides count elements; the columns of a
// row lie side by side.

// A convolution of many channels, with what often follows it.
struct Convolution {
  int64_t B, C, O, H, W;
  int64_t size;  // of the kernels, 3 or 5
  const float* x = nullptr;
  int64_t x_batch = 0, x_channel = 0, x_row = 0;
  const float* weight = nullptr;  // contiguous [O, C, size, size]
  const float* bias = nullptr;    // contiguous [O], or null
  bool rectified = false;         // max(., 0) after the bias
  const float* added = nullptr;   // contiguous [B, O, H, W], added last, or null
  float* out = nullptr;           // contiguous [B, O, H, W]
};

// The gradients of a convolution by its weights and its bias.
struct ConvolutionGradient {
  int64_t B, C, O, H, W;
  int64_t size;  // of the kernels, 3 or 5
  const float* x = nullptr;
  int64_t x_batch = 0, x_channel = 0, x_row = 0;
  const float* grad = nullptr;  // of the result, contiguous [B, O, H, W]
  float* weight = nullptr;      // contiguous [O, C, size, size]
  float* bias = nullptr;        // contiguous [O], or null
};

// A 7x7 convolution of few channels; or, where the result's gradient is given, the gradient by its weights.
struct ThinConvolution {
  int64_t B, C, O, H, W;
  const float* x = nullptr;       // contiguous [B, C, H, W]
  const float* weight = nullptr;  // contiguous [O, C, 7, 7]
  const float* grad = nullptr;    // contiguous [B, O, H, W], or null
  float* out = nullptr;           // contiguous [B, O, H, W] or [O, C, 7, 7]
};

GKM_DECLARE(convolve, Convolution);
GKM_DECLARE(convolve_gradient, ConvolutionGradient);
GKM_DECLARE(convolve_thin, ThinConvolution);

}  // namespace gkm
