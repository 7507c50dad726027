// The kernel whose warps gather blur_adjoint each for itself: what launch.cu asks of it.
#pragma once

#include "kinds.cuh"

namespace gkm::cuda::spread {

// Whether it can make a call on the current device.
bool serves(const Form& form);

// Starts a call of one kind on a stream. Returns CUDA's error code, 0 for none.
template <class S, int TERMS>
int launch(Kind<S, TERMS> kind, const Form& form, void* stream);

}  // namespace gkm::cuda::spread
