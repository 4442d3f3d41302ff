// SPDX-License-Identifier: Apache-2.0
//
// Declarations that the run time (runtime.cpp) and the memory checker (checks.cpp) share. Both files are compiled
// without sanitizers.
#pragma once
#include "cuda_on_host.hpp"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <cstdio>
#include <cstdlib>
#include <vector>
#if !defined(__x86_64__) && !defined(__aarch64__)
#define CUDA_ON_HOST_UCONTEXT 1  // ucontext switches fibers on any processor, but each switch takes a system call
#endif
#ifdef CUDA_ON_HOST_UCONTEXT
#include <ucontext.h>
#endif

namespace cuda_on_host {

constexpr unsigned MAX_THREADS = 1024, WARP = 32, MAX_WARPS = MAX_THREADS / WARP;
constexpr size_t STACK_BYTES = 64 * 1024;        // stack of one fiber
constexpr size_t STACK_ROOM = 16 * STACK_BYTES;  // unused bytes below the first stack, so that its overflow is reported

enum class State : uint8_t { ready, at_barrier, at_collective, returned };

struct Fiber : Thread {
    State state;
    // The line where the fiber waits, and the arguments and the result of its collective.
    const char* file;
    int line;
    Collective operation;
    unsigned mask;
    int source_lane;
    uint64_t value, result;
    // The vector clock of this thread: for each lane of its warp, the clock at the last synchronisation with the lane.
    uint32_t clocks[WARP];
#ifdef CUDA_ON_HOST_UCONTEXT
    ucontext_t context;
#endif
};

struct Buffer {  // memory that a launch may access
    uintptr_t begin;
    size_t bytes;
    const char* name;
};

struct Launch {
    unsigned grid, block;
    size_t shared_bytes;
    unsigned seed;
    int trace;
    int num_buffers;
    const Buffer* buffers;
    unsigned num_selected;     // number of blocks that run; 0: all blocks of the grid
    const unsigned* selected;  // the blocks that run
    int num_constant;
    const Buffer* constant;  // the arrays of `const __restrict__` pointers, which no thread may write
};

struct AddressRange {
    uintptr_t begin = 0, end = 0;
    bool contains(uintptr_t address) const { return address >= begin && address < end; }
};

extern Fiber launcher;  // the context of launch_kernel(), which starts the blocks
extern char* stacks;
AddressRange library_segments();
AddressRange static_shared();

// The functions of the checker. They do nothing if checks.cpp is compiled with CUDA_ON_HOST_CHECK=0.
void checker_starts_launch(const Launch& launch);
void checker_starts_block();
void checker_ends_block();
void checker_sees_barrier();
void checker_sees_warp_sync(Fiber* warp, unsigned mask);

}  // namespace cuda_on_host
