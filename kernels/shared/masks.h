// SPDX-License-Identifier: Apache-2.0
//
// Diagonals with the values -1, 0 and 1, given by masks of the index of an amplitude.
#pragma once

#include "shared/host_device.h"

namespace qf {

typedef unsigned long long Mask;

// 1 where the number of set bits is odd, else 0.
QF_SHARED int parity(Mask bits) {
#ifdef __CUDACC__
    return __popcll(bits) & 1;
#else
    return __builtin_parityll(bits);
#endif
}

// g(index) = [(index & care) == value] (-1)^popcount(index & sign)
QF_SHARED int generator(Mask care, Mask value, Mask sign, Mask index) {
    return (index & care) != value ? 0 : parity(index & sign) ? -1 : 1;
}

}  // namespace qf
