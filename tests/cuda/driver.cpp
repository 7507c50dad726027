// Calls the CUDA kernels as the binding does, on a processor, and compares every target with the form's definition.
//
// Arguments: how many calls to make, in the storage type of a number (0 to 3, or -1 for all in turn), by the best kernels
// (0), those for any bank (1), those on matrix units (2), those that compose each pixel's own (3), those with products of
// four warps (4), that of single warps (5) or those that compose each pixel's own on matrix units (6), and the number of a
// fault that the kernels were compiled with, or 0 for none of them.
// Exits with 1 and a word on the first call that is wrong.
#include <cstdlib>

#include "../native/definition.h"
#include "launch.h"
#include "numbers.cuh"

namespace {

using namespace gkm::tests;
using gkm::Padding, gkm::Storage, gkm::Target;
using gkm::cuda::Form, gkm::cuda::Kernels, gkm::cuda::Table;

Table encoded(const std::vector<double>& numbers, Storage storage, Block& block) {
  block = Block(numbers.size() * size_of(storage));
  for (size_t i = 0; i < numbers.size(); ++i) {
    encode(numbers[i], storage, static_cast<char*>(block.data()) + i * size_of(storage));
  }
  return {block.data(), storage};
}

// How a call is made beside what it computes.
struct Way {
  Storage storage, parameters;
  Layout layout;
  gkm::shim::Order order;
  int processors;      // which decide on the size of a block's tile
  size_t most_shared;  // and how much memory a block may have
  Kernels kernels;
};

bool check(const Call& call, Target target, const Way& way, const std::vector<double>& want) {
  const bool wide = way.storage == Storage::f64;
  const Storage out_storage = !sums_over_pixels(target) ? way.storage : wide ? Storage::f64 : Storage::f32;
  Block out(want.size() * size_of(out_storage)), taps_w, taps_h, mix;
  Form form{};
  const Buffers buffers = describe(form, call, target, way.storage, way.layout);
  if (target != Target::grad_taps_w) form.taps_w = encoded(call.taps_w, way.parameters, taps_w);
  if (target != Target::grad_taps_h) form.taps_h = encoded(call.taps_h, way.parameters, taps_h);
  if (call.taps_w == call.taps_h && form.taps_w.data != nullptr && form.taps_h.data != nullptr) form.taps_h = form.taps_w;
  if (call.with_mix && target != Target::grad_mix) form.mix = encoded(call.mix, way.parameters, mix);
  std::copy(call.radii.begin(), call.radii.end(), form.radii);
  form.out = out.data();
  form.kernels = way.kernels;
  const Block workspace(gkm::cuda::workspace_bytes(form));
  form.workspace = workspace.data();
  gkm::shim::order = way.order;
  gkm::shim::processors = way.processors;
  gkm::shim::most_shared = way.most_shared;
  if (gkm::cuda::launch(form, nullptr) != 0) {
    std::printf("target %d is refused\n", int(target));
    return false;
  }
  constexpr const char* kNames[] = {"the best kernels", "the kernels for any bank", "the kernels on matrix units",
                                    "the kernels of each pixel's own", "the kernels with products of four warps",
                                    "the kernel of single warps", "the kernels of each pixel's own on matrix units"};
  const char* const name = kNames[int(way.kernels)];
  // Matrix units take factors for bfloat16 in one float16, whose 11 bits are more than its result shows.
  const double of_sums = way.storage == Storage::bf16 && way.kernels != Kernels::generic ? 0x1p-10 : kOfFloatSums;
  return agrees(name, call, target, way.storage, way.layout, out, out_storage, want, of_sums);
}

// A call, not yet made up, and one of its targets.
struct Case {
  int64_t H, W;
  Bank bank;
  Padding padding;
  Variant variant;
  int64_t colours;
  bool refined;
  Target target;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const auto add = [&](int64_t H, int64_t W, const Bank& bank, Variant variant, int64_t colours, bool refined) {
    const int64_t reach = *std::max_element(bank.radii.begin(), bank.radii.end());
    for (Padding padding : kPaddings) {
      if (padding == Padding::reflect && std::min(H, W) <= reach) continue;
      for (int64_t t = 0; t < 7; ++t) {
        const Target target = Target(t);
        if (!has(variant, target) || (target == Target::ridge_dual && colours > 4)) continue;  // more are not solved for
        cases.push_back({H, W, bank, padding, variant, colours, refined, target});
      }
    }
  };
  Bank published{{0, 1}, false, false};
  for (int64_t m = 2; m < 22; ++m) published.radii.push_back(m / 2);
  // More samples in a row than are staged at a time; more colours than a block sums.
  const Bank large{{18, 1}, false, false}, own{{2, 0, 1, 3, 1, 0, 0, 2, 1, 1}, true, false};
  const Bank few{{10, 0, 7}, false, true};
  for (Variant variant : kVariants) {
    const bool refined = variant == Variant::plain || variant == Variant::with_mix;
    for (const auto& [H, W] : kSizes) {
      for (const Bank& bank : kBanks) add(H, W, bank, variant, 2, false);
    }
    for (const Bank& bank : kBanks) add(24, 36, bank, variant, 2, refined);  // of whole tiles, and aligned
    add(46, 80, few, variant, 3, refined);  // with a tile whose window is in the image
    add(45, 50, large, variant, 2, refined);
    add(6, 40, own, variant, 5, false);
    add(34, 9, own, variant, 5, refined);
    for (bool symmetric : {false, true}) {
      published.symmetric = symmetric;
      add(11, 19, published, variant, 3, refined);
      add(33, 40, published, variant, 3, refined);
    }
  }
  return cases;
}

// Those that kernels for a bank that all colours share serve, or that look like them.
std::vector<Case> shared_cases(Kernels kernels) {
  std::vector<Case> cases;
  Bank published{{0, 1}, false, true};
  for (int64_t m = 2; m < 22; ++m) published.radii.push_back(m / 2);
  const Bank banks[] = {published, {{10, 0, 7}, false, true}, {{2, 0, 4, 1, 2, 3}, false, true}, {{3, 0, 2}, false, false},
                        {{12, 8, 9, 0, 5}, false, false}};
  const std::vector<int64_t> colours_of_images = kernels == Kernels::stacked ? std::vector<int64_t>{3, 6}
                                                                              : std::vector<int64_t>{1, 3, 5};
  std::vector<std::pair<int64_t, int64_t>> sizes = {{1, 1}, {9, 35}, {24, 16}, {50, 33}, {72, 64}};
  if (kernels == Kernels::tailored) sizes.push_back({110, 36});  // with a tile that has all its rows in the image
  for (const auto& [H, W] : sizes) {
    for (const Bank& bank : banks) {
      const int64_t reach = *std::max_element(bank.radii.begin(), bank.radii.end());
      for (Padding padding : kPaddings) {
        if (padding == Padding::reflect && std::min(H, W) <= reach) continue;
        for (int64_t colours : colours_of_images) {
          for (Target target : {Target::blur, Target::correlate, Target::blur_adjoint}) {
            cases.push_back({H, W, bank, padding, Variant::plain, colours, true, target});
            cases.push_back({H, W, bank, padding, Variant::infinite_unmixed, colours, false, target});
          }
        }
      }
    }
  }
  return cases;
}

// The call of one case, in a way that depends on its number.
bool check_case(const Case& one, int64_t number, int64_t storage, Kernels kernels) {
  Call call(one.H, one.W, one.bank, one.padding, one.variant, one.colours);
  if (one.refined) call.refine();
  if (kernels == Kernels::composed || kernels == Kernels::tailored) {
    if (one.bank.symmetric) call.mirror_taps();
    call.taps_h = call.taps_w;
  }
  Way way;
  way.storage = Storage(storage < 0 ? number % 4 : storage);
  if (one.target == Target::ridge_dual || !call.exact_images) way.storage = Storage(int(way.storage) % 2);
  way.parameters = call.exact_parameters ? Storage(number / 4 % 4) : Storage::f64;
  way.layout = Layout(std::max(number / 2 % 4 - 1, int64_t(0)));  // every second one contiguous
  way.order = gkm::shim::Order(number / 3 % 3);
  way.processors = number / 5 % 2 == 0 ? 1 : 16;
  way.most_shared = (number / 7 % 2 == 0 ? 227 : 99) * 1024;
  way.kernels = kernels;
  return check(call, one.target, way, wanted(call, one.target));
}

// What a call gives in float32, on three colours that share bank and maps, reflected, with everything contiguous. The form
// comes with the rest.
std::vector<float> results_of(Form form, const float* x, const float* y, const float* coeffs, const std::vector<float>& taps) {
  const int64_t C = 3, pixels = form.H * form.W;
  form.padding = Padding::reflect, form.C = form.O = C;
  if (form.target != Target::blur_adjoint) form.x = {x, C * pixels, 0, pixels, form.W, 1};
  if (form.target != Target::blur) form.y = {y, C * pixels, 0, pixels, form.W, 1};
  if (form.target != Target::correlate) form.coeffs = {coeffs, form.M * pixels, pixels, 0, form.W, 1};
  form.taps_w = form.taps_h = {taps.data(), Storage::f32};
  std::vector<float> out(form.B * (form.target == Target::correlate ? form.M : C) * pixels);
  form.out = out.data();
  gkm::cuda::launch(form, nullptr);
  return out;
}

// Whether an image gives the same bits alone as beside one of quite other numbers, on a device that neither fills: what a
// block carries from one tile to the next must not show.
bool is_itself_in_every_batch(Target target, Kernels kernels) {
  constexpr int64_t H = 40, W = 80, M = 3, K = 21, kPixels = H * W, kImages = 2;
  std::vector<float> taps(M * K), image(kImages * 3 * kPixels), maps(kImages * M * kPixels);
  for (size_t i = 0; i < taps.size(); ++i) taps[i] = float(1 + std::abs(int(i % K) - int(K / 2)) % 5) / 64;
  for (size_t i = 0; i < image.size(); ++i) image[i] = float(i * 7919 % 1009) * (i < image.size() / 2 ? 1e-5f : 1.0f);
  for (size_t i = 0; i < maps.size(); ++i) maps[i] = float(i * 104729 % 997) / 997 - 0.3f;
  const auto results = [&](int64_t first, int64_t images) {
    Form form{};
    form.target = target, form.kernels = kernels;
    form.B = images, form.M = M, form.K = K, form.H = H, form.W = W;
    for (int m = 0; m < M; ++m) form.radii[m] = uint16_t(10 - 3 * m);
    const float* const pixels = image.data() + first * 3 * kPixels;
    return results_of(form, pixels, pixels, maps.data() + first * M * kPixels, taps);
  };
  gkm::shim::processors = 1, gkm::shim::most_shared = 227 * 1024;
  std::vector<float> alone = results(0, 1);
  const std::vector<float> other = results(1, 1);
  alone.insert(alone.end(), other.begin(), other.end());
  const bool same = alone == results(0, kImages);
  if (!same) std::printf("target %d: an image gives other bits in another batch\n", int(target));
  return same;
}

// Images and maps of one number each, but for one pixel of x or of the last map, on the way to a result past what float16
// or float32 holds.
struct Extreme {
  Target target;
  std::vector<float> taps;
  float x, pixel_of_x, y, coeffs, pixel_of_coeffs;
  bool mixed;        // by identities
  int narrower = 0;  // each kernel than the one before, by its radius
  int64_t M = 3;
};

const Extreme kExtremes[] = {
    {Target::blur_adjoint, {0, 0.99999994f, 0}, 0, 0, 1023.999f, 1, 1, true},
    {Target::blur_adjoint, {0, 0.99999994f, 0}, 0, 0, 1023.999f, 1, 1, false},
    {Target::blur_adjoint, {0.25f, 0.5f, 0.25f}, 0, 0, 1, 1, INFINITY, false},
    {Target::correlate, {1e-6f, 0.25f, 0.5f, 0.25f, 1e-6f}, 1, 1e6f, 1e34f, 0, 0, false},
    {Target::blur, {0.25f, 0.5f, 0.75f, 0.5f, 0.25f}, 1, NAN, 0, 1, 1, false, 1},
    {Target::correlate, {0.25f, 0.5f, 0.75f, 0.5f, 0.25f}, 1, NAN, 1, 0, 0, false, 1},
    {Target::blur, {0.25f, NAN, 0.25f}, 1, 1, 0, 1, 1, false, 0, 20},
    {Target::correlate, {0.25f, NAN, 0.25f}, 1, 1, 1, 0, 0, false, 0, 20},
    {Target::blur, {INFINITY, 0.5f, INFINITY}, 1, 1, 0, 1, 1, false, 0, 20},
    {Target::blur, {0.25f, 0.5f, 0.25f}, 1e25f, 1e25f, 0, 1e-30f, 1e-30f, false},
    {Target::correlate, {0.25f, 0.5f, 0.25f}, 1e-15f, 1e-15f, 1e-15f, 0, 0, false},
    {Target::blur, {2e3f, 0.25f, 0.5f, 0.25f, 2e3f}, 1e-6f, 1e-6f, 0, 1e32f, 1e32f, false},
};

// Whether kernels that are asked for find what those for any bank do, as far as a pixel beside one of a million times its
// value is exact on matrix units.
bool agrees_with_any_bank(const Extreme& extreme, Kernels kernels) {
  constexpr int64_t H = 20, W = 40, C = 3, kPixels = H * W, kPixel = 10 * W + 20;
  const int64_t M = extreme.M;
  const int64_t K = int64_t(extreme.taps.size());
  std::vector<float> x(C * kPixels, extreme.x), y(C * kPixels, extreme.y), coeffs(M * kPixels, extreme.coeffs), taps;
  std::vector<float> mix(M * C * C);
  x[kPixel] = extreme.pixel_of_x;
  coeffs[(M - 1) * kPixels + kPixel] = extreme.pixel_of_coeffs;
  for (int64_t m = 0; m < M; ++m) {
    taps.insert(taps.end(), extreme.taps.begin(), extreme.taps.end());
    for (int64_t c = 0; c < C; ++c) mix[(m * C + c) * C + c] = 1;
  }
  const auto results = [&](Kernels by) {
    Form form{};
    form.target = extreme.target, form.kernels = by;
    form.B = 1, form.M = M, form.K = K, form.H = H, form.W = W;
    if (extreme.mixed) form.mix = {mix.data(), Storage::f32};
    for (int m = 0; m < M; ++m) form.radii[m] = uint16_t(K / 2 - m * extreme.narrower);
    return results_of(form, x.data(), y.data(), coeffs.data(), taps);
  };
  gkm::shim::processors = 16, gkm::shim::most_shared = 227 * 1024;
  const std::vector<float> got = results(kernels), want = results(Kernels::generic);
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isfinite(want[i]) ? std::abs(got[i] - want[i]) <= 1e-3f * std::abs(want[i]) : !std::isfinite(got[i])) continue;
    std::printf("target %d: %g where kernels for any bank find %g\n", int(extreme.target), double(got[i]), double(want[i]));
    return false;
  }
  return true;
}

}  // namespace

int main(int, char** arguments) {
  const int64_t calls = std::atoll(arguments[1]), storage = std::atoll(arguments[2]);
  const Kernels kernels = Kernels(std::atoi(arguments[3]));
  gkm::shim::fault = std::atoi(arguments[4]);
  const bool shared = kernels >= Kernels::composed;
  const std::vector<Case> cases = shared ? shared_cases(kernels) : all_cases();
  for (const Extreme& extreme : kExtremes) {
    if (!agrees_with_any_bank(extreme, kernels)) return 1;
  }
  constexpr int64_t kStride = 1009;  // a prime, so that few calls are of every kind
  for (int64_t i = 0; i < calls; ++i) {
    const Case& one = cases[size_t(i * kStride) % cases.size()];
    if (!check_case(one, i, storage, kernels)) return 1;
  }
  for (Target target : {Target::blur, Target::blur_adjoint, Target::correlate}) {
    if (!is_itself_in_every_batch(target, kernels)) return 1;
  }
  std::printf("%d calls agree with the definition, of %d kinds\n", int(calls), int(cases.size()));
  return 0;
}
