// Calls the kernels as the binding does and compares every target with the form's definition. Tasks run last first.
//
// Exits with 1 and a word on the first call that is wrong. GKM_ENTRIES lists the entries to call. The argument, if any, is
// the number of a fault that the kernels were compiled with.
#include <cstdlib>
#include <string>

#include "definition.h"
#include "entries.h"
#include "fault.h"
#include "network_checks.h"

namespace {

using namespace gkm::tests;
using gkm::Form, gkm::Padding, gkm::Storage, gkm::Target;

// One call of one entry against what it should give.
bool check(const Entry& entry, const Call& call, Target target, Storage storage, Layout layout,
           const std::vector<double>& want) {
  const Storage out_storage = sums_over_pixels(target) ? Storage::f64 : storage;
  Block out(want.size() * size_of(out_storage));
  Form form{};
  const Buffers buffers = describe(form, call, target, storage, layout);
  form.taps_w = target == Target::grad_taps_w ? nullptr : call.taps_w.data();
  form.taps_h = target == Target::grad_taps_h ? nullptr : call.taps_h.data();
  form.mix = call.with_mix && target != Target::grad_mix ? call.mix.data() : nullptr;
  form.radii = call.radii.data();
  form.out = out.data();
  entry.evaluate(form, gkm::Runtime{1 + call.W % 3, run_backwards, fresh_scratch});
  return agrees(("evaluate_" + std::string(entry.name)).c_str(), call, target, storage, layout, out, out_storage, want);
}

// Every target of one call by every entry; storage types and layouts take turns.
bool check_call(const Call& call, Variant variant) {
  for (int64_t t = 0; t < 7; ++t) {
    const Target target = Target(t);
    if (!has(variant, target)) continue;
    const std::vector<double> want = wanted(call, target);
    for (const Entry& entry : kEntries) {
      if (!runs(entry.name)) continue;
      if (!check(entry, call, target, Storage(calls % 4), Layout(calls / 4 % 3), want)) return false;
      ++calls;
    }
  }
  return true;
}

// Blur, adjoint and correlate of an image as wide as a comb or more, by the entries that make combs.
bool check_comb(const Call& call) {
  static int64_t turn = 0;
  for (Target target : {Target::blur, Target::blur_adjoint, Target::correlate}) {
    const std::vector<double> want = wanted(call, target);
    const Storage storage = std::vector{Storage::f32, Storage::bf16, Storage::f16, Storage::f32}[turn % 4];
    const Layout layout = turn++ % 4 == 3 ? Layout::every_second_column : Layout::contiguous;
    for (const Entry& entry : kEntries) {
      if (makes_combs(entry.name) && !check(entry, call, target, storage, layout, want)) return false;
    }
  }
  return true;
}

// One comb alone, some columns beside one, too few of them for the adjoint, and several bands of rows.
bool check_combs() {
  if (std::none_of(std::begin(kEntries), std::end(kEntries), [](const Entry& e) { return makes_combs(e.name); })) return true;
  const Bank wide{{10, 0, 3, 3, 3}, false, true}, narrow{{2, 0, 4, 2, 1, 2}, true, true};
  for (Padding padding : kPaddings) {
    for (Variant variant : kVariants) {
      if (!check_comb(Call(11, 128, wide, padding, variant))) return false;
      if (!check_comb(Call(6, 274, narrow, padding, variant))) return false;
    }
    if (!check_comb(Call(11, 132, wide, padding, Variant::plain))) return false;
    for (int i = 0; i < 2; ++i) {
      if (!check_comb(Call(140, 128, narrow, padding, Variant::plain))) return false;
    }
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) fault = std::atoi(arguments[1]);
  if (!check_combs()) return 1;
  for (const auto& [H, W] : kSizes) {
    for (int64_t size : {3, 5}) {
      if (!check_convolution(1, 1, H, W, size) || !check_convolution(3, 14, H, W, size)) return 1;
    }
    if (!check_convolution(18, 5, H, W, 3)) return 1;
    if (!check_thin_convolution(2, 1, H, W) || !check_thin_convolution(1, 2, H, W)) return 1;
    if (!check_attention(1, H, W) || !check_attention(5, H, W) || !check_normalization(3, H, W)) return 1;
    for (const Bank& bank : kBanks) {
      const int64_t reach = *std::max_element(bank.radii.begin(), bank.radii.end());
      for (Padding padding : kPaddings) {
        if (padding == Padding::reflect && std::min(H, W) <= reach) continue;
        for (Variant variant : kVariants) {
          if (!check_call(Call(H, W, bank, padding, variant), variant)) return 1;
        }
      }
    }
  }
  // So many tiles that several shares of them are summed.
  if (!check_convolution(20, 20, 28, 44, 5)) return 1;
  std::printf("%d calls agree with the definition\n", calls);
  return calls == 0;
}
