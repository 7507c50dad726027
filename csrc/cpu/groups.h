// Kernels in groups, so that what a tile keeps of one group for all its colours fits the second-level cache.
#pragma once

namespace {

constexpr int64_t kLeastGroup = 4;

// Kernels from .. to of a bank.
struct Group {
  int64_t from, to;
  int64_t size() const { return to - from; }
};

// The radius of the group's widest kernel, its last.
template <class A>
int64_t group_radius(const Bank<A>& bank, Group group) {
  return bank.radii[group.to - 1];
}

struct Groups {
  Group* list;
  int64_t count;
};

// bytes(group) is what a group takes, at most `most`.
template <class Bytes>
Groups make_groups(int64_t M, Memory& memory, int64_t most, const Bytes& bytes) {
  Groups groups{memory.zeroed<Group>(M), 0};
  for (int64_t from = 0; from < M; from = groups.list[groups.count++].to) {
    Group group{from, min(from + kLeastGroup, M)};
    while (group.to < M) {
      const Group larger{from, min(group.to + kLeastGroup, M)};
      if (bytes(larger) > most) break;
      group = larger;
    }
    groups.list[groups.count] = group;
  }
  return groups;
}

}  // namespace
