// The kernel whose warps gather blur_adjoint each for itself: what launch.cu asks of it.
#pragma once

#include "form.h"

namespace gkm::cuda::spread {

// Whether it can make a call on the current device.
bool serves(const Form& form);

// Starts a call on a stream. Returns CUDA's error code, 0 for none.
int launch(const Form& form, void* stream);

// The same in float32, and in bfloat16 or float16.
int launch_f32(const Form& form, void* stream);
int launch_narrow(const Form& form, void* stream);

}  // namespace gkm::cuda::spread
