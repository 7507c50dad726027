// The kernels for every x86-64 processor.
#if defined(__x86_64__)
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>

#include "convolution.h"
#include "form.h"

#define GKM_VECTOR_BYTES 16
#define GKM_EVALUATE evaluate_sse2
#define GKM_CONVOLVE convolve_sse2
#include "evaluate.h"
#endif
