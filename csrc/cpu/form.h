// One call of the op family, as the binding hands it to the CPU kernels.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../operands.h"

namespace gkm {

// Images and maps in `out` are of the storage type, gradients by mix or taps double.
struct Form : Operands {
  const double* taps_w = nullptr;  // contiguous, centred in K
  const double* taps_h = nullptr;
  const double* mix = nullptr;  // contiguous [M, O, C], or null
  const int64_t* radii = nullptr;
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

// A kernel's entry for each instruction set; those that were compiled in are defined.
#define GKM_DECLARE(entry, Call)                    \
  void entry##_sse2(const Call&, const Runtime&);   \
  void entry##_avx2(const Call&, const Runtime&);   \
  void entry##_avx512(const Call&, const Runtime&); \
  void entry##_generic(const Call&, const Runtime&)

GKM_DECLARE(evaluate, Form);

}  // namespace gkm
