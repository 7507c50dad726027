// Which calls the kernel of single warps serves.
#include "spread.cuh"

namespace gkm::cuda::spread {

bool serves(const Form& form) {
  if (form.target != Target::blur_adjoint || form.storage == Storage::f64 || form.mixed()) return false;
  if (form.reach() > banded::kMostRadius || !has_plain_rows(form)) return false;
  if (!has_small_planes(form)) return false;
  // Tiles, and what maps lie apart, are counted in 31 and 32 bits.
  if (Tile::count(form) > INT32_MAX / 2) return false;
  if (form.coeffs.map < 0 || form.coeffs.map > UINT32_MAX) return false;
  const size_t least_bytes = with_kind(form, [&](auto kind) { return shared_bytes<decltype(kind)::kTerms>(form, 1); });
  return least_bytes <= shared_bytes_of_a_block();
}

}  // namespace gkm::cuda::spread
