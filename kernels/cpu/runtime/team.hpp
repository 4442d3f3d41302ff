// SPDX-License-Identifier: Apache-2.0
//
// The threads of one call, and their barrier.
#pragma once

#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/runtime/pool.hpp"

namespace qf {

// A team of threads that sweep over the chunks of one state, or over rows, with barriers between sweeps.
class Team {
  public:
    explicit Team(int size) : size_(size) {}
    int size() const { return size_; }
    bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

    // Wait until all threads have arrived. Throws if a thread has failed, because the failed thread will never arrive.
    void barrier() {
        if (size_ == 1) return;
        const unsigned phase = phase_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        // Spin for about as long as the time of a sweep differs between threads; then yield the core to other threads.
        for (int spins = 0; phase_.load(std::memory_order_acquire) == phase;) {
            if (cancelled()) throw Cancelled{};
            if (spins < 4096)
                ++spins;
            else
                std::this_thread::yield();
        }
    }

    // Let all threads pass that wait in await_open(). One thread opens, and does not wait itself.
    void open() { open_.store(true, std::memory_order_release); }
    void await_open() {
        for (int spins = 0; !open_.load(std::memory_order_acquire); ++spins) {
            if (cancelled()) throw Cancelled{};
            if (spins >= 4096) std::this_thread::yield();
        }
    }

    // Return the end of the share of thread `thread` of i = 0 .. count - 1.
    int end(int count, int thread) const { return count * (thread + 1) / size_; }
    // Call function(i) for the share of thread `thread` of i = 0 .. count - 1.
    template <class F>
    void for_each(int count, int thread, F&& function) const {
        for (int i = count * thread / size_; i < end(count, thread); ++i) function(i);
    }

    // Call function(thread) on every thread; the caller is thread 0. If a thread throws, the other threads end at their
    // next barrier. After all threads have ended, the first exception is rethrown. With may_be_fewer, a thread that has
    // not begun when the function of the caller ends does not call the function.
    template <class F>
    void run(F&& function, bool may_be_fewer = false) {
        if (size_ == 1) return function(0);
        std::exception_ptr error;
        std::mutex mutex;
        auto fail = [&](std::exception_ptr reason) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (!error) error = std::move(reason);
            cancelled_.store(true, std::memory_order_relaxed);
        };
        auto guarded = [&](int thread) {
            try {
                function(thread);
            } catch (const Cancelled&) {  // the thread that failed has stored its exception
            } catch (...) {
                fail(std::current_exception());
            }
        };
        std::vector<PooledThread> threads;
        threads.reserve(size_ - 1);
        try {
            while (static_cast<int>(threads.size()) < size_ - 1)
                threads.emplace_back([&, thread = static_cast<int>(threads.size()) + 1] { guarded(thread); });
        } catch (const std::system_error& reason) {
            fail(std::make_exception_ptr(std::runtime_error("could start only " + std::to_string(threads.size() + 1) +
                                                            " of " + std::to_string(size_) + " threads (" +
                                                            reason.what() + "); use a smaller num_threads.")));
        } catch (...) {
            fail(std::current_exception());
        }
        if (!cancelled()) guarded(0);
        for (auto& thread : threads)
            if (may_be_fewer) thread.withdraw();
        threads.clear();  // waits until all threads have ended
        if (error) std::rethrow_exception(error);
    }

  private:
    struct Cancelled {};

    const int size_;
    std::atomic<int> arrived_{0};
    std::atomic<unsigned> phase_{0};
    std::atomic<bool> cancelled_{false}, open_{false};
};

}  // namespace qf
