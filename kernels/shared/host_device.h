// SPDX-License-Identifier: Apache-2.0
//
// QF_SHARED declares a function that both C++ and CUDA compile. No header of this folder includes the standard library,
// because NVRTC does not have it.
#pragma once

#ifdef __CUDACC__
#define QF_SHARED __device__ __forceinline__
#else
// The function has internal linkage, so that each instruction set keeps its own copy. Of an inline function with
// external linkage the linker would keep one copy, possibly an AVX-512 one, for every CPU.
#define QF_SHARED static inline
#endif
