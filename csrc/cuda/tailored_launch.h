// The kernels that compose each pixel's own on matrix units: what launch.cu asks of them.
#pragma once

#include "form.h"

namespace gkm::cuda::tailored {

constexpr int kColours = 3;  // that share a pixel's kernel
constexpr int kReach = 10;   // of its kernel, at most

// Whether they can make a call on the current device.
bool serves(const Form& form);

// Starts a call on a stream. Returns CUDA's error code, 0 for none.
int launch(const Form& form, void* stream);

}  // namespace gkm::cuda::tailored
