// The bank as the passes want it: kernels in order of radius, taps in the accumulation type, equal halves found.
#pragma once

namespace {

GKM_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
GKM_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }

// Where the sample at index i + offset of an axis of n comes from; -1 is a zero. Any |offset| < n reflects right.
GKM_INLINE int64_t border_index(int64_t i, int64_t n, gkm::Padding padding) {
  if (__builtin_expect(i >= 0 && i < n, 1)) return i;
  if (padding == gkm::Padding::zeros) return -1;
  if (padding == gkm::Padding::replicate) return i < 0 ? 0 : n - 1;
  return i < 0 ? -i : 2 * (n - 1) - i;
}

// The kernels of one colour. Arrays live in a Memory that outlives it.
//
// Along the width a kernel is a sum over terms. Where every kernel is symmetric, a term is the pair sum
// x[-j] + x[j], j = 0 .. radius, which all kernels share; otherwise it is one sample, j = -radius .. radius.
template <class A>
struct Bank {
  int64_t M;
  int64_t radius;        // the largest
  bool symmetric;        // along the width
  int64_t terms;         // of the largest kernel, along the width
  const int64_t* kernel; // [M] each one's index in the form
  int64_t* radii;        // [M] in that order
  int64_t* first;        // [radius + 2] the first kernel with a radius of at least r, where they ascend
  A* taps_w;             // [M, terms], centred on the middle term where not symmetric
  A* taps_w_by_term;     // [terms, M]
  A* taps_h;             // [M, 2 * radius + 1], from the start: taps_h[m][0 .. 2 * radii[m]]
  A* taps_h_reversed;    // likewise
};

// Bump allocation of small tables from the heap, freed together.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    while (blocks_ != nullptr) {
      void* next = *static_cast<void**>(blocks_);
      __builtin_free(blocks_);
      blocks_ = next;
    }
  }

  template <class T>
  T* zeroed(int64_t n) {
    void* block = __builtin_calloc(1, kHeader + size_t(n > 0 ? n : 1) * sizeof(T));
    if (block == nullptr) throw std::bad_alloc();
    *static_cast<void**>(block) = blocks_;
    blocks_ = block;
    return reinterpret_cast<T*>(static_cast<char*>(block) + kHeader);
  }

 private:
  static constexpr size_t kHeader = 64;
  void* blocks_ = nullptr;
};

// The kernels by ascending radius, that of a kernel being its largest in banks from .. to.
inline const int64_t* kernel_order(const gkm::Form& form, int64_t from, int64_t to, Memory& memory) {
  int64_t* order = memory.zeroed<int64_t>(form.M);
  int64_t* radii = memory.zeroed<int64_t>(form.M);
  for (int64_t m = 0; m < form.M; ++m) {
    for (int64_t c = from; c < to; ++c) radii[m] = max(radii[m], form.radii[c * form.M + m]);
    int64_t place = m;
    for (; place > 0 && radii[order[place - 1]] > radii[m]; --place) order[place] = order[place - 1];
    order[place] = m;
  }
  return order;
}

// The bank of colour c, or the shared one for c = 0, its kernels in the given order.
template <class A>
Bank<A> make_bank(const gkm::Form& form, int64_t c, const int64_t* order, Memory& memory) {
  const int64_t M = form.M, K = form.K, centre = K / 2;
  const int64_t* radii = form.radii + c * M;
  const double* taps_w = form.taps_w != nullptr ? form.taps_w + c * M * K : nullptr;
  const double* taps_h = form.taps_h != nullptr ? form.taps_h + c * M * K : nullptr;

  Bank<A> bank{};
  bank.M = M;
  bank.symmetric = true;
  for (int64_t m = 0; m < M; ++m) {
    if (radii[m] > bank.radius) bank.radius = radii[m];
    for (int64_t j = 1; taps_w != nullptr && j <= radii[m]; ++j) {
      bank.symmetric &= taps_w[m * K + centre - j] == taps_w[m * K + centre + j];
    }
  }
  const int64_t R = bank.radius;
  bank.terms = bank.symmetric ? R + 1 : 2 * R + 1;
  bank.kernel = order;
  bank.radii = memory.zeroed<int64_t>(M);
  bank.first = memory.zeroed<int64_t>(R + 2);
  bank.taps_w = memory.zeroed<A>(M * bank.terms);
  bank.taps_w_by_term = memory.zeroed<A>(M * bank.terms);
  bank.taps_h = memory.zeroed<A>(M * (2 * R + 1));
  bank.taps_h_reversed = memory.zeroed<A>(M * (2 * R + 1));

  for (int64_t i = 0; i < M; ++i) {
    const int64_t m = order[i], r = radii[m];
    bank.radii[i] = r;
    for (int64_t wider = r + 1; wider <= R; ++wider) ++bank.first[wider];
    for (int64_t j = bank.symmetric ? 0 : -r; taps_w != nullptr && j <= r; ++j) {
      const int64_t term = bank.symmetric ? j : j + R;
      bank.taps_w[i * bank.terms + term] = A(taps_w[m * K + centre + j]);
      bank.taps_w_by_term[term * M + i] = A(taps_w[m * K + centre + j]);
    }
    for (int64_t j = -r; taps_h != nullptr && j <= r; ++j) {
      bank.taps_h[i * (2 * R + 1) + j + r] = A(taps_h[m * K + centre + j]);
      bank.taps_h_reversed[i * (2 * R + 1) + r - j] = A(taps_h[m * K + centre + j]);
    }
  }
  bank.first[R + 1] = M;
  return bank;
}

}  // namespace
