// SPDX-License-Identifier: Apache-2.0
//
// The evaluation of a batch: bind the values that rows share, run rows at the same time or one after the other, and
// keep memory between calls.
//
// Determinism: rows are summed in fixed blocks of rows, so results are the same bits for any number of threads.
#include "cpu/plan.hpp"

#include <chrono>
#include <cmath>

#include "cpu/engine.hpp"
#include "shared/tuning.h"

namespace qf {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr std::size_t most_kept = MOST_KEPT_BYTES;
// A workspace of at most 4 MiB is kept whole. Of a larger workspace only the states are kept.
constexpr std::size_t kept_whole = std::size_t(4) << 20;

}  // namespace

template <class T>
Engine<T>::Engine(const Layout<T>& layout)
    : layout_(layout),
      plan_(layout.plan),
      sweeps_(layout.sweeps),
      packs_(layout.packs),
      bits_(layout.bits),
      low_bits_(layout.low_bits),
      chunk_bits_(layout.chunk_bits),
      phases_(with_constants(plan_, low_bits_, layout.phases, true)),
      undivided_(with_constants(plan_, plan_.num_qubits, layout.undivided, false)),
      dense_(dense_forms<T>(plan_, sweeps_.lane_bits)),
      maps_(linear_forms<T>(plan_, layout.windows[0], sweeps_.lane_bits)),
      everything_(layout.everything),
      run_packs_(layout.run_packs),
      layer_begin_(layout.layer_begin),
      pair_begin_(layout.pair_begin),
      many_begin_(layout.many_begin),
      rows_keep_tables_(layout.rows_keep_tables()) {
    make_pack_phases();
    make_pack_factors();
    find_single_columns();
}

template <class T>
void Engine<T>::allocate_rest(const WorkspaceSizes& sizes, const Call& call, Workspace* ws) const {
    if (ws->fixed_bytes) return;  // a kept workspace has all its memory
    if (call.packed) {
        const PackSizes pack = layout_.pack_sizes(call.shape);
        ws->pack = std::make_unique<PackMemory<T>>(plan_, pack);
        ws->fixed_bytes = pack.template bytes<T>();
        return;
    }
    auto allocate_state = [](Buffer<T>& state, std::size_t size) {
        if (!state) state = Buffer<T>(size);
    };
    for (auto& psi : ws->psi) allocate_state(psi, sizes.psi);
    allocate_state(ws->lam, sizes.lam);
    allocate_state(ws->saved, sizes.saved);
    if (sizes.binds_rows) ws->own.resize(plan_, run_packs_);
    ws->layer_scale.resize(sizes.layers);
    ws->forward_scale.resize(sizes.phases);
    ws->adjoint_scale.resize(sizes.phases);
    ws->tables.resize(sizes.phases);
    ws->built.resize(sizes.phases);
    ws->scratch.values.reserve(sizes.table_values);
    ws->scratch.strings.reserve(sizes.table_strings);
    ws->members.resize(sizes.num_threads);
    for (auto& member : ws->members) {
        member.block = Buffer<T>(sizes.block);
        member.low_sums = Buffer<T>(sizes.low_sums);
        member.diagonal = Buffer<T>(sizes.diagonal);
        member.reduce.reserve(sizes.reduce);
    }
    ws->total.resize(sizes.total);
    ws->linear.resize(sizes.linear);
    ws->cross.resize(sizes.cross);
    ws->run_sums.resize(sizes.run_sums);
    ws->z_sums.resize(sizes.z_sums);
    ws->pair_sums.resize(sizes.pair_sums);
    ws->many_sums.resize(sizes.many_sums);
    ws->values.reserve(sizes.values);
    ws->w = Buffer<double>(sizes.w);
    std::fill_n(ws->w.data(), sizes.w, 0.0);  // places that repeat a run are never written
    ws->run_gradient = Buffer<double>(sizes.run_gradient);
    ws->rotations.resize(plan_.runs.size());
    ws->inverses.resize(sizes.rotations - plan_.runs.size());
    ws->with_x.resize(sizes.with_x);
    ws->overlaps.resize(sizes.overlaps);
    ws->fixed_bytes = sizes.template bytes<T>();
}

template <class T>
auto Engine<T>::take_workspace(const WorkspaceSizes& sizes, const Call& call) -> std::shared_ptr<Workspace> {
    const PackSizes pack = call.packed ? layout_.pack_sizes(call.shape) : PackSizes{};
    auto ws = workspaces_.template take<Workspace>([&](const Kept& item) {
        const auto& idle = static_cast<const Workspace&>(item);
        if (call.packed || idle.pack) return call.packed && idle.pack && idle.pack->has(pack);
        return idle.real == call.real && static_cast<int>(idle.members.size()) >= sizes.num_threads &&
               static_cast<int>(idle.psi.size()) >= sizes.num_states && (!sizes.lam || idle.lam) &&
               (!sizes.saved || idle.saved) && idle.rotations.size() + idle.inverses.size() >= sizes.rotations &&
               (!sizes.binds_rows || idle.own.packs);
    });
    if (ws) return ws;
    ws = std::make_shared<Workspace>();
    ws->real = call.real;
    if (call.packed) return ws;
    for (int s = 0; s < sizes.num_states; ++s) ws->psi.push_back(take_state(sizes.psi));
    if (sizes.lam) ws->lam = take_state(sizes.lam);
    if (sizes.saved) ws->saved = take_state(sizes.saved);
    return ws;
}

template <class T>
void Engine<T>::keep(std::shared_ptr<Workspace> ws, std::size_t most_bytes) {
    ws->bytes = ws->fixed_bytes;
    for (const auto& tables : ws->tables) ws->bytes += tables.bytes();
    if (ws->pack) ws->bytes += ws->pack->tables.size() * sizeof(T);
    if (ws->bytes <= kept_whole) return workspaces_.put(std::move(ws));
    auto keep_state = [&](Buffer<T>& buffer) {
        if (!buffer || buffer.size() * sizeof(T) > most_bytes) return;
        auto state = std::make_shared<KeptState>();
        state->bytes = buffer.size() * sizeof(T);
        state->buffer = std::move(buffer);
        kept_states().put(std::move(state));
    };
    for (auto& psi : ws->psi) keep_state(psi);
    keep_state(ws->lam);
    keep_state(ws->saved);
}

template <class T>
Shelf& Engine<T>::kept_states() {
    static Shelf* const shelf = new Shelf;  // never destroyed, because plans may outlive all other statics
    return *shelf;
}

template <class T>
Buffer<T> Engine<T>::take_state(std::size_t size) {
    auto kept = kept_states().template take<KeptState>(
        [&](const Kept& item) { return static_cast<const KeptState&>(item).buffer.size() == size; });
    return kept ? std::move(kept->buffer) : Buffer<T>();
}

// Bind the first row, find the leaves, runs, terms and phases that vary over the rows, and make the tables of all other
// phases.
template <class T>
auto Engine<T>::bind_shared(Call& call) const -> std::shared_ptr<const Shared> {
    const Request& request = call.request;
    static std::atomic<std::int64_t> last_number{0};
    auto shared = call.spare ? std::move(call.spare) : std::make_shared<Shared>();
    if (call.packed != static_cast<bool>(shared->packs)) shared = std::make_shared<Shared>();
    shared->number = ++last_number;
    shared->without_first = call.skip_first_adjoint;
    shared->phase_varies.assign(phases_.size(), 0);
    std::vector<char> column_varies(plan_.num_columns);
    if (call.packed) {
        if (!shared->packs) shared->packs = std::make_unique<PackShared<T>>();
        column_varies = find_sets(request, *shared->packs);
    } else {
        std::vector<int> equal(plan_.num_columns);  // the columns that are the same in all rows so far
        for (int c = 0; c < plan_.num_columns; ++c) equal[c] = c;
        for (int row = 1; row < request.rows && !equal.empty(); ++row) {
            check_stop(request.progress->stop);
            const double* const columns = request.columns + static_cast<std::size_t>(row) * plan_.num_columns;
            if (count_different(columns, request.columns, equal) == 0) continue;
            for (const int c : equal) column_varies[c] = columns[c] != request.columns[c];
            equal.erase(std::remove_if(equal.begin(), equal.end(), [&](int c) { return column_varies[c] != 0; }),
                        equal.end());
        }
    }
    shared->varying = request.rows > 1 ? varying(plan_, column_varies) : BindList();
    if (request.rows > 1) shared->phase_varies = phases_of(plan_, shared->varying);
    if (request.rows > 1 && !call.packed) shared->varying_packs = run_packs_.list_of(shared->varying);
    if (call.packed) {
        for (const int i : shared->varying.leaves)  // a gate RV reads three columns
            if (plan_.leaves[i].kind == LEAF_RV) std::fill_n(column_varies.begin() + plan_.leaves[i].column, 3, 1);
        shared->packs->column_varies = std::move(column_varies);
        bind_shared_packs(*shared, request.columns, call.real);
        const auto num_tables = std::count_if(shared->packs->tables.begin(), shared->packs->tables.end(),
                                              [](const Buffer<T>& table) { return table.size() > 0; });
        shared->bytes =
            layout_.pack_shared_bytes(call.shape, num_tables) + (shared->packs->sets.size() - 1) * plan_.num_columns;
        return shared;
    }
    Bound& bound = shared->bound;
    bound.resize(plan_, run_packs_);
    bind_row(bound.has_constants ? run_packs_.variable : run_packs_.everything, request.columns, bound);
    bound.has_constants = true;
    shared->bytes = layout_.bound_bytes;
    if (!layout_.shares_tables(request.rows)) {
        shared->tables.clear();  // an earlier call with more rows may have left its tables
        return shared;
    }
    shared->tables.resize(phases_.size());
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        if (shared->phase_varies[k] || (k == 0 && shared->without_first)) {
            shared->tables[k] = PhaseTables<T>();
            continue;
        }
        check_stop(request.progress->stop);
        if (!shared->tables[k].low) allocate(phases_[k], plan_.num_qubits, low_bits_, shared->tables[k]);
        build_tables(plan_, phases_[k], low_bits_, shared->bound, sweeps_, shared->scratch, shared->tables[k]);
        shared->bytes += shared->tables[k].bytes();
    }
    return shared;
}

template <class T>
void Engine<T>::choose_summed_runs(Call& call) const {
    constexpr int most_units = 16, blocks_wanted = 32;
    const Request& request = call.request;
    call.own_runs = everything_.runs;
    call.own_packs = run_packs_.everything.packs;
    if (!request.gradient || !request.by_row() || !request.sum_columns || request.rows < 2) return;
    std::vector<char> apart(plan_.num_columns);
    for (int c = 0; c < plan_.num_columns; ++c) apart[c] = !request.sum_columns[c];
    call.summed_runs = runs_without(plan_, apart);
    std::vector<char> is_own(plan_.runs.size(), 1);
    for (const int r : call.summed_runs) is_own[r] = 0;
    for (const int r : call.shared->varying.runs) is_own[r] = 1;
    auto varies = [&](int r) { return is_own[r] != 0; };
    call.summed_runs.erase(std::remove_if(call.summed_runs.begin(), call.summed_runs.end(), varies),
                           call.summed_runs.end());
    call.own_runs.erase(std::remove_if(call.own_runs.begin(), call.own_runs.end(), [&](int r) { return !varies(r); }),
                        call.own_runs.end());
    if (call.summed_runs.empty()) return;
    call.own_packs = run_packs_.list_of({{}, call.own_runs, {}}).packs;
    call.summed_packs = run_packs_.list_of({{}, call.summed_runs, {}}).packs;
    call.units_per_block = std::clamp(call.num_units / blocks_wanted, 1, most_units);
    const int blocks = (call.num_units - 1) / call.units_per_block + 1;
    call.block_w.assign(blocks * plan_.runs.size(), {});
    call.bytes += call.block_w.size() * sizeof(call.block_w[0]);
}

template <class T>
void Engine<T>::add_summed_runs(const Call& call) const {
    if (call.summed_runs.empty()) return;
    if (call.packed) return add_summed_runs_of_packs(call);
    const std::size_t size = plan_.runs.size();
    Buffer<double> w(run_packs_.size_of_w()), scratch(run_packs_.plan.num_columns * run_packs_.width);
    std::fill_n(w.data(), w.size(), 0.0);
    for (std::size_t block = 0; block < call.block_w.size(); block += size)
        for (const int r : call.summed_runs)
            for (int axis = 0; axis < 3; ++axis)
                w[run_packs_.places[r].w + axis * run_packs_.width] += call.block_w[block + r][axis];
    add_run_gradients(call.summed_packs, call.shared->bound, w.data(), scratch.data(), call.request.gradients);
}

// Find the states of an earlier call for values. A training step asks for values and then for gradients of the same
// rows. The call for gradients uses the bound values, tables and states of the call for values. A call for values uses
// only the memory of the states.
template <class T>
void Engine<T>::recall(Call& call) {
    const Request& request = call.request;
    if (request.gradient) {
        call.recalled = request.actions ? nullptr : recalled_.template find<Recalled>([](const Kept&) { return true; });
        if (call.recalled && !call.recalled->are_of(call, plan_.num_columns)) call.recalled = nullptr;
        if (call.recalled) {
            call.recalled->is_found = true;
            call.shared = call.recalled->shared;
        }
    } else {
        call.recalled = recalled_.template take<Recalled>([](const Kept&) { return true; });
        // Another thread that has found the same states may be about to copy their pointer `shared`.
        if (call.recalled && is_held_alone(call.recalled) && is_held_alone(call.recalled->shared))
            call.spare = std::const_pointer_cast<Shared>(std::move(call.recalled->shared));
    }
    if (!call.shared && !call.spare) call.spare = shared_.template take<Shared>([](const Kept&) { return true; });
}

template <class T>
void Engine<T>::bind_or_recall(Call& call) {
    const Request& request = call.request;
    RecalledSizes sizes = layout_.recalled(call.shape);
    std::shared_ptr<Recalled> latest;
    if (!request.gradient) latest = std::move(call.recalled);
    if (!call.shared) call.shared = bind_shared(call);
    call.bytes = call.shared->bytes + layout_.plan_bytes;
    if (sizes.units > 0) {
        if (!latest || !latest->is_found) sizes.units = 0;
        if (!latest || !is_held_alone(latest) || latest->sizes.unit != sizes.unit)
            latest = std::make_shared<Recalled>();
        latest->sizes = sizes;
        latest->is_found = false;
        latest->real = call.real;
        latest->packed = call.packed;
        latest->skip_first_adjoint = call.skip_first_adjoint;
        latest->last_phase_cancels = call.last_phase_cancels;
        latest->rows = request.rows;
        latest->has_psi.assign(call.num_units, 0);
        latest->columns.assign(request.columns,
                               request.columns + static_cast<std::size_t>(request.rows) * plan_.num_columns);
        latest->psi.resize(latest->sizes.units);
        latest->shared = call.shared->bytes <= most_recalled ? call.shared : nullptr;
        latest->bytes = latest->sizes.template bytes<T>() + latest->columns.size() * sizeof(double);
        if (latest->shared) latest->bytes += latest->shared->bytes;
        call.recalled = std::move(latest);
    }
    if (call.recalled) call.bytes += call.recalled->sizes.template bytes<T>();
}

// Give a workspace the values that all rows share. The thread that uses the workspace does it, for its core then has
// the values in its cache. A pack binds all values again that vary over rows, so a second copy of the same values is
// not made.
template <class T>
void Engine<T>::take_shared(const Call& call, Workspace& ws) const {
    if (!call.packed) {
        if (call.request.rows > 1) ws.own.copy(call.shared->bound);
    } else if (ws.shared_number != call.shared->number) {
        take_shared_packs(*call.shared->packs, *ws.pack);
        ws.shared_number = call.shared->number;
    }
    // Columns of which the call computes no gradients for single rows stay 0.
    if (call.packed) std::fill_n(ws.pack->gradient.data(), ws.pack->gradient.size(), 0.0);
}

// Return the bytes of the tables that a row makes for itself: all of them if the row keeps its tables, else the
// largest.
template <class T>
std::size_t Engine<T>::bytes_of_row_tables(const Call& call) const {
    if (call.packed) return call.num_pack_tables * layout_.pack_table_size(call.real) * sizeof(T);
    std::vector<char> of_row(phases_.size());
    for (std::size_t k = 0; k < phases_.size(); ++k) of_row[k] = !call.shared->has_tables(k);
    const TableBytes tables = layout_.tables_of(of_row, call.skip_first_adjoint);
    return rows_keep_tables_ ? tables.all : tables.largest;
}

template <class T>
std::int64_t Engine<T>::count_steps(const Call& call) const {
    const Request& request = call.request;
    const std::int64_t forward = plan_.num_layers + (call.zero_start ? 0 : 1);
    const std::int64_t back = plan_.num_layers + (call.skip_first_adjoint ? 0 : 1);
    std::int64_t total = 0;
    if (call.packed) {
        for (int row = 0; row < request.rows; row += packs_.width) {
            std::int64_t most_pairs = 0;
            for (int j = row; j < std::min(row + packs_.width, request.rows); ++j)
                most_pairs = std::max(most_pairs, request.pairs_of(j));
            const std::int64_t turns = !request.gradient ? 0 : request.by_row() ? 1 : most_pairs;
            total += most_pairs > 0 || request.has_ends() ? forward + turns * back : 0;
        }
        return total;
    }
    for (int row = 0; row < request.rows; ++row) {
        if (!request.asks_for(row)) continue;
        const std::int64_t units = !request.gradient ? 0 : request.by_row() ? 1 : request.pairs_of(row);
        total += units * back;
        if (!request.actions || units == 0 || call.keeps_all_states)
            total += forward;
        else
            for (std::int64_t a = 0; a < request.num_actions; ++a)
                total += request.actions[a].kind == Action::forward && request.actions[a].position > 1 ? units : 0;
    }
    return total;
}

// Prepare the shared angles and tables, the workspaces, and the diagonals of observables. The call first takes
// the kept items that it can use. Then other kept items are freed until at most kept_bytes are left. Then the call
// allocates the rest.
template <class T>
void Engine<T>::prepare(Call& call, const Threading& threading, Workspaces& workspaces) {
    const Request& request = call.request;
    const WorkspaceSizes sizes = layout_.workspace(call.shape, threading.threads / threading.rows);
    workspaces.resize(threading.rows);
    for (auto& ws : workspaces) ws = take_workspace(sizes, call);
    call.diagonals = call.observables.template find_tables<T>();
    recall(call);
    Shelves::trim(std::min(request.kept_bytes, most_kept));

    bind_or_recall(call);
    choose_summed_runs(call);
    if (call.packed) prepare_packs(call);
    request.progress->total = count_steps(call);
    for (int row = 0; request.gradient && request.by_row() && row < request.rows; ++row)
        if (!request.asks_for(row))
            std::fill_n(request.gradients + static_cast<std::size_t>(row) * plan_.num_columns, plan_.num_columns, 0.0);
    for (auto& ws : workspaces) {
        allocate_rest(sizes, call, ws.get());
        if (call.packed) {
            const std::size_t size = call.num_pack_tables * layout_.pack_table_size(call.real);
            if (ws->pack->tables.size() < size) ws->pack->tables = Buffer<T>(size);
            ws->pack->is_finite = call.shared->packs->is_finite;  // here, because a thread may never begin
        }
        call.bytes += ws->fixed_bytes + bytes_of_row_tables(call);
        if (call.packed && call.shared->packs->sets.size() > 1) call.bytes += PackVariation<T>::bytes(plan_);
    }
    if (!call.observables.slots().empty()) {
        call.bytes += call.observables.slots().size() * sizeof(std::int32_t);
        return;
    }
    std::vector<char> observed(call.observables.size());
    for (std::int64_t pair = request.row_pairs[0]; pair < request.row_pairs[request.rows]; ++pair)
        observed[request.pair_observable[pair]] = 1;
    call.diagonals =
        call.observables.template make_tables<T>(std::move(call.diagonals), observed, bits_, request.progress->stop);
    for (std::size_t k = 0; call.diagonals && k < observed.size(); ++k)
        if (observed[k]) call.bytes += call.diagonals->of[k]->bytes;
}

template <class T>
BatchShape Engine<T>::shape_of(const Request& request, const Observables& observables) {
    std::int64_t most_pairs = 0;
    for (int row = 0; row < request.rows; ++row) most_pairs = std::max(most_pairs, request.pairs_of(row));
    const bool one_by_one = request.gradient && !request.by_row();
    BatchShape shape;
    shape.rows = request.rows;
    shape.values_per_row = one_by_one ? 1 : most_pairs;
    if (!observables.slots().empty()) shape.num_outcomes = observables.size();
    shape.num_threads = request.num_threads;
    shape.num_states = request.actions ? request.num_states : 1;
    shape.scheduled = request.actions != nullptr;
    shape.gradient = request.gradient;
    shape.imaginary = request.imaginary;
    shape.saves_psi = one_by_one && !request.actions && most_pairs > 1;
    shape.starts_given = request.initial_states != nullptr;
    return shape;
}

template <class T>
Stats Engine<T>::evaluate(const Request& request, Observables& observables) {
    const auto begin = Clock::now();
    Stats stats{};
    stats.threads = stats.rows = 1;
    stats.is_finite = true;
    if (request.rows == 0) return stats;
    Call call{request, observables};
    call.shape = shape_of(request, observables);
    call.zero_start = plan_.initial_re.empty() && !request.initial_states;
    call.skip_first_adjoint = layout_.skips_first_phase(call.shape);
    call.real = layout_.is_real(call.shape);
    call.first_boundary = call.skip_first_adjoint ? 1 : 0;
    call.keeps_all_states = request.num_states == plan_.num_layers + 2 - call.first_boundary;
    call.packed = layout_.is_packed(call.shape);
    call.last_phase_cancels =
        call.packed && plan_.num_layers > 0 && observables.are_diagonal() && !request.has_ends() && !request.imaginary;
    call.num_units = static_cast<int>(call.packed ? layout_.num_packs(request.rows) : request.rows);
    const Threading threading = layout_.threading(request.rows, request.num_threads, call.packed);
    const bool by_rows = chunk_bits_ == 0 || threading.rows > 1;
    stats.threads = threading.threads;
    stats.rows = threading.rows;

    Workspaces workspaces;
    auto sweep_begin = begin;
    std::atomic<int> next{0};
    Team team(threading.threads);
    auto sweep = [&](int thread) {
        if (thread == 0) {  // the other threads wake while this thread prepares
            prepare(call, threading, workspaces);
            sweep_begin = Clock::now();
            team.open();
        }
        team.await_open();
        if (by_rows || thread == 0) take_shared(call, *workspaces[thread]);
        if (!by_rows) {
            for (int row = 0; row < request.rows; ++row) run_row(call, *workspaces[0], team, thread, row);
            return;
        }
        Team alone(1);
        // A thread takes neighbouring packs, which it asks the memory for in time; 16 times at least, to share the
        // work.
        const int end = call.num_units, blocks = end / (16 * threading.rows * call.units_per_block);
        const int step = call.units_per_block * (call.packed ? std::clamp(blocks, 1, 16) : 1);
        for (int first = next.fetch_add(step); first < end && !team.cancelled(); first = next.fetch_add(step))
            for (int unit = first; unit < std::min(first + step, end); ++unit)
                if (call.packed)
                    run_pack(call, *workspaces[thread], unit);
                else
                    run_row(call, *workspaces[thread], alone, 0, unit);
    };
    team.run(sweep, by_rows);
    for (auto& ws : workspaces) count_steps_made(call, *ws);
    add_summed_runs(call);
    stats.bytes = call.bytes;
    if (call.packed)
        for (const auto& ws : workspaces) stats.is_finite &= ws->pack->is_finite;
    else
        stats.is_finite =
            best_pack_sweeps<double>().all_finite(request.columns, std::size_t(request.rows) * plan_.num_columns);
    stats.bind_seconds = std::chrono::duration<double>(sweep_begin - begin).count();
    stats.sweep_seconds = seconds_since(sweep_begin);

    const std::size_t most_bytes = std::min(std::min(request.kept_bytes, most_kept) + call.bytes, most_kept);
    if (!request.gradient && call.recalled) recalled_.put(std::move(call.recalled));
    if (is_held_alone(call.shared) && call.shared->bytes <= kept_whole)
        shared_.put(std::const_pointer_cast<Shared>(std::move(call.shared)));
    // The next call takes the latest workspace first, so each thread gets the workspace that its core has in its cache.
    for (auto ws = workspaces.rbegin(); ws != workspaces.rend(); ++ws) keep(std::move(*ws), most_bytes);
    call.diagonals = nullptr;
    Shelves::trim(most_bytes);
    return stats;
}

Plan::Plan(PlanData data) : data_(std::move(data)) {}
Plan::~Plan() = default;

template <class Object, class Argument>
Object& Plan::made(std::unique_ptr<Object>& object, const Argument& argument) {
    {
        const std::lock_guard<std::mutex> lock(Shelves::mutex());
        if (object) return *object;
    }
    auto fresh = std::make_unique<Object>(argument);  // without the lock, because the constructor may take long
    const std::lock_guard<std::mutex> lock(Shelves::mutex());
    if (!object) object = std::move(fresh);
    return *object;
}

template <>
const Layout<float>& Plan::layout<float>() {
    return made(float_layout_, data_);
}
template <>
const Layout<double>& Plan::layout<double>() {
    return made(double_layout_, data_);
}
template <>
Stats Plan::evaluate<float>(const Request& request, Observables& observables) {
    return made(float_engine_, layout<float>()).evaluate(request, observables);
}
template <>
Stats Plan::evaluate<double>(const Request& request, Observables& observables) {
    return made(double_engine_, layout<double>()).evaluate(request, observables);
}

double fma_peak(bool single_precision, int num_threads) {
    if (num_threads < 1)
        throw std::invalid_argument("num_threads is " + std::to_string(num_threads) + "; allowed: 1 or more.");
    std::vector<double> rate(num_threads);
    Team(num_threads).run([&](int thread) {
        rate[thread] = single_precision ? best_sweeps<float>().fma_peak() : best_sweeps<double>().fma_peak();
    });
    double total = 0;
    for (const double r : rate) total += r;
    return total;
}

}  // namespace qf
