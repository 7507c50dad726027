// How an image is cut into tiles, and how tiles are read from strided images and written back.
#pragma once

namespace {

constexpr int64_t kTileRows = 64;
constexpr int64_t kLeastRows = 16;

struct Tile {
  int64_t b;
  int64_t y, rows;
  int64_t x, columns;
};

// An axis of n cut into strips of `size`, but for the last, of at least `least` where there are several.
struct Strips {
  int64_t n, size, count;

  Strips(int64_t n, int64_t size, int64_t least)
      : n(n), size(size), count(n <= size ? 1 : (n - least) / size + 1) {}
  int64_t begin(int64_t i) const { return i * size; }
  int64_t length(int64_t i) const { return i + 1 < count ? size : n - i * size; }
  int64_t longest() const { return max(length(0), length(count - 1)); }
};

// Scratch is carved from one block per thread.
class Arena {
 public:
  explicit Arena(void* memory) : next_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(int64_t n) {
    T* taken = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(n);
    return taken;
  }
  template <class T>
  static size_t bytes(int64_t n) {
    return (size_t(n) * sizeof(T) + 63) / 64 * 64;
  }

 private:
  char* next_;
};

template <class S>
GKM_INLINE const S* plane(const gkm::Planes& planes, int64_t b, int64_t m, int64_t c) {
  return static_cast<const S*>(planes.data) + b * planes.batch + m * planes.map + c * planes.channel;
}

// One row of an image with its border, x - halo .. x + columns + halo, then zeros up to kTileWidth + halo. Writes up
// to a vector past that.
template <class S>
void read_row_with_halo(const S* row, int64_t stride, int64_t n, gkm::Padding padding, int64_t x, int64_t columns,
                        int64_t halo, Acc<S>* out) {
  using A = Acc<S>;
  const int64_t from = x - halo, to = x + columns + halo;
  const auto border = [&](int64_t i) {
    const int64_t source = border_index(i, n, padding);
    return source < 0 ? A(0) : to_acc(row[source * stride]);
  };
  out -= from;
  int64_t i = from;
  for (; i < min(0, to); ++i) out[i] = border(i);
  if (stride == 1) {
    for (; i < to && i + kLanes<A> <= n; i += kLanes<A>) write(out + i, load(row + i));
  }
  for (; i < min(to, n); ++i) out[i] = to_acc(row[i * stride]);
  for (; i < to; ++i) out[i] = border(i);
  for (i = to; i < x + kTileWidth<A> + halo; ++i) out[i] = A(0);
}

// Rows y .. y + rows and columns x .. x + width of a plane of a strided image, zeros beside it; width in whole vectors.
template <class S>
void read_window(const gkm::Planes& planes, const S* plane, int64_t y, int64_t rows, int64_t H, int64_t x,
                 int64_t width, int64_t W, Acc<S>* out) {
  for (int64_t k = y; k < y + rows; ++k, out += width) {
    if (k < 0 || k >= H) {
      __builtin_memset(out, 0, size_t(width) * sizeof(*out));
      continue;
    }
    const S* row = plane + k * planes.row;
    if (x >= 0 && x + width <= W && planes.column == 1) {
      for (int64_t i = 0; i < width; i += kLanes<Acc<S>>) write(out + i, load(row + x + i));
    } else {
      for (int64_t i = 0; i < width; i += kLanes<Acc<S>>) write(out + i, load_bounded(row, x + i, W, planes.column));
    }
  }
}

// Asks for a window ahead of its use: short strided rows are beyond what the processor foresees by itself.
template <class S>
void prefetch_window(const gkm::Planes& planes, const S* plane, int64_t y, int64_t rows, int64_t H, int64_t x,
                     int64_t width) {
  for (int64_t k = max(y, 0); k < min(y + rows, H); ++k) {
    const char* row = reinterpret_cast<const char*>(plane + k * planes.row + max(x, 0) * planes.column);
    for (size_t line = 0; line < size_t(width) * sizeof(S); line += 64) __builtin_prefetch(row + line, 0, 2);
  }
}

// A tile of sums, rows of kTileWidth, to a contiguous plane of the output.
template <class S>
void write_tile(const Acc<S>* sums, const Tile& tile, int64_t W, S* plane) {
  using A = Acc<S>;
  constexpr int L = kLanes<A>;
  for (int64_t k = 0; k < tile.rows; ++k) {
    S* out = plane + (tile.y + k) * W + tile.x;
    const A* row = sums + k * kTileWidth<A>;
    int64_t x = 0;
    for (; x + L <= tile.columns; x += L) store(out + x, load(row + x));
    if (x < tile.columns) store_lanes(out + x, load(row + x), tile.columns - x);
  }
}

}  // namespace
