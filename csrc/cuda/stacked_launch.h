// The kernels on Hopper's matrix units, whose products are of four warps: what launch.cu asks of them.
#pragma once

#include "kinds.cuh"

namespace gkm::cuda::stacked {

// Whether they can make a call on the current device. Puts into the form how many parts a block's tile is to have.
bool serves(Form& form);

// Starts a call of one kind on a stream. Returns CUDA's error code, 0 for none.
template <class S, int TERMS>
int launch(Kind<S, TERMS> kind, const Form& form, void* stream);

}  // namespace gkm::cuda::stacked
