// SPDX-License-Identifier: Apache-2.0
//
// Memory checks. g++ -fsanitize=thread calls the __tsan functions of this file for every load and store of a kernel;
// libtsan is not linked. Two accesses to the same 4 bytes, at least one of them a write, are a race, unless one thread
// makes both, a barrier of their block lies between them, or __syncwarp orders them (vector clocks of the lanes of a
// warp).
#include "runtime.hpp"

#if CUDA_ON_HOST_CHECK
#include <sys/mman.h>

#include <set>
#include <unordered_map>
#endif

namespace cuda_on_host {

#if !CUDA_ON_HOST_CHECK
void checker_starts_launch(const Launch&) {}
void checker_starts_block() {}
void checker_ends_block() {}
void checker_sees_barrier() {}
void checker_sees_warp_sync(Fiber*, unsigned) {}
void atomic_access(const void*, int) {}
#else

namespace {

// The last access of a kind to a cell. Block numbers go on over all launches, so that old cells need no clearing.
struct Access {
    uint32_t block, epoch, clock;
    uint16_t thread;
    bool atomic, used;
};
struct Cell {  // the last accesses to 4 bytes of memory
    Access write, reads[3];
};

enum class Space { global, shared, forbidden };
struct Region : AddressRange {
    Space space;
    const char* name;
    Cell* cells;
};

std::vector<Region> regions, constant_ranges;
const Region* last_region[3];
AddressRange stack_range, library_range;
uint32_t block_number, first_block_of_launch, epoch;
bool tracing;

// The cells of all regions of a launch lie in one mapping. The system provides a page at its first use. Cells of
// earlier launches count as unused.
Cell* all_cells;
size_t num_cells, used_cells;

size_t cells_of(size_t bytes) {
    return bytes / 4 + 2;
}

void reserve_cells(size_t needed) {
    used_cells = 0;
    if (needed <= num_cells) return;
    if (all_cells) munmap(all_cells, num_cells * sizeof(Cell));
    void* const memory = mmap(nullptr, needed * sizeof(Cell), PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) abort();
    all_cells = static_cast<Cell*>(memory);
    num_cells = needed;
}

void add_region(Space space, uintptr_t begin, size_t bytes, const char* name) {
    if (!bytes) return;
    regions.push_back({{begin, begin + bytes}, space, name, all_cells + used_cells});
    used_cells += cells_of(bytes);
}

// ---- access patterns: the k-th accesses of all lanes from one machine instruction count as one instruction of the
// warp
struct Site {
    uint64_t instructions = 0, passes = 0, fewest = 0;
    Space space = Space::global;
    int size = 0;
    bool write = false;
};
struct WarpAccess {
    uint64_t addresses[WARP];
    uint32_t lanes = 0;
};
struct OpenSite {  // the accesses of the current block so far
    std::vector<uint32_t> count = std::vector<uint32_t>(MAX_THREADS);
    std::vector<WarpAccess> accesses[MAX_WARPS];
};
std::unordered_map<const void*, Site> sites;
std::unordered_map<const void*, OpenSite> open_sites;

void trace(Space space, uintptr_t address, int size, bool write, const void* instruction, const Fiber& me) {
    Site& site = sites[instruction];
    site.space = space;
    site.size = size;
    site.write = write;
    OpenSite& open = open_sites[instruction];
    auto& accesses = open.accesses[me.warp];
    const uint32_t number = open.count[me.linear]++;
    if (accesses.size() <= number) accesses.resize(number + 1);
    accesses[number].addresses[me.lane] = address;
    accesses[number].lanes |= 1u << me.lane;
}

// Global memory: count the sectors of 32 bytes that an access touches, and the fewest sectors that hold as many bytes.
void count_sectors(Site& site, const WarpAccess& access) {
    std::set<uint64_t> sectors, addresses;
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (!(access.lanes >> lane & 1)) continue;
        const uint64_t address = access.addresses[lane];
        addresses.insert(address);
        for (int byte = 0; byte < site.size; byte += 4) sectors.insert((address + byte) / 32);
    }
    site.passes += sectors.size();
    site.fewest += (addresses.size() * site.size + 31) / 32;
}

// Shared memory: count the passes over 32 banks of 4 bytes. Accesses of 8 bytes are made by half a warp at a time, and
// accesses of 16 bytes by a quarter of a warp.
void count_bank_passes(Site& site, const WarpAccess& access) {
    const unsigned together = site.size >= 16 ? 8 : site.size == 8 ? 16 : 32;
    for (unsigned first = 0; first < WARP; first += together) {
        std::set<uint64_t> words_of_bank[32];
        for (unsigned lane = first; lane < first + together; ++lane) {
            if (!(access.lanes >> lane & 1)) continue;
            for (int byte = 0; byte < site.size; byte += 4) {
                const uint64_t word = (access.addresses[lane] + byte) / 4;
                words_of_bank[word % 32].insert(word);
            }
        }
        size_t passes = 0;
        for (const auto& words : words_of_bank) passes = words.size() > passes ? words.size() : passes;
        site.passes += passes;
        site.fewest += passes > 0;
    }
}

void close_sites() {
    for (auto& [instruction, open] : open_sites) {
        Site& site = sites[instruction];
        for (auto& warp : open.accesses) {
            for (const WarpAccess& access : warp) {
                if (!access.lanes) continue;
                ++site.instructions;
                if (site.space == Space::global)
                    count_sectors(site, access);
                else
                    count_bank_passes(site, access);
            }
        }
    }
    open_sites.clear();
}

// ---- races, bounds, and reads of memory that was never written
bool ordered(const Access& before, const Fiber& me) {
    if (before.block != block_number) return false;
    if (before.thread == me.linear || before.epoch < epoch) return true;
    return before.thread / WARP == me.warp && before.clock <= me.clocks[before.thread % WARP];
}

struct Attempt {  // the access under check
    uintptr_t address;
    int size;
    bool write, atomic;
    const void* instruction;
    const char* verb() const { return write ? "write" : "read"; }
};

[[noreturn]] void report_race(const Region& region, uintptr_t address, const Access& before, const char* was,
                              const Attempt& attempt) {
    char block[64] = "with no barrier between";
    if (before.block != block_number) snprintf(block, sizeof block, "of another block");
    fail("race: %s of byte %zu of %s at pc %p, %s by thread %u %s", attempt.verb(), size_t(address - region.begin),
         region.name, attempt.instruction, was, before.thread, block);
}

const Region& find_region(const Attempt& attempt) {
    for (const Region* region : last_region)
        if (region && region->contains(attempt.address)) return *region;
    for (const Region& region : regions) {
        if (!region.contains(attempt.address)) continue;
        last_region[int(region.space)] = &region;
        return region;
    }
    if (attempt.address < 4096) fail("null pointer: %s at pc %p", attempt.verb(), attempt.instruction);
    const Region* nearest = nullptr;
    uintptr_t distance = 4096;
    for (const Region& region : regions) {
        const uintptr_t away =
            attempt.address < region.begin ? region.begin - attempt.address : attempt.address - region.end;
        if (region.space == Space::global && away < distance) {
            nearest = &region;
            distance = away;
        }
    }
    if (nearest)
        fail("out of bounds: %s of %d bytes at byte %td of %s, which has %zu bytes, pc %p", attempt.verb(),
             attempt.size, ptrdiff_t(attempt.address - nearest->begin), nearest->name,
             size_t(nearest->end - nearest->begin), attempt.instruction);
    fail("out of bounds: %s of %d bytes at address %p, in no argument, shared array or local variable, pc %p",
         attempt.verb(), attempt.size, reinterpret_cast<void*>(attempt.address), attempt.instruction);
}

// Return the slot for a new read: an unused slot, a slot whose read cannot race any more, or else the oldest read.
Access& slot_for_read(Cell& cell, uint32_t oldest_block, const Fiber& me) {
    Access* oldest = &cell.reads[0];
    for (Access& read : cell.reads) {
        if (!read.used || read.block < oldest_block) return read;
        if (read.block == block_number && (read.thread == me.linear || read.epoch < epoch)) return read;
        if (read.clock < oldest->clock) oldest = &read;
    }
    return *oldest;
}

void check_cell(const Region& region, Cell& cell, uintptr_t address, const Attempt& attempt, const Fiber& me) {
    const uint32_t oldest_block = region.space == Space::shared ? block_number : first_block_of_launch;
    const Access now{block_number, epoch, me.clocks[me.lane], uint16_t(me.linear), attempt.atomic, true};
    const auto races = [&](const Access& before) {
        return before.used && before.block >= oldest_block && !(attempt.atomic && before.atomic) &&
               !ordered(before, me);
    };
    const bool written = cell.write.used && cell.write.block >= oldest_block;
    if (region.space == Space::shared && !written && (!attempt.write || attempt.atomic))
        fail("uninitialised: read of byte %zu of %s, which no thread of this block wrote, pc %p",
             size_t(address - region.begin), region.name, attempt.instruction);
    if (races(cell.write)) report_race(region, address, cell.write, "written", attempt);
    if (attempt.write) {
        for (const Access& read : cell.reads)
            if (races(read)) report_race(region, address, read, "read", attempt);
        cell.write = now;
        if (!attempt.atomic)
            for (Access& read : cell.reads) read.used = false;
    }
    if (!attempt.write || attempt.atomic) slot_for_read(cell, oldest_block, me) = now;
}

// The words of an array from `xp.empty` that nothing wrote; emulation.py fills it.
constexpr uint32_t UNWRITTEN = 0xfffdead5u;

void check_global(const Region& region, const Attempt& attempt) {
    if (attempt.write) {
        for (const Region& range : constant_ranges)
            if (range.contains(attempt.address))
                fail("restrict: write of byte %zu of %s, a const __restrict__ pointer, at pc %p",
                     size_t(attempt.address - range.begin), range.name, attempt.instruction);
        return;
    }
    for (int byte = 0; byte + 4 <= attempt.size; byte += 4) {
        uint32_t word;
        memcpy(&word, reinterpret_cast<const char*>(attempt.address) + byte, sizeof word);
        if (word == UNWRITTEN)
            fail("uninitialised: read of byte %zu of %s, which nothing wrote, pc %p",
                 size_t(attempt.address - region.begin), region.name, attempt.instruction);
    }
}

void check(const Attempt& attempt, bool aligned) {
    const uintptr_t address = attempt.address;
    if (stack_range.contains(address) || library_range.contains(address)) {
        // Dynamic shared memory lies inside the library and is checked; other memory of the library is not.
        const uintptr_t shared = reinterpret_cast<uintptr_t>(dynamic_shared);
        if (address < shared || address >= shared + MAX_DYNAMIC_SHARED) return;
    }
    if (!current || current == &launcher) return;
    const Fiber& me = *static_cast<Fiber*>(current);
    const Region& region = find_region(attempt);
    if (region.space == Space::forbidden)
        fail("out of bounds: %s of %d bytes at byte %zu of dynamic shared memory, the launch asked for %zu, pc %p",
             attempt.verb(), attempt.size, size_t(address - reinterpret_cast<uintptr_t>(dynamic_shared)),
             size_t(region.begin - reinterpret_cast<uintptr_t>(dynamic_shared)), attempt.instruction);
    if (address + attempt.size > region.end)
        fail("out of bounds: %s of %d bytes at byte %zu of %s, which has %zu bytes, pc %p", attempt.verb(),
             attempt.size, size_t(address - region.begin), region.name, size_t(region.end - region.begin),
             attempt.instruction);
    if (aligned && (address & (attempt.size - 1)))
        fail("misaligned: %s of %d bytes at byte %zu of %s, pc %p", attempt.verb(), attempt.size,
             size_t(address - region.begin), region.name, attempt.instruction);
    if (region.space == Space::global) check_global(region, attempt);
    if (tracing) trace(region.space, address, attempt.size, attempt.write, attempt.instruction, me);
    const uintptr_t origin = region.begin & ~uintptr_t(3);
    for (uintptr_t word = address & ~uintptr_t(3); word < address + attempt.size; word += 4)
        check_cell(region, region.cells[(word - origin) / 4], word, attempt, me);
}

// Check the copy of a struct as loads or stores of 8 bytes if it is aligned to 8 bytes, else of 4 bytes or 1 byte.
void check_range(const void* begin, size_t bytes, bool write, const void* instruction) {
    uintptr_t address = reinterpret_cast<uintptr_t>(begin);
    const size_t step = ((address | bytes) & 7) == 0 ? 8 : ((address | bytes) & 3) == 0 ? 4 : 1;
    for (size_t done = 0; done < bytes; done += step)
        check({address + done, static_cast<int>(step), write, false, instruction}, true);
}

}  // namespace

void checker_starts_launch(const Launch& launch) {
    const uintptr_t shared = reinterpret_cast<uintptr_t>(dynamic_shared);
    const AddressRange arrays = static_shared();
    stack_range = {reinterpret_cast<uintptr_t>(stacks) - STACK_ROOM,
                   reinterpret_cast<uintptr_t>(stacks + MAX_THREADS * STACK_BYTES)};
    library_range = library_segments();
    first_block_of_launch = block_number + 1;
    tracing = launch.trace;
    sites.clear();
    open_sites.clear();
    regions.clear();
    constant_ranges.clear();
    for (int i = 0; i < launch.num_constant; ++i) {
        const Buffer& array = launch.constant[i];
        constant_ranges.push_back({{array.begin, array.begin + array.bytes}, Space::global, array.name, nullptr});
    }
    for (auto& region : last_region) region = nullptr;
    size_t needed = cells_of(MAX_DYNAMIC_SHARED) + cells_of(arrays.end - arrays.begin) + 2;
    for (int i = 0; i < launch.num_buffers; ++i) needed += cells_of(launch.buffers[i].bytes);
    reserve_cells(needed);
    add_region(Space::shared, shared, launch.shared_bytes, "dynamic shared memory");
    add_region(Space::forbidden, shared + launch.shared_bytes, MAX_DYNAMIC_SHARED - launch.shared_bytes, "");
    add_region(Space::shared, arrays.begin, arrays.end - arrays.begin, "static shared memory");
    for (int i = 0; i < launch.num_buffers; ++i)
        add_region(Space::global, launch.buffers[i].begin, launch.buffers[i].bytes, launch.buffers[i].name);
}

void checker_starts_block() {
    ++block_number;
    epoch = 1;
}

void checker_ends_block() {
    if (tracing) close_sites();
}

void checker_sees_barrier() {
    ++epoch;
}

void checker_sees_warp_sync(Fiber* warp, unsigned mask) {
    uint32_t latest[WARP] = {};
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        const Fiber& fiber = warp[__builtin_ctz(rest)];
        for (unsigned lane = 0; lane < WARP; ++lane)
            if (fiber.clocks[lane] > latest[lane]) latest[lane] = fiber.clocks[lane];
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        Fiber& fiber = warp[__builtin_ctz(rest)];
        memcpy(fiber.clocks, latest, sizeof latest);
        ++fiber.clocks[fiber.lane];
    }
}

void atomic_access(const void* address, int size) {
    check({reinterpret_cast<uintptr_t>(address), size, true, true, __builtin_return_address(0)}, true);
}

#endif
}  // namespace cuda_on_host

#if CUDA_ON_HOST_CHECK
using namespace cuda_on_host;

struct SiteRow {
    uint64_t instruction, shared, size, write, instructions, passes, fewest;
};

// Write at most `most` sites of the last launch to rows. Returns the number of all sites.
extern "C" __attribute__((visibility("default"))) int read_sites(SiteRow* rows, int most) {
    int number = 0;
    for (const auto& [instruction, site] : sites) {
        if (number < most)
            rows[number] = {reinterpret_cast<uint64_t>(instruction),
                            site.space == Space::shared,
                            static_cast<uint64_t>(site.size),
                            site.write,
                            site.instructions,
                            site.passes,
                            site.fewest};
        ++number;
    }
    return number;
}

#define CALLER __builtin_return_address(0)
#define CHECKED_ACCESSES(bytes)                                    \
    void __tsan_read##bytes(void* p) {                             \
        check({uintptr_t(p), bytes, false, false, CALLER}, true);  \
    }                                                              \
    void __tsan_write##bytes(void* p) {                            \
        check({uintptr_t(p), bytes, true, false, CALLER}, true);   \
    }                                                              \
    void __tsan_unaligned_read##bytes(void* p) {                   \
        check({uintptr_t(p), bytes, false, false, CALLER}, false); \
    }                                                              \
    void __tsan_unaligned_write##bytes(void* p) {                  \
        check({uintptr_t(p), bytes, true, false, CALLER}, false);  \
    }

extern "C" {
CHECKED_ACCESSES(1)
CHECKED_ACCESSES(2)
CHECKED_ACCESSES(4)
CHECKED_ACCESSES(8)
CHECKED_ACCESSES(16)
void __tsan_read_range(void* p, size_t bytes) {
    check_range(p, bytes, false, CALLER);
}
void __tsan_write_range(void* p, size_t bytes) {
    check_range(p, bytes, true, CALLER);
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}

// These handlers of g++ -fsanitize=undefined replace the handlers of libubsan, so that an error names the CUDA thread.
struct SourcePlace {
    const char* file;
    uint32_t line, column;
};
#define UNDEFINED_BEHAVIOUR(what)                                        \
    void __ubsan_handle_##what(SourcePlace* place, ...) {                \
        if (!current || current == &launcher) return;                    \
        fail("undefined: " #what " at %s:%u", place->file, place->line); \
    }
UNDEFINED_BEHAVIOUR(add_overflow)
UNDEFINED_BEHAVIOUR(sub_overflow)
UNDEFINED_BEHAVIOUR(mul_overflow)
UNDEFINED_BEHAVIOUR(negate_overflow)
UNDEFINED_BEHAVIOUR(divrem_overflow)
UNDEFINED_BEHAVIOUR(shift_out_of_bounds)
UNDEFINED_BEHAVIOUR(out_of_bounds)
UNDEFINED_BEHAVIOUR(builtin_unreachable)
UNDEFINED_BEHAVIOUR(missing_return)
}
#endif
