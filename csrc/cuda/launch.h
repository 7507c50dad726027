// What the binding calls: no word of CUDA, so that any compiler takes it.
#pragma once

#include <cstddef>

#include "form.h"

namespace gkm::cuda {

// How many bytes `form.workspace` is to have.
size_t workspace_bytes(const Form& form);

// Whether faster kernels than those for any bank would serve a call, if the pixels of its rows lay side by side.
bool wants_plain_rows(Form form);

// Starts a call on a stream of the current device, a cudaStream_t. Returns CUDA's error code, 0 for none.
int launch(const Form& form, void* stream);

// What CUDA calls an error code.
const char* message_of(int error);

// The error code of asking the current device for the kernels: it may be of an architecture they were not built for.
int presence();

// What they were built for and with.
const char* build();

}  // namespace gkm::cuda
