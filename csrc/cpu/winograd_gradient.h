// Gradients of convolutions of 3x3 and 5x5 by their weights, through Winograd's transforms (winograd_transforms.h).
//
// One lane is one channel. A block of tiles is transformed for all channels (in L2), then a product of matrices for
// each point adds it to the sums, which a group of output channels holds in registers. The tiles are shared out in a
// way that depends on the sizes alone, and the shares' sums are added in order: so the bits are the same on any number
// of threads.
#pragma once

namespace {

// Row i, lane j -> row j, lane i.
GKM_INLINE void transpose(Vec<float> (&rows)[kTileLanes]) {
  const Bits low = lanes_by([](int i) GKM_LAMBDA { return i / 2 + i % 2 * kTileLanes; });
  const Bits high = lanes_by([](int i) GKM_LAMBDA { return kTileLanes / 2 + i / 2 + i % 2 * kTileLanes; });
  for (int step = 1; step < kTileLanes; step *= 2) {
    Vec<float> shuffled[kTileLanes];
    for (int i = 0; i < kTileLanes / 2; ++i) {
      shuffled[2 * i] = pick(rows[i], rows[i + kTileLanes / 2], low);
      shuffled[2 * i + 1] = pick(rows[i], rows[i + kTileLanes / 2], high);
    }
    for (int i = 0; i < kTileLanes; ++i) rows[i] = shuffled[i];
  }
}

template <int Size>
class WinogradGradient {
 public:
  WinogradGradient(const gkm::ConvolutionGradient& form, const gkm::Runtime& runtime)
      : form_(form),
        runtime_(runtime),
        vectors_x_(divided(form.C, kTileLanes)),
        vectors_grad_(divided(form.O, kTileLanes)),
        tile_rows_(divided(form.H, kTileMade)),
        pieces_in_row_(divided(form.W, kMostVectors * kTileLanes)),
        piece_columns_(divided(form.W, pieces_in_row_ * kTileLanes) * kTileLanes),
        piece_tiles_(piece_columns_ / kTileMade),
        pieces_(form.B * tile_rows_ * pieces_in_row_),
        block_pieces_(pieces_in_block()),
        blocks_(divided(pieces_, block_pieces_)),
        share_vectors_(vectors_grad_ * (kTileLanes * kPoints * vectors_x_ + 1)),
        shares_(number_of_shares()),
        sums_(new(std::align_val_t(64)) V[size_t(shares_ * share_vectors_)]) {}
  WinogradGradient(const WinogradGradient&) = delete;
  ~WinogradGradient() { ::operator delete[](sums_, std::align_val_t(64)); }

  void run() {
    const auto sum = [](void* self, int64_t i) { static_cast<WinogradGradient*>(self)->sum_share(i); };
    const auto write = [](void* self, int64_t o) { static_cast<WinogradGradient*>(self)->write_channel(o); };
    runtime_.parallel_for(shares_, sum, this);
    runtime_.parallel_for(form_.O, write, this);
  }

 private:
  using V = Vec<float>;

  static constexpr int kRead = kTileRead<Size>, kPoints = kTilePoints<Size>, kHalo = Size / 2;
  // A piece of a row of tiles is a few vectors wide; its pixels take one vector more, for the halo.
  static constexpr int kMostVectors = 4, kMostColumns = (kMostVectors + 1) * kTileLanes;
  // Sums in registers: 16 of 32, or 8 of 16.
  static constexpr int kRows = GKM_VECTOR_BYTES == 64 ? 8 : 4, kVectors = 2;

  // A block's transforms should stay in L2 while they are multiplied.
  int64_t pieces_in_block() const {
    constexpr int64_t kBytes = 1 << 20, kLeastTiles = 32;
    const int64_t tiles = kBytes / (kPoints * (vectors_x_ + vectors_grad_) * int64_t(sizeof(V)));
    return divided(tiles > kLeastTiles ? tiles : kLeastTiles, piece_tiles_);
  }

  // What the shares' sums take, and what it takes to add them up, should be little beside the work. A power of two, as
  // the number of threads often is.
  int64_t number_of_shares() const {
    constexpr int64_t kBytes = 20 << 20, kMost = 32;
    int64_t shares = 1;
    while (2 * shares <= kMost && 2 * shares <= blocks_ && 2 * shares * share_vectors_ * int64_t(sizeof(V)) <= kBytes)
      shares *= 2;
    return shares;
  }

  // Sums of one share: [kPoints][group of kRows output channels][vector of channels][kRows], then those of the bias.
  V* sums_of(int64_t share) const { return sums_ + share * share_vectors_; }
  int64_t at(int64_t point, int64_t o) const {
    return (point * vectors_grad_ * kTileLanes + o / kRows * kRows) * vectors_x_ + o % kRows;
  }

  void sum_share(int64_t share) {
    const int64_t first = share * blocks_ / shares_, last = (share + 1) * blocks_ / shares_;
    V* sums = sums_of(share);
    for (int64_t i = 0; i < share_vectors_; ++i) sums[i] = V{};
    for (int64_t block = first; block < last; ++block) add_block(block * block_pieces_, sums);
  }

  // Transforms lie [kPoints][vector of channels][tile], points one vector further apart than that, lest all of them
  // fall into one set of the cache.
  void add_block(int64_t first, V* sums) {
    const int64_t left = pieces_ - first, count = left < block_pieces_ ? left : block_pieces_;
    const int64_t tiles = count * piece_tiles_, step_x = vectors_x_ * tiles + 1, step_grad = vectors_grad_ * tiles + 1;
    V* of_x = static_cast<V*>(runtime_.scratch(sizeof(V) * size_t(kPoints * (step_x + step_grad))));
    V* of_grad = of_x + kPoints * step_x;
    for (int64_t v = 0; v < vectors_x_; ++v) read_pixels(v, first, count, of_x + v * tiles, step_x);
    for (int64_t v = 0; v < vectors_grad_; ++v) read_gradients(v, first, count, of_grad + v * tiles, step_grad);
    for (int64_t point = 0; point < kPoints; ++point, of_x += step_x, of_grad += step_grad) {
      for (int64_t o = 0; o < vectors_grad_ * kTileLanes; o += kRows) {
        const float* grad = reinterpret_cast<const float*>(of_grad + o / kTileLanes * tiles) + o % kTileLanes;
        int64_t v = 0;
        for (; v + kVectors <= vectors_x_; v += kVectors)
          multiply<kVectors>(grad, of_x + v * tiles, tiles, sums + at(point, o) + v * kRows);
        for (; v < vectors_x_; ++v) multiply<1>(grad, of_x + v * tiles, tiles, sums + at(point, o) + v * kRows);
      }
      if (point != kRead + 1) continue;
      // At 1 along both axes, a polynomial's value is the sum of its coefficients.
      V* bias = sums + at(kPoints, 0);
      for (int64_t v = 0; v < vectors_grad_; ++v)
        for (int64_t t = 0; t < tiles; ++t) bias[v] += of_grad[v * tiles + t];
    }
  }

  // sums [N][kRows]: of N vectors of channels.
  template <int N>
  GKM_INLINE void multiply(const float* grad, const V* x, int64_t tiles, V* sums) const {
    V of_rows[N][kRows] = {};
    for (int64_t t = 0; t < tiles; ++t, grad += kTileLanes) {
      V read[N];
      for (int n = 0; n < N; ++n) read[n] = in_register(x[n * tiles + t]);
      for (int r = 0; r < kRows; ++r)
        for (int n = 0; n < N; ++n) of_rows[n][r] += grad[r] * read[n];
    }
    for (int n = 0; n < N; ++n)
      for (int r = 0; r < kRows; ++r) sums[n * kRows + r] += of_rows[n][r];
  }

  struct Place {
    int64_t b, row, column;  // of the first value of the piece's first tile
  };
  Place place_of(int64_t piece) const {
    const int64_t row = piece / pieces_in_row_;
    return {row / tile_rows_, row % tile_rows_ * kTileMade, piece % pieces_in_row_ * piece_columns_};
  }

  // A vector of channels of x: the pixels of every tile.
  void read_pixels(int64_t vector, int64_t first, int64_t count, V* out, int64_t step) const {
    V pixels[kRead][kMostColumns];
    for (int64_t piece = first; piece < first + count; ++piece) {
      const Place place = place_of(piece);
      const float* planes = form_.x + place.b * form_.x_batch + vector * kTileLanes * form_.x_channel;
      read_piece(planes, form_.x_channel, form_.x_row, form_.C - vector * kTileLanes, place.row - kHalo,
                 place.column - kHalo, piece_columns_ + kTileLanes, pixels);
      for (int64_t tile = 0; tile < piece_tiles_; ++tile, ++out) {
        V t[kPoints];
        for (int j = 0; j < kRead; ++j)
          transform_pixels<Size>(pixels[0] + tile * kTileMade + j, kMostColumns, t + j, kRead);
        for (int j = 0; j < kRead; ++j) transform_pixels<Size>(t + j * kRead, 1, out + j * kRead * step, step);
      }
    }
  }

  // A vector of channels of the gradient: the values of every tile.
  void read_gradients(int64_t vector, int64_t first, int64_t count, V* out, int64_t step) const {
    V values[kTileMade][kMostColumns];
    const int64_t plane = form_.H * form_.W;
    for (int64_t piece = first; piece < first + count; ++piece) {
      const Place place = place_of(piece);
      const float* planes = form_.grad + (place.b * form_.O + vector * kTileLanes) * plane;
      read_piece(planes, plane, form_.W, form_.O - vector * kTileLanes, place.row, place.column, piece_columns_, values);
      for (int64_t tile = 0; tile < piece_tiles_; ++tile, ++out) {
        V t[kRead * kTileMade];
        for (int j = 0; j < kTileMade; ++j)
          transform_gradients<Size>(values[0] + tile * kTileMade + j, kMostColumns, t + j, kTileMade);
        for (int j = 0; j < kRead; ++j)
          transform_gradients<Size>(t + j * kTileMade, 1, out + j * kRead * step, step);
      }
    }
  }

  // So many rows and columns of a vector of channels, zeros beyond the last channel and the border: out, one lane a
  // channel.
  template <int Rows>
  void read_piece(const float* planes, int64_t channel_step, int64_t row_step, int64_t channels, int64_t top,
                  int64_t left, int64_t columns, V (&out)[Rows][kMostColumns]) const {
    float lines[Rows][kTileLanes][kMostColumns + kTileLanes];
    const int64_t from = left < 0 ? -left : 0, end = form_.W - left < columns ? form_.W - left : columns;
    for (int lane = 0; lane < kTileLanes; ++lane)
      for (int r = 0; r < Rows; ++r) {
        float* line = lines[r][lane];
        const bool inside = lane < channels && top + r >= 0 && top + r < form_.H;
        const int64_t to = inside && end > from ? end : from;
        const float* row = planes + lane * channel_step + (top + r) * row_step + left;
        for (int64_t i = 0; i < from; ++i) line[i] = 0;
        for (int64_t i = from; i < to; ++i) line[i] = row[i];
        for (int64_t i = to; i < columns; ++i) line[i] = 0;
      }
    for (int r = 0; r < Rows; ++r)
      for (int64_t j = 0; j < columns; j += kTileLanes) {
        V square[kTileLanes];
        for (int lane = 0; lane < kTileLanes; ++lane) square[lane] = load(lines[r][lane] + j);
        transpose(square);
        for (int i = 0; i < kTileLanes; ++i) out[r][j + i] = square[i];
      }
  }

  // The gradients of one output channel, out of all shares' sums.
  void write_channel(int64_t o) {
    float* to = form_.weight + o * form_.C * Size * Size;
    for (int64_t v = 0; v < vectors_x_; ++v) {
      V sums[kPoints], t[Size * kRead], taps[Size * Size];
      for (int point = 0; point < kPoints; ++point) sums[point] = total(at(point, o) + v * kRows);
      for (int j = 0; j < kRead; ++j) gather_taps<Size>(sums + j, kRead, t + j, kRead);
      for (int k = 0; k < Size; ++k) gather_taps<Size>(t + k * kRead, 1, taps + k * Size, 1);
      for (int lane = 0; lane < kTileLanes && v * kTileLanes + lane < form_.C; ++lane)
        for (const V& tap : taps) *to++ = tap[lane];
    }
    if (form_.bias != nullptr) form_.bias[o] = total(at(kPoints, 0) + o / kTileLanes)[o % kTileLanes];
  }

  V total(int64_t at) const {
    V sum = sums_of(0)[at];
    for (int64_t share = 1; share < shares_; ++share) sum += sums_of(share)[at];
    return sum;
  }

  const gkm::ConvolutionGradient form_;
  const gkm::Runtime runtime_;
  const int64_t vectors_x_, vectors_grad_, tile_rows_, pieces_in_row_, piece_columns_, piece_tiles_;
  const int64_t pieces_, block_pieces_, blocks_, share_vectors_, shares_;
  V* sums_;
};

}  // namespace

void gkm::GKM_FOR_THIS(convolve_gradient)(const ConvolutionGradient& form, const Runtime& runtime) {
  if (form.size == 3)
    WinogradGradient<3>(form, runtime).run();
  else
    WinogradGradient<5>(form, runtime).run();
}
