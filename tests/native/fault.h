// Which of the faults that tests put into the kernels is there; the driver's argument, 0 for none of them.
#pragma once

namespace gkm::tests {

inline int fault = 0;

}  // namespace gkm::tests
