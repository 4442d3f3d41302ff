// SPDX-License-Identifier: Apache-2.0
//
// The names that CUDA provides to a kernel without any #include, for g++. This header is included before the text of a
// kernel file, which is compiled unchanged. Each CUDA thread is a fiber (runtime.cpp); one thread of the system runs
// all fibers.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#define CUDA_ON_HOST 1

// ---- vector types, with CUDA's alignment
#define CUDA_ON_HOST_VECTORS(element, name, align2, align4)                     \
    struct alignas(align2) name##2 {                                            \
        element x, y;                                                           \
    };                                                                          \
    struct name##3 {                                                            \
        element x, y, z;                                                        \
    };                                                                          \
    struct alignas(align4) name##4 {                                            \
        element x, y, z, w;                                                     \
    };                                                                          \
    inline name##2 make_##name##2(element x, element y) {                       \
        return {x, y};                                                          \
    }                                                                           \
    inline name##4 make_##name##4(element x, element y, element z, element w) { \
        return {x, y, z, w};                                                    \
    }
CUDA_ON_HOST_VECTORS(float, float, 8, 16)
CUDA_ON_HOST_VECTORS(double, double, 16, 16)
CUDA_ON_HOST_VECTORS(int, int, 8, 16)
CUDA_ON_HOST_VECTORS(unsigned, uint, 8, 16)
CUDA_ON_HOST_VECTORS(long long, longlong, 16, 16)
CUDA_ON_HOST_VECTORS(unsigned long long, ulonglong, 16, 16)
typedef uint3 dim3;

// ---- qualifiers
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
// Static shared memory is the thread-local block of the library. The run time can find this block and clears it before
// each CUDA block. building.py turns `extern __shared__` arrays into pointers to `dynamic_shared`.
#define __shared__ thread_local
// __restrict__ means nothing here: other fibers change the memory behind such a pointer, and with __restrict__ g++
// would keep a loaded value across a barrier.
#undef __restrict__
#define __restrict__

// ---- run time
namespace cuda_on_host {

constexpr size_t MAX_DYNAMIC_SHARED = 232448;  // bytes of a block on compute capability 9.0, the largest of all devices

struct Thread {
    void* stack_pointer;
    uint3 index;
    unsigned linear, lane, warp;
};
extern Thread* current;
extern uint3 block_index;
extern dim3 block_size, grid_size;
extern unsigned char dynamic_shared[MAX_DYNAMIC_SHARED];

enum class Collective : int { sync, shuffle, ballot };

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
int barrier(int predicate, const char* file, int line);  // returns the number of threads whose predicate is not 0
uint64_t collective(unsigned mask, Collective operation, int source_lane, uint64_t value, const char* file, int line);
unsigned active_lanes();
void atomic_access(const void* address, int size);

// The type of a kernel parameter. kind is 'p' (pointer), 'c' (pointer to const) or 'v' (value). element is 'f'
// (floating point), 'i' (integer), 'b' (bool), 's' (struct) or 'v' (void). size is the bytes of an element.
struct Parameter {
    int kind, element, size;
};
struct Kernel {
    const char* name;
    void (*call)(void** arguments);
    int num_parameters;
    const Parameter* parameters;
    int max_threads;
};
struct Registration {
    explicit Registration(const Kernel& kernel);
};

template <class Type>
constexpr Parameter describe(int kind) {
    using Plain = std::remove_cv_t<Type>;
    if constexpr (std::is_void_v<Plain>) {
        return {kind, 'v', 0};
    } else {
        const int element = std::is_floating_point_v<Plain> ? 'f'
                            : std::is_same_v<Plain, bool>   ? 'b'
                            : std::is_integral_v<Plain>     ? 'i'
                                                            : 's';
        return {kind, element, static_cast<int>(sizeof(Plain))};
    }
}

template <class Type>
constexpr Parameter describe_parameter() {
    if constexpr (std::is_pointer_v<Type>) {
        using Pointed = std::remove_pointer_t<Type>;
        return describe<Pointed>(std::is_const_v<Pointed> ? 'c' : 'p');
    } else {
        return describe<Type>('v');
    }
}

template <auto kernel>
struct Trampoline;
template <class... Arguments, void (*kernel)(Arguments...)>
struct Trampoline<kernel> {
    static constexpr int num_parameters = sizeof...(Arguments);
    static constexpr Parameter parameters[num_parameters + 1] = {describe_parameter<Arguments>()..., {}};

    template <size_t... index>
    static void call_with(void** arguments, std::index_sequence<index...>) {
        kernel(*static_cast<std::remove_cv_t<Arguments>*>(arguments[index])...);
    }
    static void call(void** arguments) { call_with(arguments, std::index_sequence_for<Arguments...>{}); }
};

template <class Type>
inline uint64_t to_bits(Type value) {
    static_assert(std::is_arithmetic_v<Type> && (sizeof(Type) == 4 || sizeof(Type) == 8),
                  "CUDA shuffles numbers of 4 and 8 bytes only");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(Type));
    return bits;
}

template <class Type>
inline Type from_bits(uint64_t bits) {
    Type value;
    std::memcpy(&value, &bits, sizeof(Type));
    return value;
}

template <class Type>
inline Type shuffle(unsigned mask, Type value, int source_lane, const char* file, int line) {
    return from_bits<Type>(collective(mask, Collective::shuffle, source_lane, to_bits(value), file, line));
}

}  // namespace cuda_on_host

#define CUDA_ON_HOST_KERNEL(kernel, max_threads)                                                                   \
    static ::cuda_on_host::Registration registration_of_##kernel(                                                  \
        {#kernel, &::cuda_on_host::Trampoline<&kernel>::call, ::cuda_on_host::Trampoline<&kernel>::num_parameters, \
         ::cuda_on_host::Trampoline<&kernel>::parameters, max_threads});

#define threadIdx (::cuda_on_host::current->index)
#define blockIdx (::cuda_on_host::block_index)
#define blockDim (::cuda_on_host::block_size)
#define gridDim (::cuda_on_host::grid_size)
constexpr int warpSize = 32;

// ---- barriers and warp collectives: file and line of the call distinguish one barrier from another
#define CUDA_ON_HOST_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_ON_HOST_PLACE) {
    cuda_on_host::barrier(0, file, line);
}
inline int __syncthreads_count(int predicate, CUDA_ON_HOST_PLACE) {
    return cuda_on_host::barrier(predicate != 0, file, line);
}
inline int __syncthreads_or(int predicate, CUDA_ON_HOST_PLACE) {
    return cuda_on_host::barrier(predicate != 0, file, line) != 0;
}
inline int __syncthreads_and(int predicate, CUDA_ON_HOST_PLACE) {
    return cuda_on_host::barrier(predicate == 0, file, line) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_ON_HOST_PLACE) {
    cuda_on_host::collective(mask, cuda_on_host::Collective::sync, 0, 0, file, line);
}

// If the source lane lies outside the segment of `width` lanes, a shuffle returns the thread's own value.
template <class Type>
inline Type __shfl_sync(unsigned mask, Type value, int source, int width = 32, CUDA_ON_HOST_PLACE) {
    const int lane = cuda_on_host::current->lane;
    return cuda_on_host::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), file, line);
}
template <class Type>
inline Type __shfl_xor_sync(unsigned mask, Type value, int lane_mask, int width = 32, CUDA_ON_HOST_PLACE) {
    const int lane = cuda_on_host::current->lane, source = lane ^ lane_mask;
    return cuda_on_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, file, line);
}
template <class Type>
inline Type __shfl_down_sync(unsigned mask, Type value, unsigned delta, int width = 32, CUDA_ON_HOST_PLACE) {
    const int lane = cuda_on_host::current->lane, source = lane + static_cast<int>(delta);
    return cuda_on_host::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, file, line);
}
template <class Type>
inline Type __shfl_up_sync(unsigned mask, Type value, unsigned delta, int width = 32, CUDA_ON_HOST_PLACE) {
    const int lane = cuda_on_host::current->lane, source = lane - static_cast<int>(delta);
    return cuda_on_host::shuffle(mask, value, source < (lane & ~(width - 1)) ? lane : source, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_HOST_PLACE) {
    return static_cast<unsigned>(
        cuda_on_host::collective(mask, cuda_on_host::Collective::ballot, 0, predicate != 0, file, line));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_HOST_PLACE) {
    return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_HOST_PLACE) {
    return __ballot_sync(mask, predicate, file, line) == mask;
}
inline unsigned __activemask() {
    return cuda_on_host::active_lanes();
}
inline void __threadfence() {}
inline void __threadfence_block() {}
#define __trap() ::cuda_on_host::fail("__trap() at %s:%d", __FILE__, __LINE__)

// ---- memory: these are macros, so that an access has the line of the kernel. One thread of the system runs all
// fibers, so plain code is atomic.
#define __ldg(...) (*(__VA_ARGS__))
#define __ldcs(...) (*(__VA_ARGS__))
#define __ldca(...) (*(__VA_ARGS__))
#define __ldcg(...) (*(__VA_ARGS__))
#define __stcs(address, ...) ((void)(*(address) = (__VA_ARGS__)))
#define __stcg(address, ...) ((void)(*(address) = (__VA_ARGS__)))
#define atomicAdd(address, ...) \
    (::cuda_on_host::atomic_access(address, sizeof *(address)), ::cuda_on_host::add(address, __VA_ARGS__))
namespace cuda_on_host {
template <class Type>
__attribute__((no_sanitize("thread"), noinline)) Type add(Type* address, std::common_type_t<Type> value) {
    const Type old = *address;
    *address = static_cast<Type>(old + value);
    return old;
}
}  // namespace cuda_on_host

// ---- scalar functions
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline int __clzll(long long x) {
    return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
inline double __fma_rn(double a, double b, double c) {
    return fma(a, b, c);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float __frcp_rn(float x) {
    return 1 / x;
}
inline float rsqrtf(float x) {
    return 1 / sqrtf(x);
}
inline double rsqrt(double x) {
    return 1 / sqrt(x);
}
inline float __sinf(float x) {
    return sinf(x);
}
inline float __cosf(float x) {
    return cosf(x);
}
inline void __sincosf(float x, float* sine, float* cosine) {
    sincosf(x, sine, cosine);
}
inline void sincospi(double x, double* sine, double* cosine) {
    sincos(x * M_PI, sine, cosine);
}
inline void sincospif(float x, float* sine, float* cosine) {
    sincosf(x * static_cast<float>(M_PI), sine, cosine);
}
inline int __float_as_int(float x) {
    return cuda_on_host::from_bits<int>(cuda_on_host::to_bits(x));
}
inline float __int_as_float(int x) {
    return cuda_on_host::from_bits<float>(cuda_on_host::to_bits(x));
}
inline unsigned __float_as_uint(float x) {
    return cuda_on_host::from_bits<unsigned>(cuda_on_host::to_bits(x));
}
inline float __uint_as_float(unsigned x) {
    return cuda_on_host::from_bits<float>(cuda_on_host::to_bits(x));
}
inline long long __double_as_longlong(double x) {
    return cuda_on_host::from_bits<long long>(cuda_on_host::to_bits(x));
}
inline double __longlong_as_double(long long x) {
    return cuda_on_host::from_bits<double>(cuda_on_host::to_bits(x));
}

#define CUDA_ON_HOST_MIN_MAX(type)    \
    inline type min(type a, type b) { \
        return b < a ? b : a;         \
    }                                 \
    inline type max(type a, type b) { \
        return a < b ? b : a;         \
    }
CUDA_ON_HOST_MIN_MAX(int)
CUDA_ON_HOST_MIN_MAX(unsigned)
CUDA_ON_HOST_MIN_MAX(long)
CUDA_ON_HOST_MIN_MAX(unsigned long)
CUDA_ON_HOST_MIN_MAX(long long)
CUDA_ON_HOST_MIN_MAX(unsigned long long)
CUDA_ON_HOST_MIN_MAX(float)
CUDA_ON_HOST_MIN_MAX(double)
