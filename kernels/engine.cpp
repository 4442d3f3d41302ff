// SPDX-License-Identifier: Apache-2.0
//
// Sweeps over rows, layers and chunks. Chunks are fixed by the number of qubits, and everything summed over them is
// added in chunk order, so results do not depend on the number of threads.
//
// forward:  for k = 0..D: [phase k, rotations of layer k on chunk-local qubits] | [rotations on the other qubits]
// adjoint:  the same backwards on psi and lam, with the sums of "Gradients" in kernels/README.md.
// "|" is a barrier between sweeps; one chunk needs none.
#include "engine.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <stdexcept>

#include "phases.hpp"
#include "team.hpp"

namespace qf {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr std::size_t resident_row_tables = std::size_t(2) << 20;      // bytes per thread
constexpr std::size_t resident_shared_tables = std::size_t(64) << 20;  // bytes, for a batch
constexpr std::size_t kept_workspaces = std::size_t(128) << 20;        // bytes of all, between calls
constexpr index_t blocks_per_sum = 256;  // added up in the format of the amplitudes; longer sums lose digits in it

}  // namespace

template <class T>
class Engine {
  public:
    explicit Engine(const PlanData& plan)
        : plan_(plan),
          sweeps_(best_sweeps<T>()),
          bits_(std::max(plan.num_qubits, sweeps_.lane_bits)),
          low_bits_(std::max(std::min(plan.num_qubits, max_low_bits), sweeps_.lane_bits)),
          chunk_bits_(plan.chunk_bits),
          phases_(make_phases(plan, low_bits_)),
          everything_(everything(plan)),
          layer_begin_(plan.num_layers + 1),
          forward_(plan.num_layers),
          adjoint_(plan.num_layers) {
        for (const auto& run : plan.runs) ++layer_begin_[run.layer + 1];
        for (int k = 0; k < plan.num_layers; ++k) layer_begin_[k + 1] += layer_begin_[k];
        for (int k = 0; k < plan.num_layers; ++k) {
            make_groups(k, false, forward_[k]);
            make_groups(k, true, adjoint_[k]);
        }
        pair_begin_.assign(phases_.size() + 1, 0);
        many_begin_.assign(phases_.size() + 1, 0);
        for (std::size_t k = 0; k < phases_.size(); ++k) {
            const Phase& phase = phases_[k];
            const std::size_t pairs = phase.low_pairs.size() + phase.high_pairs.size() + phase.cross_pairs.size();
            pair_begin_[k + 1] = pair_begin_[k] + (phase.want_pairs ? pairs : 0);
            many_begin_[k + 1] = many_begin_[k] + (phase.want_many ? phase.many_body.size() : 0);
            max_variants_ = std::max(max_variants_, phase.num_variants());
            table_bytes_ += table_bytes<T>(phase, plan.num_qubits, low_bits_);
        }
    }

    Stats evaluate(const Request& request, Observables& observables);

  private:
    struct Group {            // runs of one layer that one pass over the chunk rotates
        bool lanes, outside;  // outside: on chunk bits, needs chunks cut along other bits
        bool needs_x;         // some run has gates about more than one axis
        std::vector<int> runs;
    };

    struct Member {  // scratch of one thread of a team
        Buffer<T> block, low_sums;
        std::vector<double> reduce;
        Buffer<T> diagonal;
    };

    struct Workspace {  // of one row at a time
        Buffer<T> psi, lam, saved;
        Bound bound;
        std::vector<double> layer_scale;
        std::vector<PhaseTables<T>> tables;  // per phase where they are resident, else tables[0] only
        std::vector<char> built;
        PhaseScratch<T> scratch;
        std::vector<Member> members;
        std::vector<double> total, linear, cross;                    // raw sums of a phase, by h
        std::vector<double> run_sums, z_sums, pair_sums, many_sums;  // [chunk][...], then added into chunk 0
        std::vector<double> values;                                  // [chunk][pair]
        std::vector<std::array<double, 3>> w;
        std::size_t bytes = 0;
    };

    struct Call {  // shared by all threads of one evaluate
        const Request& request;
        Observables& observables;
        Bound shared;
        BindList varying;
        std::vector<char> phase_varies;
        std::vector<PhaseTables<T>> tables;               // of phases that do not vary, where they are stored
        std::vector<const DiagonalTables<T>*> diagonals;  // of observables asked for; null: made block by block
        bool resident_rows;
        bool zero_start, skip_first_adjoint;
    };

    // The four arrays of psi and lam start a quarter of a page apart from each other modulo pages: rows of a group are
    // powers of two apart, and all of them in one set of the L1 cache would evict each other.
    static constexpr std::size_t stagger = 1024 / sizeof(T);
    std::size_t state_size(int index) const { return (std::size_t(2) << bits_) + (2 * index + 1) * stagger; }
    T* re(Buffer<T>& state) const { return state.data() + state.size() - (std::size_t(2) << bits_) - stagger; }
    T* im(Buffer<T>& state) const { return re(state) + (std::size_t(1) << bits_) + stagger; }
    static void check_stop(const Call& call) {
        if (call.request.stop->load(std::memory_order_relaxed))
            throw std::runtime_error("the evaluation was cancelled.");
    }
    int num_chunks() const { return 1 << chunk_bits_; }
    Range inside(int chunk) const { return {bits_, bits_ - chunk_bits_, chunk_bits_, static_cast<index_t>(chunk)}; }
    Range outside(int chunk) const {
        return {bits_, bits_ - 2 * chunk_bits_, chunk_bits_, static_cast<index_t>(chunk)};
    }
    index_t block_begin(int chunk) const { return static_cast<index_t>(chunk) << (bits_ - chunk_bits_ - low_bits_); }

    void make_groups(int layer, bool adjoint, std::vector<Group>& groups) const;
    std::unique_ptr<Workspace> make_workspace(int team_size, bool gradient, bool saved) const;
    const PhaseTables<T>& phase_tables(Call& call, Workspace& ws, Team& team, int thread, int k) const;
    bool sums_x(const Workspace& ws, const Group& group) const;
    int rotations(const Workspace& ws, const Group& group, bool adjoint, Rotation<T>* out) const;
    void start(const Call& call, Workspace& ws, int chunk) const;
    void forward(Call& call, Workspace& ws, Team& team, int thread) const;
    void adjoint(Call& call, Workspace& ws, Team& team, int thread) const;
    void rotate_groups(Workspace& ws, int layer, bool outside_chunk, int chunk) const;
    void rotate_groups_adjoint(Workspace& ws, int layer, bool outside_chunk, int chunk) const;
    void adjoint_phase(Call& call, Workspace& ws, Member& member, int k, const Diagonal<T>& d, int chunk) const;
    double observe(Call& call, Workspace& ws, Member& member, int observable, bool with_lam, index_t begin,
                   index_t end) const;
    double observe_pair(Call& call, Workspace& ws, Member& member, std::int64_t pair, bool accumulate, int chunk) const;
    void add_chunks(Workspace& ws) const;
    void assemble(Call& call, Workspace& ws, const double* columns, double* gradient) const;
    void run_row(Call& call, Workspace& ws, Team& team, int thread, int row) const;

    const PlanData& plan_;
    const Sweeps<T>& sweeps_;
    int bits_, low_bits_, chunk_bits_;
    std::vector<Phase> phases_;
    BindList everything_;
    std::vector<int> layer_begin_;  // runs of layer k
    std::vector<std::vector<Group>> forward_, adjoint_;
    std::vector<std::size_t> pair_begin_, many_begin_;
    int max_variants_ = 1;
    std::size_t table_bytes_ = 0;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Workspace>> idle_;
    std::size_t idle_bytes_ = 0;
};

template <class T>
void Engine<T>::make_groups(int layer, bool adjoint, std::vector<Group>& groups) const {
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
    if (!lanes.empty()) groups.push_back({true, false, lanes_need_x, lanes});
    for (int outside_chunk = 0; outside_chunk < 2; ++outside_chunk)
        for (int needs_x = 0; needs_x < 2; ++needs_x) {
            const auto& runs = strided[outside_chunk][needs_x];
            const std::size_t size = adjoint ? sweeps_.max_adjoint : sweeps_.max_rotate;
            for (std::size_t i = 0; i < runs.size(); i += size)
                groups.push_back({false,
                                  outside_chunk != 0,
                                  needs_x != 0,
                                  {runs.begin() + i, runs.begin() + std::min(i + size, runs.size())}});
        }
}

// Ry(beta) turns (Z, X) of w by beta: X before it is (cos(beta) Z_before - Z_after)/sin(beta). That costs nothing but
// up to a factor 1/sin(beta) in accuracy, so X is summed for the whole group where a sine is small.
template <class T>
bool Engine<T>::sums_x(const Workspace& ws, const Group& group) const {
    constexpr double smallest_sine = 0.125;
    if (!group.needs_x) return false;
    for (const int r : group.runs)
        if (!plan_.runs[r].single_axis && sin_beta(ws.bound.rotor[r]) < smallest_sine) return true;
    return false;
}

template <class T>
auto Engine<T>::make_workspace(int team_size, bool gradient, bool saved) const -> std::unique_ptr<Workspace> {
    auto ws = std::make_unique<Workspace>();
    const std::size_t amplitudes = std::size_t(1) << bits_, low = std::size_t(1) << low_bits_;
    const std::size_t blocks = std::size_t(1) << (bits_ - low_bits_), chunks = num_chunks();
    ws->psi = Buffer<T>(state_size(0));
    if (gradient) ws->lam = Buffer<T>(state_size(1));
    if (saved) ws->saved = Buffer<T>(state_size(0));
    ws->bound.resize(plan_);
    ws->layer_scale.resize(plan_.num_layers + 1);
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
    ws->bytes = 2 * amplitudes * (1 + gradient + saved) * sizeof(T) + std::min(table_bytes_, resident_row_tables);
    for (const auto* sums :
         {&ws->total, &ws->linear, &ws->cross, &ws->run_sums, &ws->z_sums, &ws->pair_sums, &ws->many_sums})
        ws->bytes += sums->size() * sizeof(double);
    return ws;
}

// Tables of phase k for the workspace's row: stored for the call, stored for the row, or made now.
template <class T>
const PhaseTables<T>& Engine<T>::phase_tables(Call& call, Workspace& ws, Team& team, int thread, int k) const {
    if (!call.phase_varies[k] && !call.tables.empty()) return call.tables[k];
    const std::size_t slot = call.resident_rows ? k : 0;
    if (call.resident_rows && team.size() == 1 && ws.built[k]) return ws.tables[k];
    team.barrier();  // nobody reads the slot any more
    if (thread == 0 && !(call.resident_rows && ws.built[k])) {
        ws.tables[slot] = PhaseTables<T>();
        allocate(phases_[k], plan_.num_qubits, low_bits_, ws.tables[slot]);
        build_tables(plan_, phases_[k], low_bits_, ws.bound, sweeps_, ws.scratch, ws.tables[slot]);
        ws.built[k] = 1;
    }
    team.barrier();
    return ws.tables[slot];
}

template <class T>
int Engine<T>::rotations(const Workspace& ws, const Group& group, bool adjoint, Rotation<T>* out) const {
    int count = 0;
    for (const int r : group.runs) {
        const Rotor& rotor = ws.bound.rotor[r];
        const double tau = adjoint && !rotor.flip ? -rotor.tau : rotor.tau;  // (T(t) X)^-1 ~ X T(-t) = T(t) X
        out[count++] = {plan_.runs[r].bit, rotor.flip, static_cast<T>(tau)};
    }
    return count;
}

template <class T>
void Engine<T>::rotate_groups(Workspace& ws, int layer, bool outside_chunk, int chunk) const {
    const Range range = outside_chunk ? outside(chunk) : inside(chunk);
    for (const auto& group : forward_[layer]) {
        if (group.outside != outside_chunk) continue;
        Rotation<T> list[8];
        const int count = rotations(ws, group, false, list);
        (group.lanes ? sweeps_.rotate_lanes : sweeps_.rotate)(range, list, count, re(ws.psi), im(ws.psi));
    }
}

template <class T>
void Engine<T>::rotate_groups_adjoint(Workspace& ws, int layer, bool outside_chunk, int chunk) const {
    const Range range = outside_chunk ? outside(chunk) : inside(chunk);
    for (const auto& group : adjoint_[layer]) {
        if (group.outside != outside_chunk) continue;
        Rotation<T> list[8];
        double sums[16] = {};
        const int count = rotations(ws, group, true, list);
        const bool with_x = sums_x(ws, group);
        if (group.lanes) {
            sweeps_.rotate_lanes_adjoint(range, list, count, with_x, re(ws.psi), im(ws.psi), re(ws.lam), im(ws.lam),
                                         sums);
        } else {
            const int step = with_x ? sweeps_.max_adjoint_with_x : sweeps_.max_adjoint;
            for (int j = 0; j < count; j += step)
                sweeps_.rotate_adjoint(range, list + j, std::min(step, count - j), with_x, re(ws.psi), im(ws.psi),
                                       re(ws.lam), im(ws.lam), sums + 2 * j);
            double norm2 = 1;  // assemble() takes all sums of a group as made after its last rotation
            for (int j = count - 1; step < count && j >= 0; --j) {
                sums[2 * j] /= norm2;
                sums[2 * j + 1] /= norm2;
                norm2 *= ws.bound.rotor[group.runs[j]].scale * ws.bound.rotor[group.runs[j]].scale;
            }
        }
        double* out = ws.run_sums.data() + chunk * plan_.runs.size() * 2;
        for (int j = 0; j < count; ++j) {
            out[2 * group.runs[j]] = sums[2 * j];
            out[2 * group.runs[j] + 1] = sums[2 * j + 1];
        }
    }
}

// psi of one chunk before phase 0 or, from |0...0>, after layer 0: a product of real columns.
template <class T>
void Engine<T>::start(const Call& call, Workspace& ws, int chunk) const {
    const std::size_t size = std::size_t(1) << (bits_ - chunk_bits_), begin = chunk * size;
    T *psi_re = re(ws.psi) + begin, *psi_im = im(ws.psi) + begin;
    std::fill_n(psi_im, size, T(0));
    if (!call.zero_start) {
        const std::size_t given = std::size_t(1) << plan_.num_qubits;
        for (std::size_t i = 0; i < size; ++i) {
            psi_re[i] = begin + i < given ? static_cast<T>(plan_.initial_re[begin + i]) : T(0);
            psi_im[i] = begin + i < given ? static_cast<T>(plan_.initial_im[begin + i]) : T(0);
        }
        return;
    }
    double at0[64], at1[64];
    std::fill_n(at0, bits_, 1.0);
    std::fill_n(at1, bits_, 0.0);
    if (plan_.num_layers > 0)
        for (int r = layer_begin_[0]; r < layer_begin_[1]; ++r) {
            const Rotor& rotor = ws.bound.rotor[r];
            at0[plan_.runs[r].bit] = rotor.flip ? -rotor.tau : 1;
            at1[plan_.runs[r].bit] = rotor.flip ? 1 : rotor.tau;
        }
    double root = 1;
    for (int b = bits_ - chunk_bits_; b < bits_; ++b) root *= begin >> b & 1 ? at1[b] : at0[b];
    psi_re[0] = static_cast<T>(root);
    for (int b = 0; b < bits_ - chunk_bits_; ++b) {
        const std::size_t half = std::size_t(1) << b;
        const T f0 = static_cast<T>(at0[b]), f1 = static_cast<T>(at1[b]);
        for (std::size_t l = 0; l < half; ++l) {
            psi_re[half + l] = psi_re[l] * f1;
            psi_re[l] *= f0;
        }
    }
}

template <class T>
void Engine<T>::forward(Call& call, Workspace& ws, Team& team, int thread) const {
    const index_t blocks = index_t(1) << (bits_ - chunk_bits_ - low_bits_);
    team.for_each(num_chunks(), thread, [&](int chunk) { start(call, ws, chunk); });
    for (int k = call.zero_start ? 1 : 0; k <= plan_.num_layers; ++k) {
        check_stop(call);
        const Phase& phase = phases_[k];
        const double scale = k > 0 ? ws.layer_scale[k - 1] : 1;
        const Diagonal<T> d = phase_tables(call, ws, team, thread, k).view(phase, low_bits_, scale);
        bool crosses = false;
        if (k < plan_.num_layers)
            for (const auto& group : forward_[k]) crosses = crosses || group.outside;
        team.for_each(num_chunks(), thread, [&](int chunk) {
            const index_t begin = block_begin(chunk);
            sweeps_.phase(d, begin, begin + blocks, re(ws.psi), im(ws.psi), ws.members[thread].block.data());
            if (k < plan_.num_layers) rotate_groups(ws, k, false, chunk);
        });
        if (!crosses) continue;
        team.barrier();
        team.for_each(num_chunks(), thread, [&](int chunk) { rotate_groups(ws, k, true, chunk); });
        team.barrier();
    }
    team.barrier();
}

template <class T>
void Engine<T>::adjoint_phase(Call& call, Workspace& ws, Member& member, int k, const Diagonal<T>& d, int chunk) const {
    const Phase& phase = phases_[k];
    const index_t begin = block_begin(chunk), end = begin + (index_t(1) << (bits_ - chunk_bits_ - low_bits_));
    const bool wanted = phase.want_sums && !(k == 0 && call.skip_first_adjoint);
    PhaseSums<T> sums{};
    T* const low = member.low_sums.data();
    const std::size_t num_low = static_cast<std::size_t>(phase.num_variants()) << low_bits_;
    if (wanted) {
        sums.total = ws.total.data();
        sums.linear = phase.per_block && phase.want_pairs ? ws.linear.data() : nullptr;
        sums.cross = phase.per_block && phase.want_many ? ws.cross.data() : nullptr;
    }
    for (index_t h = begin; h < end; h += blocks_per_sum) {
        T* part = h == begin ? low : low + num_low;
        if (wanted) {
            std::fill_n(part, num_low, T(0));
            sums.low = part;
        }
        sweeps_.phase_adjoint(d, h, std::min(h + blocks_per_sum, end), re(ws.psi), im(ws.psi), re(ws.lam), im(ws.lam),
                              sums, member.block.data());
        if (wanted && part != low)
            for (std::size_t l = 0; l < num_low; ++l) low[l] += part[l];
    }
    if (!wanted) return;
    const PhaseGradient out{ws.z_sums.data() + (chunk * phases_.size() + k) * plan_.num_qubits,
                            ws.pair_sums.data() + chunk * pair_begin_.back() + pair_begin_[k],
                            ws.many_sums.data() + chunk * many_begin_.back() + many_begin_[k]};
    const ChunkSums raw{ws.total.data(), ws.linear.data(), ws.cross.data(), begin, end};
    reduce_sums<T>(phase, plan_.num_qubits, low_bits_, sweeps_, low, raw, member.reduce, out);
}

template <class T>
void Engine<T>::adjoint(Call& call, Workspace& ws, Team& team, int thread) const {
    for (int k = plan_.num_layers; k >= 0; --k) {
        if (k == 0 && call.skip_first_adjoint) break;
        check_stop(call);
        // Rotations leave a factor behind; the phase after them takes it out: layer k was undone just before.
        const double scale = k < plan_.num_layers ? ws.layer_scale[k] : 1;
        const Diagonal<T> d = phase_tables(call, ws, team, thread, k).view(phases_[k], low_bits_, scale);
        bool crosses = false;
        if (k > 0)
            for (const auto& group : adjoint_[k - 1]) crosses = crosses || group.outside;
        team.for_each(num_chunks(), thread, [&](int chunk) {
            adjoint_phase(call, ws, ws.members[thread], k, d, chunk);
            if (k > 0) rotate_groups_adjoint(ws, k - 1, false, chunk);
        });
        if (!crosses) continue;
        team.barrier();
        team.for_each(num_chunks(), thread, [&](int chunk) { rotate_groups_adjoint(ws, k - 1, true, chunk); });
        team.barrier();
    }
    team.barrier();
}

template <class T>
double Engine<T>::observe(Call& call, Workspace& ws, Member& member, int observable, bool with_lam, index_t begin,
                          index_t end) const {
    T *lam_re = with_lam ? re(ws.lam) : nullptr, *lam_im = with_lam ? im(ws.lam) : nullptr;
    const auto& groups = call.observables.groups(observable);
    const auto* tables = call.diagonals[observable];
    double value = 0;
    if (groups.empty() && with_lam) {
        std::fill(lam_re + begin, lam_re + end, T(0));
        std::fill(lam_im + begin, lam_im + end, T(0));
    }
    for (std::size_t g = 0; g < groups.size(); ++g) {
        const auto& group = groups[g];
        if (tables) {
            value += sweeps_.observe(begin, end, group.x, group.has_real ? tables->re[g].data() + begin : nullptr,
                                     group.has_imag ? tables->im[g].data() + begin : nullptr, re(ws.psi), im(ws.psi),
                                     lam_re, lam_im, g > 0);
            continue;
        }
        const index_t block = index_t(1) << low_bits_;
        T* d_re = group.has_real ? member.diagonal.data() : nullptr;
        T* d_im = group.has_imag ? member.diagonal.data() + block : nullptr;
        for (index_t i = begin; i < end; i += block) {
            fill_diagonal(group, i >> low_bits_, low_bits_, member.reduce, d_re, d_im);
            value += sweeps_.observe(i, i + block, group.x, d_re, d_im, re(ws.psi), im(ws.psi), lam_re, lam_im, g > 0);
        }
    }
    if (with_lam && call.request.imaginary)  // Im<i lam|P|psi> = -Re<lam|P|psi>: the same sums, for 2 Im<psi|O|d psi>
        for (index_t i = begin; i < end; ++i) {
            const T old = lam_re[i];
            lam_re[i] = -lam_im[i];
            lam_im[i] = old;
        }
    return value;
}

// The value of a pair over one chunk and, for gradients, lam = O psi; with cotangents lam (+)= weight O psi.
template <class T>
double Engine<T>::observe_pair(Call& call, Workspace& ws, Member& member, std::int64_t pair, bool accumulate,
                               int chunk) const {
    const Request& request = call.request;
    const int observable = request.pair_observable[pair];
    const index_t size = index_t(1) << (bits_ - chunk_bits_), begin = chunk * size;
    if (!request.gradient || !request.cotangents)
        return observe(call, ws, member, observable, request.gradient, begin, begin + size);
    const T weight = static_cast<T>(request.cotangents[pair]);
    const index_t block = index_t(1) << low_bits_;
    T* const before = member.block.data();
    double value = 0;
    for (index_t i = begin; i < begin + size; i += block) {  // in L1: O psi is made in lam's place, then added
        T* const lam[2] = {re(ws.lam) + i, im(ws.lam) + i};
        std::fill_n(before, 2 * block, T(0));
        for (int part = 0; accumulate && part < 2; ++part) std::copy_n(lam[part], block, before + part * block);
        value += observe(call, ws, member, observable, true, i, i + block);
        for (int part = 0; part < 2; ++part)
            for (index_t l = 0; l < block; ++l) lam[part][l] = before[part * block + l] + weight * lam[part][l];
    }
    return value;
}

template <class T>
void Engine<T>::add_chunks(Workspace& ws) const {
    for (auto* sums : {&ws.run_sums, &ws.z_sums, &ws.pair_sums, &ws.many_sums}) {
        const std::size_t size = sums->size() / num_chunks();
        for (int chunk = 1; chunk < num_chunks(); ++chunk)
            for (std::size_t i = 0; i < size; ++i) (*sums)[i] += (*sums)[chunk * size + i];
    }
}

template <class T>
void Engine<T>::assemble(Call& call, Workspace& ws, const double* columns, double* gradient) const {
    add_chunks(ws);
    for (int k = 0; k < plan_.num_layers; ++k) {
        const double* z_before = ws.z_sums.data() + static_cast<std::size_t>(k) * plan_.num_qubits;
        const bool no_z = !phases_[k].want_sums || (k == 0 && call.skip_first_adjoint);
        double scale2 = 1;  // of all rotations undone so far: psi and lam are that much too long
        for (const auto& group : adjoint_[k]) {
            const bool summed = sums_x(ws, group);
            for (const int r : group.runs) scale2 *= ws.bound.rotor[r].scale * ws.bound.rotor[r].scale;
            for (const int r : group.runs) {
                const int bit = plan_.runs[r].bit;
                const double y = ws.run_sums[2 * r] * scale2, z = no_z ? 0 : z_before[bit];
                double x = summed ? ws.run_sums[2 * r + 1] * scale2 : 0;
                if (!summed && !plan_.runs[r].single_axis)
                    x = (cos_beta(ws.bound.rotor[r]) * z - z_before[plan_.num_qubits + bit]) /
                        sin_beta(ws.bound.rotor[r]);
                ws.w[r] = {x, y, z};
            }
        }
    }
    add_run_gradients(plan_, ws.bound, columns, ws.w, gradient);
    for (std::size_t k = call.skip_first_adjoint ? 1 : 0; k < phases_.size(); ++k)
        if (phases_[k].want_sums)
            add_term_gradients(plan_, phases_[k],
                               {ws.z_sums.data() + k * plan_.num_qubits, ws.pair_sums.data() + pair_begin_[k],
                                ws.many_sums.data() + many_begin_[k]},
                               gradient);
}

template <class T>
void Engine<T>::run_row(Call& call, Workspace& ws, Team& team, int thread, int row) const {
    const Request& request = call.request;
    const double* columns = request.columns + static_cast<std::size_t>(row) * plan_.num_columns;
    const std::int64_t first = request.row_pairs[row], end = request.row_pairs[row + 1];
    if (first == end) return;
    const std::int64_t pairs_at_once = request.gradient && !request.cotangents ? 1 : end - first;  // share all sweeps
    if (thread == 0) {
        ws.values.resize(num_chunks() * pairs_at_once);
        if (row > 0) bind(plan_, call.varying, columns, ws.bound);
        for (int k = 0; k < plan_.num_layers; ++k) {
            double scale = 1;
            for (int r = layer_begin_[k]; r < layer_begin_[k + 1]; ++r) scale *= ws.bound.rotor[r].scale;
            ws.layer_scale[k] = scale;
        }
        std::fill(ws.built.begin(), ws.built.end(), 0);
    }
    team.barrier();
    forward(call, ws, team, thread);
    const bool keep = pairs_at_once < end - first;
    const std::size_t chunk_size = std::size_t(1) << (bits_ - chunk_bits_);
    auto copy = [&](Buffer<T>& from, Buffer<T>& to, int chunk) {
        std::copy_n(re(from) + chunk * chunk_size, chunk_size, re(to) + chunk * chunk_size);
        std::copy_n(im(from) + chunk * chunk_size, chunk_size, im(to) + chunk * chunk_size);
    };
    if (keep) team.for_each(num_chunks(), thread, [&](int chunk) { copy(ws.psi, ws.saved, chunk); });
    for (std::int64_t pair = first; pair < end; pair += pairs_at_once) {
        if (keep && pair > first) {
            team.for_each(num_chunks(), thread, [&](int chunk) { copy(ws.saved, ws.psi, chunk); });
            team.barrier();
        }
        for (std::int64_t p = 0; p < pairs_at_once; ++p)
            team.for_each(num_chunks(), thread, [&](int chunk) {
                ws.values[chunk * pairs_at_once + p] =
                    observe_pair(call, ws, ws.members[thread], pair + p, p > 0, chunk);
            });
        team.barrier();
        if (thread == 0) {
            std::fill_n(request.values + pair, pairs_at_once, 0.0);
            for (std::int64_t i = 0; i < num_chunks() * pairs_at_once; ++i)
                request.values[pair + i % pairs_at_once] += ws.values[i];
        }
        if (request.gradient) {
            adjoint(call, ws, team, thread);
            const std::int64_t out = request.cotangents ? row : pair;
            if (thread == 0) assemble(call, ws, columns, request.gradients + out * plan_.num_columns);
        }
        team.barrier();
    }
}

template <class T>
Stats Engine<T>::evaluate(const Request& request, Observables& observables) {
    const auto begin = Clock::now();
    Stats stats{};
    stats.threads = stats.rows = 1;
    if (request.rows == 0) return stats;
    Call call{request, observables, {}, {}, {}, {}, {}, false, plan_.initial_re.empty(), false};
    call.skip_first_adjoint = call.zero_start && !request.imaginary;
    call.shared.resize(plan_);
    bind(plan_, everything_, request.columns, call.shared);
    call.phase_varies.assign(phases_.size(), 0);
    if (request.rows > 1) {
        std::vector<char> column_varies(plan_.num_columns);
        for (int row = 1; row < request.rows; ++row)
            for (int c = 0; c < plan_.num_columns; ++c)
                column_varies[c] |=
                    request.columns[static_cast<std::size_t>(row) * plan_.num_columns + c] != request.columns[c];
        call.varying = varying(plan_, column_varies);
        for (const int r : call.varying.runs) {
            call.phase_varies[plan_.runs[r].layer] = 1;
            call.phase_varies[plan_.runs[r].layer + 1] = 1;
        }
        for (const int t : call.varying.terms) call.phase_varies[plan_.terms[t].phase] = 1;
    }
    call.resident_rows = table_bytes_ <= resident_row_tables;
    if (table_bytes_ <= (request.rows > 1 ? resident_shared_tables : resident_row_tables)) {
        call.tables.resize(phases_.size());
        PhaseScratch<T> scratch;
        for (std::size_t k = 0; k < phases_.size(); ++k) {
            if (call.phase_varies[k] || (k == 0 && call.skip_first_adjoint)) continue;
            allocate(phases_[k], plan_.num_qubits, low_bits_, call.tables[k]);
            build_tables(plan_, phases_[k], low_bits_, call.shared, sweeps_, scratch, call.tables[k]);
        }
    }

    // Rows side by side while there are enough of them and their states are small; else all threads on one row.
    const double work =
        std::ldexp(static_cast<double>(request.rows), bits_) * static_cast<double>(plan_.runs.size() + 1);
    constexpr double worth_a_thread = 2e5;  // amplitude-runs, about 0.1 ms: a thread costs some 20 us to start
    const int wanted =
        std::max(1, std::min(request.num_threads, static_cast<int>(std::min(work / worth_a_thread, 1e6)) + 1));
    const bool by_rows = chunk_bits_ == 0 || (request.rows >= 2 * wanted && bits_ <= 20);
    const int threads = by_rows ? std::min(wanted, request.rows) : std::min(wanted, num_chunks());
    stats.threads = threads;
    stats.rows = by_rows ? threads : 1;
    bool saved = false;
    for (int row = 0; row < request.rows && request.gradient && !request.cotangents; ++row)
        saved = saved || request.row_pairs[row + 1] - request.row_pairs[row] > 1;

    std::vector<std::unique_ptr<Workspace>> workspaces;
    for (int i = 0; i < stats.rows; ++i) {
        std::unique_ptr<Workspace> ws;
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            for (auto& idle : idle_)
                if (idle && static_cast<int>(idle->members.size()) >= (by_rows ? 1 : threads) &&
                    (!request.gradient || idle->lam) && (!saved || idle->saved)) {
                    ws = std::move(idle);
                    idle_bytes_ -= ws->bytes;
                    break;
                }
            idle_.erase(std::remove(idle_.begin(), idle_.end(), nullptr), idle_.end());
        }
        if (!ws) ws = make_workspace(by_rows ? 1 : threads, request.gradient, saved);
        ws->bound = call.shared;
        workspaces.push_back(std::move(ws));
    }
    // Diagonals are made once, before threads ask for them.
    call.diagonals.resize(observables.size());
    for (std::int64_t pair = request.row_pairs[0]; pair < request.row_pairs[request.rows]; ++pair) {
        auto& diagonals = call.diagonals[request.pair_observable[pair]];
        if (!diagonals) diagonals = observables.template tables<T>(request.pair_observable[pair], bits_);
    }
    stats.bind_seconds = seconds_since(begin);

    const auto sweep_begin = Clock::now();
    std::atomic<int> next{0};
    Team team(threads);
    team.run([&](int thread) {
        if (!by_rows) {
            for (int row = 0; row < request.rows; ++row) run_row(call, *workspaces[0], team, thread, row);
            return;
        }
        Team alone(1);
        for (int row = next++; row < request.rows && !team.cancelled(); row = next++)
            run_row(call, *workspaces[thread], alone, 0, row);
    });
    stats.sweep_seconds = seconds_since(sweep_begin);

    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& ws : workspaces)
        if (idle_bytes_ + ws->bytes <= kept_workspaces) {
            idle_bytes_ += ws->bytes;
            idle_.push_back(std::move(ws));
        }
    return stats;
}

Plan::Plan(PlanData data) : data_(std::move(data)) {}
Plan::~Plan() = default;

namespace {
template <class T>
Engine<T>& engine_of(std::unique_ptr<Engine<T>>& engine, std::mutex& mutex, const PlanData& data) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!engine) engine = std::make_unique<Engine<T>>(data);
    return *engine;
}
}  // namespace

template <>
Stats Plan::evaluate<float>(const Request& request, Observables& observables) {
    return engine_of(float_engine_, mutex_, data_).evaluate(request, observables);
}
template <>
Stats Plan::evaluate<double>(const Request& request, Observables& observables) {
    return engine_of(double_engine_, mutex_, data_).evaluate(request, observables);
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
