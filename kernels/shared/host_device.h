// SPDX-License-Identifier: Apache-2.0
//
// How the headers of this folder spell a function that C++ and CUDA compile. No header of this folder needs the
// standard library, which NVRTC does not have.
#pragma once

#ifdef __CUDACC__
#define QF_SHARED __device__ __forceinline__
#else
// Internal linkage: every instruction set needs a copy of its own, and the linker would keep one of them for all.
#define QF_SHARED static inline
#endif
