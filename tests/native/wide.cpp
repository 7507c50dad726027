// The kernels in vectors of 64 bytes, in code that any processor runs: the shapes of the loops are those of AVX-512.
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>

#include "convolution.h"
#include "form.h"
#include "network.h"

#undef __x86_64__  // its registers are narrower than these vectors, so nothing may ask for one by name

#define GKM_VECTOR_BYTES 64
#define GKM_FOR_THIS(entry) entry##_avx512
#include "evaluate.h"
