// SPDX-License-Identifier: Apache-2.0
#include "buffer.hpp"

#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

namespace qf {

void* aligned_allocate(std::size_t bytes) {
    constexpr std::size_t huge_page = std::size_t(1) << 21;
    const std::size_t alignment = bytes >= huge_page ? huge_page : bytes >= 4096 ? 4096 : 64;
    const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
#if defined(_WIN32)
    void* p = _aligned_malloc(size, alignment);
#else
    void* p = std::aligned_alloc(alignment, size);
#endif
    if (!p) throw std::bad_alloc();
#if defined(__linux__)
    if (alignment == huge_page) madvise(p, bytes, MADV_HUGEPAGE);
#endif
    return p;
}

void aligned_release(void* p) {
#if defined(_WIN32)
    _aligned_free(p);
#else
    std::free(p);
#endif
}

}  // namespace qf
