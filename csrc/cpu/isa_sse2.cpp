// The kernels for every x86-64 processor.
#if defined(__x86_64__)
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <new>

#include "convolution.h"
#include "form.h"
#include "network.h"

#define GKM_VECTOR_BYTES 16
#define GKM_FOR_THIS(entry) entry##_sse2
#include "evaluate.h"
#endif
