// Convolutions of 3x3 and 5x5 through Winograd's transforms (winograd_transforms.h).
//
// A lane is a tile, a vector some tiles side by side, or of several rows where the rows are short. Two vectors make a
// block. What a block shares: the transforms of its pixels, kept for all output channels (36 or 64 x C x tiles, in L2);
// a group of output channels has all its sums in registers, one load of pixels and one broadcast of a weight to each
// pair of multiply-adds. Transformed weights are laid out in the order they are read and stream through the last level
// of cache once per block.
#pragma once

namespace {

constexpr int kTileLanes = kLanes<float>;
// As many sums as registers hold, with few left over of 32, 44, 64, 76, 128 or 176 channels: 22 of 32, or 12 of 16.
constexpr int kBlockVectors = 2, kGroup = GKM_VECTOR_BYTES == 64 ? 11 : 6;

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
GKM_INLINE void split_by_tile(const Vec<float> (&line)[kTileMade], Vec<float> (&columns)[kTileMade]) {
  const Bits even = lanes_by([](int i) GKM_LAMBDA { return 2 * i; });
  const Bits odd = lanes_by([](int i) GKM_LAMBDA { return 2 * i + 1; });
  const Vec<float> even_ab = pick(line[0], line[1], even), even_cd = pick(line[2], line[3], even);
  const Vec<float> odd_ab = pick(line[0], line[1], odd), odd_cd = pick(line[2], line[3], odd);
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

template <int Size>
class Winograd {
 public:
  Winograd(const gkm::Convolution& form, const gkm::Runtime& runtime)
      : form_(form),
        runtime_(runtime),
        groups_(divided(form.O, kGroup)),
        tile_rows_(divided(form.H, kTileMade)),
        tile_columns_(divided(form.W, kTileMade)),
        rows_together_(rows_together(tile_columns_)),
        row_tiles_(kTileLanes / rows_together_),
        vectors_in_row_(divided(tile_columns_, row_tiles_)),
        vectors_(divided(form.B * tile_rows_, rows_together_) * vectors_in_row_),
        weights_(new(std::align_val_t(64)) float[size_t(groups_ * kPoints * form.C * kGroup)]) {}
  Winograd(const Winograd&) = delete;
  ~Winograd() { ::operator delete[](weights_, std::align_val_t(64)); }

  void run() {
    runtime_.parallel_for(groups_, [](void* self, int64_t i) { static_cast<Winograd*>(self)->prepare_group(i); }, this);
    runtime_.parallel_for(divided(vectors_, kBlockVectors),
                          [](void* self, int64_t i) { static_cast<Winograd*>(self)->make_block(i); }, this);
  }

 private:
  using V = Vec<float>;

  static constexpr int kRead = kTileRead<Size>, kPoints = kTilePoints<Size>, kHalo = Size / 2;
  static constexpr int kColumns = kTileMade * kTileLanes;

  // How many rows of tiles a vector holds.
  static int rows_together(int64_t tile_columns) {
    int rows = 1;
    while (rows < kTileLanes && 2 * rows * tile_columns <= kTileLanes) rows *= 2;
    return rows;
  }

  // Weights of one group of output channels: [kPoints][C][kGroup], zeros beyond the last channel.
  float* group_weights(int64_t group) const { return weights_ + group * kPoints * form_.C * kGroup; }

  void prepare_group(int64_t group) {
    float* to = group_weights(group);
    for (int64_t c = 0; c < form_.C; ++c)
      for (int o = 0; o < kGroup; ++o) {
        const int64_t channel = group * kGroup + o;
        double u[kPoints] = {};
        if (channel < form_.O) transform_weights<Size>(form_.weight + (channel * form_.C + c) * Size * Size, u);
        for (int p = 0; p < kPoints; ++p) to[(p * form_.C + c) * kGroup + o] = float(u[p]);
      }
  }

  void make_block(int64_t block) {
    const int64_t first = block * kBlockVectors;
    if (first + kBlockVectors <= vectors_)
      make<kBlockVectors>(first);
    else
      make<1>(first);  // what is left over
  }

  template <int N>
  void make(int64_t first) {
    const int64_t point_step = N * form_.C + 1;
    V* pixels = static_cast<V*>(runtime_.scratch(sizeof(V) * size_t(kPoints * (point_step + N * kGroup))));
    V* products = pixels + kPoints * point_step;
    Tiles tiles[N];
    for (int n = 0; n < N; ++n) place(first + n, tiles[n]);
    for (int64_t c = 0; c < form_.C; ++c)
      for (int n = 0; n < N; ++n) read_channel(tiles[n], c, pixels + c * N + n, point_step);
    for (int64_t group = 0; group < groups_; ++group) {
      multiply<N>(group_weights(group), pixels, products);
      for (int o = 0; o < kGroup && group * kGroup + o < form_.O; ++o)
        for (int n = 0; n < N; ++n) write_channel(tiles[n], group * kGroup + o, products + o * N + n, kGroup * N);
    }
  }

  // Where a vector's tiles lie: row by row, the first value that is made; b may be beyond the last image.
  struct Place {
    int64_t b, top, left;
  };
  using Tiles = Place[kTileLanes];
  void place(int64_t vector, Tiles& rows) const {
    for (int64_t i = 0; i < rows_together_; ++i) {
      const int64_t row = vector / vectors_in_row_ * rows_together_ + i;
      rows[i] = {row / tile_rows_, kTileMade * (row % tile_rows_), kTileMade * (vector % vectors_in_row_) * row_tiles_};
    }
  }

  // Row r of the pixels of one row of tiles; null beyond the border.
  const float* row_of(const Place& place, int64_t c, int r) const {
    const int64_t row = place.top - kHalo + r;
    if (place.b >= form_.B || row < 0 || row >= form_.H) return nullptr;
    return form_.x + place.b * form_.x_batch + c * form_.x_channel + row * form_.x_row;
  }
  float pixel(const float* row, int64_t w) const { return row != nullptr && w >= 0 && w < form_.W ? row[w] : 0; }

  // Row r of the pixels of each tile, column by column: the tile's own, and those of the halo, which are the next
  // tile's first.
  GKM_INLINE void read_row(const Tiles& tiles, int64_t c, int r, V (&own)[kTileMade], V (&next)[kTileMade]) const {
    const Bits following = lanes_by([](int i) GKM_LAMBDA { return i + 1; });
    V line[kTileMade] = {};
    if (rows_together_ == 1) {
      const float* row = row_of(tiles[0], c, r);
      const int64_t left = tiles[0].left - kHalo;
      if (row != nullptr)
        for (int i = 0; i < kTileMade; ++i) line[i] = load_bounded(row, left + i * kTileLanes, form_.W, 1);
      split_by_tile(line, own);
      for (int j = 0; j < Size - 1; ++j) next[j] = pick(own[j], broadcast(pixel(row, left + kColumns + j)), following);
    } else {
      const int64_t length = kTileMade * row_tiles_;
      float lines[2][kColumns + kTileLanes];
      for (int64_t i = 0; i < rows_together_; ++i) {
        const float* row = row_of(tiles[i], c, r);
        for (int64_t w = 0; w < length; w += kTileLanes) {
          const int64_t at = w - kHalo;  // what is too much, the next row writes over
          store(lines[0] + i * length + w, row == nullptr ? V{} : load_bounded(row, at, form_.W, 1));
          store(lines[1] + i * length + w, row == nullptr ? V{} : load_bounded(row, at + kTileMade, form_.W, 1));
        }
      }
      for (int i = 0; i < kTileMade; ++i) line[i] = load(lines[0] + i * kTileLanes);
      split_by_tile(line, own);
      for (int i = 0; i < kTileMade; ++i) line[i] = load(lines[1] + i * kTileLanes);
      split_by_tile(line, next);
    }
  }

  // Transforms of one channel of a vector's tiles: pixels [kPoints], point_step apart. Points lie one vector further
  // apart than the channels take, lest all of them fall into one set of the cache.
  void read_channel(const Tiles& tiles, int64_t c, V* pixels, int64_t point_step) const {
    V columns[kPoints];  // [row][column of a tile]
    for (int r = 0; r < kRead; ++r) {
      V own[kTileMade], next[kTileMade];
      read_row(tiles, c, r, own, next);
      for (int j = 0; j < kTileMade; ++j) columns[r * kRead + j] = own[j];
      for (int j = 0; j < Size - 1; ++j) columns[r * kRead + kTileMade + j] = next[j];
    }
    V t[kPoints];
    for (int j = 0; j < kRead; ++j) transform_pixels<Size>(columns + j, kRead, t + j, kRead);
    for (int i = 0; i < kRead; ++i)
      transform_pixels<Size>(t + i * kRead, 1, pixels + i * kRead * point_step, point_step);
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

  // One output channel of a vector's tiles, out of products that lie `step` apart.
  void write_channel(const Tiles& tiles, int64_t o, const V* products, int64_t step) const {
    const V bias = broadcast(form_.bias == nullptr ? 0 : form_.bias[o]);
    V t[kTileMade * kRead], made[kTileMade * kTileMade];  // [row][column of a tile]
    for (int j = 0; j < kRead; ++j) transform_products<Size>(products + j * step, kRead * step, t + j, kRead);
    for (int i = 0; i < kTileMade; ++i) transform_products<Size>(t + i * kRead, 1, made + i * kTileMade, 1);
    for (V& value : made) {
      value += bias;
      if (form_.rectified) value = value < 0 ? V{} : value;
    }
    const int64_t length = kTileMade * row_tiles_;
    for (int64_t p = 0; p < rows_together_ && tiles[p].b < form_.B; ++p) {
      const Place& place = tiles[p];
      const int64_t count = form_.W - place.left < length ? form_.W - place.left : length;
      for (int i = 0; i < kTileMade && place.top + i < form_.H; ++i) {
        const int64_t at = ((place.b * form_.O + o) * form_.H + place.top + i) * form_.W + place.left;
        float* row = form_.out + at;
        float whole[kColumns];
        join_tiles(made + i * kTileMade, count == kColumns ? row : whole);
        if (count < kColumns) __builtin_memcpy(row, whole + p * length, size_t(count) * sizeof(float));
        if (form_.added != nullptr)
          for (int64_t w = 0; w < count; ++w) row[w] += form_.added[at + w];
      }
    }
  }

  const gkm::Convolution form_;
  const gkm::Runtime runtime_;
  const int64_t groups_, tile_rows_, tile_columns_, rows_together_, row_tiles_, vectors_in_row_, vectors_;
  float* weights_;
};

}  // namespace

void gkm::GKM_FOR_THIS(convolve)(const Convolution& form, const Runtime& runtime) {
  if (form.size == 3)
    Winograd<3>(form, runtime).run();
  else
    Winograd<5>(form, runtime).run();
}
