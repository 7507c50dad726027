// What a network does between its convolutions, as plain data: what the binding hands to the kernels.
#pragma once

#include <cstdint>

#include "form.h"

namespace gkm {

enum class AttentionPass : int64_t { pool, gate, gate_gradient, pool_gradient };

// One map to an image, or several, for each of the axes that features are pooled over.
struct AxisMaps {
  float* over_c = nullptr;  // [B, ., H, W]
  float* over_h = nullptr;  // [B, ., C, W]
  float* over_w = nullptr;  // [B, ., C, H]
};

// A pass of triplet attention over features [B, C, H, W]; all of it is contiguous and float32.
struct Attention {
  AttentionPass pass;
  int64_t B, C, H, W;
  const float* x = nullptr;
  const float* grad = nullptr;  // gradients: of what `out` of the forward pass was
  float* out = nullptr;         // gate: the gated features; gradients: that of x
  AxisMaps made;   // pool: maximum and mean; gate_gradient: of the gates; pool_gradient: how many maxima there are
  AxisMaps taken;  // gate, gate_gradient: the gates; pool_gradient: maximum and mean
  AxisMaps grads;  // pool_gradient: of maximum and mean
};

enum class NormalizationPass : int64_t { statistics, forward, gradient };

// A pass of max((x - mean) inverse weight + bias, 0) + added over planes [B, C, pixels]; all of it is contiguous and
// float32.
struct Normalization {
  NormalizationPass pass;
  int64_t B, C, pixels;
  const float* x = nullptr;
  const float* added = nullptr;  // forward; or null
  const float* grad = nullptr;   // gradient: of the result
  const float *mean = nullptr, *inverse = nullptr, *weight = nullptr, *bias = nullptr;  // [C]; not for statistics
  float* out = nullptr;          // forward: the result; gradient: that of x, beyond mean and inverse
  float* of_channels = nullptr;  // [2, C]: statistics: mean and variance, biased; gradient: those of weight and bias
};

GKM_DECLARE(attend, Attention);
GKM_DECLARE(normalize, Normalization);

}  // namespace gkm
