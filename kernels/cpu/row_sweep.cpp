// SPDX-License-Identifier: Apache-2.0
//
// The evaluation of one row: its start state, its dense gates, the order of its passes (row_passes.cpp), and its
// gradients.
#include <cmath>

#include "cpu/engine.hpp"

namespace qf {

// Return the tables of phase k for the row of a workspace: the tables that rows share, the tables that the row keeps,
// or tables that this call makes.
template <class T>
const PhaseTables<T>& Engine<T>::phase_tables(Call& call, Workspace& ws, Team& team, int thread, int k) const {
    if (call.shared->has_tables(k)) return call.shared->tables[k];
    const std::size_t slot = rows_keep_tables_ ? k : 0;
    if (rows_keep_tables_ && team.size() == 1 && ws.built[k]) return ws.tables[k];
    team.barrier();  // after this barrier, no thread reads the tables of this slot
    if (thread == 0 && !(rows_keep_tables_ && ws.built[k])) {
        if (!rows_keep_tables_ || !ws.tables[slot].low) {  // else the memory of another row's tables is used again
            ws.tables[slot] = PhaseTables<T>();
            allocate(phases_[k], plan_.num_qubits, low_bits_, ws.tables[slot]);
        }
        build_tables(plan_, phases_[k], low_bits_, *ws.bound, sweeps_, ws.scratch, ws.tables[slot]);
        ws.built[k] = 1;
    }
    team.barrier();
    return ws.tables[slot];
}

// Fill one chunk of the start state b_0, or of the last state that the request gives instead of it. From |0...0> the
// function can fill b_1 instead, a product of real columns.
template <class T>
void Engine<T>::start(Workspace& ws, int boundary, State psi, int chunk) const {
    const std::size_t size = std::size_t(1) << (bits_ - chunk_bits_);
    const std::size_t begin = part(layout_.windows, 0, boundary, chunk).number * size;
    T *psi_re = psi.re + chunk * size, *psi_im = psi.im + chunk * size;
    std::fill_n(psi_re, size, T(0));
    if (psi.im) std::fill_n(psi_im, size, T(0));
    if (ws.initial || !plan_.initial_re.empty()) {
        const std::size_t given = std::size_t(1) << plan_.num_qubits;
        for (std::size_t i = 0; i < size && begin + i < given; ++i) {
            psi_re[i] = static_cast<T>(ws.initial ? ws.initial[begin + i].real() : plan_.initial_re[begin + i]);
            if (psi.im)
                psi_im[i] = static_cast<T>(ws.initial ? ws.initial[begin + i].imag() : plan_.initial_im[begin + i]);
        }
        return;
    }
    double at0[64], at1[64];
    std::fill_n(at0, bits_, 1.0);
    std::fill_n(at1, bits_, 0.0);
    if (boundary > 0 && plan_.num_layers > 0)
        for (int r = layer_begin_[0]; r < layer_begin_[1]; ++r) {
            const Rotor rotor = ws.bound->rotor(r);
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

// Apply the dense gates of a layer, or their inverses, to some states. The number of chunks decides how the groups of
// amplitudes are shared, so the bits of the results do not depend on the number of threads.
template <class T>
void Engine<T>::apply_dense(Call& call, Team& team, int thread, int layer, bool adjoint,
                            std::initializer_list<State> states) const {
    for (int g = layout_.dense_begin[layer]; g < layout_.dense_begin[layer + 1]; ++g) {
        DenseProduct<T> product = dense_[g].on_state(bits_, adjoint);
        // A map of the layer acts on other bits, so these places are right before the map and after it.
        product.places = layout_.places(layer + 1);
        const index_t count = num_groups(product);
        team.barrier();  // after this barrier, the states are complete
        for_each_chunk(call, team, thread, [&](int chunk) {
            const index_t begin = count * chunk >> chunk_bits_, end = count * (chunk + 1) >> chunk_bits_;
            for (const State& state : states) sweeps_.dense(product, begin, end, state.re, state.im);
        });
    }
    if (has_dense(layer)) team.barrier();
}

// Apply the part of the linear map of a layer inside the chunks of window 0, or its inverse, to one chunk of some
// states. The chunk lies where the phase after the layer finds it.
template <class T>
void Engine<T>::apply_map_to_chunk(Member& member, int layer, bool adjoint, int chunk,
                                   std::initializer_list<State> states) const {
    const ChunkMap<T>& map = maps_[layout_.map_of[layer]].part(adjoint);
    const Part part = this->part(layout_.windows, 0, layer + 1, chunk);
    for (const State& state : states)
        for (T* const numbers : {part.of(state).re, part.of(state).im})
            if (numbers) map.apply(sweeps_, part.number, numbers, member.block.data());
}

template <class T>
void Engine<T>::add_chunks(Workspace& ws) const {
    for (auto* sums : {&ws.run_sums, &ws.z_sums, &ws.pair_sums, &ws.many_sums}) {
        const std::size_t size = sums->size() / num_chunks();
        for (int chunk = 1; chunk < num_chunks(); ++chunk)
            for (std::size_t i = 0; i < size; ++i) (*sums)[i] += (*sums)[chunk * size + i];
    }
}

// Set w = Im <lam|(X, Y, Z)|psi> between Rz(lambda) and Ry of each run of a layer. The sums have two conventions:
//   in_place   psi was uncomputed in place. Sums were taken before each rotation, and psi and lam lack the norms of all
//              rotations undone so far; `length2` is the square of these norms. The sum of run j was taken before the
//              later steps of rotate_adjoint() undid their rotations, so the squares of their norms are divided out.
//   otherwise  psi was kept. Sums were taken after the rotations. psi lacks the norm of the layer, and psi and lam lack
//              the sign diag(-1, 1) of a flip, which changes the signs of Y and X. X is turned back through the
//              rotation.
template <class T>
void Engine<T>::set_run_sums(const Call& call, Workspace& ws, int layer, bool in_place) const {
    const double* z_before = ws.z_sums.data() + static_cast<std::size_t>(layer) * plan_.num_qubits;
    const bool skips_z = layer == 0 && call.skip_first_adjoint, no_z = !phases_[layer].want_sums || skips_z;
    // Z|0...0> = |0...0>, so all Z sums before layer 0 are Im<lam|psi>. It is 0 for lam = O psi.
    const double first_z = skips_z && call.request.final_cotangents ? ws.overlap : 0;
    double length2 = 1;
    for (const auto& group : (in_place ? layout_.adjoint.groups : layout_.sums)[layer]) {
        const bool has_x = ws.with_x[group.first];
        const int count = static_cast<int>(group.runs.size()), step = adjoint_step_of(group, has_x);
        const double* const sums = run_sums_of(ws, group, 0);
        if (in_place)
            for (const int r : group.runs) {
                const double scale = ws.bound->rotor(r).scale;
                length2 *= scale * scale;
            }
        double later = 1, norm = length2;  // `later` is the square of the norms of the runs after run j
        for (int j = count - 1; j >= 0; --j) {
            const int r = group.runs[j], bit = plan_.runs[r].bit;
            const Rotor rotor = ws.bound->rotor(r);
            if (in_place && j % step == step - 1) norm = length2 / later;
            later *= rotor.scale * rotor.scale;
            const double factor = in_place ? norm : rotor.flip ? -ws.layer_scale[layer] : ws.layer_scale[layer];
            const double z = no_z ? first_z : z_before[bit], z_after = z_before[plan_.num_qubits + bit];
            double x = 0;
            if (has_x)
                x = sums[2 * j + 1] * factor;
            else if (!plan_.runs[r].single_axis && !ws.real)
                x = (rotor.cosine * z - z_after) * rotor.inverse_sine;
            if (has_x && !in_place) x = rotor.cosine * x - 2 * rotor.tau * rotor.scale * rotor.scale * z_after;
            double* const w = ws.w.data() + run_packs_.places[r].w;
            w[0] = x;
            w[run_packs_.width] = sums[2 * j] * factor;
            w[2 * run_packs_.width] = z;
        }
    }
}

template <class T>
void Engine<T>::assemble(Call& call, Workspace& ws, int row, double* gradient) const {
    // Write zeros before the first addition. The system maps fresh memory twice if it is read first and written later,
    // and each mapping stops all threads.
    std::fill_n(gradient, plan_.num_columns, 0.0);
    add_chunks(ws);
    const bool in_place = !call.request.actions;
    for (int k = 0; k < plan_.num_layers; ++k) set_run_sums(call, ws, k, in_place);
    if (!call.summed_runs.empty()) {
        auto* const sums = call.block_w.data() + row / call.units_per_block * plan_.runs.size();
        for (const int r : call.summed_runs)
            for (int axis = 0; axis < 3; ++axis) {
                double& w = ws.w[run_packs_.places[r].w + axis * run_packs_.width];
                sums[r][axis] += w;
                w = 0;
            }
    }
    add_run_gradients(call.own_packs, *ws.bound, ws.w.data(), ws.run_gradient.data(), gradient);
    if (call.skip_first_adjoint && call.request.final_cotangents)
        for (const auto& part : layout_.gradients_of_first) gradient[part.column] += part.slope * ws.overlap;
    for (std::size_t k = call.skip_first_adjoint ? 1 : 0; k < phases_.size(); ++k)
        if (phases_[k].want_terms)
            add_term_gradients(plan_, phases_[k],
                               {ws.z_sums.data() + k * plan_.num_qubits, ws.pair_sums.data() + pair_begin_[k],
                                ws.many_sums.data() + many_begin_[k]},
                               gradient);
}

// Evaluate pairs of a row with a schedule of kept states: the forward steps, the observables and the adjoint steps.
template <class T>
void Engine<T>::run_actions(Call& call, Workspace& ws, Team& team, int thread, int row, bool states_are_kept,
                            std::int64_t first, std::int64_t count) const {
    const Request& request = call.request;
    // Say whether an action is a forward step in place that follows another forward step.
    auto continues = [&](std::int64_t a) {
        if (a == 0 || a == request.num_actions) return false;
        const Action &before = request.actions[a - 1], &action = request.actions[a];
        return before.kind == Action::forward && action.kind == Action::forward && before.position > 1 &&
               action.position == before.position + 1 && action.source == before.target &&
               action.target == before.target;
    };
    for (std::int64_t a = 0; a < request.num_actions; ++a) {
        const Action& action = request.actions[a];
        const int boundary = action.position - 1 + call.first_boundary;
        if (action.kind == Action::back) {
            const State psi = view(ws.psi[action.source], ws.real);
            if (boundary == plan_.num_layers + 1)
                observe_pairs(call, ws, team, thread, row, first, count, psi);
            else
                adjoint_step(call, ws, team, thread, boundary, psi);
            continue;
        }
        if (states_are_kept) continue;
        const State to = view(ws.psi[action.target], ws.real);
        if (action.position == 1)
            for_each_chunk(call, team, thread, [&](int chunk) { start(ws, boundary, to, chunk); });
        else
            forward_step(call, ws, team, thread, boundary - 1, continues(a), !continues(a + 1),
                         view(ws.psi[action.source], ws.real), to);
    }
    team.barrier();
}

// Evaluate pairs of a row with one state psi that is uncomputed in place. `saved` restores psi for the pairs after the
// first.
template <class T>
void Engine<T>::run_in_place(Call& call, Workspace& ws, Team& team, int thread, int row, bool first_of_row,
                             std::int64_t first, std::int64_t count) const {
    const State psi = view(ws.psi[0], ws.real);
    const std::size_t size = std::size_t(1) << (bits_ - chunk_bits_);
    auto copy = [&](State from, State to) {
        for_each_chunk(call, team, thread, [&](int chunk) {
            std::copy_n(from.re + chunk * size, size, to.re + chunk * size);
            if (from.im) std::copy_n(from.im + chunk * size, size, to.im + chunk * size);
        });
    };
    if (call.recalled && call.request.gradient && call.recalled->has_psi[row]) {
        copy(view(call.recalled->psi[row], ws.real), psi);
    } else if (first_of_row) {
        const int begin = call.zero_start ? 1 : 0;
        const int given = call.request.from_end ? plan_.num_layers + 1 : begin;
        for_each_chunk(call, team, thread, [&](int chunk) { start(ws, given, psi, chunk); });
        for (int k = begin; k <= plan_.num_layers && !call.request.from_end; ++k)
            forward_step(call, ws, team, thread, k, k > begin, k == plan_.num_layers, psi, psi);
        if (ws.saved && call.request.gradient) copy(psi, view(ws.saved, ws.real));
    } else {
        copy(view(ws.saved, ws.real), psi);
    }
    if (call.recalled && !call.request.gradient && row < call.recalled->sizes.units) {
        Buffer<T>& kept = call.recalled->psi[row];
        if (thread == 0 && !kept) kept = Buffer<T>(layout_.state_size(0, ws.real));
        team.barrier();
        copy(psi, view(kept, ws.real));
        if (thread == 0) call.recalled->has_psi[row] = 1;
    }
    observe_pairs(call, ws, team, thread, row, first, count, psi);
    if (!call.request.gradient) return;
    adjoint_in_place(call, ws, team, thread, psi);
    team.barrier();
}

// Compute the norms that rotations leave out, and the factors of the phases that restore the norms. The rounding error
// of a factor is multiplied into the next factor, because the errors of many equal layers would add up.
template <class T>
void Engine<T>::set_scales(Workspace& ws) const {
    for (int k = 0; k < plan_.num_layers; ++k) {
        double scale = 1;
        for (int r = layer_begin_[k]; r < layer_begin_[k + 1]; ++r) scale *= ws.bound->rotor(r).scale;
        ws.layer_scale[k] = scale;
    }
    double carried = 1;
    auto rounded = [&](double scale, bool identity) {
        if (identity) {  // no sweep applies the phase, so the next phase takes over its factor
            carried *= scale;
            return T(1);
        }
        const T result = static_cast<T>(scale * carried);
        carried *= scale / result;
        return result;
    };
    for (int k = 0; k <= plan_.num_layers; ++k)
        ws.forward_scale[k] = rounded(k > 0 ? ws.layer_scale[k - 1] : 1, phases_[k].identity);
    carried = 1;
    for (int k = plan_.num_layers; k >= 0; --k)
        ws.adjoint_scale[k] = rounded(k < plan_.num_layers ? ws.layer_scale[k] : 1, phases_[k].identity);
}

// Say whether the X sums of a group are taken from the amplitudes. Ry(beta) turns (Z, X) of w by beta, so X before the
// rotation is (cos(beta) Z_before - Z_after)/sin(beta). This formula needs no sum, but multiplies rounding errors by
// 1/sin(beta). X is summed for the whole group if sin(beta) of one of its runs is below 1/8.
template <class T>
bool Engine<T>::sums_x(const Workspace& ws, const Group& group) const {
    if (!group.needs_x || ws.real) return false;  // for real states, Im<lam|X|psi> is 0
    const double* const inverse_sines = ws.bound->run.data() + INVERSE_SINE * run_packs_.width;
    bool any = false;  // no loop ends early, because a wrong guess of a branch takes longer than the loop
    for (const int r : group.runs)
        any |= !plan_.runs[r].single_axis & (inverse_sines[run_packs_.places[r].run] > LARGEST_INVERSE_SINE);
    return any;
}

// Make the lists of the rotations of a row, forward and back, and choose the groups whose X is summed.
template <class T>
void Engine<T>::bind_rotations(const Call& call, Workspace& ws) const {
    const double* const rotation = ws.bound->rotation.data();
    Rotation<T>* next = ws.rotations.data();
    // The scale of a flip is negative. No branch depends on it, because a wrong guess takes longer than the loop.
    auto add = [&](const std::vector<RunPlace>& places, bool inverse) {
        for (const RunPlace& place : places) {
            const double tau = rotation[place.rotation], scale = rotation[place.rotation + run_packs_.width];
            // (T(tau) X)^-1 is T(tau) X, and T(tau)^-1 is T(-tau), up to a factor.
            *next++ = {place.bit, scale < 0, static_cast<T>(inverse ? std::copysign(1.0, -scale) * tau : tau)};
        }
    };
    add(layout_.places_forward, false);
    if (!call.request.gradient) return;
    next = ws.inverses.data();
    const Groups& summed = call.request.actions ? layout_.sums : layout_.adjoint.groups;
    add(call.request.actions ? layout_.places_kept : layout_.places_adjoint, true);
    for (const auto& groups : summed)
        for (const auto& group : groups) ws.with_x[group.first] = sums_x(ws, group);
}

template <class T>
void Engine<T>::run_row(Call& call, Workspace& ws, Team& team, int thread, int row) const {
    const Request& request = call.request;
    const double* columns = request.columns + static_cast<std::size_t>(row) * plan_.num_columns;
    const std::int64_t first = request.row_pairs[row], end = request.row_pairs[row + 1];
    if (!request.asks_for(row)) return;
    // Pairs that share all sweeps: all pairs of the row, or one pair if each pair has its own gradient.
    const std::int64_t pairs_at_once = request.gradient && !request.by_row() ? 1 : end - first;
    if (thread == 0) {
        if (call.observables.slots().empty()) ws.values.resize(num_chunks() * pairs_at_once);
        ws.initial = request.initial_states;
        if (ws.initial && !request.shared_start) ws.initial += static_cast<std::size_t>(row) << plan_.num_qubits;
        ws.bound = row > 0 ? &ws.own : &call.shared->bound;
        if (row > 0) bind_row(call.shared->varying_packs, columns, ws.own);
        set_scales(ws);
        bind_rotations(call, ws);
        if (request.has_ends()) {
            const double phase = left_phase(call).at(columns);
            ws.factor = Complex{std::cos(phase), std::sin(phase)} * phase_of_runs(*ws.bound);
        }
        std::fill(ws.built.begin(), ws.built.end(), 0);
    }
    team.barrier();
    std::int64_t pair = first;
    do {  // a row without pairs takes one turn
        if (request.actions)
            run_actions(call, ws, team, thread, row, pair > first && call.keeps_all_states, pair, pairs_at_once);
        else
            run_in_place(call, ws, team, thread, row, pair == first, pair, pairs_at_once);
        const std::int64_t out = request.by_row() ? row : pair;
        if (thread == 0 && request.gradient) {
            assemble(call, ws, row, request.gradients + out * plan_.num_columns);
            if (request.state_gradients)
                copy_state_gradient(ws, request.state_gradients + (static_cast<std::size_t>(out) << plan_.num_qubits));
            if (request.from_end) copy_state_at_start(ws, request.final_states);
        }
        team.barrier();
        pair += pairs_at_once;
    } while (pair < end);
}

#define QF_INSTANTIATE(T)                                                                                   \
    template const PhaseTables<T>& Engine<T>::phase_tables(Call&, Workspace&, Team&, int, int) const;       \
    template void Engine<T>::start(Workspace&, int, State, int) const;                                      \
    template void Engine<T>::apply_dense(Call&, Team&, int, int, bool, std::initializer_list<State>) const; \
    template void Engine<T>::apply_map_to_chunk(Member&, int, bool, int, std::initializer_list<State>) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)
template void Engine<float>::run_row(Call&, Workspace&, Team&, int, int) const;
template void Engine<double>::run_row(Call&, Workspace&, Team&, int, int) const;

}  // namespace qf
