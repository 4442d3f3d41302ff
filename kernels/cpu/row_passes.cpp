// SPDX-License-Identifier: Apache-2.0
//
// The passes over one row. A pass reads and writes each amplitude once: it takes one chunk of a window after the other
// (windows.hpp) through a phase and through the rotations before and after the phase that lie inside the window.
//
// If one window holds all bits, a pass is one phase and one layer. Otherwise the windows take turns. Rotations of a
// layer commute, so a pass leaves the rotations outside its window pending, and the next pass, in the other window,
// begins with them. So there are as many passes as phases:
//
//   pass 1, window 0: phase 1, and the rotations of layer 1 inside window 0
//   pass 2, window 1: the pending rotations of layer 1, phase 2, and the rotations of layer 2 inside window 1
//   pass 3, window 0: the pending rotations of layer 2, phase 3, and the rotations of layer 3 inside window 0
//
// A linear map is the product of a part that moves whole chunks of window 0 and a part inside these chunks. The first
// part moves nothing: after it, the chunks have other numbers (Frame). The second part is the last step of a pass in
// window 0, or the first step of the pass after a pass in window 1.
//
// The adjoint runs in the same way from the last phase to the first, on psi and lam, and takes the sums of
// kernels/README.md, section Gradients.
// Determinism: the number of qubits decides the chunks, and sums over chunks are added in chunk order. Results are the
// same bits for any number of threads.
#include "cpu/engine.hpp"

namespace qf {

// Apply the rotations of a group, without their norms, to a part of a state.
template <class T>
void Engine<T>::rotate(const Group& group, const std::vector<Rotation<T>>& rotations, const Range& range,
                       State state) const {
    (group.lanes ? sweeps_.rotate_lanes : sweeps_.rotate)(range, rotations.data() + group.first,
                                                          static_cast<int>(group.runs.size()), state.re, state.im);
}

// Undo the rotations of a group, without their norms, on a part of psi and lam, and add the sums of its runs.
template <class T>
void Engine<T>::rotate_adjoint(Workspace& ws, const Group& group, int chunk, const Range& range, State psi,
                               State lam) const {
    const bool with_x = ws.with_x[group.first];
    const int count = static_cast<int>(group.runs.size()), step = adjoint_step_of(group, with_x);
    double sums[16];
    for (int j = 0; j < count; j += step)
        (group.lanes ? sweeps_.rotate_lanes_adjoint : sweeps_.rotate_adjoint)(
            range, ws.inverses.data() + group.first + j, std::min(step, count - j), with_x, psi.re, psi.im, lam.re,
            lam.im, sums + 2 * j);
    double* const out = run_sums_of(ws, group, chunk);
    for (int j = 0; j < 2 * count; ++j) out[j] += sums[j];
}

// Take a state through the pending rotations of layer k - 1 if `continues`, phase k, and layer k but its pending
// rotations. With a pending rotation before it, `from` is `to`.
template <class T>
void Engine<T>::forward_pass(Call& call, Workspace& ws, Team& team, int thread, int k, bool continues, State from,
                             State to) const {
    const Passes& passes = layout_.forward;
    // A phase that is the identity is applied only to write a state to another place.
    const bool has_phase = !phases_[k].identity || from.re != to.re;
    const Diagonal<T> d = has_phase
                              ? phase_tables(call, ws, team, thread, k).view(phases_[k], low_bits_, ws.forward_scale[k])
                              : Diagonal<T>{};
    Member& member = ws.members[thread];
    const auto &before = groups_of(passes.groups, continues ? k - 1 : -1), &after = groups_of(passes.groups, k);
    // The sweep over the phase also rotates the lane qubits.
    const Group* const lanes = has_phase && !after.empty() && after[0].lanes ? after.data() : nullptr;
    for_each_chunk(call, team, thread, [&](int chunk) {
        const Part part = this->part(layout_.windows, passes.window[k], k, chunk);
        const Range range = part.range();
        const State in = part.of(from), out = part.of(to);
        const index_t ahead = chunk + 1 < team.end(num_chunks(), thread) ? part.window.ahead : 0;
        auto rotate_groups = [&](const std::vector<Group>& groups, bool pending, bool in_tile, const Range& range) {
            for (const Group& group : groups)
                if (group.pending == pending && group.in_tile == in_tile && &group != lanes)
                    rotate(group, ws.rotations, range, out);
        };
        if (continues && passes.maps[k - 1] == Passes::first) apply_map_to_chunk(member, k - 1, false, chunk, {to});
        rotate_groups(before, true, false, range);
        part.for_each_tile([&](const Range& tile) {
            rotate_groups(before, true, true, tile);
            if (has_phase)
                sweeps_.phase(d, tile, ahead, in.re, in.im, out.re, out.im,
                              lanes ? ws.rotations.data() + lanes->first : nullptr,
                              lanes ? static_cast<int>(lanes->runs.size()) : 0, member.block.data());
            rotate_groups(after, false, true, tile);
        });
        rotate_groups(after, false, false, range);
        if (k < plan_.num_layers && passes.maps[k] == Passes::last) apply_map_to_chunk(member, k, false, chunk, {to});
    });
    if (thread == 0) count_step(call, ws);
    if (k == plan_.num_layers) return;
    apply_dense(call, team, thread, k, false, {to});
}

// Rotate the pending bits of a layer in a pass of its own, and apply the pending part of its map.
template <class T>
void Engine<T>::forward_pending(Call& call, Workspace& ws, Team& team, int thread, int layer, State psi) const {
    const Passes& passes = layout_.forward;
    team.barrier();
    for_each_chunk(call, team, thread, [&](int chunk) {
        if (passes.maps[layer] == Passes::first) apply_map_to_chunk(ws.members[thread], layer, false, chunk, {psi});
        const Part part = this->part(layout_.windows, 1 - passes.window[layer], layer + 1, chunk);
        for (const Group& group : passes.groups[layer])
            if (group.pending) rotate(group, ws.rotations, part.range(), part.of(psi));
    });
    team.barrier();
}

// Take a state through phase k and layer k. `continues`: the step before left pending rotations to this step.
// `completes`: the state is complete after this step; else the next step continues it. Between steps that complete
// their states, a thread reads and writes its own chunks of window 0 only.
template <class T>
void Engine<T>::forward_step(Call& call, Workspace& ws, Team& team, int thread, int k, bool continues, bool completes,
                             State from, State to) const {
    const Passes& passes = layout_.forward;
    const bool turns = passes.window[k] != (continues ? passes.window[k - 1] : 0);
    const bool pending = continues && passes.has_pending(k - 1);
    if (pending && !turns) forward_pending(call, ws, team, thread, k - 1, to);
    if (turns) team.barrier();
    forward_pass(call, ws, team, thread, k, pending && turns, from, to);
    if (!completes) return;
    if (k < plan_.num_layers && passes.has_pending(k))
        forward_pending(call, ws, team, thread, k, to);
    else if (passes.window[k] != 0)
        team.barrier();
}

// Call sweep(tile, sums) for the tiles of a chunk, and turn the sums of p into the sums that the gradients of phase k
// need, times `norm`.
template <class T>
template <class F>
void Engine<T>::sum_phase(const Call& call, Workspace& ws, Member& member, int k, double norm, const Part& part,
                          int chunk, F&& sweep) const {
    const Phase& phase = phases_[k];
    const bool has_sums = phase.want_sums && !ws.real && !(k == 0 && call.skip_first_adjoint);
    const ChunkBlocks blocks = part.window.blocks(part.number, low_bits_);
    PhaseSums<T> sums{};
    T* const low = member.low_sums.data();
    const std::size_t size = std::size_t(1) << low_bits_, num_low = phase.num_variants() * size;
    if (has_sums) {
        sums.total = ws.total.data();
        sums.linear = phase.per_block && phase.want_pairs ? ws.linear.data() : nullptr;
        sums.cross = phase.per_block && phase.want_many ? ws.cross.data() : nullptr;
        if (phase.whole) {  // each block has its own sums
            sums.low = low;
            std::fill_n(low + blocks.number(0) * size, blocks.count * size, T(0));
        }
    }
    const bool adds = has_sums && !phase.whole;
    index_t done = 0;  // blocks
    part.for_each_tile([&](const Range& tile) {
        if (adds && done % blocks_per_sum == 0) {
            sums.low = done == 0 ? low : low + num_low;
            std::fill_n(sums.low, num_low, T(0));
        }
        sweep(tile, sums);
        done += index_t(1) << (part.window.tile_bits - low_bits_);
        if (adds && sums.low != low && (done % blocks_per_sum == 0 || done == blocks.count))
            for (std::size_t l = 0; l < num_low; ++l) low[l] += sums.low[l];
    });
    if (!has_sums) return;
    const PhaseGradient out{ws.z_sums.data() + (chunk * phases_.size() + k) * plan_.num_qubits,
                            ws.pair_sums.data() + chunk * pair_begin_.back() + pair_begin_[k],
                            ws.many_sums.data() + chunk * many_begin_.back() + many_begin_[k]};
    const ChunkSums raw{ws.total.data(), ws.linear.data(), ws.cross.data(), blocks};
    reduce_sums<T>(phase, plan_.num_qubits, low_bits_, sweeps_, low, raw, member.reduce, out);
    if (norm == 1) return;
    auto scale = [&](double* values, std::size_t count) {
        for (std::size_t i = 0; i < count; ++i) values[i] *= norm;
    };
    scale(out.z, plan_.num_qubits);
    scale(out.pair, pair_begin_[k + 1] - pair_begin_[k]);
    scale(out.many, many_begin_[k + 1] - many_begin_[k]);
}

// Undo a phase and the rotations before it, which have the groups `after`, on psi and lam, in one tile.
template <class T>
void Engine<T>::undo_phase(Workspace& ws, Member& member, const Diagonal<T>& d, int chunk, const Range& tile,
                           index_t ahead, const PhaseSums<T>& sums, State psi, State lam,
                           const std::vector<Group>& after) const {
    T* const scratch = member.block.data();
    // The sweep over the phase also rotates the lane qubits, if their sums of X are not needed.
    const Group* const lanes =
        !ws.real && !after.empty() && after[0].lanes && !ws.with_x[after[0].first] ? after.data() : nullptr;
    if (ws.real) {  // p is 0 for real states, and the inverse of a sign is the sign itself
        sweeps_.phase(d, tile, ahead, lam.re, nullptr, lam.re, nullptr, nullptr, 0, scratch);
        sweeps_.phase(d, tile, ahead, psi.re, nullptr, psi.re, nullptr, nullptr, 0, scratch);
    } else {
        double lane_sums[16];
        const LaneList<T> list = lanes_of(ws, lanes);
        sweeps_.phase_adjoint(d, tile, ahead, true, psi.re, psi.im, lam.re, lam.im, sums, {}, list, lane_sums, scratch);
        for (int j = 0; j < 2 * list.count; ++j) run_sums_of(ws, *lanes, chunk)[j] += lane_sums[j];
    }
    for (const Group& group : after)
        if (group.in_tile && !group.pending && &group != lanes) rotate_adjoint(ws, group, chunk, tile, psi, lam);
}

// Undo the pending rotations of layer k if `continues`, phase k, and layer k - 1 but its pending rotations, on psi and
// lam. Store the sums of the phase and of the rotations.
template <class T>
void Engine<T>::adjoint_pass(Call& call, Workspace& ws, Team& team, int thread, int k, bool continues,
                             State whole_psi) const {
    const Passes& passes = layout_.adjoint;
    const State whole_lam = view(ws.lam, ws.real);
    const bool has_phase = !phases_[k].identity;
    const Diagonal<T> d = has_phase
                              ? phase_tables(call, ws, team, thread, k).view(phases_[k], low_bits_, ws.adjoint_scale[k])
                              : Diagonal<T>{};
    Member& member = ws.members[thread];
    const auto &before = groups_of(passes.groups, continues ? k : -1), &after = groups_of(passes.groups, k - 1);
    for_each_chunk(call, team, thread, [&](int chunk) {
        const Part part = this->part(layout_.adjoint_windows, passes.window[k], k, chunk);
        const Range range = part.range();
        const State psi = part.of(whole_psi), lam = part.of(whole_lam);
        const index_t ahead = chunk + 1 < team.end(num_chunks(), thread) ? part.window.ahead : 0;
        auto undo_groups = [&](const std::vector<Group>& groups, bool pending, bool in_tile, const Range& range) {
            for (const Group& group : groups)
                if (group.pending == pending && group.in_tile == in_tile)
                    rotate_adjoint(ws, group, chunk, range, psi, lam);
        };
        if (continues && passes.maps[k] == Passes::first)
            apply_map_to_chunk(member, k, true, chunk, {whole_psi, whole_lam});
        undo_groups(before, true, false, range);
        sum_phase(call, ws, member, k, 1, part, chunk, [&](const Range& tile, const PhaseSums<T>& sums) {
            undo_groups(before, true, true, tile);
            if (has_phase) undo_phase(ws, member, d, chunk, tile, ahead, sums, psi, lam, after);
        });
        undo_groups(after, false, false, range);
        if (k > 0 && passes.maps[k - 1] == Passes::last)
            apply_map_to_chunk(member, k - 1, true, chunk, {whole_psi, whole_lam});
    });
    if (thread == 0) count_step(call, ws);
    if (k == 0) return;
    apply_dense(call, team, thread, k - 1, true, {whole_psi, whole_lam});
}

// Undo the pending rotations of a layer in a pass of its own.
template <class T>
void Engine<T>::adjoint_pending(Call& call, Workspace& ws, Team& team, int thread, int layer, State psi) const {
    const State lam = view(ws.lam, ws.real);
    team.barrier();
    for_each_chunk(call, team, thread, [&](int chunk) {
        const Part part = this->part(layout_.adjoint_windows, 1 - layout_.adjoint.window[layer + 1], layer, chunk);
        for (const Group& group : layout_.adjoint.groups[layer])
            if (group.pending) rotate_adjoint(ws, group, chunk, part.range(), part.of(psi), part.of(lam));
    });
    team.barrier();
}

template <class T>
void Engine<T>::adjoint_in_place(Call& call, Workspace& ws, Team& team, int thread, State psi) const {
    const Passes& passes = layout_.adjoint;
    const int end = call.skip_first_adjoint ? 1 : 0;
    const std::size_t num_sums = 2 * plan_.runs.size();
    for_each_chunk(call, team, thread, [&](int chunk) {
        std::fill_n(ws.run_sums.data() + chunk * num_sums, num_sums, 0.0);  // rotate_adjoint() adds
    });
    for (int k = plan_.num_layers; k >= end; --k) {
        const bool turns = k < plan_.num_layers && passes.window[k] != passes.window[k + 1];
        const bool pending = k < plan_.num_layers && passes.has_pending(k);
        if (pending && !turns) adjoint_pending(call, ws, team, thread, k, psi);
        if (turns || (k < plan_.num_layers && changes_frame(k))) team.barrier();
        adjoint_pass(call, ws, team, thread, k, pending && turns, psi);
    }
    if (end == 1 && plan_.num_layers > 0 && passes.has_pending(0)) adjoint_pending(call, ws, team, thread, 0, psi);
}

// Add Im<lam|(Y, X)|psi> of each run of a group to its sums, and rotate lam if the group asks for it.
template <class T>
void Engine<T>::sum_group(Workspace& ws, const Group& group, int chunk, const Range& range, State psi,
                          State lam) const {
    const bool with_x = ws.with_x[group.first];
    const int count = static_cast<int>(group.runs.size());
    const int step = group.lanes ? count : with_x ? sweeps_.max_sums_with_x : sweeps_.max_sums;
    const bool sums_move_lam = group.moves_lam && count <= step;  // else the first call would rotate lam too early
    double sums[16];
    for (int j = 0; j < count; j += step) {
        const Rotation<T>* const rotations = ws.inverses.data() + group.first + j;
        const int some = std::min(step, count - j);
        if (group.lanes)
            sweeps_.lane_sums(range, rotations, some, with_x, psi.re, psi.im, lam.re, lam.im, sums);
        else
            sweeps_.rotation_sums(range, rotations, some, with_x, sums_move_lam, psi.re, psi.im, lam.re, lam.im,
                                  sums + 2 * j);
    }
    if (group.moves_lam && !sums_move_lam) rotate(group, ws.inverses, range, lam);
    double* const out = run_sums_of(ws, group, chunk);
    for (int j = 0; j < 2 * count; ++j) out[j] += sums[j];
}

// Adjoint step k of a schedule. psi is the kept state b_k and stays as it is: the step takes the sums of layer k - 1
// before lam is taken back through layer k - 1. The step undoes the pending rotations of layer k - 1, and the rotations
// of the group that moves lam. Step k - 1 undoes the other rotations.
template <class T>
void Engine<T>::adjoint_step(Call& call, Workspace& ws, Team& team, int thread, int k, State whole_psi) const {
    const State whole_lam = view(ws.lam, ws.real);
    const Diagonal<T> d = phase_tables(call, ws, team, thread, k).view(phases_[k], low_bits_, ws.adjoint_scale[k]);
    Member& member = ws.members[thread];
    const double norm = k > 0 ? ws.layer_scale[k - 1] : 1;  // psi before phase k lacks the norm of layer k - 1
    const auto &before = groups_of(layout_.back, k), &after = groups_of(layout_.sums, k - 1);
    // The sweep over the phase also rotates the lane qubits of lam, and takes their sums if they need no X.
    auto lanes_among = [&](const std::vector<Group>& groups) {
        return !ws.real && !groups.empty() && groups[0].lanes ? groups.data() : nullptr;
    };
    const Group *const rotated = lanes_among(before), *summed = lanes_among(after);
    if (summed && ws.with_x[summed->first]) summed = nullptr;
    for_each_chunk(call, team, thread, [&](int chunk) {
        const Part part = this->part(layout_.adjoint_windows, 0, k, chunk);
        const State psi = part.of(whole_psi), lam = part.of(whole_lam);
        auto rotate_groups = [&](bool in_tile, const Range& range) {
            for (const Group& group : before)
                if (!group.pending && group.in_tile == in_tile && &group != rotated)
                    rotate(group, ws.inverses, range, lam);
        };
        auto sum_groups = [&](bool in_tile, const Range& range) {
            for (const Group& group : after)
                if (!group.pending && group.in_tile == in_tile && &group != summed)
                    sum_group(ws, group, chunk, range, psi, lam);
        };
        for (const Group& group : after) std::fill_n(run_sums_of(ws, group, chunk), 2 * group.runs.size(), 0.0);
        rotate_groups(false, part.range());
        sum_phase(call, ws, member, k, norm, part, chunk, [&](const Range& tile, const PhaseSums<T>& sums) {
            rotate_groups(true, tile);
            if (ws.real) {
                sweeps_.phase(d, tile, 0, lam.re, nullptr, lam.re, nullptr, nullptr, 0, member.block.data());
            } else {
                double lane_sums[16];
                const LaneList<T> list = lanes_of(ws, summed);
                sweeps_.phase_adjoint(d, tile, 0, false, psi.re, psi.im, lam.re, lam.im, sums, lanes_of(ws, rotated),
                                      list, lane_sums, member.block.data());
                for (int j = 0; j < 2 * list.count; ++j) run_sums_of(ws, *summed, chunk)[j] += lane_sums[j];
            }
            sum_groups(true, tile);
        });
        sum_groups(false, part.range());
    });
    if (thread == 0) count_step(call, ws);
    if (k == 0) return;
    if (!after.empty() && after.back().pending) {
        team.barrier();
        for_each_chunk(call, team, thread, [&](int chunk) {
            const Part part = this->part(layout_.adjoint_windows, 1, k, chunk);
            const State psi = part.of(whole_psi), lam = part.of(whole_lam);
            for (const Group& group : after)
                if (group.pending) sum_group(ws, group, chunk, part.range(), psi, lam);
            for (const Group& group : layout_.back[k - 1])
                if (group.pending) rotate(group, ws.inverses, part.range(), lam);
        });
        team.barrier();
    }
    apply_dense(call, team, thread, k - 1, true, {whole_lam});
    if (!has_map(k - 1)) return;
    for_each_chunk(call, team, thread, [&](int chunk) { apply_map_to_chunk(member, k - 1, true, chunk, {whole_lam}); });
    if (changes_frame(k - 1)) team.barrier();
}

#define QF_INSTANTIATE(T)                                                                                      \
    template void Engine<T>::forward_step(Call&, Workspace&, Team&, int, int, bool, bool, State, State) const; \
    template void Engine<T>::adjoint_in_place(Call&, Workspace&, Team&, int, State) const;                     \
    template void Engine<T>::adjoint_step(Call&, Workspace&, Team&, int, int, State) const;
QF_INSTANTIATE(float)
QF_INSTANTIATE(double)

}  // namespace qf
