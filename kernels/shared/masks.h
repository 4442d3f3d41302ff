// SPDX-License-Identifier: Apache-2.0
//
// Diagonal generators with the values -1, 0 and 1. Three masks over the index of an amplitude define a generator.
#pragma once

#include "shared/host_device.h"

namespace qf {

typedef unsigned long long Mask;

// Return 1 if the number of set bits is odd, else 0.
QF_SHARED int parity(Mask bits) {
#ifdef __CUDACC__
    return __popcll(bits) & 1;
#else
    return __builtin_parityll(bits);
#endif
}

// Return g(index) = [(index & care) == value] (-1)^popcount(index & sign).
QF_SHARED int generator(Mask care, Mask value, Mask sign, Mask index) {
    return (index & care) != value ? 0 : parity(index & sign) ? -1 : 1;
}

}  // namespace qf
