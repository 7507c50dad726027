// The entries of the kernels that the driver calls, and what they are called with.
#pragma once

#include <cstring>

#include "convolution.h"
#include "definition.h"
#include "form.h"
#include "network.h"

namespace gkm::tests {

struct Entry {
  const char* name;
  void (*evaluate)(const gkm::Form&, const gkm::Runtime&);
  void (*convolve)(const gkm::Convolution&, const gkm::Runtime&);
  void (*convolve_gradient)(const gkm::ConvolutionGradient&, const gkm::Runtime&);
  void (*convolve_thin)(const gkm::ThinConvolution&, const gkm::Runtime&);
  void (*attend)(const gkm::Attention&, const gkm::Runtime&);
  void (*normalize)(const gkm::Normalization&, const gkm::Runtime&);
};

inline bool runs(const char* name) {
#if defined(__x86_64__)
  if (std::strcmp(name, "avx2") == 0) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  }
#endif
  return std::strlen(name) > 0;
}

inline bool makes_combs(const char* name) { return std::strncmp(name, "avx", 3) == 0 && runs(name); }

inline void run_backwards(int64_t n, void (*body)(void*, int64_t), void* context) {
  while (n-- > 0) body(context, n);
}

inline void* fresh_scratch(size_t bytes) {
  static Block block;
  block = Block(bytes);
  return block.data();
}

#define GKM_ENTRY(name)                                                                        \
  {#name,                 gkm::evaluate_##name, gkm::convolve_##name, gkm::convolve_gradient_##name, \
   gkm::convolve_thin_##name, gkm::attend_##name,   gkm::normalize_##name},
constexpr Entry kEntries[] = {GKM_ENTRIES};

inline int calls = 0;

}  // namespace gkm::tests
