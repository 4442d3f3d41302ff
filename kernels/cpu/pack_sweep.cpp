// SPDX-License-Identifier: Apache-2.0
//
// The sweeps over one pack of rows (cpu/simd/packs.hpp): forward, observables, adjoint, gradients. The steps are those
// of row_sweep.cpp, and one vector holds a number of each row. pack_binding.cpp binds the angles.
//
// A run whose angles differ between rows is rotated by three shears, x -= t y, y += s x, x -= t y with t = tan(beta/4)
// and s = sin(beta/2), because T(tau) X^flip would need a choice for each row of a pack. A run that is the same in all
// rows is rotated by T(tau) X^flip, and the table of the next phase takes in its norm.
// The backward sweep takes lam alone back if a pack keeps the states of its forward sweep, else psi and lam.
// Determinism: the rows of a batch alone decide the packs. A result of a row depends on this row alone, and on the
// columns in which its pack differs from the first row (find_sets). Sums over rows are added in fixed blocks of packs.
#include "cpu/engine.hpp"

namespace qf {

// Apply the dense gates of a layer, or their inverses, to some states of a pack.
template <class T>
void Engine<T>::apply_dense_to_pack(int layer, bool adjoint, bool real, std::initializer_list<T*> states) const {
    const int width = packs_.width;
    for (int g = layout_.dense_begin[layer]; g < layout_.dense_begin[layer + 1]; ++g) {
        const DenseProduct<T> product = dense_[g].on_pack(plan_.num_qubits, sweeps_.lane_bits, real ? 1 : 2, adjoint);
        for (T* const state : states)
            sweeps_.dense(product, 0, num_groups(product), state, real ? nullptr : state + width);
    }
}

template <class T>
void Engine<T>::forward_pack(Call& call, Workspace& ws, const PackTurn& turn) const {
    PackMemory<T>& memory = *ws.pack;
    const int bits = plan_.num_qubits, parts = call.real ? 1 : 2;
    const int begin = call.zero_start ? 1 : 0;
    const std::vector<int>& group_end = memory.variation->group_end;
    start_pack(call, memory, turn, begin);
    if (begin > 0 && call.keeps_pack_states && !call.skip_first_adjoint) {
        // The sweep starts after phase 0, where the backward sweep ends before it.
        T* const first = memory.psi_before(0);
        bool is_shared;
        const T* const table = pack_table(call, memory, 0, is_shared);
        packs_.start(bits, parts, nullptr, 0, first);
        packs_.sum(bits, parts, {table, is_shared}, nullptr, nullptr, 0, false, false, first, first, nullptr);
    }
    for (int k = begin; k <= plan_.num_layers; ++k) {
        check_stop(call.request.progress->stop);
        memory.next_columns.fetch_some();
        memory.gradients.fetch_some();
        count_step(call, ws);
        if (leaves_out(call, memory, k)) continue;
        bool is_shared;
        const T* const table = pack_table(call, memory, k, is_shared);
        T* const psi = memory.psi_before(k + 1);
        int r = k < plan_.num_layers ? layer_begin_[k] : 0;
        const int end = k < plan_.num_layers ? layer_begin_[k + 1] : 0;
        // The phase takes a few rotations along. It leaves two of four, so that both passes take two.
        int count = r < end ? group_end[r] - r : 0;
        count = count == 4 ? 2 : std::min(packs_.max_after_phase, count);
        packs_.phase_and_rotate(bits, parts, {table, is_shared}, memory.rotations.data() + r, count,
                                memory.psi_before(k), psi);
        rotate_pack(memory, r + count, end, false, parts, psi);
        if (k < plan_.num_layers) apply_dense_to_pack(k, false, call.real, {psi});
    }
}

// Apply the rotations first .. end - 1 of a layer, or their inverses.
template <class T>
void Engine<T>::rotate_pack(const PackMemory<T>& memory, int first, int end, bool inverse, int parts, T* state) const {
    for (int r = first; r < end;) {
        const int left = memory.variation->group_end[r] - r,
                  count = left == packs_.most_rotate ? left : std::min(packs_.max_rotate, left);
        packs_.rotate(plan_.num_qubits, parts, memory.rotations.data() + r, count, inverse, state);
        r += count;
    }
}

// Compute the sums z of p Z of phase k, and add the gradients of its terms. p is overwritten.
template <class T>
void Engine<T>::sum_pack_phase(const Call& call, PackMemory<T>& memory, int k) const {
    const int bits = plan_.num_qubits, width = packs_.width;
    const Phase& phase = phases_of_packs()[k];
    T* const p = memory.p.data();
    T* const z = memory.z.data() + static_cast<std::size_t>(k) * bits * width;
    auto add = [&](int index, auto&& value) {
        const Term& term = plan_.terms[index];
        if (term.column < 0) return;
        double* const gradient = memory.gradient.data() + static_cast<std::size_t>(term.column) * width;
        for (int j = 0; j < width; ++j) gradient[j] += term.coefficient * value(j);
    };
    // The table has taken in a norm. If it has multiplied both states, p is too large by the squared norm. A kept state
    // lacks the norm that the table has given to lam.
    const T norm = call.keeps_pack_states ? T(1) : memory.variation->norm[k], scale = 1 / (norm * norm);
    if (scale != 1 && (phase.want_many || phase.want_pairs))
        for (int i = 0; i < width << bits; ++i) p[i] *= scale;
    if (phase.want_many) {
        alignas(64) T sum[MOST_PACK_ROWS], everything[MOST_PACK_ROWS];
        packs_.generator_sum(bits, 0, 0, 0, p, everything);
        for (const auto& many : phase.many_body) {
            const Term& term = plan_.terms[many.term];
            packs_.generator_sum(bits, term.care, term.value, term.sign, p, sum);
            add(many.term, [&](int j) { return sum[j] - many.mean * everything[j]; });
        }
    }
    if (phase.want_pairs) {
        packs_.walsh(bits, p);
        for (int b = 0; b < bits; ++b) std::copy_n(p + (width << b), width, z + b * width);
    } else {
        packs_.z_sums(bits, p, z);
        for (int i = 0; scale != 1 && !phase.want_many && i < bits * width; ++i) z[i] *= scale;
    }
    packs_.add_term_gradients(plan_.terms.data(), phase.one_body.data(), static_cast<int>(phase.one_body.size()), z,
                              is_single_.data(), memory.gradient.data());
    for (const auto& pair : phase.low_pairs) {
        if (!phase.want_pairs) break;
        const T* const zz = p + (index_t(1) << pair.low | index_t(1) << pair.high) * width;
        for (const auto& source : pair.sources)
            add(source.term, [&](int j) {
                return 0.25 * source.exponent * (zz[j] - z[pair.low * width + j] - z[pair.high * width + j]);
            });
    }
}

// Say whether X of some runs must be summed.
template <class T>
bool Engine<T>::sums_x(const Call& call, const PackMemory<T>& memory, int first, int count) const {
    const char* const sums = memory.bound.sums_x.data() + first;
    return !call.real && std::any_of(sums, sums + count, [](char sum) { return sum != 0; });
}

// Undo a phase of lam, if there is a table, and set p if it is not null. Sum Y and X of the runs first .. end - 1 of a
// layer, in a block of 2^block_bits amplitudes of psi and lam.
template <class T>
void Engine<T>::sum_pack_runs(const Call& call, PackMemory<T>& memory, PackTable<T> table, T* p, int first, int end,
                              int block_bits, index_t block, const T* psi) const {
    const int width = packs_.width, parts = call.real ? 1 : 2;
    const std::size_t begin = (static_cast<std::size_t>(block) << block_bits) * parts * width;
    for (int r = first; r < end || table.numbers;) {
        const int count = std::min(packs_.max_sums, end - r);
        packs_.sum(block_bits, parts, table, p, memory.rotations.data() + r, count, sums_x(call, memory, r, count),
                   block > 0, psi + begin, memory.lam.data() + begin, memory.run_sums.data() + 2 * r * width);
        table.numbers = nullptr;
        p = nullptr;
        r += count;
    }
}

// Undo the runs first .. end - 1 of a layer in a block of 2^block_bits amplitudes of psi and lam, and sum Y and X.
template <class T>
void Engine<T>::rotate_pack_back(const Call& call, PackMemory<T>& memory, int first, int end, int block_bits,
                                 index_t block) const {
    const int width = packs_.width, parts = call.real ? 1 : 2;
    const std::size_t begin = (static_cast<std::size_t>(block) << block_bits) * parts * width;
    const PackVariation<T>& variation = *memory.variation;
    for (int r = first; r < end;) {
        int count = std::min(packs_.max_adjoint, std::min(variation.group_end[r], end) - r);
        const bool with_x = sums_x(call, memory, r, count);
        if (with_x) count = std::min(count, packs_.max_adjoint_with_x);
        // The table of the phase has multiplied in the norms of all runs of the layer, also of those still to be
        // undone.
        const bool is_last = r + count == layer_begin_[plan_.runs[r].layer + 1];
        const T scale = is_last ? T(1) : variation.inverse2[r + count];
        packs_.rotate_adjoint(block_bits, parts, &memory.rotations[r], count, with_x, block > 0, scale,
                              memory.last + begin, memory.lam.data() + begin, memory.run_sums.data() + 2 * r * width);
        r += count;
    }
}

template <class T>
void Engine<T>::adjoint_pack(Call& call, Workspace& ws) const {
    PackMemory<T>& memory = *ws.pack;
    const int bits = plan_.num_qubits, width = packs_.width, parts = call.real ? 1 : 2;
    T* const lam = memory.lam.data();
    // A block goes through the phase and through the runs on its own bits while psi and lam of the block are in the L1
    // cache. The runs on the other bits take passes over all amplitudes.
    const std::size_t amplitude_bytes = 2 * parts * width * sizeof(T);
    int block_bits = bits;
    if (amplitude_bytes << bits > most_cached_pack)
        while (amplitude_bytes << block_bits > most_cached_pack / 2) --block_bits;
    const int last_step = call.skip_first_adjoint ? 1 : 0;
    for (int k = plan_.num_layers; k >= last_step; --k) {
        check_stop(call.request.progress->stop);
        memory.next_columns.fetch_some();
        memory.gradients.fetch_some();
        count_step(call, ws);
        bool is_shared = false;
        const T* const table = leaves_out(call, memory, k) ? nullptr : pack_table(call, memory, k, is_shared);
        const int begin = k > 0 ? layer_begin_[k - 1] : 0,
                  end = k > 0 ? layer_begin_[k] : 0;  // the runs of layer k - 1
        int outside = begin;  // the first run on a bit outside the blocks; the bits of a layer are ascending
        while (outside < end && plan_.runs[outside].bit < block_bits) ++outside;
        const T* const psi = memory.psi_before(k);
        for (index_t block = 0; block < index_t(1) << (bits - block_bits); ++block) {
            const std::size_t first = static_cast<std::size_t>(block) << block_bits;
            const PackTable<T> of_block{table ? table + first * parts * (is_shared ? 1 : width) : nullptr, is_shared};
            T* const p = call.has_z[k] ? memory.p.data() + first * width : nullptr;
            if (call.keeps_pack_states) {
                sum_pack_runs(call, memory, of_block, p, begin, outside, block_bits, block, psi);
            } else {
                if (table)
                    packs_.phase_adjoint(block_bits, parts, of_block, memory.last + first * parts * width,
                                         lam + first * parts * width, p);
                rotate_pack_back(call, memory, begin, outside, block_bits, block);
            }
        }
        if (call.has_z[k]) sum_pack_phase(call, memory, k);
        if (call.keeps_pack_states) {
            sum_pack_runs(call, memory, {nullptr, false}, nullptr, outside, end, bits, 0, psi);
            if (k == last_step) continue;  // no result needs lam before layer 0
            rotate_pack(memory, begin, end, true, parts, lam);
            if (k > 0) apply_dense_to_pack(k - 1, true, call.real, {lam});
        } else {
            rotate_pack_back(call, memory, outside, end, bits, 0);
            if (k > 0) apply_dense_to_pack(k - 1, true, call.real, {memory.last, lam});
        }
    }
}

// Turn the sums of the adjoint sweep to gradients of the columns and of the start states.
template <class T>
void Engine<T>::assemble_pack(Call& call, PackMemory<T>& memory, const PackTurn& turn, int pack) const {
    const Request& request = call.request;
    const int width = packs_.width, bits = plan_.num_qubits, parts = call.real ? 1 : 2;
    auto of = [](const std::vector<int>& list) { return static_cast<int>(list.size()); };
    const PackValues<T> values = memory.bound.view();
    const PackSums<T> sums{bits,
                           parts,
                           memory.run_sums.data(),
                           call.keeps_pack_states,
                           memory.z.data(),
                           call.has_z.data(),
                           is_single_.data()};
    packs_.add_run_gradients(plan_.runs.data(), plan_.leaves.data(), call.own_runs.data(), of(call.own_runs), values,
                             sums, memory.gradient.data());
    if (!call.summed_runs.empty()) {
        packs_.set_w(plan_.runs.data(), call.summed_runs.data(), of(call.summed_runs), values, sums, memory.w.data());
        packs_.add_rows(call.summed_runs.data(), of(call.summed_runs), memory.w.data(),
                        call.block_w[pack / call.units_per_block * plan_.runs.size()].data());
    }
    if (call.skip_first_adjoint && request.final_cotangents)
        for (const auto& part : layout_.gradients_of_first)
            for (int j = 0; j < width; ++j)
                memory.gradient[part.column * width + j] += part.slope * memory.ends[2 * width + j];
    double *rows[MOST_PACK_ROWS] = {}, *states[MOST_PACK_ROWS] = {};
    for (int j = 0; j < turn.count; ++j) {
        if (turn.begin[j] == turn.end[j] && !request.final_cotangents) continue;
        const std::int64_t place = request.by_row() ? turn.row(j) : turn.begin[j];
        rows[j] = request.gradients + place * plan_.num_columns;
        if (request.state_gradients) states[j] = row_of(request.state_gradients, bits, place);
    }
    packs_.store_columns(memory.gradient.data(), plan_.num_columns, rows);
    if (!request.state_gradients) return;
    double* const two = memory.ends.data();
    std::fill_n(two, width, 2.0);
    std::fill_n(two + width, width, 0.0);
    packs_.store_doubles(bits, parts, memory.lam.data(), two, states);
}

// Choose the memory of the states of a pack. Return true if it has the states, because a call for values has made them.
template <class T>
bool Engine<T>::place_states(Call& call, PackMemory<T>& memory, int pack) const {
    const std::size_t state = memory.sizes.state;
    Recalled* const recalled = call.recalled && pack < call.recalled->sizes.units ? call.recalled.get() : nullptr;
    memory.states = memory.psi.data();
    memory.stride = call.keeps_pack_states ? state : 0;
    if (!recalled) return false;
    Buffer<T>& psi = recalled->psi[pack];
    if (!call.request.gradient) {
        if (psi.size() != recalled->sizes.unit) psi = Buffer<T>(recalled->sizes.unit);
        memory.states = psi.data();
        memory.stride = psi.size() > state ? state : 0;
        return false;
    }
    if (!recalled->has_psi[pack]) return false;
    if (call.keeps_pack_states)
        memory.states = psi.data();  // the backward sweep only reads states that are kept
    else
        std::copy_n(psi.data(), state, memory.states);
    return true;
}

template <class T>
void Engine<T>::run_pack(Call& call, Workspace& ws, int pack) const {
    const Request& request = call.request;
    PackMemory<T>& memory = *ws.pack;
    const int width = packs_.width, bits = plan_.num_qubits, num_columns = plan_.num_columns;
    PackTurn turn;
    turn.first_row = pack * width;
    turn.count = std::min(width, request.rows - turn.first_row);
    for (int j = 0; j < turn.count; ++j) {
        turn.begin[j] = request.row_pairs[turn.first_row + j];
        turn.end[j] = request.row_pairs[turn.first_row + j + 1];
    }
    const double* const columns = request.columns + static_cast<std::size_t>(turn.first_row) * num_columns;
    memory.is_finite &= packs_.load_columns(columns, num_columns, turn.count, call.reads.data(), memory.angles.data());
    const int most_pairs = turn.most_pairs();
    if (most_pairs == 0 && !request.has_ends()) return;
    const std::int64_t steps = plan_.num_layers * (request.gradient ? 2 : 1);
    memory.next_columns = {columns + turn.count * num_columns,
                           std::min(width, request.rows - turn.first_row - turn.count) * num_columns, steps};
    if (request.gradient && request.by_row())
        memory.gradients = {request.gradients + static_cast<std::size_t>(turn.first_row) * num_columns,
                            std::int64_t(turn.count) * num_columns, steps};
    PackValues<T> values = memory.bound.view();
    if (!request.has_ends()) values.left = nullptr;
    take_variation(*call.shared->packs, call.shared->packs->set_of[pack], memory);
    bind_values(packs_, memory.variation->varying, memory.angles.data(), values);
    bind_own_phases(call, memory, values);

    const bool is_known = place_states(call, memory, pack);
    const std::size_t state = memory.sizes.state;
    const int last_phase = plan_.num_layers;
    memory.last = memory.psi_before(leaves_out(call, memory, last_phase) ? last_phase : last_phase + 1);
    if (!is_known) forward_pack(call, ws, turn);
    if (call.recalled && !request.gradient && pack < call.recalled->sizes.units) call.recalled->has_psi[pack] = 1;
    if (request.has_ends()) exchange_final_states_of_pack(call, memory, turn);
    const bool one_by_one = request.gradient && !request.by_row();
    const auto first = turn.begin, last = turn.end;
    // The backward sweep changes the last state if no states are kept; the places of kept states are then free.
    const bool saves = one_by_one && most_pairs > 1 && !call.keeps_pack_states;
    T* const saved = memory.saved ? memory.saved.data() : memory.psi.data() + state;
    if (saves) std::copy_n(memory.last, state, saved);
    for (int t = 0; t < (one_by_one ? most_pairs : 1); ++t) {
        if (saves && t > 0) std::copy_n(saved, state, memory.last);
        for (int j = 0; one_by_one && j < turn.count; ++j) {
            turn.begin[j] = std::min(first[j] + t, last[j]);
            turn.end[j] = std::min(first[j] + t + 1, last[j]);
        }
        if (most_pairs > 0)
            call.observables.slots().empty() ? observe_pack(call, memory, turn)
                                             : observe_pack_outcomes(call, memory, turn);
        if (!request.gradient) return;
        if (request.imaginary)  // i lam instead of lam, as in Engine::observe
            for (std::size_t i = 0; i < std::size_t(1) << bits; ++i)
                for (int j = 0; j < width; ++j) {
                    T &re = memory.lam[2 * i * width + j], &im = memory.lam[(2 * i + 1) * width + j];
                    const T old = re;
                    re = -im;
                    im = old;
                }
        for (const int c : summed_columns_)
            std::fill_n(memory.gradient.data() + static_cast<std::size_t>(c) * width, width, 0.0);
        adjoint_pack(call, ws);
        assemble_pack(call, memory, turn, pack);
    }
}

// Turn the sums of w over all rows to gradients, in the first row of a pack whose other rows are 0.
template <class T>
void Engine<T>::add_summed_runs_of_packs(const Call& call) const {
    const std::size_t width = packs_.width, size = plan_.runs.size();
    Buffer<T> w(3 * size * width);
    Buffer<double> gradient(plan_.num_columns * width);
    std::fill_n(w.data(), w.size(), T(0));
    std::fill_n(gradient.data(), gradient.size(), 0.0);
    for (const int r : call.summed_runs)
        for (int axis = 0; axis < 3; ++axis) {
            double sum = 0;
            for (std::size_t block = 0; block < call.block_w.size(); block += size)
                sum += call.block_w[block + r][axis];
            w[(3 * r + axis) * width] = static_cast<T>(sum);
        }
    // The values of summed runs are only read.
    const PackValues<T> values = const_cast<PackBound<T>&>(call.shared->packs->bound).view();
    packs_.add_summed_gradients(plan_.runs.data(), plan_.leaves.data(), call.summed_runs.data(),
                                static_cast<int>(call.summed_runs.size()), values, w.data(), is_single_.data(),
                                gradient.data());
    for (int c = 0; c < plan_.num_columns; ++c) call.request.gradients[c] += gradient[c * width];
}

#define QF_INSTANTIATE(T)                                            \
    template void Engine<T>::run_pack(Call&, Workspace&, int) const; \
    template void Engine<T>::add_summed_runs_of_packs(const Call&) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf
