#pragma once

#include "form.h"

namespace gkm::cuda {

// Starts the kernels for any bank, in one storage type; gradients by taps_w are to come transposed.
template <class S>
int launch_generic(const Form& form, void* stream);

}  // namespace gkm::cuda
