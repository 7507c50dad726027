// Which instruction sets were compiled in, which of them this processor runs, and which one serves.
#pragma once

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace gkm {

struct InstructionSet {
  const char* name;
  bool (*runs)();
};

// Best first.
inline const InstructionSet kInstructionSets[] = {
#if defined(__x86_64__)
    {"avx512", [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
     }},
    {"avx2",
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }},
    {"sse2", [] { return true; }},
#else
    {"generic", [] { return true; }},
#endif
};

// The index of the best that runs, or of the one that the environment variable GKM_OPS_CPU_ISA names.
inline int instruction_set() {
  const char* forced = std::getenv("GKM_OPS_CPU_ISA");
  const bool any = forced == nullptr || *forced == '\0';
  std::string names;
  int index = 0;
  for (const InstructionSet& set : kInstructionSets) {
    if (set.runs()) {
      if (any || std::string(forced) == set.name) return index;
      names += std::string(names.empty() ? "" : ", ") + set.name;
    }
    ++index;
  }
  throw std::runtime_error("GKM_OPS_CPU_ISA: got '" + std::string(forced) + "', wanted one of: " + names);
}

}  // namespace gkm
