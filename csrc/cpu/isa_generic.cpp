// The kernels for other processors, in 128-bit vectors of the compiler's (NEON on ARM).
#if !defined(__x86_64__)
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>

#include "convolution.h"
#include "form.h"

#define GKM_VECTOR_BYTES 16
#define GKM_EVALUATE evaluate_generic
#define GKM_CONVOLVE convolve_generic
#include "evaluate.h"
#endif
