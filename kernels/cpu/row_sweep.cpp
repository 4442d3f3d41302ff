// SPDX-License-Identifier: Apache-2.0
//
// The sweeps over one row, forward and backward, and its gradients.
//
// Forward step k: each thread applies phase k and the rotations of layer k on qubits inside a chunk, chunk by chunk. If
// layer k rotates chunk bits, the threads meet at a barrier and rotate these bits in chunks cut along other bits.
// Dense gates of layer k follow: the threads share the groups of amplitudes that a gate joins, between barriers.
// Adjoint step k: the same in reverse order on psi and lam, with the sums of kernels/README.md, section Gradients.
// Determinism: the number of qubits decides the chunks, and sums over chunks are added in chunk order. Results are the
// same bits for any number of threads.
#include <cmath>

#include "cpu/engine.hpp"

namespace qf {

// Say whether the X sums of a group are taken from the amplitudes. Ry(beta) turns (Z, X) of w by beta, so X before the
// rotation is (cos(beta) Z_before - Z_after)/sin(beta). This formula needs no sum, but multiplies rounding errors by
// 1/sin(beta). X is summed for the whole group if sin(beta) of one of its runs is below 1/8.
template <class T>
bool Engine<T>::sums_x(const Workspace& ws, const Group& group) const {
    constexpr double smallest_sine = 0.125;
    if (!group.needs_x || ws.real) return false;  // for real states, Im<lam|X|psi> is 0
    for (const int r : group.runs)
        if (!plan_.runs[r].single_axis && sin_beta(ws.bound.rotor[r]) < smallest_sine) return true;
    return false;
}

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
        build_tables(plan_, phases_[k], low_bits_, ws.bound, sweeps_, ws.scratch, ws.tables[slot]);
        ws.built[k] = 1;
    }
    team.barrier();
    return ws.tables[slot];
}

// Bind a group to the angles of a row, forward or back.
template <class T>
auto Engine<T>::bind_turn(const Workspace& ws, const Group& group, bool adjoint) const -> Turn {
    Turn turn{};
    turn.group = &group;
    turn.with_x = adjoint && sums_x(ws, group);
    for (const int r : group.runs) {
        const Rotor& rotor = ws.bound.rotor[r];
        const double tau = adjoint && !rotor.flip ? -rotor.tau : rotor.tau;  // (T(t) X)^-1 ~ X T(-t) = T(t) X
        turn.list[turn.count++] = {plan_.runs[r].bit, rotor.flip, static_cast<T>(tau)};
    }
    return turn;
}

// Bind the groups inside a tile.
template <class T>
auto Engine<T>::bind_turns(const Workspace& ws, const std::vector<Group>& groups, bool adjoint) const -> Turns {
    Turns turns;
    for (const auto& group : groups)
        if (group.reach == Reach::tile) turns.list[turns.count++] = bind_turn(ws, group, adjoint);
    return turns;
}

// Apply the rotations of a turn, without their norms, to the amplitudes of a range.
template <class T>
void Engine<T>::rotate(const Turn& turn, const Range& range, State state) const {
    (turn.group->lanes ? sweeps_.rotate_lanes : sweeps_.rotate)(range, turn.list, turn.count, state.re, state.im);
}

// The same for psi and lam, and add the Y and X sums of each run.
template <class T>
void Engine<T>::rotate_adjoint(Turn& turn, const Range& range, State psi, State lam) const {
    const int most = turn.with_x ? sweeps_.max_adjoint_with_x : sweeps_.max_adjoint;
    const int step = turn.group->lanes ? turn.count : most;
    double sums[16] = {};
    for (int j = 0; j < turn.count; j += step)
        (turn.group->lanes ? sweeps_.rotate_lanes_adjoint : sweeps_.rotate_adjoint)(
            range, turn.list + j, std::min(step, turn.count - j), turn.with_x, psi.re, psi.im, lam.re, lam.im,
            sums + 2 * j);
    for (int j = 0; j < 2 * turn.count; ++j) turn.sums[j] += sums[j];
}

// Store the sums of a turn. set_run_sums() multiplies each sum by the squared norms of all rotations of the group. A
// sum of run j was taken before the later steps of rotate_adjoint() undid their rotations, so the squared norms of
// these rotations are divided out here.
template <class T>
void Engine<T>::store_sums(Workspace& ws, const Turn& turn, int chunk) const {
    const int most = turn.with_x ? sweeps_.max_adjoint_with_x : sweeps_.max_adjoint;
    const int step = turn.group->lanes ? turn.count : most;
    double* const out = ws.run_sums.data() + chunk * plan_.runs.size() * 2;
    double norm2 = 1, after = 1;  // of the rotations after run j, and of the steps after the step of run j
    for (int j = turn.count - 1; j >= 0; --j) {
        const int r = turn.group->runs[j];
        if (j % step == step - 1) after = norm2;
        out[2 * r] = turn.sums[2 * j] / after;
        out[2 * r + 1] = turn.sums[2 * j + 1] / after;
        norm2 *= ws.bound.rotor[r].scale * ws.bound.rotor[r].scale;
    }
}

// Apply the rotations of a layer to one state, or their inverses, without their norms.
template <class T>
void Engine<T>::rotate_groups(Workspace& ws, int layer, Reach reach, bool adjoint, State state, int chunk) const {
    for (const auto& group : forward_[layer])
        if (group.reach == reach) rotate(bind_turn(ws, group, adjoint), range_of(reach, chunk), state);
}

// Undo the rotations of a layer on psi and lam, and store the Y and X sums of each run.
template <class T>
void Engine<T>::rotate_groups_adjoint(Workspace& ws, int layer, Reach reach, State psi, int chunk) const {
    for (const auto& group : adjoint_[layer]) {
        if (group.reach != reach) continue;
        Turn turn = bind_turn(ws, group, true);
        rotate_adjoint(turn, range_of(reach, chunk), psi, view(ws.lam, ws.real));
        store_sums(ws, turn, chunk);
    }
}

// Sum Im<lam|(Y, X)|psi> after each run of a layer, and leave both states as they are. psi lacks the norm of the layer.
// Both states lack the sign diag(-1, 1) of a flip, which changes the signs of Y and X. The factor `norm` corrects both.
template <class T>
void Engine<T>::sum_groups(Workspace& ws, int layer, Reach reach, State psi, int chunk) const {
    const State lam = view(ws.lam, ws.real);
    for (const auto& group : sums_[layer]) {
        if (group.reach != reach) continue;
        Turn turn = bind_turn(ws, group, true);
        const int step = group.lanes ? turn.count : turn.with_x ? sweeps_.max_sums_with_x : sweeps_.max_sums;
        for (int j = 0; j < turn.count; j += step)
            (group.lanes ? sweeps_.lane_sums : sweeps_.rotation_sums)(
                range_of(reach, chunk), turn.list + j, std::min(step, turn.count - j), turn.with_x, psi.re, psi.im,
                lam.re, lam.im, turn.sums + 2 * j);
        double* out = ws.run_sums.data() + chunk * plan_.runs.size() * 2;
        for (int j = 0; j < turn.count; ++j) {
            const double norm = ws.layer_scale[layer] * (turn.list[j].flip ? -1 : 1);
            out[2 * group.runs[j]] = norm * turn.sums[2 * j];
            out[2 * group.runs[j] + 1] = norm * turn.sums[2 * j + 1];
        }
    }
}

// Fill one chunk of the start state b_0. From |0...0> the function can fill b_1 instead, a product of real columns.
template <class T>
void Engine<T>::start(Workspace& ws, int boundary, State psi, int chunk) const {
    const std::size_t size = std::size_t(1) << (bits_ - chunk_bits_), begin = chunk * size;
    T *psi_re = psi.re + begin, *psi_im = psi.im + begin;
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

// Apply the dense gates of a layer, or their inverses, to some states. The number of chunks decides how the groups of
// amplitudes are shared, so the bits of the results do not depend on the number of threads.
template <class T>
void Engine<T>::apply_dense(Call& call, Team& team, int thread, int layer, bool adjoint,
                            std::initializer_list<State> states) const {
    for (int g = layout_.dense_begin[layer]; g < layout_.dense_begin[layer + 1]; ++g) {
        const DenseProduct<T> product = dense_[g].on_state(bits_, adjoint);
        const index_t count = num_groups(product);
        team.barrier();  // after this barrier, the states are complete
        for_each_chunk(call, team, thread, [&](int chunk) {
            const index_t begin = count * chunk >> chunk_bits_, end = count * (chunk + 1) >> chunk_bits_;
            for (const State& state : states) sweeps_.dense(product, begin, end, state.re, state.im);
        });
    }
    if (has_dense(layer)) team.barrier();
}

template <class T>
void Engine<T>::forward_step(Call& call, Workspace& ws, Team& team, int thread, int k, State from, State to) const {
    const index_t blocks = index_t(1) << (bits_ - chunk_bits_ - low_bits_);
    const index_t blocks_of_tile = index_t(1) << (layout_.tile_bits - low_bits_);
    const Diagonal<T> d = phase_tables(call, ws, team, thread, k).view(phases_[k], low_bits_, ws.forward_scale[k]);
    const Turns turns = k < plan_.num_layers ? bind_turns(ws, forward_[k], false) : Turns{};
    const int lanes = turns.has_lanes() ? 1 : 0;  // the sweep over the phase also rotates the lane qubits
    for_each_chunk(call, team, thread, [&](int chunk) {
        const index_t begin = block_begin(chunk);
        for (index_t h = begin; h < begin + blocks; h += blocks_of_tile) {
            sweeps_.phase(d, h, h + blocks_of_tile, from.re, from.im, to.re, to.im, turns.list[0].list,
                          lanes ? turns.list[0].count : 0, ws.members[thread].block.data());
            for (int t = lanes; t < turns.count; ++t) rotate(turns.list[t], tile_at(h, layout_.tile_bits), to);
        }
        if (k < plan_.num_layers) rotate_groups(ws, k, Reach::chunk, false, to, chunk);
    });
    if (thread == 0) count_step(call, ws);
    if (k == plan_.num_layers) return;
    if (crosses(forward_[k])) {
        team.barrier();
        for_each_chunk(call, team, thread, [&](int chunk) { rotate_groups(ws, k, Reach::across, false, to, chunk); });
        team.barrier();
    }
    apply_dense(call, team, thread, k, false, {to});
}

// Undo a phase on psi and lam, and the rotations of `turns`, in the tiles of the blocks begin .. end - 1.
template <class T>
void Engine<T>::sweep_tiles_adjoint(Workspace& ws, Member& member, const Diagonal<T>& d, State psi, index_t begin,
                                    index_t end, const PhaseSums<T>& sums, Turns& turns) const {
    const State lam = view(ws.lam, ws.real);
    const index_t blocks_of_tile = index_t(1) << (layout_.adjoint_tile_bits - low_bits_);
    T* const scratch = member.block.data();
    const bool lanes = !ws.real && turns.has_lanes() && !turns.list[0].with_x;  // rotated by the sweep over the phase
    for (index_t h = begin; h < end; h += blocks_of_tile) {
        const index_t stop = h + blocks_of_tile;
        if (ws.real) {  // p is 0 for real states, and the inverse of a sign is the sign itself
            sweeps_.phase(d, h, stop, lam.re, nullptr, lam.re, nullptr, nullptr, 0, scratch);
            sweeps_.phase(d, h, stop, psi.re, nullptr, psi.re, nullptr, nullptr, 0, scratch);
        } else {
            Turn& first = turns.list[0];
            double lane_sums[16];
            const int count = lanes ? first.count : 0;
            sweeps_.phase_adjoint(d, h, stop, true, psi.re, psi.im, lam.re, lam.im, sums, first.list, count, lane_sums,
                                  scratch);
            for (int j = 0; j < 2 * count; ++j) first.sums[j] += lane_sums[j];
        }
        for (int t = lanes ? 1 : 0; t < turns.count; ++t)
            rotate_adjoint(turns.list[t], tile_at(h, layout_.adjoint_tile_bits), psi, lam);
    }
}

// Call sweep(begin, end, sums) for the blocks of a chunk, and turn the sums of p into those that the gradients of phase
// k need.
template <class T>
template <class F>
void Engine<T>::sum_phase(Call& call, Workspace& ws, Member& member, int k, bool moves_psi, int chunk,
                          F&& sweep) const {
    const Phase& phase = phases_[k];
    const index_t begin = block_begin(chunk), end = begin + (index_t(1) << (bits_ - chunk_bits_ - low_bits_));
    const bool has_sums = phase.want_sums && !ws.real && !(k == 0 && call.skip_first_adjoint);
    PhaseSums<T> sums{};
    T* const low = member.low_sums.data();
    const std::size_t size = std::size_t(1) << low_bits_, num_low = phase.num_variants() * size;
    if (has_sums) {
        sums.total = ws.total.data();
        sums.linear = phase.per_block && phase.want_pairs ? ws.linear.data() : nullptr;
        sums.cross = phase.per_block && phase.want_many ? ws.cross.data() : nullptr;
        if (phase.whole) {  // each block has its own sums
            sums.low = low;
            std::fill(low + begin * size, low + end * size, T(0));
        }
    }
    for (index_t h = begin; h < end; h += blocks_per_sum) {
        const bool adds = has_sums && !phase.whole;
        T* const part = h == begin ? low : low + num_low;
        if (adds) {
            std::fill_n(part, num_low, T(0));
            sums.low = part;
        }
        sweep(h, std::min(h + blocks_per_sum, end), sums);
        if (adds && part != low)
            for (std::size_t l = 0; l < num_low; ++l) low[l] += part[l];
    }
    if (!has_sums) return;
    const PhaseGradient out{ws.z_sums.data() + (chunk * phases_.size() + k) * plan_.num_qubits,
                            ws.pair_sums.data() + chunk * pair_begin_.back() + pair_begin_[k],
                            ws.many_sums.data() + chunk * many_begin_.back() + many_begin_[k]};
    const ChunkSums raw{ws.total.data(), ws.linear.data(), ws.cross.data(), begin, end};
    reduce_sums<T>(phase, plan_.num_qubits, low_bits_, sweeps_, low, raw, member.reduce, out);
    if (moves_psi || k == 0) return;
    const double norm = ws.layer_scale[k - 1];  // psi before phase k lacks the norm of layer k - 1
    auto scale = [&](double* sums, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) sums[i] *= norm;
    };
    scale(out.z, plan_.num_qubits);
    scale(out.pair, pair_begin_[k + 1] - pair_begin_[k]);
    scale(out.many, many_begin_[k + 1] - many_begin_[k]);
}

// With moves_psi, psi is the state after phase k, and the step undoes phase k and layer k - 1 on psi and lam. Without
// moves_psi, psi is the kept state b_k and stays as it is: the step takes the sums of layer k - 1 before lam is taken
// back through layer k - 1, and step k - 1 undoes the rotations of layer k - 1 inside chunks.
template <class T>
void Engine<T>::adjoint_step(Call& call, Workspace& ws, Team& team, int thread, int k, State psi,
                             bool moves_psi) const {
    const State lam = view(ws.lam, ws.real);
    const Diagonal<T> d = phase_tables(call, ws, team, thread, k).view(phases_[k], low_bits_, ws.adjoint_scale[k]);
    Member& member = ws.members[thread];
    const Turns bound = moves_psi && k > 0 ? bind_turns(ws, adjoint_[k - 1], true) : Turns{};
    for_each_chunk(call, team, thread, [&](int chunk) {
        if (moves_psi) {
            Turns turns = bound;
            sum_phase(call, ws, member, k, true, chunk, [&](index_t begin, index_t end, const PhaseSums<T>& sums) {
                sweep_tiles_adjoint(ws, member, d, psi, begin, end, sums, turns);
            });
            for (int t = 0; t < turns.count; ++t) store_sums(ws, turns.list[t], chunk);
            if (k > 0) rotate_groups_adjoint(ws, k - 1, Reach::chunk, psi, chunk);
            return;
        }
        for (const Reach reach : {Reach::tile, Reach::chunk})
            if (k < plan_.num_layers) rotate_groups(ws, k, reach, true, lam, chunk);
        sum_phase(call, ws, member, k, false, chunk, [&](index_t begin, index_t end, const PhaseSums<T>& sums) {
            if (ws.real)
                return sweeps_.phase(d, begin, end, lam.re, nullptr, lam.re, nullptr, nullptr, 0, member.block.data());
            sweeps_.phase_adjoint(d, begin, end, false, psi.re, psi.im, lam.re, lam.im, sums, nullptr, 0, nullptr,
                                  member.block.data());
        });
        for (const Reach reach : {Reach::tile, Reach::chunk})
            if (k > 0) sum_groups(ws, k - 1, reach, psi, chunk);
    });
    if (thread == 0) count_step(call, ws);
    if (k == 0) return;
    if (crosses(adjoint_[k - 1])) {
        team.barrier();
        for_each_chunk(call, team, thread, [&](int chunk) {
            if (moves_psi) return rotate_groups_adjoint(ws, k - 1, Reach::across, psi, chunk);
            sum_groups(ws, k - 1, Reach::across, psi, chunk);
            rotate_groups(ws, k - 1, Reach::across, true, lam, chunk);
        });
        team.barrier();
    }
    if (moves_psi)
        apply_dense(call, team, thread, k - 1, true, {psi, lam});
    else
        apply_dense(call, team, thread, k - 1, true, {lam});
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
//              rotations undone so far; `length2` is the square of these norms.
//   otherwise  psi was kept. Sums were taken after the rotations, and sum_groups() has multiplied in the norms. X is
//              turned back through the rotation.
template <class T>
void Engine<T>::set_run_sums(const Call& call, Workspace& ws, int layer, bool in_place) const {
    const double* z_before = ws.z_sums.data() + static_cast<std::size_t>(layer) * plan_.num_qubits;
    const bool skips_z = layer == 0 && call.skip_first_adjoint, no_z = !phases_[layer].want_sums || skips_z;
    // Z|0...0> = |0...0>, so all Z sums before layer 0 are Im<lam|psi>. It is 0 for lam = O psi.
    const double first_z = skips_z && call.request.final_cotangents ? ws.overlap : 0;
    double length2 = 1;
    for (const auto& group : (in_place ? adjoint_ : sums_)[layer]) {
        const bool has_x = sums_x(ws, group);
        for (const int r : group.runs) length2 *= ws.bound.rotor[r].scale * ws.bound.rotor[r].scale;
        for (const int r : group.runs) {
            const int bit = plan_.runs[r].bit;
            const Rotor& rotor = ws.bound.rotor[r];
            const double factor = in_place ? length2 : 1;
            const double z = no_z ? first_z : z_before[bit], z_after = z_before[plan_.num_qubits + bit];
            double x = 0;
            if (has_x)
                x = ws.run_sums[2 * r + 1] * factor;
            else if (!plan_.runs[r].single_axis && !ws.real)
                x = (cos_beta(rotor) * z - z_after) / sin_beta(rotor);
            if (has_x && !in_place) x = cos_beta(rotor) * x - sin_beta(rotor) * z_after;
            ws.w[r] = {x, ws.run_sums[2 * r] * factor, z};
        }
    }
}

template <class T>
void Engine<T>::assemble(Call& call, Workspace& ws, const double* columns, int row, double* gradient) const {
    // Write zeros before the first addition. The system maps fresh memory twice if it is read first and written later,
    // and each mapping stops all threads.
    std::fill_n(gradient, plan_.num_columns, 0.0);
    add_chunks(ws);
    const bool in_place = !call.request.actions;
    for (int k = 0; k < plan_.num_layers; ++k) set_run_sums(call, ws, k, in_place);
    add_run_gradients(plan_, call.own_runs, ws.bound, columns, ws.w.data(), gradient);
    if (!call.summed_runs.empty()) {
        auto* const sums = call.block_w.data() + row / call.units_per_block * plan_.runs.size();
        for (const int r : call.summed_runs)
            for (int axis = 0; axis < 3; ++axis) sums[r][axis] += ws.w[r][axis];
    }
    if (call.skip_first_adjoint && call.request.final_cotangents)
        for (const auto& part : layout_.gradients_of_first) gradient[part.column] += part.slope * ws.overlap;
    for (std::size_t k = call.skip_first_adjoint ? 1 : 0; k < phases_.size(); ++k)
        if (phases_[k].want_sums)
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
    for (std::int64_t a = 0; a < request.num_actions; ++a) {
        const Action& action = request.actions[a];
        const int boundary = action.position - 1 + call.first_boundary;
        if (action.kind == Action::back) {
            const State psi = view(ws.psi[action.source], ws.real);
            if (boundary == plan_.num_layers + 1)
                observe_pairs(call, ws, team, thread, row, first, count, psi);
            else
                adjoint_step(call, ws, team, thread, boundary, psi, false);
            continue;
        }
        if (states_are_kept) continue;
        const State to = view(ws.psi[action.target], ws.real);
        if (action.position == 1)
            for_each_chunk(call, team, thread, [&](int chunk) { start(ws, boundary, to, chunk); });
        else
            forward_step(call, ws, team, thread, boundary - 1, view(ws.psi[action.source], ws.real), to);
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
    const bool has_final = call.finals && call.request.gradient && call.finals->has_row[row];
    if (has_final) {
        copy(view(call.finals->psi[row], ws.real), psi);
    } else if (first_of_row) {
        const int begin = call.zero_start ? 1 : 0;
        for_each_chunk(call, team, thread, [&](int chunk) { start(ws, begin, psi, chunk); });
        for (int k = begin; k <= plan_.num_layers; ++k) forward_step(call, ws, team, thread, k, psi, psi);
        if (ws.saved && call.request.gradient) copy(psi, view(ws.saved, ws.real));
    } else {
        copy(view(ws.saved, ws.real), psi);
    }
    if (call.finals && !call.request.gradient) {
        Buffer<T>& kept = call.finals->psi[row];
        if (thread == 0 && !kept) kept = Buffer<T>(layout_.state_size(0, ws.real));
        team.barrier();
        copy(psi, view(kept, ws.real));
        if (thread == 0) call.finals->has_row[row] = 1;
    }
    observe_pairs(call, ws, team, thread, row, first, count, psi);
    if (!call.request.gradient) return;
    for (int k = plan_.num_layers; k >= (call.skip_first_adjoint ? 1 : 0); --k)
        adjoint_step(call, ws, team, thread, k, psi, true);
    team.barrier();
}

// Compute the norms that rotations leave out, and the factors of the phases that restore the norms. The rounding error
// of a factor is multiplied into the next factor, because the errors of many equal layers would add up.
template <class T>
void Engine<T>::set_scales(Workspace& ws) const {
    for (int k = 0; k < plan_.num_layers; ++k) {
        double scale = 1;
        for (int r = layer_begin_[k]; r < layer_begin_[k + 1]; ++r) scale *= ws.bound.rotor[r].scale;
        ws.layer_scale[k] = scale;
    }
    double carried = 1;
    auto rounded = [&](double scale) {
        const T result = static_cast<T>(scale * carried);
        carried *= scale / result;
        return result;
    };
    for (int k = 0; k <= plan_.num_layers; ++k) ws.forward_scale[k] = rounded(k > 0 ? ws.layer_scale[k - 1] : 1);
    carried = 1;
    for (int k = plan_.num_layers; k >= 0; --k)
        ws.adjoint_scale[k] = rounded(k < plan_.num_layers ? ws.layer_scale[k] : 1);
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
        if (row > 0) bind_row(call.shared->varying, columns, ws.bound);
        set_scales(ws);
        if (request.has_ends()) {
            const double phase = left_phase(call).at(columns);
            ws.factor = Complex{std::cos(phase), std::sin(phase)} * phase_of_runs(plan_, ws.bound);
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
            assemble(call, ws, columns, row, request.gradients + out * plan_.num_columns);
            if (request.state_gradients)
                copy_state_gradient(ws, request.state_gradients + (static_cast<std::size_t>(out) << plan_.num_qubits));
        }
        team.barrier();
        pair += pairs_at_once;
    } while (pair < end);
}

template void Engine<float>::run_row(Call&, Workspace&, Team&, int, int) const;
template void Engine<double>::run_row(Call&, Workspace&, Team&, int, int) const;

}  // namespace qf
