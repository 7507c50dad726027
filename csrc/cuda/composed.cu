// Which calls the kernels that compose each pixel's own serve, and how they are started.
#include "composed.cuh"
#include "kinds.cuh"

namespace gkm::cuda::composed {
namespace {

template <class S>
size_t shared_bytes(const Form& form) {
  return Samples<S>::bytes() + Bank::bytes(form);
}

template <class S>
int launch_in(const Form& form, void* stream) {
  const int64_t blocks = least(Tile::count(form), places(shared_bytes<S>(form), kBlocks));
  const auto kernel = form.target == Target::blur ? blur<S> : correlate<S>;
  return gkm::cuda::launch(kernel, blocks, kThreads, shared_bytes<S>(form), stream, form);
}

}  // namespace

bool serves(const Form& form) {
  // What a pixel of a map is numbered by has 32 bits, and so have tiles.
  const int64_t map = form.target == Target::blur ? form.coeffs.map : form.H * form.W;
  if (form.M * map + form.H * most(form.coeffs.row, form.W) >= INT32_MAX) return false;
  if (Tile::count(form) > INT32_MAX / 2) return false;
  const bool gathers = form.target == Target::blur || (form.target == Target::correlate && form.C <= kColours);
  return gathers && form.storage != Storage::f64 && !form.mixed() && !form.channel_banks && !form.channel_coeffs &&
         form.taps_w == form.taps_h && has_plain_rows(form) && form.reach() <= kReach &&
         form.M <= kMostKernels && shared_bytes<float>(form) <= shared_bytes_of_a_block();
}

bool pays(const Form& form) {
  // As long as every block has one tile, a call takes no longer than that, and banded products have larger ones.
  const size_t bytes = with_kind(form, [&](auto kind) { return shared_bytes<typename decltype(kind)::S>(form); });
  return Tile::count(form) <= places(bytes, kBlocks);
}

int launch(const Form& form, void* stream) {
  return with_kind(form, [&](auto kind) { return launch_in<typename decltype(kind)::S>(form, stream); });
}

}  // namespace gkm::cuda::composed
