// SPDX-License-Identifier: Apache-2.0
//
// Threads of one call. They are started per call: nothing survives a fork, and an idle plan owns no thread.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace qf {

// Threads that work on one state together, chunk by chunk, with barriers between sweeps.
class Team {
public:
    explicit Team(int size) : size_(size) {}
    int size() const { return size_; }

    void barrier() {
        if (size_ == 1) return;
        const int phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        // Spin for about as long as a sweep may differ between threads, then leave the core to whoever needs it.
        for (int spins = 0; phase_.load(std::memory_order_acquire) == phase; ++spins)
            if (spins > 4096) std::this_thread::yield();
    }

    // Thread `thread` takes its share of [0, count).
    template <class F>
    void for_each(int count, int thread, F&& function) const {
        for (int i = count * thread / size_; i < count * (thread + 1) / size_; ++i) function(i);
    }

private:
    const int size_;
    std::atomic<int> arrived_{0}, phase_{0};
};

// Call function(thread) on each of `count` threads, the caller being one of them; rethrow the first exception.
template <class F>
void run_threads(int count, F&& function) {
    if (count == 1) return function(0);
    std::exception_ptr error;
    std::mutex mutex;
    auto guarded = [&](int thread) {
        try {
            function(thread);
        } catch (...) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (!error) error = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    for (int thread = 1; thread < count; ++thread) threads.emplace_back(guarded, thread);
    guarded(0);
    for (auto& thread : threads) thread.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace qf
