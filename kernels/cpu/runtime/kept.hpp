// SPDX-License-Identifier: Apache-2.0
//
// Memory that is kept between calls. Each plan and each set of observables keeps its items on its own shelves. All
// shelves of the process share one bound in bytes; the least recently used item is freed first.
#pragma once

#include <atomic>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

namespace qf {

struct Kept {
    virtual ~Kept() = default;
    std::size_t bytes = 0;
};

// Return whether the caller alone holds an item, so that the caller may write to it. No shelf may have the item,
// because another thread could find it there. All reads by threads that held the item come before the writes of the
// caller.
template <class Item>
bool is_held_alone(const std::shared_ptr<Item>& item) {
    if (item.use_count() != 1) return false;
    std::atomic_thread_fence(std::memory_order_acquire);
    return true;
}

class Shelf;

// The shelves of the process. One mutex guards all of them. The mutex is locked while pointers move, never while an
// item is made, filled or freed. It is also locked across a fork, so that the child process finds all shelves complete.
class Shelves {
  public:
    static std::mutex& mutex();
    static std::size_t bytes();
    // Free the least recently used items until at most most_bytes are left. Items that a call uses now stay. After each
    // 16 MiB of freed items, the allocator gives its free pages back to the system.
    static void trim(std::size_t most_bytes);
    // Trim, and always give the free pages of the allocator back to the system.
    static void release(std::size_t most_bytes);

  private:
    friend class Shelf;
    struct Place {
        std::shared_ptr<Kept> item;
        Shelf* shelf;
    };
    using Places = std::list<Place>;  // the least recently used item comes first
    struct State {
        std::mutex mutex;
        Places places;
        std::size_t bytes = 0;
    };
    static State& state();
};

// The items of one kind that one plan or one set of observables keeps.
class Shelf {
  public:
    Shelf() = default;
    Shelf(const Shelf&) = delete;
    Shelf& operator=(const Shelf&) = delete;
    ~Shelf() { clear(); }

    void put(std::shared_ptr<Kept> item);
    void clear();
    // Return the latest item for which fits(item) is true, or null. `take` also removes the item from the shelf.
    template <class Item, class F>
    std::shared_ptr<Item> find(F&& fits) {
        return std::static_pointer_cast<Item>(search(fits, false));
    }
    template <class Item, class F>
    std::shared_ptr<Item> take(F&& fits) {
        return std::static_pointer_cast<Item>(search(fits, true));
    }

  private:
    friend class Shelves;
    template <class F>
    std::shared_ptr<Kept> search(F& fits, bool remove) {
        const std::lock_guard<std::mutex> lock(Shelves::mutex());
        for (std::size_t i = places_.size(); i-- > 0;)
            if (fits(*places_[i]->item)) return remove ? removed(i) : touched(i);
        return nullptr;
    }
    std::shared_ptr<Kept> removed(std::size_t i);
    std::shared_ptr<Kept> touched(std::size_t i);

    std::vector<Shelves::Places::iterator> places_;  // the most recently used item comes last
};

}  // namespace qf
