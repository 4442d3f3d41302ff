// SPDX-License-Identifier: Apache-2.0
//
// The shelves of the process, and the return of free memory to the system.
#include "cpu/runtime/kept.hpp"

#include <algorithm>
#include <atomic>
#include <utility>

#ifndef _WIN32
#include <pthread.h>
#endif

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace qf {
namespace {

// The allocator gives free pages back to the system after each 16 MiB of dropped items, because one search for free
// pages takes up to a millisecond.
constexpr std::size_t much = std::size_t(16) << 20;

void give_back() {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

}  // namespace

// The state is never destroyed, because plans may outlive all other statics.
Shelves::State& Shelves::state() {
    static State* const state = [] {
        auto* made = new State;
#ifndef _WIN32
        pthread_atfork([] { mutex().lock(); }, [] { mutex().unlock(); }, [] { mutex().unlock(); });
#endif
        return made;
    }();
    return *state;
}

std::mutex& Shelves::mutex() {
    return state().mutex;
}

void Shelves::release(std::size_t most_bytes) {
    trim(most_bytes);
    give_back();
}

std::size_t Shelves::bytes() {
    const std::lock_guard<std::mutex> lock(mutex());
    return state().bytes;
}

void Shelves::trim(std::size_t most_bytes) {
    std::vector<std::shared_ptr<Kept>> dropped;
    std::size_t dropped_bytes = 0;
    {
        const std::lock_guard<std::mutex> lock(mutex());
        auto& places = state().places;
        for (auto place = places.begin(); place != places.end() && state().bytes > most_bytes;) {
            const auto next = std::next(place);
            if (place->item.use_count() == 1) {
                auto& own = place->shelf->places_;
                dropped.push_back(place->shelf->removed(std::find(own.begin(), own.end(), place) - own.begin()));
                dropped_bytes += dropped.back()->bytes;
            }
            place = next;
        }
    }
    dropped.clear();
    // The bytes of small items are added up, because many small items leave as much memory with the allocator as a
    // large item does.
    static std::atomic<std::size_t> left_with_allocator{0};
    if (left_with_allocator.fetch_add(dropped_bytes) + dropped_bytes >= much) {
        left_with_allocator = 0;
        give_back();
    }
}

void Shelf::put(std::shared_ptr<Kept> item) {
    Shelves::Places made;
    made.push_back({std::move(item), this});
    const std::lock_guard<std::mutex> lock(Shelves::mutex());
    auto& state = Shelves::state();
    state.bytes += made.back().item->bytes;
    state.places.splice(state.places.end(), made);
    places_.push_back(std::prev(state.places.end()));
}

void Shelf::clear() {
    std::vector<std::shared_ptr<Kept>> dropped;
    const std::lock_guard<std::mutex> lock(Shelves::mutex());
    while (!places_.empty()) dropped.push_back(removed(places_.size() - 1));
}

std::shared_ptr<Kept> Shelf::removed(std::size_t i) {
    auto& state = Shelves::state();
    std::shared_ptr<Kept> item = std::move(places_[i]->item);
    state.bytes -= item->bytes;
    state.places.erase(places_[i]);
    places_.erase(places_.begin() + i);
    return item;
}

std::shared_ptr<Kept> Shelf::touched(std::size_t i) {
    auto& places = Shelves::state().places;
    places.splice(places.end(), places, places_[i]);
    std::rotate(places_.begin() + i, places_.begin() + i + 1, places_.end());
    return places_.back()->item;
}

}  // namespace qf
