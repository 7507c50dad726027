// (G + ridge I)^-1 y at every pixel of a panel, G = sum_m t_m t_m^T a small matrix of each pixel's own, t_m its colours
// blurred by kernel m. Colours are so alike that most of G's digits cancel: it is summed and solved in double.
#pragma once

namespace {

// As many doubles as a vector of A has lanes.
template <class A>
struct WideOf;
template <>
struct WideOf<float> {
  typedef double type __attribute__((vector_size(2 * GKM_VECTOR_BYTES)));
};
template <>
struct WideOf<double> {
  typedef double type __attribute__((vector_size(GKM_VECTOR_BYTES)));
};

// Where entry (i, j), j <= i, of a packed lower triangle stands.
GKM_INLINE int64_t packed(int64_t i, int64_t j) { return i * (i + 1) / 2 + j; }

// The systems of a panel's pixels: packed triangles, then right sides; one entry's panel after another's.
template <class A>
class RidgeSystems {
  using V = Vec<A>;
  using Wide = typename WideOf<A>::type;

 public:
  // Panels that n colours take.
  static int64_t panels(int64_t n) { return packed(n, 0) + n; }

  RidgeSystems(double* entries, int64_t n, int64_t size) : entries_(entries), n_(int(n)), size_(size) {}

  void clear() const { __builtin_memset(entries_, 0, size_t(panels(n_) * size_) * sizeof(double)); }

  // Adds to entry (i, j), j <= i, the product of the two colours' vectors.
  GKM_INLINE void add(int64_t i, int64_t j, int64_t at, V colour_i, V colour_j) const {
    double* entry = g(i, j) + at;
    write(entry, read<Wide>(entry) + wide(colour_i) * wide(colour_j));
  }

  // Replaces the n images at y, `size` apart, by (G + ridge I)^-1 y, from G + ridge I = L D L^T.
  void solve(A* y, double ridge) const {
    for (int64_t at = 0; at < size_; at += kLanes<A>) solve_vector(y + at, at, ridge);
  }

 private:
  GKM_INLINE static Wide wide(V value) { return __builtin_convertvector(value, Wide); }
  GKM_INLINE double* g(int64_t i, int64_t j) const { return entries_ + packed(i, j) * size_; }

  // L and D take the place of G, the solution that of the right side.
  void solve_vector(A* y, int64_t at, double ridge) const {
    const auto l = [&](int64_t i, int64_t j) GKM_LAMBDA { return read<Wide>(g(i, j) + at); };
    const auto z = [&](int64_t i) GKM_LAMBDA { return g(n_, i) + at; };
    for (int j = 0; j < n_; ++j) {
      Wide pivot = l(j, j) + ridge;
      for (int k = 0; k < j; ++k) pivot -= l(j, k) * l(j, k) * l(k, k);
      pivot = pivot < ridge ? Wide{} + ridge : pivot;  // never below it but by rounding
      write(g(j, j) + at, pivot);
      for (int i = j + 1; i < n_; ++i) {
        Wide sum = l(i, j);
        for (int k = 0; k < j; ++k) sum -= l(i, k) * l(j, k) * l(k, k);
        write(g(i, j) + at, sum / pivot);
      }
      Wide side = wide(load(y + j * size_));
      for (int k = 0; k < j; ++k) side -= l(j, k) * read<Wide>(z(k));
      write(z(j), side);
    }
    for (int i = n_ - 1; i >= 0; --i) {
      Wide side = read<Wide>(z(i)) / l(i, i);
      for (int k = i + 1; k < n_; ++k) side -= l(k, i) * read<Wide>(z(k));
      write(z(i), side);
      write(y + i * size_, __builtin_convertvector(side, V));
    }
  }

  double* entries_;
  int n_;
  int64_t size_;
};

}  // namespace
