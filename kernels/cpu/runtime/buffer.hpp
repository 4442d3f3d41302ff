// SPDX-License-Identifier: Apache-2.0
//
// Arrays of numbers in aligned memory.
#pragma once

#include <cstddef>
#include <utility>

namespace qf {

void* aligned_allocate(std::size_t bytes);
void aligned_release(void* p, std::size_t bytes);  // bytes: the same number as in aligned_allocate()

// An array without initial values, aligned to 64 bytes or more. An array of 2 MiB or more asks for huge pages.
template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(std::size_t size)
        : size_(size), data_(size ? static_cast<T*>(aligned_allocate(size * sizeof(T))) : nullptr) {}
    Buffer(Buffer&& other) noexcept
        : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() { aligned_release(data_, size_ * sizeof(T)); }
    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](std::size_t i) { return data_[i]; }
    const T& operator[](std::size_t i) const { return data_[i]; }
    std::size_t size() const { return size_; }
    explicit operator bool() const { return size_ != 0; }

  private:
    std::size_t size_ = 0;
    T* data_ = nullptr;
};

}  // namespace qf
