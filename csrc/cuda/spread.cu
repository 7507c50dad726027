// Which calls the kernel of single warps serves, and how it is started.
#include "spread.cuh"

#include "spread_launch.h"

namespace gkm::cuda::spread {
namespace {

template <int TERMS>
size_t shared_bytes(const Form& form) {
  return windows_bytes<TERMS>(form) + Bank<TERMS>::bytes(form) + Order::bytes(form);
}

template <class S, int TERMS>
int launch_in_terms(const Form& form, void* stream) {
  const int64_t wanted = (Tile::count(form) + kWarps - 1) / kWarps;
  const int64_t blocks = least(wanted, int64_t(multiprocessors()) * kBlocks);
  return gkm::cuda::launch(blur_adjoint<S, TERMS>, blocks, 32 * kWarps, shared_bytes<TERMS>(form), stream, form);
}

}  // namespace

bool serves(const Form& form) {
  if (form.target != Target::blur_adjoint || form.storage == Storage::f64 || form.mixed()) return false;
  if (form.reach() > banded::kMostRadius || !has_plain_rows(form)) return false;
  // Pixels of a plane, tiles, and what maps lie apart are counted in 31 or 32 bits.
  const auto is_large = [&](const Planes& planes) { return (form.H - 1) * planes.row + form.W >= INT32_MAX / 2; };
  if (is_large(form.y) || is_large(form.coeffs) || Tile::count(form) > INT32_MAX / 2) return false;
  if (form.coeffs.map < 0 || form.coeffs.map > UINT32_MAX) return false;
  return shared_bytes<2>(form) <= shared_bytes_of_a_block();
}

int launch(const Form& form, void* stream) {
  switch (form.storage) {
    case Storage::f32:
      return form.single ? launch_in_terms<float, 1>(form, stream) : launch_in_terms<float, 2>(form, stream);
    case Storage::bf16:
      return launch_in_terms<bf16, 1>(form, stream);
    case Storage::f16:
      return launch_in_terms<f16, 2>(form, stream);
    default:
      return kInvalidValue;
  }
}

}  // namespace gkm::cuda::spread
