// Which calls the kernels on matrix units serve, and in which shape.
#include "banded_launch.cuh"

namespace gkm::cuda::banded {
namespace {

// How many parts a block's tile is to have: into the form, zero where the device has no room for any.
void shape(Form& form) {
  const int most = (spreads(form) ? kSpreadWarps : kGatherWarps) / warps_of_a_part(form);
  form.parts = 0;
  // The largest tile has the smallest windows to a pixel; a smaller one where else multiprocessors would have nothing to do.
  for (int parts = most; parts > 0; parts = parts == 1 ? 0 : (parts + 1) / 2) {
    Form with = form;
    with.parts = parts;
    if (with_kind(with, [&](auto kind) { return shared_bytes(kind, with); }) > shared_bytes_of_a_block()) continue;
    form.parts = parts;
    if (Area::count(form) >= int64_t(multiprocessors()) * blocks_at_once(form)) return;
  }
}

}  // namespace

bool serves(Form& form) {
  if (form.storage == Storage::f64 || form.reach() > kMostRadius || form.M >= 1 << 15) return false;
  if (!has_small_planes(form)) return false;
  // Tiles are counted in 31 bits too.
  if (form.B * form.C * (form.H / kRows + 1) * (form.W / kColumns + 1) > INT32_MAX / 2) return false;
  if (!has_plain_rows(form) || (form.mixed() && form.channel_coeffs)) return false;
  bool adds_colours = form.mixed();
  switch (form.target) {
    case Target::blur:
      break;
    case Target::blur_adjoint:
      if (!form.mixed()) return false;
      break;
    case Target::correlate:
      adds_colours |= !form.channel_coeffs;
      break;
    case Target::grad_mix:
      adds_colours = true;
      break;
    default:
      return false;
  }
  if (adds_colours && (form.C > kColours || form.O > kColours)) return false;
  shape(form);  // asks the device
  return form.parts > 0;
}

}  // namespace gkm::cuda::banded
