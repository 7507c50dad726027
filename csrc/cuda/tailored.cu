// Which calls the kernels that compose each pixel's own on matrix units serve, and how they are started.
#include "kinds.cuh"
#include "tailored.cuh"

namespace gkm::cuda::tailored {
namespace {

// Whether kernels by radius, the widest first, fit the groups.
bool has_groups(const Form& form) {
  if (form.M > kMostKernels) return false;
  for (int group = 0; group < kGroups; ++group) {
    int wider = 0;
    for (int64_t m = 0; m < form.M; ++m) wider += form.radii[m] > reach_of(group);
    if (wider > group * kGroup) return false;
  }
  return true;
}

template <class S, int TERMS>
int launch_kind(Kind<S, TERMS>, const Form& form, void* stream) {
  const int64_t blocks = least(Tile::count(form), places(Memory<TERMS>::kBytes, kBlocks));
  const auto kernel = form.target == Target::blur ? blur<S, TERMS> : correlate<S, TERMS>;
  return gkm::cuda::launch(kernel, blocks, kThreads, Memory<TERMS>::kBytes, stream, form);
}

}  // namespace

bool serves(const Form& form) {
  const bool gathers = form.target == Target::blur || (form.target == Target::correlate && form.C <= kColours);
  if (!gathers || form.storage == Storage::f64 || form.mixed() || form.channel_banks || form.channel_coeffs) return false;
  if (!(form.taps_w == form.taps_h) || !has_groups(form) || !has_plain_rows(form) || !has_small_planes(form)) return false;
  // What a pixel of a map is numbered by has 32 bits, and so have tiles.
  const int64_t map = form.target == Target::blur ? form.coeffs.map : form.H * form.W;
  if (map < 0 || form.M * map + form.H * most(form.coeffs.row, form.W) >= INT32_MAX) return false;
  return Tile::count(form) <= INT32_MAX / 2 && Memory<2>::kBytes <= shared_bytes_of_a_block();
}

int launch(const Form& form, void* stream) {
  return with_kind(form, [&](auto kind) { return launch_kind(kind, form, stream); });
}

}  // namespace gkm::cuda::tailored
