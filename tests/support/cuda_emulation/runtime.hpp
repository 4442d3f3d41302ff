// SPDX-License-Identifier: Apache-2.0
//
// Shared by the run time (runtime.cpp) and the memory checker (checks.cpp); neither is compiled with sanitizers.
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
#define CUDA_ON_HOST_UCONTEXT 1  // portable switching of fibers, which is much slower: it asks the system each time
#endif
#ifdef CUDA_ON_HOST_UCONTEXT
#include <ucontext.h>
#endif

namespace cuda_on_host {

constexpr unsigned MAX_THREADS = 1024, WARP = 32, MAX_WARPS = MAX_THREADS / WARP;
constexpr size_t STACK_BYTES = 64 * 1024;
constexpr size_t STACK_ROOM = 16 * STACK_BYTES;  // under the first stack, so that its overflow is reported too

enum class State : uint8_t { ready, at_barrier, at_collective, returned };

struct Fiber : Thread {
    State state;
    // What it waits at, and what it brings to and takes from a collective.
    const char* file;
    int line;
    Collective operation;
    unsigned mask;
    int source_lane;
    uint64_t value, result;
    // Clock of each lane of its warp, as far as this thread has synchronised with it.
    uint32_t clocks[WARP];
#ifdef CUDA_ON_HOST_UCONTEXT
    ucontext_t context;
#endif
};

struct Buffer {  // memory a launch may touch
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
};

struct AddressRange {
    uintptr_t begin = 0, end = 0;
    bool contains(uintptr_t address) const { return address >= begin && address < end; }
};

extern Fiber launcher;  // the context that starts the blocks
extern char* stacks;
AddressRange library_segments();
AddressRange static_shared();

// The checker; without it (checks.cpp compiled with CUDA_ON_HOST_CHECK=0) these do nothing.
void checker_starts_launch(const Launch& launch);
void checker_starts_block();
void checker_ends_block();
void checker_sees_barrier();
void checker_sees_warp_sync(Fiber* warp, unsigned mask);

}  // namespace cuda_on_host
