// What the kernels of the network should give, and whether they do: each by every entry, with exactly as much memory as
// it may touch.
#pragma once

#include "entries.h"

namespace gkm::tests {

constexpr gkm::Runtime kRuntime{2, run_backwards, fresh_scratch};

inline double some(int64_t i) { return double(i * 7 % 23 - 11) / 16; }

inline float* floats_in(const Block& block) { return static_cast<float*>(block.data()); }

// Numbers, in exactly as much memory.
inline Block floats(const std::vector<double>& numbers) {
  Block block(numbers.size() * 4);
  for (size_t i = 0; i < numbers.size(); ++i) floats_in(block)[i] = float(numbers[i]);
  return block;
}

// The first n of some numbers.
inline Block floats(int64_t n) {
  std::vector<double> numbers;
  for (int64_t i = 0; i < n; ++i) numbers.push_back(some(i));
  return floats(numbers);
}

// Whether what an entry made is what it should be.
inline bool right(const char* name, const Entry& entry, const int64_t (&sizes)[5], const Block& out,
                  const std::vector<double>& want) {
  double largest = 1;
  for (double value : want) largest = std::fmax(largest, std::fabs(value));
  for (size_t i = 0; i < want.size(); ++i) {
    const double got = floats_in(out)[i];
    if (std::fabs(got - want[i]) <= 2e-5 * largest) continue;
    std::printf("%s_%s: %d to %d channels, %d x %d, kernel of %d: element %zu is %g, not %g\n", name, entry.name,
                int(sizes[0]), int(sizes[1]), int(sizes[2]), int(sizes[3]), int(sizes[4]), i, got, want[i]);
    return false;
  }
  ++calls;
  return true;
}

// What a convolution and its gradients by weights and bias should be.
struct Convolved {
  std::vector<double> result, weight, bias;

  Convolved(int64_t B, int64_t C, int64_t O, int64_t H, int64_t W, int64_t size)
      : weight(O * C * size * size), bias(O) {
    const int64_t taps = size * size;
    for (int64_t i = 0; i < B * O * H * W; ++i) {
      const int64_t w = i % W, h = i / W % H, o = i / (W * H) % O, b = i / (W * H * O);
      double sum = 0;
      for (int64_t j = 0; j < C * taps; ++j) {
        const int64_t c = j / taps, row = h + j / size % size - size / 2, column = w + j % size - size / 2;
        if (row < 0 || row >= H || column < 0 || column >= W) continue;
        const double pixel = some(((b * C + c) * H + row) * W + column);
        sum += some(o * C * taps + j) * pixel;
        weight[o * C * taps + j] += some(i) * pixel;
      }
      result.push_back(sum);
      bias[o] += some(i);
    }
  }
};

// The form of a convolution or of its gradients, over contiguous x.
template <class Form>
Form convolution_over(const Block& x, int64_t B, int64_t C, int64_t O, int64_t H, int64_t W, int64_t size) {
  Form form{B, C, O, H, W, size};
  form.x = floats_in(x);
  form.x_batch = C * H * W, form.x_channel = H * W, form.x_row = W;
  return form;
}

// A convolution and its gradients by every entry, of exactly as much memory as they may touch.
inline bool check_convolution(int64_t C, int64_t O, int64_t H, int64_t W, int64_t size) {
  const int64_t B = 2, taps = size * size, sizes[] = {C, O, H, W, size};
  const Block x = floats(B * C * H * W), weight = floats(O * C * taps), bias = floats(O), grad = floats(B * O * H * W);
  Convolved want(B, C, O, H, W, size);
  for (int64_t i = 0; i < B * O * H * W; ++i) want.result[i] += some(i / (H * W) % O);
  for (const Entry& entry : kEntries) {
    if (!runs(entry.name)) continue;
    Block out(want.result.size() * 4);
    auto forward = convolution_over<gkm::Convolution>(x, B, C, O, H, W, size);
    forward.weight = floats_in(weight);
    forward.bias = floats_in(bias);
    forward.out = floats_in(out);
    entry.convolve(forward, kRuntime);
    if (!right("convolve", entry, sizes, out, want.result)) return false;
    Block out_weight(want.weight.size() * 4), out_bias(want.bias.size() * 4);
    auto form = convolution_over<gkm::ConvolutionGradient>(x, B, C, O, H, W, size);
    form.grad = floats_in(grad);
    form.weight = floats_in(out_weight);
    form.bias = floats_in(out_bias);
    entry.convolve_gradient(form, kRuntime);
    if (!right("convolve_gradient", entry, sizes, out_weight, want.weight)) return false;
    if (!right("convolve_gradient", entry, sizes, out_bias, want.bias)) return false;
  }
  return true;
}

inline bool check_thin_convolution(int64_t C, int64_t O, int64_t H, int64_t W) {
  const int64_t B = 2, sizes[] = {C, O, H, W, 7};
  const Block x = floats(B * C * H * W), weight = floats(O * C * 49), grad = floats(B * O * H * W);
  const Convolved want(B, C, O, H, W, 7);
  for (const Entry& entry : kEntries) {
    if (!runs(entry.name)) continue;
    Block out(want.result.size() * 4), out_weight(want.weight.size() * 4);
    gkm::ThinConvolution form{B, C, O, H, W};
    form.x = floats_in(x);
    form.weight = floats_in(weight);
    form.out = floats_in(out);
    entry.convolve_thin(form, kRuntime);
    if (!right("convolve_thin", entry, sizes, out, want.result)) return false;
    form.grad = floats_in(grad);
    form.out = floats_in(out_weight);
    entry.convolve_thin(form, kRuntime);
    if (!right("convolve_thin", entry, sizes, out_weight, want.weight)) return false;
  }
  return true;
}

// Three maps for each of `count`, over the axes that are pooled.
struct Maps {
  int64_t count, C, H, W;
  std::vector<double> values[3];

  Maps(int64_t B, int64_t count_, int64_t C_, int64_t H_, int64_t W_, bool filled)
      : count(count_), C(C_), H(H_), W(W_) {
    for (int64_t axis = 0; axis < 3; ++axis)
      for (int64_t i = 0; i < B * count * plane(axis); ++i) values[axis].push_back(filled ? some(i + axis) : 0);
  }
  int64_t plane(int64_t axis) const { return axis == 0 ? H * W : axis == 1 ? C * W : C * H; }
  double& at(int64_t axis, int64_t which, int64_t b, int64_t c, int64_t h, int64_t w) {
    const int64_t place = axis == 0 ? h * W + w : axis == 1 ? c * W + w : c * H + h;
    return values[axis][(b * count + which) * plane(axis) + place];
  }
};

struct MapBlocks {
  std::vector<Block> blocks;

  explicit MapBlocks(const Maps& maps, bool filled) {
    for (const std::vector<double>& values : maps.values) {
      blocks.emplace_back(values.size() * 4);
      for (size_t i = 0; filled && i < values.size(); ++i) floats_in(blocks.back())[i] = float(values[i]);
    }
  }
  gkm::AxisMaps maps() const { return {floats_in(blocks[0]), floats_in(blocks[1]), floats_in(blocks[2])}; }
};

inline bool check_attention(int64_t C, int64_t H, int64_t W) {
  using gkm::AttentionPass;
  const int64_t B = 2, n = B * C * H * W, sizes[] = {C, C, H, W, 0}, lengths[] = {C, H, W};
  const std::vector<double> features = random_numbers(n), grads = random_numbers(n);  // with maxima that are equal
  Maps pooled(B, 2, C, H, W, false), gates(B, 1, C, H, W, true), of_gates(B, 1, C, H, W, false);
  Maps ties(B, 1, C, H, W, false), of_pooled(B, 2, C, H, W, true);
  for (std::vector<double>& values : pooled.values) std::fill(values.begin(), values.end(), -INFINITY);
  const auto each = [&](auto body) {
    for (int64_t i = 0; i < n; ++i)
      for (int64_t axis = 0; axis < 3; ++axis) body(i, axis, i / (C * H * W), i / (H * W) % C, i / W % H, i % W);
  };
  std::vector<double> gated(n), grad_gated(n), grad_pooled(n);
  each([&](int64_t i, int64_t axis, int64_t b, int64_t c, int64_t h, int64_t w) {
    double &most = pooled.at(axis, 0, b, c, h, w), &mean = pooled.at(axis, 1, b, c, h, w);
    most = std::fmax(most, features[i]);
    mean = (std::isinf(mean) ? 0 : mean) + features[i] / double(lengths[axis]);
    gated[i] += features[i] * gates.at(axis, 0, b, c, h, w) / 3;
    grad_gated[i] += grads[i] * gates.at(axis, 0, b, c, h, w) / 3;
    of_gates.at(axis, 0, b, c, h, w) += grads[i] * features[i] / 3;
  });
  each([&](int64_t i, int64_t axis, int64_t b, int64_t c, int64_t h, int64_t w) {
    ties.at(axis, 0, b, c, h, w) += features[i] == pooled.at(axis, 0, b, c, h, w);
  });
  each([&](int64_t i, int64_t axis, int64_t b, int64_t c, int64_t h, int64_t w) {
    grad_pooled[i] += grads[i] / 3 + of_pooled.at(axis, 1, b, c, h, w) / double(lengths[axis]);
    if (features[i] == pooled.at(axis, 0, b, c, h, w))
      grad_pooled[i] += of_pooled.at(axis, 0, b, c, h, w) / ties.at(axis, 0, b, c, h, w);
  });

  const Block x = floats(features), grad = floats(grads);
  for (const Entry& entry : kEntries) {
    if (!runs(entry.name)) continue;
    const auto call = [&](AttentionPass pass, const std::vector<double>* want, Maps* made, Maps& taken, Maps* given) {
      Block out(size_t(n) * 4);
      const MapBlocks of_made(made == nullptr ? ties : *made, false), of_taken(taken, true);
      const MapBlocks of_grads(given == nullptr ? taken : *given, true);
      gkm::Attention form{pass, B, C, H, W};
      form.x = floats_in(x);
      form.grad = floats_in(grad);
      form.out = want == nullptr ? nullptr : floats_in(out);
      form.made = of_made.maps();
      form.taken = of_taken.maps();
      form.grads = of_grads.maps();
      entry.attend(form, kRuntime);
      bool all = want == nullptr || right("attend", entry, sizes, out, *want);
      for (int64_t axis = 0; all && made != nullptr && axis < 3; ++axis)
        all = right("attend", entry, sizes, of_made.blocks[axis], made->values[axis]);
      return all;
    };
    if (!call(AttentionPass::pool, nullptr, &pooled, gates, nullptr)) return false;
    if (!call(AttentionPass::gate, &gated, nullptr, gates, nullptr)) return false;
    if (!call(AttentionPass::gate_gradient, &grad_gated, &of_gates, gates, nullptr)) return false;
    if (!call(AttentionPass::pool_gradient, &grad_pooled, &ties, pooled, &of_pooled)) return false;
  }
  return true;
}

inline bool check_normalization(int64_t C, int64_t H, int64_t W) {
  using gkm::NormalizationPass;
  const int64_t B = 2, n = B * C * H * W, sizes[] = {C, C, H, W, 0};
  const double values = double(B * H * W);
  const Block x = floats(n), added = floats(n), grad = floats(n), weight = floats(C), bias = floats(C);
  const auto channel = [&](int64_t i) { return i / (H * W) % C; };
  std::vector<double> statistics(2 * C), inverse(C), want(n), of_x(n), of_channels(2 * C);
  for (int64_t i = 0; i < n; ++i) statistics[channel(i)] += some(i) / values;
  for (int64_t i = 0; i < n; ++i) statistics[C + channel(i)] += std::pow(some(i) - statistics[channel(i)], 2) / values;
  Block means(size_t(C) * 4), inverses(size_t(C) * 4);
  for (int64_t c = 0; c < C; ++c) {
    floats_in(means)[c] = float(statistics[c]);
    floats_in(inverses)[c] = float(inverse[c] = 1 / std::sqrt(statistics[C + c] + 0.1));
  }
  const auto shape = [&](int64_t i) { return (some(i) - statistics[channel(i)]) * inverse[channel(i)]; };
  const auto behind = [&](int64_t i) {
    const double normalized = shape(i) * some(channel(i)) + some(channel(i));
    want[i] = std::fmax(normalized, 0) + some(i);
    return normalized > 0 ? some(i) : 0;
  };
  for (int64_t i = 0; i < n; ++i) {
    of_channels[channel(i)] += behind(i) * shape(i);
    of_channels[C + channel(i)] += behind(i);
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t c = channel(i);
    of_x[i] = behind(i) - of_channels[C + c] / values - shape(i) * of_channels[c] / values;
    of_x[i] *= inverse[c] * some(c);
  }
  for (const Entry& entry : kEntries) {
    if (!runs(entry.name)) continue;
    Block out(size_t(n) * 4), channels(size_t(2 * C) * 4);
    gkm::Normalization form{NormalizationPass::statistics, B, C, H * W};
    form.x = floats_in(x);
    form.of_channels = floats_in(channels);
    entry.normalize(form, kRuntime);
    if (!right("normalize", entry, sizes, channels, statistics)) return false;
    form.pass = NormalizationPass::forward;
    form.mean = floats_in(means), form.inverse = floats_in(inverses);
    form.weight = floats_in(weight), form.bias = floats_in(bias);
    form.added = floats_in(added);
    form.out = floats_in(out);
    entry.normalize(form, kRuntime);
    if (!right("normalize", entry, sizes, out, want)) return false;
    form.pass = NormalizationPass::gradient;
    form.grad = floats_in(grad);
    entry.normalize(form, kRuntime);
    if (!right("normalize", entry, sizes, channels, of_channels)) return false;
    if (!right("normalize", entry, sizes, out, of_x)) return false;
  }
  return true;
}

}  // namespace gkm::tests
