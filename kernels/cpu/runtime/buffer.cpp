// SPDX-License-Identifier: Apache-2.0
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

constexpr std::size_t huge_page = std::size_t(1) << 21;

std::size_t alignment_of(std::size_t bytes) {
    return bytes >= huge_page ? huge_page : bytes >= 4096 ? 4096 : 64;
}

std::size_t rounded(std::size_t bytes, std::size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

#if defined(__linux__)
// Large memory is a mapping of its own: where it is freed, it goes back to the system at once, which malloc may put off
// for good. Of one huge page more than is needed, what lies outside the alignment is given back.
constexpr std::size_t page = std::size_t(1) << 16;  // a multiple of the pages of all systems
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
    if (!p) {  // what is kept for later calls makes room
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
