// gkm_ops._info: what was built and what the processor has. No ops, no torch.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>
#include <vector>

#include "cpu/isa.h"

namespace py = pybind11;

namespace {

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const gkm::InstructionSet& set : gkm::kInstructionSets) names.emplace_back(set.name);
  return names;
}

std::map<std::string, bool> cpu_features() {
#if defined(__x86_64__)
#define GKM_FEATURE(name) {name, __builtin_cpu_supports(name) != 0}
  return {GKM_FEATURE("sse2"),     GKM_FEATURE("avx2"),     GKM_FEATURE("fma"),      GKM_FEATURE("f16c"),
          GKM_FEATURE("avx512f"),  GKM_FEATURE("avx512vl"), GKM_FEATURE("avx512dq"), GKM_FEATURE("avx512bw"),
          GKM_FEATURE("avx512bf16")};
#undef GKM_FEATURE
#else
  return {};
#endif
}

}  // namespace

PYBIND11_MODULE(_info, module) {
  module.doc() = "What was built and what the processor has.";
  module.def("compiler", &compiler);
  module.def("instruction_sets", &instruction_sets, "Instruction sets compiled in, best first.");
  module.def("cpu_features", &cpu_features, "What the processor has of what the kernels can use.");
  module.def("instruction_set", [] { return gkm::kInstructionSets[gkm::instruction_set()].name; }, "The one that serves.");
}
