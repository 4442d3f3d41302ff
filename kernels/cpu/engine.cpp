// SPDX-License-Identifier: Apache-2.0
//
// A batch: what its rows share, which rows run side by side, and what is kept between calls.
#include "cpu/plan.hpp"

#include <chrono>
#include <cmath>

#include "cpu/engine.hpp"
#include "shared/tuning.h"

namespace qf {
namespace {

std::size_t bytes_of(const Bound& bound) {
    return bound.leaf.size() * sizeof(bound.leaf[0]) + bound.leaf_rv.size() * sizeof(bound.leaf_rv[0]) +
           bound.rotor.size() * sizeof(bound.rotor[0]) + bound.term.size() * sizeof(bound.term[0]);
}

std::size_t bytes_of(const PlanData& plan) {
    return plan.leaves.size() * sizeof(Leaf) + plan.runs.size() * sizeof(Run) + plan.terms.size() * sizeof(Term) +
           (plan.initial_re.size() + plan.initial_im.size()) * sizeof(double);
}

std::size_t bytes_of(const Phase& phase) {
    std::size_t bytes = sizeof(Phase) + phase.one_body.size() * sizeof(OneBody);
    for (const auto* pairs : {&phase.low_pairs, &phase.high_pairs, &phase.cross_pairs})
        for (const auto& pair : *pairs) bytes += sizeof(Pair) + pair.sources.size() * sizeof(Pair::Source);
    for (const auto& many : phase.many_body) bytes += sizeof(ManyBody) + many.low.size() * sizeof(double);
    return bytes;
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr std::size_t resident_row_tables = std::size_t(2) << 20;      // bytes per thread
constexpr std::size_t resident_shared_tables = std::size_t(64) << 20;  // bytes, for a batch
constexpr std::size_t most_kept = MOST_KEPT_BYTES;
constexpr std::size_t kept_whole = std::size_t(4)
                                   << 20;  // bytes of a workspace; of a larger one, states alone are kept
constexpr std::size_t kept_finals = std::size_t(4)
                                    << 20;  // bytes of last states, and of what rows share, between calls

}  // namespace

template <class T>
Engine<T>::Engine(const PlanData& plan)
    : plan_(plan),
      sweeps_(best_sweeps<T>()),
      bits_(std::max(plan.num_qubits, sweeps_.lane_bits)),
      low_bits_(std::max(std::min(plan.num_qubits, MAX_LOW_BITS), sweeps_.lane_bits)),
      chunk_bits_(plan.chunk_bits),
      phases_(make_phases(plan, low_bits_)),
      everything_(everything(plan)),
      layer_begin_(plan.num_layers + 1) {
    for (const auto& run : plan.runs) ++layer_begin_[run.layer + 1];
    for (int k = 0; k < plan.num_layers; ++k) layer_begin_[k + 1] += layer_begin_[k];
    forward_ = make_groups(sweeps_.max_rotate, false);
    adjoint_ = make_groups(sweeps_.max_adjoint, true);
    sums_ = make_groups(sweeps_.max_sums, true);
    pair_begin_.assign(phases_.size() + 1, 0);
    many_begin_.assign(phases_.size() + 1, 0);
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        const Phase& phase = phases_[k];
        const std::size_t pairs = phase.low_pairs.size() + phase.high_pairs.size() + phase.cross_pairs.size();
        pair_begin_[k + 1] = pair_begin_[k] + (phase.want_pairs ? pairs : 0);
        many_begin_[k + 1] = many_begin_[k] + (phase.want_many ? phase.many_body.size() : 0);
        max_variants_ = std::max(max_variants_, phase.num_variants());
        table_bytes_ += table_bytes<T>(phase, plan.num_qubits, low_bits_);
        phase_bytes_ += bytes_of(phase);
    }
    rows_keep_tables_ = table_bytes_ <= resident_row_tables;
}

template <class T>
auto Engine<T>::make_groups(int size, bool adjoint) const -> Groups {
    Groups layers(plan_.num_layers);
    for (int layer = 0; layer < plan_.num_layers; ++layer) {
        std::vector<int> lanes, strided[2][2];  // [outside][needs x]
        bool lanes_need_x = false;
        for (int r = layer_begin_[layer]; r < layer_begin_[layer + 1]; ++r) {
            const Run& run = plan_.runs[r];
            const bool needs_x = adjoint && !run.single_axis;
            if (run.bit < sweeps_.lane_bits) {
                lanes.push_back(r);
                lanes_need_x = lanes_need_x || needs_x;
            } else {
                strided[run.bit >= bits_ - chunk_bits_][needs_x].push_back(r);
            }
        }
        if (!lanes.empty()) layers[layer].push_back({true, false, lanes_need_x, lanes});
        for (int outside_chunk = 0; outside_chunk < 2; ++outside_chunk)
            for (int needs_x = 0; needs_x < 2; ++needs_x) {
                const auto& runs = strided[outside_chunk][needs_x];
                for (std::size_t i = 0; i < runs.size(); i += size)
                    layers[layer].push_back({false,
                                             outside_chunk != 0,
                                             needs_x != 0,
                                             {runs.begin() + i, runs.begin() + std::min(i + size, runs.size())}});
            }
    }
    return layers;
}

template <class T>
auto Engine<T>::make_workspace(int team_size, const Call& call, bool saved) const -> std::shared_ptr<Workspace> {
    const bool gradient = call.request.gradient;
    auto ws = std::make_shared<Workspace>();
    const std::size_t low = std::size_t(1) << low_bits_;
    const std::size_t blocks = std::size_t(1) << (bits_ - low_bits_), chunks = num_chunks();
    ws->real = call.real;
    while (static_cast<int>(ws->psi.size()) < call.num_states())
        ws->psi.push_back(take_state(state_size(0, call.real)));
    if (gradient) ws->lam = take_state(state_size(1, call.real));
    if (saved) ws->saved = take_state(state_size(0, call.real));
    ws->bound.resize(plan_);
    ws->layer_scale.resize(plan_.num_layers);
    ws->forward_scale.resize(phases_.size());
    ws->adjoint_scale.resize(phases_.size());
    ws->tables.resize(phases_.size());
    ws->built.resize(phases_.size());
    ws->members.resize(team_size);
    for (auto& member : ws->members) {
        member.block = Buffer<T>(3 * low);
        member.low_sums = Buffer<T>((blocks > chunks * blocks_per_sum ? 2 : 1) * max_variants_ * low);
        member.diagonal = Buffer<T>(2 * low);
    }
    if (gradient) {
        std::size_t max_cross = 0;
        bool linear = false;
        for (const auto& phase : phases_) {
            linear = linear || (phase.per_block && phase.want_pairs);
            if (phase.per_block && phase.want_many) max_cross = std::max(max_cross, phase.many_body.size());
        }
        ws->total.resize(blocks);
        if (linear) ws->linear.resize(blocks * low_bits_);
        ws->cross.resize(blocks * max_cross);
        ws->run_sums.resize(chunks * plan_.runs.size() * 2);
        ws->z_sums.resize(chunks * phases_.size() * plan_.num_qubits);
        ws->pair_sums.resize(chunks * pair_begin_.back());
        ws->many_sums.resize(chunks * many_begin_.back());
        ws->w.resize(plan_.runs.size());
    }
    std::size_t& bytes = ws->fixed_bytes;
    bytes = bytes_of(ws->bound) + phases_.size() * (sizeof(PhaseTables<T>) + 1 + sizeof(double) + 2 * sizeof(T));
    auto add = [&](const auto& buffer) { bytes += buffer.size() * sizeof(buffer[0]); };
    for (const auto& state : ws->psi) add(state);
    add(ws->lam);
    add(ws->saved);
    for (const auto& member : ws->members) add(member.block), add(member.low_sums), add(member.diagonal);
    for (const auto* sums :
         {&ws->total, &ws->linear, &ws->cross, &ws->run_sums, &ws->z_sums, &ws->pair_sums, &ws->many_sums})
        add(*sums);
    add(ws->w);
    if (std::any_of(phases_.begin(), phases_.end(), [](const Phase& phase) { return phase.whole; }))  // scratch
        bytes += (std::size_t(16) << plan_.num_qubits) + (team_size * std::size_t(8) << (bits_ - chunk_bits_));
    return ws;
}

template <class T>
auto Engine<T>::take_workspace(int team_size, const Call& call, bool saved) -> std::shared_ptr<Workspace> {
    return workspaces_.template take<Workspace>([&](const Kept& item) {
        const auto& idle = static_cast<const Workspace&>(item);
        return idle.real == call.real && static_cast<int>(idle.members.size()) >= team_size &&
               static_cast<int>(idle.psi.size()) >= call.num_states() && (!call.request.gradient || idle.lam) &&
               (!saved || idle.saved);
    });
}

template <class T>
void Engine<T>::keep(std::shared_ptr<Workspace> ws, std::size_t most_bytes) {
    ws->bytes = ws->fixed_bytes;
    for (const auto& tables : ws->tables) ws->bytes += tables.bytes();
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
    static Shelf* const shelf = new Shelf;  // never destroyed, as the shelves of the process
    return *shelf;
}

template <class T>
Buffer<T> Engine<T>::take_state(std::size_t size) {
    auto kept = kept_states().template take<KeptState>(
        [&](const Kept& item) { return static_cast<const KeptState&>(item).buffer.size() == size; });
    return kept ? std::move(kept->buffer) : Buffer<T>(size);
}

// Bind with the norms of tau as it is rounded.
template <class T>
void Engine<T>::bind_row(const BindList& list, const double* columns, Bound& bound) const {
    bind(plan_, list, columns, bound);
    if constexpr (sizeof(T) < sizeof(double))
        for (const int r : list.runs) {
            Rotor& rotor = bound.rotor[r];
            const double tau = static_cast<T>(rotor.tau);
            rotor.scale = 1 / std::sqrt(1 + tau * tau);
        }
}

template void Engine<float>::bind_row(const BindList&, const double*, Bound&) const;
template void Engine<double>::bind_row(const BindList&, const double*, Bound&) const;

// Angles of the first row, what varies over the others, and the tables that do not.
template <class T>
auto Engine<T>::bind_shared(const Call& call) const -> std::shared_ptr<const Shared> {
    const Request& request = call.request;
    auto shared = std::make_shared<Shared>();
    shared->without_first = call.skip_first_adjoint;
    shared->bound.resize(plan_);
    bind_row(everything_, request.columns, shared->bound);
    shared->phase_varies.assign(phases_.size(), 0);
    if (request.rows > 1) {
        std::vector<char> column_varies(plan_.num_columns);
        for (int row = 1; row < request.rows; ++row) {
            check_stop(request.progress->stop);
            for (int c = 0; c < plan_.num_columns; ++c)
                column_varies[c] |=
                    request.columns[static_cast<std::size_t>(row) * plan_.num_columns + c] != request.columns[c];
        }
        shared->varying = varying(plan_, column_varies);
        for (const int r : shared->varying.runs) {
            shared->phase_varies[plan_.runs[r].layer] = 1;
            shared->phase_varies[plan_.runs[r].layer + 1] = 1;
        }
        for (const int t : shared->varying.terms) shared->phase_varies[plan_.terms[t].phase] = 1;
    }
    shared->bytes = bytes_of(shared->bound);
    if (table_bytes_ > (request.rows > 1 ? resident_shared_tables : resident_row_tables)) return shared;
    shared->tables.resize(phases_.size());
    PhaseScratch<T> scratch;
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        if (shared->phase_varies[k] || (k == 0 && shared->without_first)) continue;
        check_stop(request.progress->stop);
        allocate(phases_[k], plan_.num_qubits, low_bits_, shared->tables[k]);
        build_tables(plan_, phases_[k], low_bits_, shared->bound, sweeps_, scratch, shared->tables[k]);
        shared->bytes += table_bytes<T>(phases_[k], plan_.num_qubits, low_bits_);
    }
    return shared;
}

template <class T>
void Engine<T>::choose_summed_runs(Call& call) const {
    constexpr int most_rows = 16, blocks_wanted = 32;
    const Request& request = call.request;
    call.own_runs = everything_.runs;
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
    call.rows_per_block = std::clamp(request.rows / blocks_wanted, 1, most_rows);
    const int blocks = (request.rows - 1) / call.rows_per_block + 1;
    call.block_w.assign(blocks * plan_.runs.size(), {});
    call.bytes += call.block_w.size() * sizeof(call.block_w[0]);
}

template <class T>
void Engine<T>::add_summed_runs(const Call& call) const {
    if (call.summed_runs.empty()) return;
    const std::size_t size = plan_.runs.size();
    std::vector<std::array<double, 3>> w(size);
    for (std::size_t block = 0; block < call.block_w.size(); block += size)
        for (const int r : call.summed_runs)
            for (int axis = 0; axis < 3; ++axis) w[r][axis] += call.block_w[block + r][axis];
    add_run_gradients(plan_, call.summed_runs, call.shared->bound, call.request.columns, w.data(),
                      call.request.gradients);
}

// A training step asks for values, then for gradients of the same rows: angles and tables are made, and the forward
// sweeps, once for both. This finds the last states of a call for values, or their memory.
template <class T>
void Engine<T>::recall(Call& call) {
    const Request& request = call.request;
    if (request.gradient) {
        call.finals = request.actions ? nullptr : finals_.template find<Finals>([](const Kept&) { return true; });
        if (call.finals && !call.finals->are_of(call, plan_.num_columns)) call.finals = nullptr;
        if (call.finals && call.finals->shared && call.finals->shared->without_first == call.skip_first_adjoint)
            call.shared = call.finals->shared;
    } else {
        call.finals = finals_.template take<Finals>([](const Kept&) { return true; });
    }
}

template <class T>
void Engine<T>::bind_or_recall(Call& call) {
    const Request& request = call.request;
    const std::size_t state_bytes = request.rows * state_size(0, call.real) * sizeof(T);
    std::shared_ptr<Finals> latest;
    if (!request.gradient) latest = std::move(call.finals);
    if (!call.shared) call.shared = bind_shared(call);
    call.bytes = call.shared->bytes + bytes_of(plan_) + phase_bytes_;
    if (!request.gradient && !request.initial_states && state_bytes <= kept_finals) {
        if (!latest || latest.use_count() > 1 || latest->real != call.real) latest = std::make_shared<Finals>();
        latest->real = call.real;
        latest->rows = request.rows;
        latest->known.assign(request.rows, 0);
        latest->columns.assign(request.columns,
                               request.columns + static_cast<std::size_t>(request.rows) * plan_.num_columns);
        latest->psi.resize(request.rows);
        latest->shared = call.shared->bytes <= kept_finals ? call.shared : nullptr;
        latest->bytes = state_bytes + latest->columns.size() * sizeof(double);
        if (latest->shared) latest->bytes += latest->shared->bytes;
        call.finals = std::move(latest);
    }
    if (call.finals) call.bytes += state_bytes;
}

// Of tables that each row makes for itself: all of them where they are resident, else the largest.
template <class T>
std::size_t Engine<T>::bytes_of_row_tables(const Call& call) const {
    std::size_t all = 0, largest = 0;
    for (std::size_t k = 0; k < phases_.size(); ++k) {
        if (call.shared->has_tables(k) || (k == 0 && call.skip_first_adjoint)) continue;
        const std::size_t bytes = table_bytes<T>(phases_[k], plan_.num_qubits, low_bits_);
        all += bytes;
        largest = std::max(largest, bytes);
    }
    return rows_keep_tables_ ? all : largest;
}

template <class T>
std::int64_t Engine<T>::count_steps(const Call& call) const {
    const Request& request = call.request;
    const std::int64_t forward = plan_.num_layers + (call.zero_start ? 0 : 1);
    const std::int64_t back = plan_.num_layers + (call.skip_first_adjoint ? 0 : 1);
    std::int64_t total = 0;
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

// What all rows need: angles and tables that they share, their workspaces, and diagonals, made once, before threads ask
// for them. What is there is found first; other things that are kept then make room for what is not.
template <class T>
void Engine<T>::prepare(Call& call, const Stats& stats, Workspaces& workspaces) {
    const Request& request = call.request;
    const int team_size = stats.threads / stats.rows;
    bool saved = false;
    for (int row = 0; row < request.rows && request.gradient && !request.by_row() && !request.actions; ++row)
        saved = saved || request.pairs_of(row) > 1;
    workspaces.resize(stats.rows);
    for (auto& ws : workspaces)
        if (!(ws = take_workspace(team_size, call, saved))) break;
    call.diagonals = call.observables.template find_tables<T>();
    recall(call);
    Shelves::trim(std::min(request.kept_bytes, most_kept));

    bind_or_recall(call);
    choose_summed_runs(call);
    request.progress->total = count_steps(call);
    for (auto& ws : workspaces) {
        if (!ws) ws = make_workspace(team_size, call, saved);
        ws->bound = call.shared->bound;
        call.bytes += ws->fixed_bytes + bytes_of_row_tables(call);
    }
    std::vector<char> asked(call.observables.size());
    for (std::int64_t pair = request.row_pairs[0]; pair < request.row_pairs[request.rows]; ++pair)
        asked[request.pair_observable[pair]] = 1;
    call.diagonals =
        call.observables.template make_tables<T>(std::move(call.diagonals), asked, bits_, request.progress->stop);
    for (std::size_t k = 0; call.diagonals && k < asked.size(); ++k)
        if (asked[k]) call.bytes += call.diagonals->of[k]->bytes;
}

template <class T>
Stats Engine<T>::evaluate(const Request& request, Observables& observables) {
    const auto begin = Clock::now();
    Stats stats{};
    stats.threads = stats.rows = 1;
    if (request.rows == 0) return stats;
    Call call{request, observables};
    call.zero_start = plan_.initial_re.empty() && !request.initial_states;
    call.skip_first_adjoint = call.zero_start && !request.imaginary;
    // two vectors a chunk at least, as the sweeps over real states need; states that go in or out have a global phase
    call.real = plan_.is_real && !request.initial_states && !request.final_states && !request.final_cotangents &&
                !request.imaginary && plan_.num_qubits > sweeps_.lane_bits;
    call.first_boundary = call.skip_first_adjoint ? 1 : 0;
    call.keeps_all_states = request.num_states == plan_.num_layers + 2 - call.first_boundary;
    // Rows side by side while there are enough of them and their states are small; else all threads on one row.
    const double work =
        std::ldexp(static_cast<double>(request.rows), bits_) * static_cast<double>(plan_.runs.size() + 1);
    constexpr double worth_a_thread = 2e5;  // amplitude-runs, about 0.1 ms: a thread takes some 30 us to wake
    const int wanted =
        std::max(1, std::min(request.num_threads, static_cast<int>(std::min(work / worth_a_thread, 1e6)) + 1));
    const bool by_rows = chunk_bits_ == 0 || (request.rows >= 2 * wanted && bits_ <= 20);
    const int threads = by_rows ? std::min(wanted, request.rows) : std::min(wanted, num_chunks());
    stats.threads = threads;
    stats.rows = by_rows ? threads : 1;

    Workspaces workspaces;
    auto sweep_begin = begin;
    std::atomic<int> next{0};
    Team team(threads);
    team.run([&](int thread) {
        if (thread == 0) {  // while the others wake
            prepare(call, stats, workspaces);
            sweep_begin = Clock::now();
        }
        team.barrier();
        if (!by_rows) {
            for (int row = 0; row < request.rows; ++row) run_row(call, *workspaces[0], team, thread, row);
            return;
        }
        Team alone(1);
        const int step = call.rows_per_block;
        for (int first = next.fetch_add(step); first < request.rows && !team.cancelled(); first = next.fetch_add(step))
            for (int row = first; row < std::min(first + step, request.rows); ++row)
                run_row(call, *workspaces[thread], alone, 0, row);
    });
    for (auto& ws : workspaces) count_steps_made(call, *ws);
    add_summed_runs(call);
    stats.bytes = call.bytes;
    stats.bind_seconds = std::chrono::duration<double>(sweep_begin - begin).count();
    stats.sweep_seconds = seconds_since(sweep_begin);

    const std::size_t most_bytes = std::min(std::min(request.kept_bytes, most_kept) + call.bytes, most_kept);
    if (!request.gradient && call.finals) finals_.put(std::move(call.finals));
    for (auto& ws : workspaces) keep(std::move(ws), most_bytes);
    call.diagonals = nullptr;
    Shelves::trim(most_bytes);
    return stats;
}

Plan::Plan(PlanData data) : data_(std::move(data)) {}
Plan::~Plan() = default;

namespace {
template <class T>
Engine<T>& engine_of(std::unique_ptr<Engine<T>>& engine, const PlanData& data) {
    {
        const std::lock_guard<std::mutex> lock(Shelves::mutex());
        if (engine) return *engine;
    }
    auto made = std::make_unique<Engine<T>>(data);  // without the lock: this takes long
    const std::lock_guard<std::mutex> lock(Shelves::mutex());
    if (!engine) engine = std::move(made);
    return *engine;
}
}  // namespace

template <>
Stats Plan::evaluate<float>(const Request& request, Observables& observables) {
    return engine_of(float_engine_, data_).evaluate(request, observables);
}
template <>
Stats Plan::evaluate<double>(const Request& request, Observables& observables) {
    return engine_of(double_engine_, data_).evaluate(request, observables);
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
