// SPDX-License-Identifier: Apache-2.0
//
// Runs a kernel block after block, with one fiber for each CUDA thread. A fiber runs until it waits at a barrier or at
// a warp collective, or returns. Then the next ready fiber of the same warp runs, or else a fiber of the next warp.
#include "runtime.hpp"

#include <link.h>
#include <sys/mman.h>

#include <cstdarg>
#include <string>

namespace cuda_on_host {

Thread* current;
uint3 block_index;
dim3 block_size, grid_size;
alignas(1024) unsigned char dynamic_shared[MAX_DYNAMIC_SHARED];
Fiber launcher;
char* stacks;

namespace {

constexpr const char* COLLECTIVE_NAMES[] = {"__syncwarp", "__shfl", "vote"};
constexpr int MAX_KERNELS = 256;
constexpr size_t MAX_ARGUMENT_BYTES = 4096;  // the limit of CUDA
constexpr uint64_t STACK_MARK = 0x6b636174735f6663ull;

Fiber fibers[MAX_THREADS];
unsigned num_threads, num_warps, num_returned, num_at_barrier, current_warp;
// For each warp: bit i of `ready` says whether the lane in place i of the order of lanes can run; bit l of `waiting`
// says whether lane l waits at a collective.
unsigned ready[MAX_WARPS], waiting[MAX_WARPS];
uint8_t lane_of_place[MAX_WARPS][WARP], place_of_lane[MAX_WARPS][WARP];

int barrier_count, barrier_result, barrier_line;
const char* barrier_file;

void (*entry)(void**);
void* entry_arguments[MAX_ARGUMENT_BYTES / 4];
alignas(16) unsigned char argument_bytes[MAX_ARGUMENT_BYTES];

char message[4096];
bool failed;
Kernel kernels[MAX_KERNELS];
int num_kernels;
// This variable gives a library without static shared arrays a thread-local block too.
thread_local volatile char shared_anchor;

uint64_t random_state;
uint32_t random_below(uint32_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return static_cast<uint32_t>(random_state >> 33) % bound;
}

// ---- switching from one stack to another: the registers that a called function must preserve are saved on the old
// stack
#ifdef CUDA_ON_HOST_UCONTEXT
void transfer(Fiber* from, Fiber* to) {
    swapcontext(&from->context, &to->context);
}
#else
extern "C" void cuda_on_host_switch(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.p2align 4
.hidden cuda_on_host_switch
.globl cuda_on_host_switch
.type cuda_on_host_switch,@function
cuda_on_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size cuda_on_host_switch,.-cuda_on_host_switch
)");
#else  // aarch64
asm(R"(
.text
.p2align 4
.hidden cuda_on_host_switch
.globl cuda_on_host_switch
.type cuda_on_host_switch,%function
cuda_on_host_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size cuda_on_host_switch,.-cuda_on_host_switch
)");
#endif
void transfer(Fiber* from, Fiber* to) {
    cuda_on_host_switch(&from->stack_pointer, to->stack_pointer);
}
#endif

char* stack_of(unsigned thread) {
    return stacks + thread * STACK_BYTES;
}

void prepare_stack(Fiber& fiber, void (*start)()) {
    memcpy(stack_of(fiber.linear), &STACK_MARK, sizeof STACK_MARK);
#ifdef CUDA_ON_HOST_UCONTEXT
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack_of(fiber.linear);
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&fiber.context, start, 0);
#else
    // The tops are staggered, because all stacks would otherwise use the same sets of the cache.
    char* const top = stack_of(fiber.linear) + STACK_BYTES - (fiber.linear % 61) * 64;
    void** slot = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t(63));
#if defined(__x86_64__)
    *--slot = nullptr;
    *--slot = reinterpret_cast<void*>(start);
    slot -= 6;
#else
    slot -= 20;
    memset(slot, 0, 160);
    slot[11] = reinterpret_cast<void*>(start);
#endif
    fiber.stack_pointer = slot;
#endif
}

// ---- scheduling
Fiber& self() {
    return *static_cast<Fiber*>(current);
}

void make_ready(Fiber& fiber) {
    fiber.state = State::ready;
    ready[fiber.warp] |= 1u << place_of_lane[fiber.warp][fiber.lane];
}

void not_ready(const Fiber& fiber) {
    ready[fiber.warp] &= ~(1u << place_of_lane[fiber.warp][fiber.lane]);
}

Fiber* next_ready() {
    unsigned warp = current_warp;
    for (unsigned tried = 0; tried <= num_warps; ++tried) {
        if (ready[warp]) {
            current_warp = warp;
            return &fibers[warp * WARP + lane_of_place[warp][__builtin_ctz(ready[warp])]];
        }
        warp = warp + 1 == num_warps ? 0 : warp + 1;
    }
    return nullptr;
}

[[noreturn]] void leave_launch() {
    failed = true;
    static Fiber abandoned;
    current = &launcher;
    transfer(&abandoned, &launcher);
    abort();
}

std::string describe_wait(const Fiber& fiber) {
    if (fiber.state == State::returned) return "returned";
    const char* what = fiber.state == State::at_barrier ? "__syncthreads" : COLLECTIVE_NAMES[int(fiber.operation)];
    return std::string(what) + " (" + fiber.file + ":" + std::to_string(fiber.line) + ")";
}

[[noreturn]] void report_deadlock() {
    std::string text = "divergence: no thread can go on:";
    for (unsigned first = 0, end; first < num_threads; first = end) {
        const std::string wait = describe_wait(fibers[first]);
        for (end = first + 1; end < num_threads && describe_wait(fibers[end]) == wait; ++end) {
        }
        text += " threads " + std::to_string(first) + ".." + std::to_string(end - 1) + " " + wait + ";";
    }
    snprintf(message, sizeof message, "%s [block %u]", text.c_str(), block_index.x);
    leave_launch();
}

// Run other fibers until this fiber is ready again. The fiber is not ready when it calls wait().
void wait() {
    Fiber* const me = &self();
    // Check for a stack overflow before the next fiber runs, because its stack may lie below the stack of this fiber.
    if (memcmp(stack_of(me->linear), &STACK_MARK, sizeof STACK_MARK) != 0)
        fail("stack overflow: local variables need more than %zu bytes", STACK_BYTES);
    Fiber* const next = next_ready();
    if (!next) {
        if (num_returned < num_threads) report_deadlock();
        current = &launcher;
        transfer(me, &launcher);
        abort();
    }
    not_ready(*next);
    current = next;
    transfer(me, next);
}

void run_fiber() {
    entry(entry_arguments);
    self().state = State::returned;
    ++num_returned;
    if (num_at_barrier)
        fail("thread returned while %u threads wait at __syncthreads (%s:%d)", num_at_barrier, barrier_file,
             barrier_line);
    wait();
    abort();
}

void start_block(unsigned seed) {
    random_state = 0x9e3779b97f4a7c15ull * (seed + 1ull);
    for (unsigned warp = 0; warp < num_warps; ++warp) {
        uint8_t* const lanes = lane_of_place[warp];
        for (unsigned i = 0; i < WARP; ++i) lanes[i] = static_cast<uint8_t>(i);
        if (seed)
            for (unsigned i = WARP - 1; i; --i) std::swap(lanes[i], lanes[random_below(i + 1)]);
        for (unsigned i = 0; i < WARP; ++i) place_of_lane[warp][lanes[i]] = static_cast<uint8_t>(i);
        ready[warp] = waiting[warp] = 0;
    }
    num_returned = num_at_barrier = 0;
    current_warp = seed ? random_below(num_warps) : 0;
    for (unsigned thread = 0; thread < num_threads; ++thread) {
        Fiber& fiber = fibers[thread];
        fiber.index = {thread, 0, 0};
        fiber.linear = thread;
        fiber.lane = thread % WARP;
        fiber.warp = thread / WARP;
        memset(fiber.clocks, 0, sizeof fiber.clocks);
        fiber.clocks[fiber.lane] = 1;
        prepare_stack(fiber, run_fiber);
        make_ready(fiber);
    }
}

bool run_block(const Launch& launch, unsigned block) {
    block_index = {block, 0, 0};
    // All bits set is NaN, so a number that was never written shows in the result.
    memset(dynamic_shared, 0xff, launch.shared_bytes);
    const AddressRange arrays = static_shared();
    memset(reinterpret_cast<void*>(arrays.begin), 0xff, arrays.end - arrays.begin);
    start_block(launch.seed ? launch.seed + block : 0);
    checker_starts_block();
    Fiber* const first = next_ready();
    not_ready(*first);
    current = first;
    transfer(&launcher, first);
    current = nullptr;
    checker_ends_block();
    return !failed;
}

void copy_arguments(const Kernel& kernel, const void* const* arguments) {
    size_t offset = 0;
    for (int i = 0; i < kernel.num_parameters; ++i) {
        const Parameter& parameter = kernel.parameters[i];
        const size_t size = parameter.kind == 'v' ? parameter.size : sizeof(void*);
        offset = (offset + 15) & ~size_t(15);
        if (offset + size > sizeof argument_bytes) abort();
        memcpy(argument_bytes + offset, arguments[i], size);
        entry_arguments[i] = argument_bytes + offset;
        offset += size;
    }
}

struct Segments {
    AddressRange library, thread_local_block;
};

int add_segments(dl_phdr_info* info, size_t, void* data) {
    const uintptr_t inside = reinterpret_cast<uintptr_t>(&dynamic_shared);
    AddressRange range{~uintptr_t(0), 0};
    Segments found;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& header = info->dlpi_phdr[i];
        const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
        if (header.p_type == PT_LOAD) {
            range.begin = begin < range.begin ? begin : range.begin;
            range.end = begin + header.p_memsz > range.end ? begin + header.p_memsz : range.end;
        }
        if (header.p_type == PT_TLS && info->dlpi_tls_data) {
            const uintptr_t block = reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
            found.thread_local_block = {block, block + header.p_memsz};
        }
    }
    if (!range.contains(inside)) return 0;
    found.library = range;
    *static_cast<Segments*>(data) = found;
    return 1;
}

Segments segments;  // the segments of this library, for the thread that launches

}  // namespace

AddressRange library_segments() {
    return segments.library;
}
AddressRange static_shared() {
    return segments.thread_local_block;
}

Registration::Registration(const Kernel& kernel) {
    if (num_kernels == MAX_KERNELS) abort();
    kernels[num_kernels++] = kernel;
}

void fail(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    if (length < static_cast<int>(sizeof message))
        snprintf(message + length, sizeof message - length, " [block %u, thread %u]", block_index.x, current->linear);
    leave_launch();
}

int barrier(int predicate, const char* file, int line) {
    Fiber& me = self();
    if (num_returned) fail("__syncthreads (%s:%d) reached after %u threads returned", file, line, num_returned);
    if (num_at_barrier == 0) {
        barrier_file = file;
        barrier_line = line;
        barrier_count = 0;
    } else if (line != barrier_line || strcmp(file, barrier_file) != 0) {
        fail("divergent __syncthreads: %s:%d while others wait at %s:%d", file, line, barrier_file, barrier_line);
    }
    barrier_count += predicate;
    me.state = State::at_barrier;
    me.file = file;
    me.line = line;
    if (++num_at_barrier < num_threads) {
        wait();
        return barrier_result;
    }
    num_at_barrier = 0;
    barrier_result = barrier_count;
    checker_sees_barrier();
    for (unsigned thread = 0; thread < num_threads; ++thread) make_ready(fibers[thread]);
    not_ready(me);  // this fiber runs already
    current_warp = me.warp;
    return barrier_result;
}

uint64_t collective(unsigned mask, Collective operation, int source_lane, uint64_t value, const char* file, int line) {
    Fiber& me = self();
    Fiber* const warp = fibers + me.warp * WARP;
    const char* const name = COLLECTIVE_NAMES[int(operation)];
    if (!(mask >> me.lane & 1))
        fail("%s (%s:%d): calling lane %u is not in mask %08x", name, file, line, me.lane, mask);
    me.file = file;
    me.line = line;
    me.operation = operation;
    me.mask = mask;
    me.source_lane = source_lane;
    me.value = value;
    const unsigned arrived = waiting[me.warp] | 1u << me.lane;
    if ((arrived & mask) != mask) {
        me.state = State::at_collective;
        waiting[me.warp] = arrived;
        wait();
        return me.result;
    }
    // The last lane to arrive computes the results of all lanes.
    uint64_t votes = 0;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        const Fiber& other = warp[__builtin_ctz(rest)];
        if (other.operation != operation || other.mask != mask || other.line != line || strcmp(other.file, file) != 0)
            fail("divergent warp collective: lane %u at %s (%s:%d) mask %08x, lane %u at %s (%s:%d) mask %08x",
                 other.lane, COLLECTIVE_NAMES[int(other.operation)], other.file, other.line, other.mask, me.lane, name,
                 file, line, mask);
        if (other.value) votes |= 1u << other.lane;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Fiber& other = warp[__builtin_ctz(rest)];
        if (operation == Collective::shuffle) {
            if (!(mask >> other.source_lane & 1))
                fail("%s (%s:%d): lane %u reads lane %d, which is not in mask %08x", name, file, line, other.lane,
                     other.source_lane, mask);
            other.result = warp[other.source_lane].value;
        } else {
            other.result = votes;
        }
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Fiber& other = warp[__builtin_ctz(rest)];
        if (&other != &me) make_ready(other);
    }
    // Only __syncwarp orders memory accesses; votes and shuffles do not.
    if (operation == Collective::sync) checker_sees_warp_sync(warp, mask);
    waiting[me.warp] &= ~mask;
    return me.result;
}

unsigned active_lanes() {
    unsigned mask = 0;
    for (unsigned lane = 0; lane < WARP; ++lane) {
        const unsigned thread = self().warp * WARP + lane;
        if (thread < num_threads && fibers[thread].state != State::returned) mask |= 1u << lane;
    }
    return mask;
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED const Kernel* find_kernel(const char* name) {
    for (int i = 0; i < num_kernels; ++i)
        if (strcmp(kernels[i].name, name) == 0) return &kernels[i];
    return nullptr;
}

EXPORTED uintptr_t library_address() {
    shared_anchor = 0;
    dl_iterate_phdr(add_segments, &segments);
    return segments.library.begin;
}

// Run a kernel. Returns null, or the message of the error.
EXPORTED const char* launch_kernel(const Kernel* kernel, const void* const* arguments, const Launch* launch) {
    num_threads = launch->block;
    num_warps = (num_threads + WARP - 1) / WARP;
    block_size = {launch->block, 1, 1};
    grid_size = {launch->grid, 1, 1};
    failed = false;
    if (!stacks) {
        void* const memory = mmap(nullptr, STACK_ROOM + MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return "no memory for the stacks of the threads";
        stacks = static_cast<char*>(memory) + STACK_ROOM;
    }
    shared_anchor = 0;  // the access makes the thread-local block of this thread of the system
    dl_iterate_phdr(add_segments, &segments);
    entry = kernel->call;
    copy_arguments(*kernel, arguments);
    checker_starts_launch(*launch);

    const unsigned num_blocks = launch->num_selected ? launch->num_selected : launch->grid;
    std::vector<unsigned> order(num_blocks);
    for (unsigned i = 0; i < num_blocks; ++i) order[i] = launch->num_selected ? launch->selected[i] : i;
    random_state = 0x2545f4914f6cdd1dull * (launch->seed + 1ull);
    if (launch->seed)
        for (unsigned i = num_blocks; i > 1; --i) std::swap(order[i - 1], order[random_below(i)]);
    for (const unsigned block : order)
        if (!run_block(*launch, block)) return message;
    return nullptr;
}
