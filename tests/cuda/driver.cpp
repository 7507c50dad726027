// Calls the CUDA kernels as the binding does, on a processor, and compares every target with the form's definition.
//
// Arguments: a number of calls to leave out after each that is made, and the storage type of all calls (0 to 3), or -1
// for all in turn. Exits with 1 and a word on the first call that is wrong.
#include <cstdlib>

#include "../native/definition.h"
#include "launch.h"
#include "numbers.cuh"

namespace {

using namespace gkm::tests;
using gkm::Padding, gkm::Storage, gkm::Target;
using gkm::cuda::Form, gkm::cuda::Table;

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
  bool generic;
};

bool check(const Call& call, Target target, const Way& way, const std::vector<double>& want) {
  const bool wide = way.storage == Storage::f64;
  const Storage out_storage = !sums_over_pixels(target) ? way.storage : wide ? Storage::f64 : Storage::f32;
  Block out(want.size() * size_of(out_storage)), taps_w, taps_h, mix;
  Form form{};
  const Buffers buffers = describe(form, call, target, way.storage, way.layout);
  if (target != Target::grad_taps_w) form.taps_w = encoded(call.taps_w, way.parameters, taps_w);
  if (target != Target::grad_taps_h) form.taps_h = encoded(call.taps_h, way.parameters, taps_h);
  if (call.with_mix && target != Target::grad_mix) form.mix = encoded(call.mix, way.parameters, mix);
  std::copy(call.radii.begin(), call.radii.end(), form.radii);
  form.out = out.data();
  form.generic = way.generic;
  const Block workspace(gkm::cuda::workspace_bytes(form));
  form.workspace = workspace.data();
  gkm::shim::order = way.order;
  if (gkm::cuda::launch(form, nullptr) != 0) {
    std::printf("target %d is refused\n", int(target));
    return false;
  }
  const char* const name = way.generic ? "the kernels for any bank" : "the best kernels";
  return agrees(name, call, target, way.storage, way.layout, out, out_storage, want);
}

int64_t calls = 0, skipped = 0;

// Every target of one call, in ways that take turns.
bool check_call(const Call& call, int64_t leave_out, int64_t storage) {
  return each_target(call, [&](Target target) {
    if (target == Target::ridge_dual && call.C > 4) return true;  // of so many colours it is not for these kernels
    if (skipped++ % (leave_out + 1) != 0) return true;
    Way way;
    way.storage = Storage(storage < 0 ? calls % 4 : storage);
    if (target == Target::ridge_dual || !call.exact_images) way.storage = Storage(int(way.storage) % 2);
    way.parameters = call.exact_parameters ? Storage(calls / 4 % 4) : Storage::f64;
    way.layout = Layout(calls / 2 % 3);
    way.order = gkm::shim::Order(calls / 3 % 3);
    const std::vector<double> want = wanted(call, target);
    for (bool generic : {true, false}) {
      way.generic = generic;
      if (!check(call, target, way, want)) return false;
    }
    ++calls;
    return true;
  });
}

}  // namespace

int main(int, char** arguments) {
  const int64_t leave_out = std::atoll(arguments[1]), storage = std::atoll(arguments[2]);
  const auto visit = [&](const Call& call) { return check_call(call, leave_out, storage); };
  if (!each_call(visit)) return 1;
  // More samples in a row than are staged at a time; more colours than a block sums.
  const Bank large{{18, 1}, false, false}, own{{2, 0, 1, 3, 1, 0, 0, 2, 1, 1}, true, false};
  for (Variant variant : kVariants) {
    if (!visit(Call(45, 50, large, Padding::reflect, variant))) return 1;
    if (!visit(Call(6, 40, own, Padding::replicate, variant, 5))) return 1;
  }
  // The published bank, in symmetric taps and others.
  Bank published{{0, 1}, false, true};
  for (int64_t m = 2; m < 22; ++m) published.radii.push_back(m / 2);
  for (const auto& [H, W] : {std::pair<int64_t, int64_t>{11, 19}, {45, 70}}) {
    for (Padding padding : kPaddings) {
      for (Variant variant : kVariants) {
        published.symmetric = !published.symmetric;
        Call call(H, W, published, padding, variant, 3);
        if (variant == Variant::plain || variant == Variant::with_mix) call.refine();
        if (!visit(call)) return 1;
      }
    }
  }
  std::printf("%d calls agree with the definition\n", int(calls));
  return calls == 0;
}
