// SPDX-License-Identifier: Apache-2.0
//
// The windows, the passes over a state, the groups of runs that one pass rotates, and the choice of packs and threads.
#include "cpu/layout.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "cpu/dense.hpp"
#include "cpu/linear.hpp"
#include "cpu/phase_tables.hpp"
#include "shared/tuning.h"

namespace qf {
namespace {

// The L2 cache is asked in advance for a chunk whose states take at most this many bytes, because the next chunk must
// fit the cache beside the chunk in work, and only if the states as a whole do not fit the cache. Measured for
// complex64 on AMD EPYCs with 1 MiB: a call takes 1.2 times as long without requests for 20 qubits. With requests, a
// call for 14 qubits takes 1.1 times as long on one thread, and 1.01 times as long on two threads.
constexpr std::size_t bytes_of_fetched = std::size_t(256) << 10, bytes_of_l2 = std::size_t(1) << 20;

// Most bytes of the states in a tile.
constexpr std::size_t bytes_of_tile = std::size_t(32) << 10;

// A bit is *far* if amplitudes that differ in it lie in the same set of the L1 cache, whose ways have bytes_of_way.
// The vectors that a group joins must not evict each other, and a set holds 8 to 12. Measured for complex64 on an AMD
// EPYC: a pass over four far bits takes 3 times as long for each bit as a pass over three.
constexpr std::size_t bytes_of_way = 4096;
constexpr int most_far_bits = 3;

// Number the runs of all groups from `place` on, and return the number after the last one.
int number_groups(Groups& all, int place) {
    for (auto& groups : all)
        for (auto& group : groups) {
            group.first = place;
            place += static_cast<int>(group.runs.size());
        }
    return place;
}

// Return the phases of packs of more than low_bits qubits; empty if rows are evaluated one by one. The table of a phase
// is a product of factors of its bits, but each angle of a term on two or more qubits takes a pass over a part of the
// table. Measured with angles on all pairs of 9 and 10 qubits: packs take 1.2 to 3.2 of the time of single rows.
std::vector<Phase> undivided_phases(const PlanData& plan, int low_bits) {
    if (plan.num_qubits <= low_bits || plan.num_qubits > MOST_PACK_QUBITS) return {};
    for (const auto& term : plan.terms) {
        const index_t support = term.care | term.sign;
        if (term.column >= 0 && (support & (support - 1))) return {};
    }
    return make_phases(plan, plan.num_qubits);
}

}  // namespace

template <class T>
Layout<T>::Layout(const PlanData& plan)
    : plan(plan),
      sweeps(best_sweeps<T>()),
      packs(best_pack_sweeps<T>()),
      bits(std::max(plan.num_qubits, sweeps.lane_bits)),
      low_bits(std::max(std::min(plan.num_qubits, MAX_LOW_BITS), sweeps.lane_bits)),
      chunk_bits(plan.chunk_bits),
      windows(make_windows(1, sweeps.max_rotate)),
      adjoint_windows(make_windows(2, sweeps.max_adjoint)),
      everything(qf::everything(plan)),
      run_packs(plan, best_pack_sweeps<double>().width),
      layer_begin(plan.num_layers + 1),
      dense_begin(plan.num_layers + 1),
      map_of(plan.num_layers, -1),
      phases(make_phases(plan, low_bits)),
      undivided(undivided_phases(plan, low_bits)),
      pair_begin(phases.size() + 1),
      many_begin(phases.size() + 1),
      phase_of_all(phase_of_terms(plan, false)),
      phase_without_first(phase_of_terms(plan, true)),
      gradients_of_first(gradients_of_first_phase(plan)) {
    for (const auto& run : plan.runs) ++layer_begin[run.layer + 1];
    for (const auto& gate : plan.dense) ++dense_begin[gate.layer + 1];
    for (const auto& step : plan.map_steps) map_of[step.layer] = step.map;
    for (int k = 0; k < plan.num_layers; ++k) {
        layer_begin[k + 1] += layer_begin[k];
        dense_begin[k + 1] += dense_begin[k];
    }
    make_frames();
    forward = make_passes(sweeps.max_rotate, false);
    adjoint = make_passes(sweeps.max_adjoint, true);
    make_kept_groups();
    places_forward = places_of({&forward.groups});
    places_adjoint = places_of({&adjoint.groups});
    places_kept = places_of({&sums, &back});
    for (std::size_t k = 0; k < phases.size(); ++k) {
        const Phase& phase = phases[k];
        const std::size_t pairs = phase.low_pairs.size() + phase.high_pairs.size() + phase.cross_pairs.size();
        pair_begin[k + 1] = pair_begin[k] + (phase.want_pairs ? pairs : 0);
        many_begin[k + 1] = many_begin[k] + (phase.want_many ? phase.many_body.size() : 0);
        max_variants = std::max(max_variants, phase.num_variants());
        table_bytes_.push_back(table_sizes(phase, plan.num_qubits, low_bits).numbers() * sizeof(T));
        all_tables_ += table_bytes_.back();
        any_whole_ = any_whole_ || phase.whole;
        any_linear_ = any_linear_ || (phase.per_block && phase.want_pairs);
        if (phase.per_block && phase.want_many) most_cross_ = std::max(most_cross_, phase.many_body.size());
    }
    plan_bytes = count_plan_bytes();
    bound_bytes = Bound::bytes(plan, run_packs);
}

// Return the number of strided bits, and of far bits, of a mask.
template <class T>
std::array<int, 2> Layout<T>::strided_and_far(index_t mask) const {
    int strided = 0, far = 0;
    for (int bit = sweeps.lane_bits; bit < bits; ++bit) {
        if (!(mask >> bit & 1)) continue;
        ++strided;
        if (sizeof(T) << bit >= bytes_of_way) ++far;
    }
    return {strided, far};
}

// Return how many groups of at most `size` rotations add_groups() makes of the strided bits of a mask.
template <class T>
int Layout<T>::num_groups(index_t mask, int size) const {
    const auto [strided, far] = strided_and_far(mask);
    return std::max((strided + size - 1) / size, (far + most_far_bits - 1) / most_far_bits);
}

// Choose the tile with the fewest groups of rotations in a layer and its pending rotations; of these tiles the largest,
// but none that leaves a single bit of the window outside: the L2 cache bounds the time of that pass, so a second bit
// costs it nothing.
template <class T>
int Layout<T>::bits_of_tile(int num_states, int size) const {
    const int end = bits - chunk_bits;
    auto cost = [&](int tile) {
        int groups = 0;
        for (int w = 0; w <= (chunk_bits ? 1 : 0); ++w) {
            const Window window = window_of(w, tile), other = window_of(1 - w, tile);
            for (const index_t rotated : {~window.left_out(), other.left_out()})
                groups += num_groups(rotated & window.tile(), size) + num_groups(rotated & ~window.tile(), size);
        }
        return 2 * groups + (end - tile == 1);
    };
    int tile = low_bits, best = low_bits;
    while (tile < end && (std::size_t(4 * num_states) << tile) * sizeof(T) <= bytes_of_tile)
        if (cost(++tile) <= cost(best)) best = tile;
    return best;
}

template <class T>
std::array<Window, 2> Layout<T>::make_windows(int num_states, int size) const {
    const int tile = bits_of_tile(num_states, size);
    const std::size_t bytes = (std::size_t(2 * num_states) << bits) * sizeof(T);
    const bool fetches = chunk_bits && bytes > bytes_of_l2 && bytes >> chunk_bits <= bytes_of_fetched;
    std::array<Window, 2> both;
    for (const int w : {0, 1}) {
        both[w] = window_of(w, tile);
        if (fetches) both[w].ahead = index_t(1) << both[w].position;
    }
    return both;
}

// Add groups of equal sizes, because a pass costs the least time for each run if it rotates many runs together. If
// there are too many far bits for one group, the bits are dealt out in turn, so that each group gets as many far bits.
template <class T>
void Layout<T>::add_groups(std::vector<Group>& groups, Group kind, const std::vector<int>& runs, int size) const {
    index_t mask = 0;
    for (const int r : runs) mask |= index_t(1) << plan.runs[r].bit;
    const bool deals = strided_and_far(mask)[1] > most_far_bits;
    const std::size_t count = num_groups(mask, size), length = runs.size();
    for (std::size_t g = 0; g < count; ++g) {
        kind.runs.clear();
        for (std::size_t i = deals ? g : length * g / count; i < (deals ? length : length * (g + 1) / count);
             i += deals ? count : 1)
            kind.runs.push_back(runs[i]);
        groups.push_back(kind);
    }
}

// States are observed where each chunk lies at its own place, so the frames are made from the last one back.
template <class T>
void Layout<T>::make_frames() {
    frames.resize(1);
    frame_of.assign(plan.num_layers + 2, 0);
    if (plan.maps.empty() || !chunk_bits) return;  // states without maps may have up to 64 qubits
    const std::size_t chunks = std::size_t(1) << chunk_bits;
    const int position = windows[0].position;
    std::vector<std::uint32_t> place(chunks);
    std::iota(place.begin(), place.end(), 0);
    std::map<std::vector<std::uint32_t>, int> numbers{{place, 0}};
    for (int k = plan.num_layers - 1; k >= 0; --k) {
        frame_of[k] = frame_of[k + 1];
        if (map_of[k] < 0) continue;
        const Columns of_chunks = part_of_chunks(windows[0], plan.maps[map_of[k]].columns);
        const std::vector<std::uint32_t> after = place;
        for (index_t t = 0; t < chunks; ++t) place[t] = after[product(of_chunks, t << position) >> position];
        const auto [known, is_new] = numbers.insert({place, static_cast<int>(frames.size())});
        frame_of[k] = known->second;
        if (!is_new) continue;
        Frame frame{place, std::vector<std::uint32_t>(chunks)};
        for (index_t t = 0; t < chunks; ++t) frame.label[place[t]] = static_cast<std::uint32_t>(t);
        frames.push_back(std::move(frame));
    }
}

// The windows take turns as often as the turns save passes.
template <class T>
Passes Layout<T>::make_passes(int size, bool is_adjoint) const {
    const auto& both = is_adjoint ? adjoint_windows : windows;
    // A phase acts on whole blocks, and the sums of a phase with a table of all amplitudes on neighbouring blocks.
    const bool can_turn = both[1].position >= low_bits;
    Passes passes{std::vector<char>(phases.size()), Groups(plan.num_layers),
                  std::vector<Passes::MapPlace>(plan.num_layers)};
    for (int step = 1; step <= plan.num_layers; ++step) {
        const int layer = is_adjoint ? plan.num_layers - step : step - 1;
        const int phase = layer + (is_adjoint ? 1 : 0), next = layer + (is_adjoint ? 0 : 1);
        const int window = passes.window[phase];
        std::vector<int> lanes, strided[2][2][2];  // [pending][in tile][needs x]
        bool lanes_need_x = false, any_pending = false;
        for (int r = layer_begin[layer]; r < layer_begin[layer + 1]; ++r) {
            const Run& run = plan.runs[r];
            const bool needs_x = is_adjoint && !run.single_axis;
            if (run.bit < sweeps.lane_bits) {
                lanes.push_back(r);
                lanes_need_x = lanes_need_x || needs_x;
                continue;
            }
            const bool pending = !both[window].has(run.bit);
            const bool in_tile = both[pending ? 1 - window : window].tile() >> run.bit & 1;
            strided[pending][in_tile][needs_x].push_back(r);
            any_pending = any_pending || pending;
        }
        auto& groups = passes.groups[layer];
        if (!lanes.empty()) groups.push_back({true, false, true, lanes_need_x, lanes, 0});
        for (const bool pending : {false, true})
            for (const bool in_tile : {!pending, pending})
                for (const bool needs_x : {false, true})
                    add_groups(groups, {false, pending, in_tile, needs_x, {}, 0}, strided[pending][in_tile][needs_x],
                               size);
        const bool can = can_turn && !phases[next].whole;
        if (map_of[layer] >= 0) passes.maps[layer] = window == 0 ? Passes::last : Passes::first;
        const bool turns = any_pending || passes.maps[layer] == Passes::first;
        passes.window[next] = static_cast<char>(!can ? 0 : turns ? 1 - window : window);
    }
    number_groups(passes.groups, 0);
    return passes;
}

// The groups of a layer are in the order of the lanes, the other runs inside a tile, the other runs of window 0, and
// the pending runs.
template <class T>
void Layout<T>::make_kept_groups() {
    const Window& window = adjoint_windows[0];
    std::vector<char> moved(plan.runs.size());  // 1: a group of sums rotates lam
    auto make_groups = [&](int layer, int size) {
        std::vector<int> lanes, strided[3][2];  // [place][needs x]
        bool lanes_need_x = false;
        for (int r = layer_begin[layer]; r < layer_begin[layer + 1]; ++r) {
            const auto [bit, needs_x] = std::pair(plan.runs[r].bit, !plan.runs[r].single_axis);
            const int place = !window.has(bit) ? 2 : window.tile() >> bit & 1 ? 0 : 1;
            if (moved[r]) continue;
            (bit < sweeps.lane_bits ? lanes : strided[place][needs_x]).push_back(r);
            lanes_need_x = lanes_need_x || (bit < sweeps.lane_bits && needs_x);
        }
        std::vector<Group> groups;
        if (!lanes.empty()) groups.push_back({true, false, true, lanes_need_x, lanes, 0});
        for (int place = 0; place < 3; ++place)
            for (const bool needs_x : {true, false})
                add_groups(groups, {false, place == 2, place == 0, needs_x, {}, 0}, strided[place][needs_x], size);
        return groups;
    };
    for (int layer = 0; layer < plan.num_layers; ++layer) {
        sums.push_back(make_groups(layer, sweeps.max_sums));
        if (!sums[layer].empty() && !sums[layer].back().lanes) {
            sums[layer].back().moves_lam = true;
            for (const int r : sums[layer].back().runs) moved[r] = 1;
        }
        back.push_back(make_groups(layer, sweeps.max_rotate));
    }
    number_groups(back, number_groups(sums, 0));
}

template <class T>
std::vector<RunPlace> Layout<T>::places_of(std::initializer_list<const Groups*> lists) const {
    std::vector<RunPlace> places;
    for (const Groups* list : lists)
        for (const auto& groups : *list)
            for (const auto& group : groups)
                for (const int r : group.runs) places.push_back({plan.runs[r].bit, run_packs.places[r].rotation});
    return places;
}

template <class T>
bool Layout<T>::is_packed(const BatchShape& shape) const {
    // A pack takes about the same time for any number of its rows. Measured with the fewest rows, own or shared angles,
    // value and gradient, all instruction sets and both formats on an AMD Zen 4: the pack takes 0.5 to 0.9 of the time
    // of its rows one by one (n = 2, 4, 6, 7, 8), and full packs take 0.12 to 0.7.
    // With vectors of two numbers, packs of 8 qubits take 0.9 to 1.1 of the time, so these vectors go up to 6 qubits.
    // Vectors of four numbers go up to 9 qubits: packs of 10 qubits take 0.8 to 1.14 of the time.
    // Packs of 9 and 10 qubits gain less (0.41 to 0.92), so they ask for four packs: threads that get no pack, and
    // missing rows of the last pack, then cost less than the packs gain.
    const int n = plan.num_qubits, width = packs.width;
    const int most_qubits = undivided.empty() ? MAX_LOW_BITS : MOST_PACK_QUBITS;
    const int most_of_width = width > 4 ? MOST_PACK_QUBITS : width > 2 ? 9 : 6;
    const int fewest = n <= 4 ? width / 4 : n <= 6 ? width / 2 : n <= 8 ? width : 4 * width;
    return n <= std::min(most_qubits, most_of_width) && shape.rows >= std::max(fewest, 2) && !shape.scheduled &&
           plan.maps.empty();
}

template <class T>
Threading Layout<T>::threading(std::int64_t rows, int num_threads, bool packed) const {
    // A batch gets one more thread for each 2e5 amplitudes times runs. So much work takes about 0.1 ms, and a thread
    // takes about 30 us to wake.
    constexpr double worth_a_thread = 2e5;
    constexpr int most_bits = 20;  // rows with more than 20 qubits are not in work at the same time
    const double of_amplitude = static_cast<double>(plan.runs.size() + 1) + dense_work(plan);
    const double work = std::ldexp(static_cast<double>(rows), bits) * of_amplitude;
    const int worth = static_cast<int>(std::min(work / worth_a_thread, 1e6)) + 1;
    const int threads = std::max(1, std::min(num_threads, worth));
    if (chunk_bits > 0 && (rows < 2 * threads || bits > most_bits))
        return {std::min(threads, 1 << std::min(chunk_bits, 30)), 1};
    const std::int64_t units = packed ? num_packs(rows) : rows;
    const int by_rows = static_cast<int>(std::min<std::int64_t>(threads, std::max<std::int64_t>(units, 1)));
    return {by_rows, by_rows};
}

template <class T>
bool Layout<T>::is_real(const BatchShape& shape) const {
    // The sweeps over one real state need two vectors in each chunk.
    return plan.is_real && !shape.imaginary && (plan.num_qubits > sweeps.lane_bits || is_packed(shape));
}

template <class T>
bool Layout<T>::skips_first_phase(const BatchShape& shape) const {
    return plan.initial_re.empty() && !shape.starts_given && !shape.imaginary;
}

template <class T>
int Layout<T>::outcome_parts(std::int64_t num_outcomes) const {
    int parts = 1 << chunk_bits;
    while (parts > 1 && parts * (num_outcomes + 1) > std::int64_t(1) << bits) parts /= 2;
    return parts;
}

std::vector<char> phases_of(const PlanData& plan, const BindList& list) {
    std::vector<char> chosen(plan.num_layers + 1);
    for (const int r : list.runs) chosen[plan.runs[r].layer] = chosen[plan.runs[r].layer + 1] = 1;
    for (const int t : list.terms) chosen[plan.terms[t].phase] = 1;
    return chosen;
}

template class Layout<float>;
template class Layout<double>;

}  // namespace qf
