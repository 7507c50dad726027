// The kernels for processors with AVX-512 (F, VL, DQ, BW).
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
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,f16c")
#endif

#define GKM_VECTOR_BYTES 64
#define GKM_FOR_THIS(entry) entry##_avx512
#include "evaluate.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
