// SPDX-License-Identifier: Apache-2.0
//
// Allocation of aligned memory: from malloc, or for large buffers as a mapping of huge pages.
#include "cpu/runtime/buffer.hpp"

#include "cpu/runtime/kept.hpp"

#include <cstdint>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

namespace qf {
namespace {

constexpr std::size_t huge_page = std::size_t(1) << 21;  // bytes

std::size_t alignment_of(std::size_t bytes) {
    return bytes >= huge_page ? huge_page : bytes >= 4096 ? 4096 : 64;
}

std::size_t rounded(std::size_t bytes, std::size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

#if defined(__linux__)
// A buffer of at least 4 MiB is its own mapping. Its memory goes back to the system as soon as it is freed, while
// malloc might keep it. The mapping is first one huge page too long; the parts outside the aligned range are unmapped.
constexpr std::size_t page = std::size_t(1) << 16;  // bytes, a multiple of the page size of every system
constexpr std::size_t mapped_from = 2 * huge_page;  // bytes

void* map(std::size_t bytes) {
    const std::size_t size = rounded(bytes, page) + huge_page;
    void* const whole = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) return nullptr;
    char* const first = static_cast<char*>(whole);
    const std::size_t before = (huge_page - reinterpret_cast<std::uintptr_t>(first) % huge_page) % huge_page;
    if (before) munmap(first, before);
    munmap(first + before + rounded(bytes, page), huge_page - before);
    return first + before;
}
#endif

void* allocate(std::size_t bytes) {
#if defined(_WIN32)
    return _aligned_malloc(bytes, alignment_of(bytes));
#else
#if defined(__linux__)
    if (bytes >= mapped_from) return map(bytes);
#endif
    return std::aligned_alloc(alignment_of(bytes), rounded(bytes, alignment_of(bytes)));
#endif
}

}  // namespace

void* aligned_allocate(std::size_t bytes) {
    void* p = allocate(bytes);
    if (!p) {  // free the items that are kept for later calls, and try again
        Shelves::release(0);
        p = allocate(bytes);
    }
    if (!p) throw std::bad_alloc();
#if defined(__linux__)
    if (bytes >= huge_page) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void aligned_release(void* p, std::size_t bytes) {
#if defined(_WIN32)
    _aligned_free(p);
#else
#if defined(__linux__)
    if (bytes >= mapped_from) {
        munmap(p, rounded(bytes, page));
        return;
    }
#endif
    static_cast<void>(bytes);
    std::free(p);
#endif
}

}  // namespace qf
