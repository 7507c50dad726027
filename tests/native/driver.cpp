// Calls the kernels as the binding does and compares every target with the form's definition. Tasks run last first.
//
// Exits with 1 and a word on the first call that is wrong. GKM_ENTRIES lists the entries to call. The argument, if any, is
// the number of a fault that the kernels were compiled with.
#include <cstdlib>
#include <string>

#include "convolution.h"
#include "definition.h"
#include "fault.h"

namespace {

using namespace gkm::tests;
using gkm::Form, gkm::Padding, gkm::Storage, gkm::Target;

struct Entry {
  const char* name;
  void (*evaluate)(const Form&, const gkm::Runtime&);
  void (*convolve)(const gkm::Convolution&, const gkm::Runtime&);
};

bool runs(const char* name) {
#if defined(__x86_64__)
  if (std::strcmp(name, "avx2") == 0) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  }
#endif
  return std::strlen(name) > 0;
}

void run_backwards(int64_t n, void (*body)(void*, int64_t), void* context) {
  while (n-- > 0) body(context, n);
}

void* fresh_scratch(size_t bytes) {
  static Block block;
  block = Block(bytes);
  return block.data();
}

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

#define GKM_ENTRY(name) {#name, gkm::evaluate_##name, gkm::convolve_##name},
constexpr Entry kEntries[] = {GKM_ENTRIES};

int calls = 0;

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

// A 3x3 convolution by every entry, of exactly as much memory as it may touch.
bool check_convolution(int64_t C, int64_t O, int64_t H, int64_t W) {
  const int64_t B = 2;
  const auto some = [](int64_t i) { return double(i * 7 % 23 - 11) / 16; };
  Block x(size_t(B * C * H * W) * 4), weight(size_t(O * C * 9) * 4), bias(size_t(O) * 4);
  const auto fill = [&](Block& block, int64_t n) {
    for (int64_t i = 0; i < n; ++i) static_cast<float*>(block.data())[i] = float(some(i));
  };
  fill(x, B * C * H * W), fill(weight, O * C * 9), fill(bias, O);
  std::vector<double> want;
  for (int64_t i = 0; i < B * O * H * W; ++i) {
    const int64_t w = i % W, h = i / W % H, o = i / (W * H) % O, b = i / (W * H * O);
    double sum = some(o);
    for (int64_t j = 0; j < C * 9; ++j) {
      const int64_t c = j / 9, row = h + j / 3 % 3 - 1, column = w + j % 3 - 1;
      if (row < 0 || row >= H || column < 0 || column >= W) continue;
      sum += some(o * C * 9 + j) * some(((b * C + c) * H + row) * W + column);
    }
    want.push_back(sum);
  }
  for (const Entry& entry : kEntries) {
    if (!runs(entry.name)) continue;
    Block out(want.size() * 4);
    gkm::Convolution form{B, C, O, H, W};
    form.x = static_cast<const float*>(x.data());
    form.x_batch = C * H * W, form.x_channel = H * W, form.x_row = W;
    form.weight = static_cast<const float*>(weight.data());
    form.bias = static_cast<const float*>(bias.data());
    form.out = static_cast<float*>(out.data());
    entry.convolve(form, gkm::Runtime{2, run_backwards, fresh_scratch});
    for (size_t i = 0; i < want.size(); ++i) {
      const double got = static_cast<const float*>(out.data())[i];
      if (std::fabs(got - want[i]) <= 1e-4) continue;
      std::printf("convolve_%s: %d to %d channels, %d x %d: element %zu is %g, not %g\n", entry.name, int(C), int(O),
                  int(H), int(W), i, got, want[i]);
      return false;
    }
    ++calls;
  }
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) fault = std::atoi(arguments[1]);
  for (const auto& [H, W] : kSizes) {
    if (!check_convolution(1, 1, H, W) || !check_convolution(3, 14, H, W)) return 1;
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
  std::printf("%d calls agree with the definition\n", calls);
  return calls == 0;
}
