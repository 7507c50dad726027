// The kernels for processors with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>

#include <immintrin.h>

#include "convolution.h"
#include "form.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define GKM_VECTOR_BYTES 32
#define GKM_EVALUATE evaluate_avx2
#define GKM_CONVOLVE convolve_avx2
#include "evaluate.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
