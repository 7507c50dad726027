// Which calls the kernels on Hopper's matrix units serve, and how they are started.
#include "stacked.cuh"
#include "stacked_launch.h"

namespace gkm::cuda::stacked {

bool serves(Form& form) {
  const bool adds_colours = form.target == Target::correlate;
  if (form.target != Target::blur && !adds_colours) return false;
  if (form.storage == Storage::f64 || form.reach() > banded::kMostRadius || !has_plain_rows(form)) return false;
  if (form.mixed() || form.channel_banks || form.channel_coeffs) return false;
  if (adds_colours ? form.C != kColours : form.C % kColours != 0) return false;
  if (!has_small_planes(form)) return false;
  // Tiles, and what maps lie apart, are counted in 31 and 32 bits.
  if (form.B * form.C * (form.H / kRows + 1) * (form.W / kColumns + 1) > INT32_MAX / 2) return false;
  if (form.coeffs.map < 0 || form.coeffs.map > UINT32_MAX) return false;
  form.parts = kParts;
  // The device is asked last.
  return has_stacks() && Memory<float, 2>::bytes(form) <= shared_bytes_of_a_block();
}

template <class S, int TERMS>
int launch(Kind<S, TERMS>, const Form& form, void* stream) {
  const int64_t blocks = least(Area::count(form), int64_t(multiprocessors()) * kBlocks<TERMS>);
  const auto kernel = form.target == Target::blur ? blur<S, TERMS> : correlate<S, TERMS>;
  return gkm::cuda::launch(kernel, blocks, kThreads, Memory<S, TERMS>::bytes(form), stream, form);
}

template int launch(Kind<float, 1> kind, const Form& form, void* stream);
template int launch(Kind<float, 2> kind, const Form& form, void* stream);
template int launch(Kind<bf16, 1> kind, const Form& form, void* stream);
template int launch(Kind<f16, 2> kind, const Form& form, void* stream);

}  // namespace gkm::cuda::stacked
