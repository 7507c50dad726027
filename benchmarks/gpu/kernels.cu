// Times every kind of the kernels of csrc/cuda by CUDA's events, called as the binding calls them but without torch.
//
// Arguments: the kinds, each as NAME=NUMBER of `gkm::cuda::Kernels`. Prints a JSON list, a row for every case, way, op and
// kind that could serve it, in whose place others do where it cannot (off Hopper `stacked` is `banded`): the median of a few
// means over calls that take turns at several sets of inputs, and how far the first result is from that of the kernels for
// any bank, as a part of its largest.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "launch.h"
#include "numbers.cuh"

namespace {

using namespace gkm;
using cuda::Form, cuda::bf16, cuda::narrowed, cuda::widened;

constexpr int kSets = 3, kWarmUps = 3, kMeans = 5, kCalls = 12;
constexpr int64_t kColours = 3, kKernels = 22, kTaps = 21;

struct Case {
  int64_t B, H, W;
};
constexpr Case kCases[] = {{1, 1120, 1680}, {16, 256, 256}, {1, 4000, 6000}, {1, 64, 64}};

// How images and maps are stored and multiplied.
struct Way {
  const char* name;
  Storage storage;
  bool single;
  size_t size;  // of a number
};
constexpr Way kWays[] = {
    {"float32", Storage::f32, false, 4}, {"one product", Storage::f32, true, 4}, {"bfloat16", Storage::bf16, false, 2}};

struct Op {
  const char* name;
  Target target;
};
constexpr Op kOps[] = {{"blur", Target::blur}, {"blur_adjoint", Target::blur_adjoint}, {"correlate", Target::correlate}};

struct Kind {
  std::string name;
  cuda::Kernels number;

  bool serves(Target target) const {
    return name == "best" || (target == Target::blur_adjoint) == (name == "spread");
  }
};

void check(int error) {
  if (error == 0) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(cudaError_t(error)));
  std::exit(1);
}

// Memory of the GPU, until it goes.
struct Buffer {
  void* at = nullptr;

  explicit Buffer(size_t bytes) { check(cudaMalloc(&at, bytes)); }
  Buffer(Buffer&& other) : at(std::exchange(other.at, nullptr)) {}
  ~Buffer() { cudaFree(at); }
};

// Numbers between 0 and 1.
template <class S>
__global__ void fill(S* at, int64_t count, uint32_t seed) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    uint32_t bits = uint32_t(i) * 2654435761u + seed * 2246822519u;
    bits = (bits ^ bits >> 16) * 2246822519u;
    at[i] = narrowed<S>(float((bits ^ bits >> 13) >> 8) * 0x1p-24f);
  }
}

Buffer filled(const Way& way, int64_t count, uint32_t seed) {
  Buffer buffer(size_t(count) * way.size);
  if (way.storage == Storage::f32) {
    fill<<<4096, 256>>>(static_cast<float*>(buffer.at), count, seed);
  } else {
    fill<<<4096, 256>>>(static_cast<bf16*>(buffer.at), count, seed);
  }
  return buffer;
}

// The largest |a - b| and |b|, as bits of floats, which grow with them.
template <class S>
__global__ void compare(const S* a, const S* b, int64_t count, unsigned* largest) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  float most_apart = 0, most_of_b = 0;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const float of_b = widened(b[i]), apart = fabsf(widened(a[i]) - of_b);
    most_apart = fmaxf(most_apart, apart == apart ? apart : INFINITY);
    most_of_b = fmaxf(most_of_b, fabsf(of_b));
  }
  atomicMax(&largest[0], cuda::bits_of(most_apart));
  atomicMax(&largest[1], cuda::bits_of(most_of_b));
}

double difference(const Way& way, const Buffer& a, const Buffer& b, int64_t count) {
  Buffer largest(2 * sizeof(unsigned));
  check(cudaMemset(largest.at, 0, 2 * sizeof(unsigned)));
  unsigned* const at = static_cast<unsigned*>(largest.at);
  if (way.storage == Storage::f32) {
    compare<<<4096, 256>>>(static_cast<float*>(a.at), static_cast<float*>(b.at), count, at);
  } else {
    compare<<<4096, 256>>>(static_cast<bf16*>(a.at), static_cast<bf16*>(b.at), count, at);
  }
  float found[2];
  check(cudaMemcpy(found, at, sizeof found, cudaMemcpyDeviceToHost));
  return double(found[0]) / double(found[1]);
}

// GKMNet's bank: sigmas a quarter apart, sizes 1, 3, 3, 3, 5, 5, 7, 7 and so on to 21.
Buffer bank(uint16_t* radii) {
  std::vector<double> taps(kKernels * kTaps);
  for (int64_t m = 0; m < kKernels; ++m) {
    radii[m] = uint16_t(m < 2 ? m : m / 2);
    double sum = 0;
    for (int i = -radii[m]; i <= radii[m]; ++i) sum += m == 0 ? 1 : std::exp(-8.0 * i * i / double(m * m));
    for (int i = -radii[m]; i <= radii[m]; ++i) {
      taps[m * kTaps + kTaps / 2 + i] = (m == 0 ? 1 : std::exp(-8.0 * i * i / double(m * m))) / sum;
    }
  }
  Buffer buffer(taps.size() * sizeof(double));
  check(cudaMemcpy(buffer.at, taps.data(), taps.size() * sizeof(double), cudaMemcpyHostToDevice));
  return buffer;
}

double microseconds_of(const std::vector<Form>& forms) {
  cudaEvent_t start, end;
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&end));
  for (int i = 0; i < kWarmUps; ++i) check(cuda::launch(forms[i % kSets], nullptr));
  std::vector<double> means;
  for (int n = 0; n < kMeans; ++n) {
    check(cudaEventRecord(start));
    for (int i = 0; i < kCalls; ++i) check(cuda::launch(forms[i % kSets], nullptr));
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start, end));
    means.push_back(1e3 * ms / kCalls);
  }
  check(cudaEventDestroy(start));
  check(cudaEventDestroy(end));
  std::sort(means.begin(), means.end());
  return means[kMeans / 2];
}

void time_all(const Case& size, const Way& way, const std::vector<Kind>& kinds) {
  const int64_t pixels = size.H * size.W, images = size.B * kColours * pixels, maps = size.B * kKernels * pixels;
  std::vector<Buffer> x, y, coeffs;
  for (uint32_t set = 0; set < kSets; ++set) {
    x.push_back(filled(way, images, 3 * set));
    y.push_back(filled(way, images, 3 * set + 1));
    coeffs.push_back(filled(way, maps, 3 * set + 2));
  }
  const Buffer out(size_t(maps) * way.size), want(size_t(maps) * way.size);
  Form form{};
  const Buffer taps = bank(form.radii);
  form.storage = way.storage, form.single = way.single, form.padding = Padding::reflect;
  form.B = size.B, form.H = size.H, form.W = size.W, form.C = form.O = kColours, form.M = kKernels, form.K = kTaps;
  form.taps_w = form.taps_h = {taps.at, Storage::f64};
  for (const Op& op : kOps) {
    std::vector<Form> forms(kSets, form);
    for (int set = 0; set < kSets; ++set) {
      Form& of_set = forms[set];
      of_set.target = op.target, of_set.out = out.at;
      if (op.target != Target::blur_adjoint) of_set.x = {x[set].at, kColours * pixels, 0, pixels, size.W, 1};
      if (op.target != Target::blur) of_set.y = {y[set].at, kColours * pixels, 0, pixels, size.W, 1};
      if (op.target != Target::correlate) of_set.coeffs = {coeffs[set].at, kKernels * pixels, pixels, 0, size.W, 1};
    }
    Form exact = forms[0];
    exact.kernels = cuda::Kernels::generic, exact.out = want.at;
    check(cuda::launch(exact, nullptr));
    for (const Kind& kind : kinds) {
      if (!kind.serves(op.target)) continue;
      for (Form& of_set : forms) of_set.kernels = kind.number;
      check(cudaMemset(out.at, 0xff, size_t(maps) * way.size));  // NaN, lest what is not written pass
      check(cuda::launch(forms[0], nullptr));
      const double apart = difference(way, out, want, op.target == Target::correlate ? maps : images);
      static bool another = false;
      std::printf("%s{\"batch\": %d, \"height\": %d, \"width\": %d, \"way\": \"%s\", \"op\": \"%s\", \"kernels\": \"%s\", "
                  "\"microseconds\": %.2f, \"difference\": %.3g}",
                  another ? ",\n " : "[", int(size.B), int(size.H), int(size.W), way.name, op.name, kind.name.c_str(),
                  microseconds_of(forms), std::isfinite(apart) ? apart : 1e30);
      another = true;
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<Kind> kinds;
  for (int i = 1; i < count; ++i) {
    const std::string kind = arguments[i];
    const size_t sign = kind.find('=');
    kinds.push_back({kind.substr(0, sign), cuda::Kernels(std::atoi(kind.substr(sign + 1).c_str()))});
  }
  for (const Case& size : kCases) {
    for (const Way& way : kWays) time_all(size, way, kinds);
  }
  std::printf("]\n");
}
