// The kernels for processors with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>

#include <immintrin.h>

#include "convolution.h"
#include "form.h"
#include "network.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif

#define GKM_VECTOR_BYTES 32
#define GKM_FOR_THIS(entry) entry##_avx2
#include "evaluate.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
