// How an image is cut into tiles, and how tiles are read from strided images and written back.
#pragma once

namespace {

// A tile is as wide as it takes to make good use of a page once it is touched: 256 bytes.
template <class A>
constexpr int64_t kTileWidth = 256 / int64_t(sizeof(A));
// More rows would waste less of the row pass on what lies above and below, but crowd the second-level cache.
constexpr int64_t kTileRows = 48;
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

// Rows of a tile: as many as pay, but fewer where the threads would share so few tiles unevenly. There are `columns` tiles
// a row, and to begin one takes as long as `extra` rows.
GKM_INLINE int64_t tile_rows(int64_t most, int64_t least, int64_t H, int64_t columns, int64_t threads, int64_t extra) {
  const int64_t fewest = Strips(H, most, least).count;
  if (columns * fewest >= 8 * threads) return most;
  int64_t best = most, shortest = INT64_MAX;
  for (int64_t tiles = fewest; tiles <= fewest + threads; ++tiles) {
    const int64_t rows = divided(H, tiles);
    if (rows < least && tiles > fewest) break;
    const int64_t time = divided(columns * tiles, threads) * (rows + extra);
    if (time < shortest) {
      shortest = time;
      best = rows;
    }
  }
  return best;
}

// Gives each of a struct's pointers its part of the thread's scratch, from a line of the cache on: `parts` calls the
// function it is given with every pointer and how many of its type it is to have.
template <class Parts>
GKM_INLINE void carve(const gkm::Runtime& runtime, Parts&& parts) {
  size_t bytes = 0;
  const auto size_of_part = [](auto* part, int64_t n) { return (size_t(n) * sizeof(*part) + 63) / 64 * 64; };
  parts([&](auto*& part, int64_t n) { bytes += size_of_part(part, n); });
  char* next = static_cast<char*>(runtime.scratch(bytes));
  parts([&](auto*& part, int64_t n) {
    const size_t taken = size_of_part(part, n);
    part = reinterpret_cast<decltype(+part)>(next);
    next += taken;
  });
}

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
  constexpr int L = kLanes<Acc<S>>;
  const auto zeros = [&](int64_t n) {
    if (n > 0) __builtin_memset(out, 0, size_t(n * width) * sizeof(*out));
    out += max(n, 0) * width;
  };
  const int64_t from = min(max(y, 0), y + rows), to = max(min(y + rows, H), from);
  const int64_t stride = planes.row, column = planes.column;  // held here: writes through pointers might change them
  zeros(from - y);
  const S* row = plane + from * stride + x;
  if (x >= 0 && x + width <= W && column == 1) {
    for (int64_t k = from; k < to; ++k, row += stride, out += width) {
      for (int64_t i = 0; i < width; i += L) write(out + i, load(row + i));
    }
  } else {
    row -= x;
    for (int64_t k = from; k < to; ++k, row += stride, out += width) {
      for (int64_t i = 0; i < width; i += L) write(out + i, load_bounded(row, x + i, W, column));
    }
  }
  zeros(y + rows - to);
}

// Rows of a panel: row k from `at` + k * stride.
template <class A>
struct PanelRows {
  const A* at;
  int64_t stride;
};

// A plane's panel where it lies, if it can be read from there as it is; else read into `copy`.
template <class S>
PanelRows<Acc<S>> read_panel(const gkm::Planes& planes, const S* plane, int64_t y, int64_t rows, int64_t H, int64_t x,
                             int64_t W, Acc<S>* copy) {
  constexpr int64_t P = kPanel<Acc<S>>;
  if constexpr (sizeof(S) == sizeof(Acc<S>)) {
    if (planes.column == 1 && y >= 0 && y + rows <= H && x >= 0 && x + P <= W) {
      return {plane + y * planes.row + x, planes.row};
    }
  }
  read_window(planes, plane, y, rows, H, x, P, W, copy);
  return {copy, P};
}

// Where what is asked of the memory is to wait: for use at once, and else out of the way of what is used meanwhile.
enum Level { kSecondLevel = 2, kFirstLevel = 3 };

// Asks the memory for some rows of a plane ahead of their use, a few lines between any two pieces of other work: short
// strided rows are beyond what the processor foresees by itself, and all at once they are more than it can await.
template <Level kLevel>
class Ahead {
  static constexpr int64_t kLine = 64;

 public:
  Ahead() = default;
  // Rows y .. y + rows and columns x .. x + width, in so many calls of some().
  template <class S>
  Ahead(const S* plane, int64_t row_stride, int64_t y, int64_t rows, int64_t H, int64_t x, int64_t width, int64_t W,
        int64_t calls) {
    const int64_t from = max(x, 0), to = min(x + width, W) - 1, first = max(y, 0);
    if (from > to) return;
    row_ = reinterpret_cast<const char*>(plane + first * row_stride + from);
    // From the line's start, so that each line is asked for once: asking again brings nothing, and is not free.
    const int64_t in_line = int64_t(reinterpret_cast<uintptr_t>(row_) % kLine);
    row_ -= in_line;
    lines_ = (in_line + (to - from) * int64_t(sizeof(S))) / kLine + 1;
    stride_ = row_stride * int64_t(sizeof(S));
    left_ = max(min(y + rows, H) - first, 0) * lines_;
    at_once_ = divided(left_, calls);
  }

  // What so many calls are to ask for.
  GKM_INLINE void some(int64_t calls = 1) {
    for (int64_t i = min(calls * at_once_, left_); i > 0; --i, --left_) {
      __builtin_prefetch(row_ + line_ * kLine, 0, kLevel);
      if (++line_ == lines_) {
        line_ = 0;
        row_ += stride_;
      }
    }
  }

 private:
  const char* row_ = nullptr;
  int64_t lines_ = 0, line_ = 0, stride_ = 0, left_ = 0, at_once_ = 0;
};
using PanelAhead = Ahead<kSecondLevel>;

// A panel of sums to a contiguous plane of the output.
template <class S>
void write_panel(const Acc<S>* sums, const Tile& panel, int64_t W, S* plane) {
  using A = Acc<S>;
  constexpr int L = kLanes<A>;
  for (int64_t k = 0; k < panel.rows; ++k) {
    S* out = plane + (panel.y + k) * W + panel.x;
    const A* row = sums + k * kPanel<A>;
    int64_t x = 0;
    for (; x + L <= panel.columns; x += L) store(out + x, load(row + x));
    if (x < panel.columns) store_lanes(out + x, load(row + x), panel.columns - x);
  }
}

}  // namespace
