// Which calls the kernels on matrix units serve.
#include "banded.cuh"

namespace gkm::cuda::banded {
namespace {

// Rows of pixels side by side, in planes whose offsets in bytes fit 31 bits.
bool is_plain(const Form& form, const Planes& planes) {
  if (planes.data == nullptr) return true;
  const int64_t bytes = form.storage == Storage::f32 ? 4 : 2;
  return (planes.column == 1 || form.W == 1) && planes.row >= 0 &&
         ((form.H - 1) * planes.row + form.W) * bytes < INT32_MAX;
}

}  // namespace

bool serves(const Form& form) {
  if (form.storage == Storage::f64 || form.reach() > kMostRadius || form.M >= 1 << 15) return false;
  // Tiles are counted in 31 bits, several past the last.
  const int64_t rows = (form.H + kTileRows - 1) / kTileRows, columns = (form.W + kBlock - 1) / kBlock;
  if (form.B * most(form.C, form.O) * rows * columns > INT32_MAX / 2) return false;
  if (stages_for(form) == 0) return false;
  if (!is_plain(form, form.x) || !is_plain(form, form.y) || !is_plain(form, form.coeffs)) return false;
  const bool adds_colours = form.mixed() || (form.target == Target::correlate && !form.channel_coeffs);
  switch (form.target) {
    case Target::blur:
    case Target::correlate:
      return !adds_colours || (form.C <= kColours && form.O <= kColours);
    case Target::blur_adjoint:
      if (form.y.row != form.coeffs.row) return false;
      // Colours of x that are mixed share the blur that spreads one of y.
      return !form.mixed() || (form.C <= kColours && form.O <= kColours && !form.channel_banks);
    case Target::grad_mix:
      return form.C <= kColours && form.O <= kColours;
    default:
      return false;
  }
}

}  // namespace gkm::cuda::banded
