// What one call of the op family works on, as plain data.
//
// Every op but the last is dF/d(target) of the form F = <y, blur(x, coeffs, taps_w, taps_h, mix)>; see gkm_ops/ops.py.
// ridge_dual is (A A^T + ridge I)^-1 y at each pixel, where A [C, M] holds the blurred versions of x there.
#pragma once

#include <cstdint>

namespace gkm {

enum class Target : int64_t { blur, blur_adjoint, correlate, grad_mix, grad_taps_w, grad_taps_h, ridge_dual };
enum class Storage { f32, f64, bf16, f16 };
enum class Padding : int64_t { zeros, reflect, replicate };

// A strided view of planes. Strides count elements.
struct Planes {
  const void* data = nullptr;
  int64_t batch = 0;
  int64_t map = 0;      // from one kernel's map to the next (coefficients only)
  int64_t channel = 0;  // 0 where the colours share a map
  int64_t row = 0;
  int64_t column = 0;
};

struct Operands {
  Target target;
  Storage storage;
  Padding padding;
  int64_t B, C, O, M, K, H, W;
  bool channel_banks;   // taps and radii are [C, M, ...] rather than [M, ...]
  bool channel_coeffs;  // coefficients are [B, M, C, H, W]
  Planes x, y, coeffs;
  double ridge = 0;
  void* out = nullptr;  // contiguous
};

}  // namespace gkm
