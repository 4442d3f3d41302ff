// SPDX-License-Identifier: Apache-2.0
//
// The sizes of all buffers of an evaluation. The engine allocates its buffers by these sizes, and predict() adds the
// same sizes, so that a prediction and an evaluation agree.
#pragma once

#include "cpu/packs.hpp"
#include "cpu/phases.hpp"
#include "cpu/plan.hpp"
#include "cpu/windows.hpp"
#include "shared/tuning.h"

namespace qf {

// Number of blocks of 2^low_bits amplitudes whose sums are added in the format of the amplitudes. Sums over more blocks
// would lose digits in single precision, so longer sums are added from sums of this length.
constexpr index_t blocks_per_sum = 256;

// Between a call for values and a call for gradients, a plan keeps states of at most this many bytes, and the values
// and tables that rows share under the same bound.
constexpr std::size_t most_recalled = std::size_t(4) << 20;

// The copy of the columns that these states belong to takes at most this many bytes. Nothing ends the copy early.
constexpr std::size_t most_recalled_columns = std::size_t(16) << 20;

// The states that a call for values keeps: `unit` elements for each of the first `units` rows, or packs of rows.
struct RecalledSizes {
    std::int64_t units = 0;
    std::size_t unit = 0;
    template <class T>
    std::size_t bytes() const {
        return units * unit * sizeof(T);
    }
};

// The properties of a batch that decide how much memory it takes.
struct BatchShape {
    std::int64_t rows = 1;
    std::int64_t values_per_row = 1;  // most expectation values that one pass over the state of a row computes
    std::int64_t num_outcomes = 0;    // for projectors onto outcomes: their number; 0 for other observables
    int num_threads = 1;              // most threads that the batch may use
    int num_states = 1;               // states psi that a row holds: 1, or the states of a schedule
    bool scheduled = false;           // true: a schedule decides which states a row holds
    bool gradient = false, imaginary = false;
    bool saves_psi = false;     // true: the pairs of a row are pulled back one by one, each from a saved copy of psi
    bool starts_given = false;  // true: the caller passes start states
};

// The threads that work on a batch, and the number of rows in work at the same time, each with its own states.
struct Threading {
    int threads;
    int rows;
};

// The bytes of the tables of some phases: their sum, and the largest.
struct TableBytes {
    std::size_t all = 0, largest = 0;
    std::size_t count = 0;  // the number of phases
};

// The number of elements in each array of a workspace. Comments give the type of an element.
struct WorkspaceSizes {
    int num_states = 0, num_threads = 0;
    std::size_t psi = 0, lam = 0, saved = 0;                                         // T
    std::size_t block = 0, low_sums = 0, diagonal = 0;                               // T, for each thread
    std::size_t reduce = 0;                                                          // double, for each thread
    std::size_t total = 0, linear = 0, cross = 0;                                    // double
    std::size_t run_sums = 0, z_sums = 0, pair_sums = 0, many_sums = 0, values = 0;  // double
    std::size_t overlaps = 0;                                                        // double
    std::size_t w = 0, run_gradient = 0;                                             // double
    std::size_t rotations = 0, with_x = 0;                                           // Rotation<T>, char
    std::size_t table_values = 0, table_strings = 0, table_base = 0;  // Complex, double, T: scratch to make tables
    std::size_t layers = 0, phases = 0;
    std::size_t bound_bytes = 0;
    bool binds_rows = false;  // true: rows after the first have bound values of their own

    template <class T>
    std::size_t bytes() const;
};

// The runs of one layer that are rotated together.
struct Group {
    bool lanes;    // true: the runs act on lane qubits; false: on strided qubits
    bool pending;  // true: the bits are outside the window of the pass that takes the layer, see Passes
    bool in_tile;  // true: the bits differ inside a tile of the window that rotates them
    bool needs_x;  // true: a run has gates about more than one axis, so its gradient needs X
    std::vector<int> runs;
    int first;               // the place of the first run in a list of the runs of all groups
    bool moves_lam = false;  // true: the pass that takes the sums of the runs also rotates lam, see Layout::sums
};
using Groups = std::vector<std::vector<Group>>;  // [layers][groups]

// A run in a list of the runs of all groups: its bit, and the place of its rotation in Bound::rotation.
struct RunPlace {
    int bit, rotation;
};

// Return the groups of a layer. There are none before the first layer and after the last.
inline const std::vector<Group>& groups_of(const Groups& groups, int layer) {
    static const std::vector<Group> none;
    return layer < 0 || layer >= static_cast<int>(groups.size()) ? none : groups[layer];
}

// Pass k takes each chunk of a window through phase k, and through the rotations of a layer inside the window: layer k
// forward, layer k - 1 back. The other rotations of the layer are *pending*. If pass k and the pass after it have
// different windows, the later pass begins with the pending rotations, because they are all inside its window.
// Otherwise they take a pass of their own.
struct Passes {
    std::vector<char> window;  // [phases]: 0 or 1
    Groups groups;             // of each layer, the pending groups are last
    // [layers]: the part of the linear map of the layer inside the chunks of window 0 is the last step of a pass in
    // window 0, or the first step of the pass after it, and then *pending*.
    enum MapPlace : char { none, last, first };
    std::vector<MapPlace> maps;

    bool has_pending(int layer) const {
        return maps[layer] == first || (!groups[layer].empty() && groups[layer].back().pending);
    }
};

// Where the chunks of window 0 lie at one boundary (engine.hpp): chunk t at place[t], and chunk label[s] at place s.
// Both are empty if each chunk lies at its own place. A linear map of a layer moves no chunk: it changes where the
// chunks are found.
struct Frame {
    std::vector<std::uint32_t> place, label;
};

template <class T>
class Layout {
  public:
    explicit Layout(const PlanData& plan);

    // Say whether packs of rows are evaluated (simd/packs.hpp), not single rows. The plan and the batch decide, never
    // the number of threads, because the bits of the results depend on it. Rows whose states are kept by a schedule are
    // evaluated one by one.
    bool is_packed(const BatchShape& shape) const;
    std::int64_t num_packs(std::int64_t rows) const { return (rows + packs.width - 1) / packs.width; }
    // Choose the threads. Several rows, or packs of rows, are in work at the same time if the batch has enough rows and
    // their states are small; else all threads share one row.
    Threading threading(std::int64_t rows, int num_threads, bool packed) const;
    bool is_real(const BatchShape& shape) const;
    // Say whether phase 0 has no table. Starting from |0...0>, the state after layer 0 is a product state, and the
    // adjoint never visits phase 0.
    bool skips_first_phase(const BatchShape& shape) const;
    // Return the number of elements of a state of a row; index 0 is psi, index 1 is lam. The four arrays of psi and lam
    // start 1,280 bytes apart from each other, modulo pages. The vectors that one rotation joins lie powers of two
    // apart, so without the stagger they would fall into one set of the L1 cache and evict each other. With a quarter
    // of a page, 1,024 bytes, loads would wait for stores to other arrays whose addresses have the same lowest 12 bits:
    // rotations of bits 8 to 10 of psi and lam take 0.9 of the time with 1,280 bytes (complex64, AMD EPYC).
    std::size_t state_size(int index, bool real) const {
        return (std::size_t(real ? 1 : 2) << bits) + (2 * index + 1) * stagger;
    }
    WorkspaceSizes workspace(const BatchShape& shape, int num_threads) const;
    // Return the sizes of the memory of one pack, without the tables of phases that vary over rows.
    PackSizes pack_sizes(const BatchShape& shape) const;
    // Return the number of elements of the table of one phase that varies over the rows of a pack.
    std::size_t pack_table_size(bool real) const {
        return (std::size_t(real ? 1 : 2) << plan.num_qubits) * packs.width;
    }
    bool keeps_pack_tables(const BatchShape& shape) const;
    // Say whether the backward sweep of a pack reads the states of the forward sweep.
    bool keeps_pack_states(const BatchShape& shape) const;
    // Return the bytes of the values and tables that all packs of a call share.
    std::size_t pack_shared_bytes(const BatchShape& shape, std::size_t num_tables) const;
    // Return the number of equal parts of a state whose probabilities are added apart, so that threads share the parts.
    // The sums of all parts take at most as many doubles as the state has amplitudes, unless there is only one part.
    int outcome_parts(std::int64_t num_outcomes) const;
    // Tables are made once for all rows if the tables of all phases take at most 64 MiB (2 MiB for one row). A row
    // keeps the tables that it makes if all of them take at most 2 MiB; else it makes each table when a sweep needs it.
    bool shares_tables(std::int64_t rows) const;
    bool rows_keep_tables() const;
    TableBytes tables_of(const std::vector<char>& phases, bool without_first) const;
    // Return which states a call for values keeps for a call for gradients of the same rows: the states that the
    // backward sweep reads, which are all states of a pack or the last state.
    RecalledSizes recalled(const BatchShape& shape) const;
    std::size_t diagonals_bytes(std::size_t num_flips, std::size_t num_diagonals) const;
    // Return the most bytes that an evaluation holds, without the arrays of the caller. `varying` are the tables of the
    // phases that differ between rows. Sets of columns of packs, and the tables that they add, of at most
    // most_set_tables bytes, are left out.
    std::size_t predict(const BatchShape& shape, TableBytes varying, std::size_t num_flips,
                        std::size_t num_diagonals) const;
    // Return the most bytes that shared tables, and the diagonals of num_terms terms, add to a prediction without them.
    std::size_t most_shared_bytes(std::size_t num_terms) const;

    const Frame& frame(int boundary) const { return frames[frame_of[boundary]]; }
    Places places(int boundary) const {
        const Frame& frame = this->frame(boundary);
        return frame.place.empty() ? Places{} : Places{frame.place.data(), windows[0].position};
    }

    static constexpr std::size_t stagger = 1280 / sizeof(T);  // elements in 1,280 bytes

    const PlanData& plan;
    const Sweeps<T>& sweeps;
    const PackSweeps<T>& packs;
    const int bits, low_bits, chunk_bits;
    const std::array<Window, 2> windows, adjoint_windows;  // with tiles of one state, and with tiles of psi and lam
    const BindList everything;
    const RunPacks run_packs;
    std::vector<int> layer_begin;  // the runs of layer k are layer_begin[k] .. layer_begin[k + 1] - 1
    std::vector<int> dense_begin;  // the same for dense gates
    std::vector<int> map_of;       // the number of the linear map of layer k, or -1
    std::vector<Frame> frames;     // the different frames; the frame of the last phase is empty
    std::vector<int> frame_of;     // [boundaries b_0 .. b_(D+1)]
    std::vector<Phase> phases;     // the phases without constant tables, which the engine adds
    std::vector<Phase> undivided;  // the phases of packs of more than low_bits qubits: all bits are low
    // The passes over a state that is swept in place, forward and back. The windows take turns.
    Passes forward, adjoint;
    // The groups of an adjoint step that keeps psi: the sums of psi and lam, and the rotations of lam. All sums of a
    // layer come before its first rotation, so the last group of sums rotates lam too. `back` has the other runs. A
    // list of rotations has the runs of `sums`, then the runs of `back`.
    Groups sums, back;
    // The runs of `forward`, of `adjoint`, and of `sums` and `back`, in the order of the lists of rotations.
    std::vector<RunPlace> places_forward, places_adjoint, places_kept;
    std::vector<std::size_t> pair_begin, many_begin;  // index of the first pair and many-body sum of phase k
    // The phase that tables leave out of final states, without and with phase 0 (phase_of_terms).
    const AffinePhase phase_of_all, phase_without_first;
    const std::vector<ColumnSlope> gradients_of_first;  // gradients_of_first_phase
    int max_variants = 1;
    std::size_t plan_bytes = 0;   // bytes of the records, phases and constant tables of the plan
    std::size_t bound_bytes = 0;  // bytes of the bound values of one row

  private:
    Window window_of(int w, int tile) const { return {bits, bits - (w + 1) * chunk_bits, chunk_bits, tile, 0}; }
    std::array<int, 2> strided_and_far(index_t mask) const;
    int num_groups(index_t mask, int size) const;
    int bits_of_tile(int num_states, int size) const;
    std::array<Window, 2> make_windows(int num_states, int size) const;
    void make_frames();
    Passes make_passes(int size, bool is_adjoint) const;
    void make_kept_groups();
    std::vector<RunPlace> places_of(std::initializer_list<const Groups*> lists) const;
    void add_groups(std::vector<Group>& groups, Group kind, const std::vector<int>& runs, int size) const;
    std::size_t count_plan_bytes() const;

    std::vector<std::size_t> table_bytes_;  // [phases]
    std::size_t all_tables_ = 0;
    bool any_whole_ = false, any_linear_ = false;
    std::size_t most_cross_ = 0;
};

// Return a flag for each phase: 1 if a run or a term of the list belongs to the phase.
std::vector<char> phases_of(const PlanData& plan, const BindList& list);

}  // namespace qf
