// SPDX-License-Identifier: Apache-2.0
//
// The pool of idle threads: a worker waits for its next job, and soon sleeps until it gets one.
#include "cpu/runtime/pool.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace qf {

// A worker sleeps when it has waited this long. Waking up takes 0.05 to 0.2 ms, as long as the rows of a thread in a
// training step of few qubits, and the next call of a training loop in PyTorch comes after 0.2 to 0.5 ms. A waiting
// worker yields its core to all other threads of the machine.
constexpr std::chrono::microseconds patience{1000};

class Worker {
  public:
    Worker() : thread_([this] { work(); }) {}
    ~Worker() {
        start(nullptr);
        thread_.join();
    }

    void start(std::function<void()> job) {
        const std::lock_guard<std::mutex> lock(mutex_);
        job_ = std::move(job);
        begun_ = false;
        busy_.store(true, std::memory_order_relaxed);
        changed_.notify_one();
    }

    // Take the job back if the thread has not begun it. Otherwise do nothing.
    void withdraw() {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (begun_) return;
        job_ = nullptr;
        busy_.store(false, std::memory_order_relaxed);
    }

    void wait() {
        // Spin first: the threads of a call end soon after each other, and most waits are shorter than falling asleep.
        for (int turns = 0; turns < 8192 && busy_.load(std::memory_order_acquire); ++turns)
            if (turns >= 4096) std::this_thread::yield();
        if (!busy_.load(std::memory_order_acquire)) return;
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return !busy_.load(std::memory_order_relaxed); });
    }

  private:
    void work() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            lock.unlock();
            const auto end = std::chrono::steady_clock::now() + patience;
            while (!busy_.load(std::memory_order_acquire) && std::chrono::steady_clock::now() < end)
                std::this_thread::yield();
            lock.lock();
            changed_.wait(lock, [this] { return busy_.load(std::memory_order_relaxed); });
            if (!job_) return;
            begun_ = true;
            lock.unlock();
            job_();
            lock.lock();
            job_ = nullptr;
            busy_.store(false, std::memory_order_release);
            changed_.notify_one();
        }
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::function<void()> job_;
    std::atomic<bool> busy_{false};
    bool begun_ = false;  // true: the thread has begun the job
    std::thread thread_;  // declared last, because the thread uses all other members
};

namespace {

struct Idle {
    std::mutex mutex;
    std::vector<Worker*> workers;
};

std::atomic<Idle*> current{nullptr};

// Return the idle threads. The pool is never destroyed; its threads sleep until the process ends. A forked process has
// no threads of its parent, so it starts with an empty pool.
Idle& idle() {
    static const bool made = [] {
        current = new Idle;
#ifndef _WIN32
        pthread_atfork(nullptr, nullptr, [] { current = new Idle; });
#endif
        return true;
    }();
    static_cast<void>(made);
    return *current;
}

Worker* take() {
    Idle& pool = idle();
    {
        const std::lock_guard<std::mutex> lock(pool.mutex);
        if (!pool.workers.empty()) {
            Worker* const worker = pool.workers.back();
            pool.workers.pop_back();
            return worker;
        }
    }
    return new Worker;
}

}  // namespace

void make_pool() {
    static_cast<void>(idle());
}

PooledThread::PooledThread(std::function<void()> job) : worker_(take()) {
    worker_->start(std::move(job));
}

void PooledThread::withdraw() {
    worker_->withdraw();
}

void PooledThread::Finish::operator()(Worker* worker) const {
    worker->wait();
    Idle& pool = idle();
    {
        const std::lock_guard<std::mutex> lock(pool.mutex);
        if (pool.workers.size() < std::thread::hardware_concurrency()) {
            pool.workers.push_back(worker);
            return;
        }
    }
    delete worker;
}

}  // namespace qf
