// SPDX-License-Identifier: Apache-2.0
//
// The engine of one plan and one number format. engine.cpp evaluates a batch of rows and keeps memory between calls;
// row_sweep.cpp and row_passes.cpp sweep over one row.
//
// A row has a chain of states at the boundaries b_0, ..., b_(D+1). b_k lies between the rotations of layer k - 1 and
// phase k; b_(D+1) lies after phase D. Forward step k applies phase k and the rotations of layer k, from b_k to
// b_(k+1). Adjoint step k takes lam back through the rotations of layer k, if they are still to be undone, and through
// phase k. It stores the sums of phase k and of layer k - 1.
#pragma once

#include <algorithm>
#include <atomic>

#include "cpu/dense.hpp"
#include "cpu/layout.hpp"
#include "cpu/linear.hpp"
#include "cpu/phase_sums.hpp"
#include "cpu/phase_tables.hpp"
#include "cpu/plan.hpp"
#include "cpu/runtime/kept.hpp"
#include "cpu/runtime/team.hpp"

namespace qf {

template <class T>
class Engine {
  public:
    explicit Engine(const Layout<T>& layout);
    Stats evaluate(const Request& request, Observables& observables);

  private:
    struct State {
        T *re, *im;  // im is null if the state is real
    };

    // A chunk of a window at one boundary, and the places of its amplitudes (Frame).
    struct Part {
        const Window& window;
        int number;               // the value of the bits that the window leaves out
        std::ptrdiff_t distance;  // from the places that the number gives to the places of the amplitudes
        Places places;            // of a chunk of window 1

        Range placed(const Range& range) const { return {range.num_bits, range.fixed, range.value, places}; }
        Range range() const { return placed(window.chunk(number)); }
        State of(State state) const { return {state.re + distance, state.im ? state.im + distance : nullptr}; }
        template <class F>
        void for_each_tile(F&& function) const {
            window.for_each_tile(number, [&](const Range& tile) { function(placed(tile)); });
        }
    };

    // The scratch memory of one thread of a team.
    struct Member {
        Buffer<T> block, low_sums;
        std::vector<double> reduce;
        Buffer<T> diagonal;
        std::vector<FlipGroup<T>> groups;  // the groups of an observable that one pass takes together
    };

    // The memory that evaluates one row at a time.
    struct Workspace : Kept {
        std::vector<Buffer<T>> psi;  // one state, or the states of a schedule
        Buffer<T> lam, saved;        // saved: a copy of the last state, for the pairs of a row after the first
        bool real = false;           // true: the states have no imaginary parts
        const std::complex<double>* initial = nullptr;  // start state of the row; null: the row starts as the plan says
        const Bound* bound = nullptr;  // `own`, or the values of the first row, which all threads share
        Bound own;
        // The rotations of the row in the order of the groups of the passes forward, and their inverses in the order of
        // the groups of Layout::adjoint, or of Layout::sums and Layout::back.
        std::vector<Rotation<T>> rotations, inverses;
        std::vector<char> with_x;                     // [place of a group]: 1 if X is summed for the group
        std::vector<double> layer_scale;              // product of the norms that the rotations of a layer leave out
        std::vector<T> forward_scale, adjoint_scale;  // factor of the table of phase k, forward and back
        std::vector<PhaseTables<T>> tables;           // [phases] if rows keep their tables, else only tables[0] is used
        std::vector<char> built;                      // [phases]: 1 if the tables of the phase belong to this row
        PhaseScratch<T> scratch;
        std::vector<Member> members;
        std::vector<double> total, linear, cross;          // raw sums of a phase for each h (PhaseSums)
        std::vector<double> z_sums, pair_sums, many_sums;  // [chunk][...]; add_chunks() sums into chunk 0
        std::vector<double> run_sums;  // [chunk][2 runs] in the order of the groups: the sums of Y and X of each run
        std::vector<double> values;    // [chunk][pair], or [part][slot] of outcomes
        std::vector<double> weights;   // [slot] of outcomes: factor of psi in lam
        Buffer<double> w;              // [packs of runs][3][W]: Im <lam|(X, Y, Z)|psi>
        Buffer<double> run_gradient;   // scratch of add_run_gradients()
        Complex factor;  // of the row: the final state of traceless gates is this number of modulus 1 times psi
        // For cotangents of final states, Im <lam|psi>, which all steps keep: the parts of chunks [chunk], and the sum.
        std::vector<double> overlaps;
        double overlap = 0;
        std::int64_t steps = 0;               // steps that Progress does not count yet
        std::size_t fixed_bytes = 0;          // bytes without the tables that rows make
        std::int64_t shared_number = 0;       // the number of the shared values that `pack` has, or 0
        std::unique_ptr<PackMemory<T>> pack;  // of a workspace that evaluates packs; all other members are then empty
    };

    using Workspaces = std::vector<std::shared_ptr<Workspace>>;

    // The memory of a state, which any plan with as many qubits may use.
    struct KeptState : Kept {
        Buffer<T> buffer;
    };

    // Bound values and tables that the rows of a call share. A later call uses the memory again.
    struct Shared : Kept {
        Bound bound;                     // values of the first row
        BindList varying;                // runs, terms and leaves whose angle differs between rows
        RunPacks::List varying_packs;    // the same for rows that are evaluated one by one
        std::vector<char> phase_varies;  // [phases]
        // Tables of the phases that are the same in all rows; empty if rows make all tables.
        std::vector<PhaseTables<T>> tables;
        PhaseScratch<T> scratch;
        std::unique_ptr<PackShared<T>> packs;  // instead of `bound` and `tables`, for rows that are evaluated in packs
        bool without_first = false;            // true: phase 0 has no table (Layout::skips_first_phase)
        std::int64_t number = 0;               // another number for each object of the process
        bool has_tables(std::size_t k) const { return !phase_varies[k] && !tables.empty(); }
    };

    struct Call;
    // What the latest call for values alone leaves for a call for gradients of the same rows. It keeps states only if a
    // call for gradients has followed the call for values before it: storing them takes 6 % of a call for values.
    struct Recalled : Kept {
        std::shared_ptr<const Shared> shared;  // null if it has more than most_recalled bytes
        std::vector<double> columns;
        int rows = 0;
        bool real = false, packed = false, skip_first_adjoint = false, last_phase_cancels = false;
        RecalledSizes sizes;
        std::vector<Buffer<T>> psi;         // [units]
        std::vector<char> has_psi;          // [rows], or [packs]: 1 if the call for values has filled psi[unit]
        std::atomic<bool> is_found{false};  // true: a call for gradients has found this object
        bool are_of(const Call& call, int num_columns) const {
            const Request& request = call.request;
            return request.rows == rows && real == call.real && packed == call.packed &&
                   skip_first_adjoint == call.skip_first_adjoint && last_phase_cancels == call.last_phase_cancels &&
                   !request.initial_states &&
                   std::equal(columns.begin(), columns.end(), request.columns,
                              request.columns + static_cast<std::size_t>(rows) * num_columns);
        }
    };

    // The data of one call of evaluate(), which all its threads share.
    struct Call {
        Call(const Request& request, Observables& observables) : request(request), observables(observables) {}
        const Request& request;
        BatchShape shape;
        Observables& observables;
        std::shared_ptr<const Shared> shared;
        std::shared_ptr<Shared> spare;  // memory of an earlier call for `shared`, or null
        // summed_runs are the same in all rows, and the caller uses only their gradients summed over rows. Their w are
        // added over blocks of rows, block_w[block][run], and turned to gradients once for each call. Blocks do not
        // depend on the number of threads. own_runs are all other runs.
        std::vector<int> own_runs, summed_runs;
        std::vector<int> own_packs, summed_packs;  // the packs of runs that have some of these runs
        int units_per_block = 1;                   // a unit is a row, or a pack of rows
        std::vector<std::array<double, 3>> block_w;
        std::shared_ptr<const Diagonals<T>> diagonals;  // of the observables; null: blocks compute their own diagonals
        bool zero_start = false, skip_first_adjoint = false, real = false;
        bool packed = false;          // true: packs of rows are evaluated, not single rows
        int num_units = 0;            // rows, or packs of rows
        std::vector<char> reads;      // [columns]: 1 if packs read the column
        std::vector<char> has_z;      // [phases]: 1 if packs compute z of the phase
        std::vector<int> pack_table;  // [phases]: the place of the table of a phase that varies over rows; else -1
        int num_pack_tables = 0;
        bool keeps_pack_tables = false;  // true: the backward sweep uses the tables of the forward sweep
        bool keeps_pack_states = false;  // true: the backward sweep reads the states of the forward sweep
        // True: the last phase of packs changes no result, because all observables are diagonal.
        bool last_phase_cancels = false;
        int first_boundary = 0;         // the boundary of position 1 of a schedule
        bool keeps_all_states = false;  // true: the schedule makes no state twice
        std::size_t bytes = 0;
        std::shared_ptr<Recalled> recalled;  // a call for values fills it, a call for gradients reads it; or null
    };

    State view(Buffer<T>& state, bool real) const {
        T* const end = state.data() + state.size();
        const std::size_t part = std::size_t(1) << bits_;
        if (real) return {end - part, nullptr};
        return {end - 2 * part - Layout<T>::stagger, end - part};
    }
    // Count a step. A thread adds its steps to the shared counter once for each 2^20 amplitudes, because threads with
    // small states would wait for each other at the counter.
    void count_step(const Call& call, Workspace& ws) const {
        constexpr std::int64_t counted_at_once = 1 << 20;  // number of amplitudes
        const std::int64_t rows = call.packed ? packs_.width : 1;
        if ((++ws.steps * rows) << bits_ >= counted_at_once) count_steps_made(call, ws);
    }
    static void count_steps_made(const Call& call, Workspace& ws) {
        call.request.progress->done += ws.steps;
        ws.steps = 0;
    }
    // Call function(chunk) for the share of this thread of the chunks. Throws when the evaluation is stopped.
    template <class F>
    void for_each_chunk(const Call& call, const Team& team, int thread, F&& function) const {
        team.for_each(num_chunks(), thread, [&](int chunk) {
            check_stop(call.request.progress->stop);
            function(chunk);
        });
    }
    // Return the chunk of a window that a thread takes as its chunk `chunk`. In window 0, this number gives the place,
    // so that a thread keeps the same amplitudes from pass to pass.
    Part part(const std::array<Window, 2>& windows, int w, int boundary, int chunk) const {
        const Window& window = windows[w];
        const Frame& frame = layout_.frame(boundary);
        if (w == 1 || frame.label.empty()) return {window, chunk, 0, layout_.places(boundary)};
        const int number = static_cast<int>(frame.label[chunk]);
        return {
            window, number, static_cast<std::ptrdiff_t>(chunk - number) * (std::ptrdiff_t(1) << window.position), {}};
    }
    bool has_dense(int layer) const { return layout_.dense_begin[layer] < layout_.dense_begin[layer + 1]; }
    bool has_map(int layer) const { return layout_.map_of[layer] >= 0; }
    // Say whether chunks lie at other places before a layer than after it. The sums of a phase are stored by the index
    // of a block, so a thread that goes on to another frame would overwrite sums that another thread still adds up.
    bool changes_frame(int layer) const { return layout_.frame_of[layer] != layout_.frame_of[layer + 1]; }
    int num_chunks() const { return 1 << chunk_bits_; }
    static BatchShape shape_of(const Request& request, const Observables& observables);
    // Return a kept workspace. If none fits, return a new one that holds kept states and allocates no memory yet.
    std::shared_ptr<Workspace> take_workspace(const WorkspaceSizes& sizes, const Call& call);
    // Allocate the memory that a workspace of take_workspace() lacks.
    void allocate_rest(const WorkspaceSizes& sizes, const Call& call, Workspace* ws) const;
    void keep(std::shared_ptr<Workspace> ws, std::size_t most_bytes);
    static Shelf& kept_states();
    static Buffer<T> take_state(std::size_t size);
    void bind_row(const RunPacks::List& list, const double* columns, Bound& bound) const {
        bind(plan_, list, columns, sizeof(T) < sizeof(double), bound);
    }
    std::shared_ptr<const Shared> bind_shared(Call& call) const;
    void recall(Call& call);
    void bind_or_recall(Call& call);
    void take_shared(const Call& call, Workspace& ws) const;
    std::size_t bytes_of_row_tables(const Call& call) const;
    std::int64_t count_steps(const Call& call) const;
    void prepare(Call& call, const Threading& threading, Workspaces& workspaces);
    const PhaseTables<T>& phase_tables(Call& call, Workspace& ws, Team& team, int thread, int k) const;
    void start(Workspace& ws, int boundary, State psi, int chunk) const;
    void apply_dense(Call& call, Team& team, int thread, int layer, bool adjoint,
                     std::initializer_list<State> states) const;
    void apply_map_to_chunk(Member& member, int layer, bool adjoint, int chunk,
                            std::initializer_list<State> states) const;
    double observe(Call& call, Workspace& ws, Member& member, int observable, bool with_lam, State psi, index_t begin,
                   index_t end) const;
    double observe_pair(Call& call, Workspace& ws, Member& member, std::int64_t pair, bool accumulate, State psi,
                        int chunk) const;
    const AffinePhase& left_phase(const Call& call) const;
    void exchange_final_states(Call& call, Workspace& ws, Team& team, int thread, int row, State psi) const;
    void observe_pairs(Call& call, Workspace& ws, Team& team, int thread, int row, std::int64_t first,
                       std::int64_t count, State psi) const;
    void observe_outcomes(Call& call, Workspace& ws, Team& team, int thread, std::int64_t first, std::int64_t count,
                          State psi) const;
    void set_scales(Workspace& ws) const;
    bool sums_x(const Workspace& ws, const Group& group) const;
    void bind_rotations(const Call& call, Workspace& ws) const;
    void add_chunks(Workspace& ws) const;
    void copy_state_gradient(Workspace& ws, std::complex<double>* out) const;
    void copy_state_at_start(Workspace& ws, std::complex<double>* out) const;
    void choose_summed_runs(Call& call) const;
    void add_summed_runs(const Call& call) const;
    void set_run_sums(const Call& call, Workspace& ws, int layer, bool in_place) const;
    void assemble(Call& call, Workspace& ws, int row, double* gradient) const;
    void run_row(Call& call, Workspace& ws, Team& team, int thread, int row) const;
    void run_in_place(Call& call, Workspace& ws, Team& team, int thread, int row, bool first_of_row, std::int64_t first,
                      std::int64_t count) const;
    void run_actions(Call& call, Workspace& ws, Team& team, int thread, int row, bool states_are_kept,
                     std::int64_t first, std::int64_t count) const;

    // The passes over one row, in row_passes.cpp.
    double* run_sums_of(Workspace& ws, const Group& group, int chunk) const {
        return ws.run_sums.data() + 2 * (chunk * plan_.runs.size() + group.first);
    }
    void rotate(const Group& group, const std::vector<Rotation<T>>& rotations, const Range& range, State state) const;
    // Return how many runs of a group one call of rotate_adjoint() takes.
    int adjoint_step_of(const Group& group, bool with_x) const {
        if (group.lanes) return static_cast<int>(group.runs.size());
        return with_x ? sweeps_.max_adjoint_with_x : sweeps_.max_adjoint;
    }
    void rotate_adjoint(Workspace& ws, const Group& group, int chunk, const Range& range, State psi, State lam) const;
    void forward_pass(Call& call, Workspace& ws, Team& team, int thread, int k, bool continues, State from,
                      State to) const;
    void forward_pending(Call& call, Workspace& ws, Team& team, int thread, int layer, State psi) const;
    void forward_step(Call& call, Workspace& ws, Team& team, int thread, int k, bool continues, bool completes,
                      State from, State to) const;
    template <class F>
    void sum_phase(const Call& call, Workspace& ws, Member& member, int k, double norm, const Part& part, int chunk,
                   F&& sweep) const;
    void undo_phase(Workspace& ws, Member& member, const Diagonal<T>& d, int chunk, const Range& tile, index_t ahead,
                    const PhaseSums<T>& sums, State psi, State lam, const std::vector<Group>& after) const;
    void adjoint_pass(Call& call, Workspace& ws, Team& team, int thread, int k, bool continues, State psi) const;
    void adjoint_pending(Call& call, Workspace& ws, Team& team, int thread, int layer, State psi) const;
    void adjoint_in_place(Call& call, Workspace& ws, Team& team, int thread, State psi) const;
    LaneList<T> lanes_of(const Workspace& ws, const Group* lanes) const {
        return lanes ? LaneList<T>{ws.inverses.data() + lanes->first, static_cast<int>(lanes->runs.size())}
                     : LaneList<T>{};
    }
    void sum_group(Workspace& ws, const Group& group, int chunk, const Range& range, State psi, State lam) const;
    void adjoint_step(Call& call, Workspace& ws, Team& team, int thread, int k, State psi) const;

    // The binding of packs of rows, in pack_binding.cpp.
    struct PackPhase {  // the constants of a phase in the form of packs; phases with equal constants share them
        Buffer<T> values;
        Buffer<T> signs;  // empty if some constant is no sign
        double left = 0;  // the phase in radians that `signs` leave out
    };
    const std::vector<Phase>& phases_of_packs() const { return undivided_.empty() ? phases_ : undivided_; }
    void make_pack_phases();
    void make_pack_factors();
    void find_single_columns();
    template <class S>
    void bind_values(const PackSweeps<S>& packs, const BindList& list, const double* angles,
                     const PackValues<S>& values) const;
    std::vector<char> find_sets(const Request& request, PackShared<T>& packs) const;
    void bind_shared_packs(Shared& shared, const double* columns, bool real) const;
    void prepare_packs(Call& call) const;
    void bind_shared_runs(PackVariation<T>& common, PackBound<double>& bound) const;
    void set_phases(PackVariation<T>& variation) const;
    double set_groups(PackVariation<T>& variation, int layer) const;
    void take_shared_packs(const PackShared<T>& shared, PackMemory<T>& memory) const;
    void point_to_shears(PackMemory<T>& memory) const;
    void take_variation(const PackShared<T>& shared, int set, PackMemory<T>& memory) const;
    template <class S>
    void make_pack_table(int k, const PackSweeps<S>& packs, const PackConstants<S>& constants, S norm,
                         const PackValues<S>& values, const S* factors, bool real, S* table) const;
    const T* pack_table(const Call& call, PackMemory<T>& memory, int k, bool& is_shared) const;
    const T* make_own_table(const Call& call, PackMemory<T>& memory, int k) const;
    void bind_own_phases(const Call& call, PackMemory<T>& memory, const PackValues<T>& values) const;
    // The sweeps over packs of rows, in pack_sweep.cpp and pack_final_state.cpp.
    void run_pack(Call& call, Workspace& ws, int pack) const;
    bool place_states(Call& call, PackMemory<T>& memory, int pack) const;
    void start_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn, int boundary) const;
    // Say whether a phase is left out. The table of a phase has the norms of the layer before it, which may not be 1.
    bool leaves_out(const Call& call, const PackMemory<T>& memory, int k) const {
        return call.last_phase_cancels && k == plan_.num_layers && memory.variation->norm[k] == 1;
    }
    void apply_dense_to_pack(int layer, bool adjoint, bool real, std::initializer_list<T*> states) const;
    void forward_pack(Call& call, Workspace& ws, const PackTurn& turn) const;
    void exchange_final_states_of_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn) const;
    void observe_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn) const;
    void observe_pack_outcomes(Call& call, PackMemory<T>& memory, const PackTurn& turn) const;
    void rotate_pack(const PackMemory<T>& memory, int first, int end, bool inverse, int parts, T* state) const;
    bool sums_x(const Call& call, const PackMemory<T>& memory, int first, int count) const;
    void sum_pack_runs(const Call& call, PackMemory<T>& memory, PackTable<T> table, T* p, int first, int end,
                       int block_bits, index_t block, const T* psi) const;
    void rotate_pack_back(const Call& call, PackMemory<T>& memory, int first, int end, int block_bits,
                          index_t block) const;
    void adjoint_pack(Call& call, Workspace& ws) const;
    void assemble_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn, int pack) const;
    void sum_pack_phase(const Call& call, PackMemory<T>& memory, int k) const;
    void add_summed_runs_of_packs(const Call& call) const;

    const Layout<T>& layout_;
    const PlanData& plan_;
    const Sweeps<T>& sweeps_;
    const PackSweeps<T>& packs_;
    const int bits_, low_bits_, chunk_bits_;
    const std::vector<Phase> phases_, undivided_;
    const std::vector<DenseForm<T>> dense_;
    const std::vector<LinearForm<T>> maps_;
    const BindList& everything_;
    const RunPacks& run_packs_;
    const std::vector<int>& layer_begin_;
    const std::vector<std::size_t>&pair_begin_, &many_begin_;
    std::vector<std::shared_ptr<const PackPhase>> pack_phases_;  // [phases]; null: all constants are 1
    std::vector<PackFactor> pack_factors_;                       // [phases][n]
    std::vector<char> is_single_;      // [columns]: 1 if one gate or one-qubit term alone reads the column
    std::vector<int> summed_columns_;  // the other columns
    const bool rows_keep_tables_;      // true: a row keeps the tables of all phases that it makes
    Shelf workspaces_, recalled_, shared_;
};

}  // namespace qf
