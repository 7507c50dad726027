// One call of the op family, as plain data: what the binding hands to the kernels.
//
// Every op but the last is dF/d(target) of the form F = <y, blur(x, coeffs, taps_w, taps_h, mix)>; see gkm_ops/ops.py.
// ridge_dual is (A A^T + ridge I)^-1 y at each pixel, where A [C, M] holds the blurred versions of x there.
#pragma once

#include <cstddef>
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

struct Form {
  Target target;
  Storage storage;
  Padding padding;
  int64_t B, C, O, M, K, H, W;
  bool channel_banks;   // taps and radii are [C, M, ...] rather than [M, ...]
  bool channel_coeffs;  // coefficients are [B, M, C, H, W]
  Planes x, y, coeffs;
  const double* taps_w = nullptr;  // contiguous, centred in K
  const double* taps_h = nullptr;
  const double* mix = nullptr;  // contiguous [M, O, C], or null
  const int64_t* radii = nullptr;
  double ridge = 0;
  void* out = nullptr;  // contiguous; storage type for images and maps, double for gradients by mix or taps
};

// What the kernels need of the process they run in.
struct Runtime {
  // How many threads parallel_for may use. Where a tile ends may depend on it, what is computed may not.
  int64_t threads;
  // Calls body(context, i) for 0 <= i < n, on as many threads as the process wants.
  void (*parallel_for)(int64_t n, void (*body)(void* context, int64_t i), void* context);
  // At least `bytes` of memory aligned to 64 that belong to the calling thread until it asks again.
  void* (*scratch)(size_t bytes);
};

// The entry of each instruction set that was compiled in.
void evaluate_sse2(const Form&, const Runtime&);
void evaluate_avx2(const Form&, const Runtime&);
void evaluate_avx512(const Form&, const Runtime&);
void evaluate_generic(const Form&, const Runtime&);

}  // namespace gkm
