// 3x3 convolutions by Winograd's F(4x4, 3x3): Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
// CVPR 2016. 36 products make a tile of 4x4 pixels where the definition takes 144.
//
// A block of tiles side by side is a vector or two: one lane, one tile. What a block shares: the transforms of its
// pixels, kept for all output channels (36 x C x tiles, in L2); a group of output channels has all its sums in
// registers, one load of pixels and one broadcast of a weight to each pair of multiply-adds. Transformed weights are
// laid out in the order they are read and stream through the last level of cache once per block.
#pragma once

namespace {

constexpr int kTileRead = 6, kTileMade = 4, kPoints = kTileRead * kTileRead;
constexpr int kTileLanes = kLanes<float>;
// As many sums as registers hold: 24 of 32, or 12 of 16.
constexpr int kBlockVectors = 2, kGroup = GKM_VECTOR_BYTES == 64 ? 12 : 6;
constexpr int kBlockTiles = kBlockVectors * kTileLanes;

// B^T d along one axis.
template <class V>
GKM_INLINE void transform_pixels(const V* d, int64_t step, V* out, int64_t out_step) {
  const V d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step], d5 = d[5 * step];
  const V even = d4 - 4 * d2, odd = d3 - 4 * d1, even2 = d4 - d2, odd2 = 2 * (d3 - d1);
  out[0] = 4 * d0 - 5 * d2 + d4;
  out[out_step] = even + odd;
  out[2 * out_step] = even - odd;
  out[3 * out_step] = even2 + odd2;
  out[4 * out_step] = even2 - odd2;
  out[5 * out_step] = 4 * d1 - 5 * d3 + d5;
}

// A^T m along one axis.
template <class V>
GKM_INLINE void transform_products(const V* m, int64_t step, V* out, int64_t out_step) {
  const V sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
  const V sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
  out[0] = m[0] + sum + sum2;
  out[out_step] = difference + 2 * difference2;
  out[2 * out_step] = sum + 4 * sum2;
  out[3 * out_step] = difference + 8 * difference2 + m[5 * step];
}

// Lanes of two vectors by number, those of the second from kTileLanes on.
GKM_INLINE Vec<float> pick(Vec<float> a, Vec<float> b, Bits lanes) {
#if defined(__clang__)
  Vec<float> out;
  for (int i = 0; i < kTileLanes; ++i) out[i] = lanes[i] < kTileLanes ? a[lanes[i]] : b[lanes[i] - kTileLanes];
  return out;
#else
  return __builtin_shuffle(a, b, lanes);
#endif
}

template <class F>
GKM_INLINE Bits lanes_by(F number_of) {
  Bits lanes = {};
  for (int i = 0; i < kTileLanes; ++i) lanes[i] = uint32_t(number_of(i));
  return lanes;
}

// Four vectors of pixels side by side -> the first pixel of each tile, the second, the third, the fourth; and back.
GKM_INLINE void split_by_tile(const float* line, Vec<float> (&columns)[kTileMade]) {
  const Bits even = lanes_by([](int i) GKM_LAMBDA { return 2 * i; });
  const Bits odd = lanes_by([](int i) GKM_LAMBDA { return 2 * i + 1; });
  const Vec<float> a = load(line), b = load(line + kTileLanes), c = load(line + 2 * kTileLanes),
                   d = load(line + 3 * kTileLanes);
  const Vec<float> even_ab = pick(a, b, even), even_cd = pick(c, d, even);
  const Vec<float> odd_ab = pick(a, b, odd), odd_cd = pick(c, d, odd);
  columns[0] = pick(even_ab, even_cd, even), columns[1] = pick(odd_ab, odd_cd, even);
  columns[2] = pick(even_ab, even_cd, odd), columns[3] = pick(odd_ab, odd_cd, odd);
}

GKM_INLINE void join_tiles(const Vec<float>* columns, float* line) {
  const Bits low = lanes_by([](int i) GKM_LAMBDA { return i / 2 + i % 2 * kTileLanes; });
  const Bits high = lanes_by([](int i) GKM_LAMBDA { return kTileLanes / 2 + i / 2 + i % 2 * kTileLanes; });
  const Vec<float> low_02 = pick(columns[0], columns[2], low), high_02 = pick(columns[0], columns[2], high);
  const Vec<float> low_13 = pick(columns[1], columns[3], low), high_13 = pick(columns[1], columns[3], high);
  store(line, pick(low_02, low_13, low)), store(line + kTileLanes, pick(low_02, low_13, high));
  store(line + 2 * kTileLanes, pick(high_02, high_13, low));
  store(line + 3 * kTileLanes, pick(high_02, high_13, high));
}

// G g G^T for one kernel of 3x3.
GKM_INLINE void transform_weights(const float* g, double (&u)[kPoints]) {
  constexpr double G[kTileRead][3] = {{1 / 4., 0, 0},           {-1 / 6., -1 / 6., -1 / 6.}, {-1 / 6., 1 / 6., -1 / 6.},
                                      {1 / 24., 1 / 12., 1 / 6.}, {1 / 24., -1 / 12., 1 / 6.}, {0, 0, 1}};
  for (int i = 0; i < kTileRead; ++i)
    for (int j = 0; j < kTileRead; ++j) {
      double sum = 0;
      for (int k = 0; k < 3; ++k)
        for (int l = 0; l < 3; ++l) sum += G[i][k] * G[j][l] * g[3 * k + l];
      u[kTileRead * i + j] = sum;
    }
}

class Winograd {
 public:
  Winograd(const gkm::Convolution& form, const gkm::Runtime& runtime)
      : form_(form),
        runtime_(runtime),
        groups_((form.O + kGroup - 1) / kGroup),
        tile_rows_((form.H + kTileMade - 1) / kTileMade),
        tile_columns_((form.W + kTileMade - 1) / kTileMade),
        blocks_((tile_columns_ + kBlockTiles - 1) / kBlockTiles),
        weights_(new(std::align_val_t(64)) float[size_t(groups_ * kPoints * form.C * kGroup)]) {}
  Winograd(const Winograd&) = delete;
  ~Winograd() { ::operator delete[](weights_, std::align_val_t(64)); }

  void run() {
    runtime_.parallel_for(groups_, [](void* self, int64_t i) { static_cast<Winograd*>(self)->prepare_group(i); }, this);
    runtime_.parallel_for(form_.B * tile_rows_ * blocks_,
                          [](void* self, int64_t i) { static_cast<Winograd*>(self)->make_block(i); }, this);
  }

 private:
  using V = Vec<float>;

  // Weights of one group of output channels: [kPoints][C][kGroup], zeros beyond the last channel.
  float* group_weights(int64_t group) const { return weights_ + group * kPoints * form_.C * kGroup; }

  void prepare_group(int64_t group) {
    float* to = group_weights(group);
    for (int64_t c = 0; c < form_.C; ++c)
      for (int o = 0; o < kGroup; ++o) {
        const int64_t channel = group * kGroup + o;
        double u[kPoints] = {};
        if (channel < form_.O) transform_weights(form_.weight + (channel * form_.C + c) * 9, u);
        for (int p = 0; p < kPoints; ++p) to[(p * form_.C + c) * kGroup + o] = float(u[p]);
      }
  }

  void make_block(int64_t index) {
    const int64_t block = index % blocks_, tile_row = index / blocks_ % tile_rows_, b = index / blocks_ / tile_rows_;
    const int64_t first = block * kBlockTiles;
    // The last block may need one vector alone.
    if (tile_columns_ - first <= kTileLanes)
      make<1>(b, tile_row, first);
    else
      make<kBlockVectors>(b, tile_row, first);
  }

  template <int N>
  void make(int64_t b, int64_t tile_row, int64_t first) {
    const int64_t point_step = N * form_.C + 1;
    V* pixels = static_cast<V*>(runtime_.scratch(sizeof(V) * size_t(kPoints * (point_step + N * kGroup))));
    V* products = pixels + kPoints * point_step;
    for (int64_t c = 0; c < form_.C; ++c) read_channel<N>(b, c, tile_row, first, pixels);
    for (int64_t group = 0; group < groups_; ++group) {
      multiply<N>(group_weights(group), pixels, products);
      for (int o = 0; o < kGroup && group * kGroup + o < form_.O; ++o)
        write_channel<N>(b, group * kGroup + o, tile_row, first, products + o * N);
    }
  }

  // pixels [kPoints][C][N]: the transforms of one channel's part of the block. Points lie one vector further apart
  // than that, lest all of them fall into one set of the cache.
  template <int N>
  void read_channel(int64_t b, int64_t c, int64_t tile_row, int64_t first, V* pixels) const {
    constexpr int tiles = N * kTileLanes, length = kTileMade * tiles + 2;
    const int64_t top = kTileMade * tile_row - 1, left = kTileMade * first - 1;
    const float* plane = form_.x + b * form_.x_batch + c * form_.x_channel;
    const bool within = left >= 0 && left + length <= form_.W;
    const int64_t point_step = N * form_.C + 1;
    const Bits next = lanes_by([](int i) GKM_LAMBDA { return i + 1; });
    V columns[N][kPoints];  // [row][column of a tile]
    for (int r = 0; r < kTileRead; ++r) {
      const int64_t row = top + r;
      float padded[length];
      const float* line = padded;
      if (row < 0 || row >= form_.H) {
        for (int n = 0; n < N; ++n)
          for (int j = 0; j < kTileRead; ++j) columns[n][r * kTileRead + j] = V{};
        continue;
      }
      if (within) {
        line = plane + row * form_.x_row + left;
      } else {
        const float* from = plane + row * form_.x_row;
        for (int i = 0; i < length; ++i) padded[i] = left + i >= 0 && left + i < form_.W ? from[left + i] : 0;
      }
      V own[N + 1][kTileMade];
      for (int n = 0; n < N; ++n) split_by_tile(line + n * kTileMade * kTileLanes, own[n]);
      for (int j = 0; j < 2; ++j) own[N][j] = broadcast(line[kTileMade * tiles + j]);
      for (int n = 0; n < N; ++n) {
        for (int j = 0; j < kTileMade; ++j) columns[n][r * kTileRead + j] = own[n][j];
        for (int j = 0; j < 2; ++j) columns[n][r * kTileRead + kTileMade + j] = pick(own[n][j], own[n + 1][j], next);
      }
    }
    for (int n = 0; n < N; ++n) {
      V t[kPoints];
      for (int j = 0; j < kTileRead; ++j) transform_pixels(columns[n] + j, kTileRead, t + j, kTileRead);
      for (int i = 0; i < kTileRead; ++i)
        transform_pixels(t + i * kTileRead, 1, pixels + i * kTileRead * point_step + c * N + n, point_step);
    }
  }

  // products [kPoints][kGroup][N]: the sums over channels, point by point.
  template <int N>
  void multiply(const float* weights, const V* pixels, V* products) const {
    for (int p = 0; p < kPoints; ++p) {
      V sums[kGroup][N] = {};
      for (int64_t c = 0; c < form_.C; ++c) {
        V read[N];
        for (int n = 0; n < N; ++n) read[n] = in_register(pixels[n]);
        for (int o = 0; o < kGroup; ++o)
          for (int n = 0; n < N; ++n) sums[o][n] += weights[o] * read[n];
        weights += kGroup;
        pixels += N;
      }
      ++pixels;
      for (int o = 0; o < kGroup; ++o)
        for (int n = 0; n < N; ++n) *products++ = sums[o][n];
    }
  }

  // One output channel's part of the block, out of products that lie kGroup * N apart.
  template <int N>
  void write_channel(int64_t b, int64_t o, int64_t tile_row, int64_t first, const V* products) const {
    constexpr int length = N * kTileMade * kTileLanes;
    const V bias = broadcast(form_.bias == nullptr ? 0 : form_.bias[o]);
    V made[N][kTileMade * kTileMade];  // [row][column of a tile]
    for (int n = 0; n < N; ++n) {
      V t[kTileMade * kTileRead];
      for (int j = 0; j < kTileRead; ++j)
        transform_products(products + j * kGroup * N + n, kTileRead * kGroup * N, t + j, kTileRead);
      for (int i = 0; i < kTileMade; ++i) transform_products(t + i * kTileRead, 1, made[n] + i * kTileMade, 1);
      for (V& value : made[n]) {
        value += bias;
        if (form_.rectified) value = value < 0 ? V{} : value;
      }
    }
    const int64_t left = kTileMade * first, count = form_.W - left < length ? form_.W - left : length;
    for (int i = 0; i < kTileMade && kTileMade * tile_row + i < form_.H; ++i) {
      const int64_t at = ((b * form_.O + o) * form_.H + kTileMade * tile_row + i) * form_.W + left;
      float* row = form_.out + at;
      float whole[length];
      float* line = count == length ? row : whole;
      for (int n = 0; n < N; ++n) join_tiles(made[n] + i * kTileMade, line + n * kTileMade * kTileLanes);
      if (line == whole) __builtin_memcpy(row, whole, size_t(count) * sizeof(float));
      if (form_.added != nullptr)
        for (int64_t w = 0; w < count; ++w) row[w] += form_.added[at + w];
    }
  }

  const gkm::Convolution form_;
  const gkm::Runtime runtime_;
  const int64_t groups_, tile_rows_, tile_columns_, blocks_;
  float* weights_;
};

}  // namespace

void gkm::GKM_FOR_THIS(convolve)(const Convolution& form, const Runtime& runtime) { Winograd(form, runtime).run(); }
