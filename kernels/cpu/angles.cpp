// SPDX-License-Identifier: Apache-2.0
//
// Binding of angles to rotations and phase factors, and gradients of runs.
#include "cpu/angles.hpp"

#include <algorithm>
#include <map>

#include "cpu/simd/packs.hpp"
#include "shared/su2.h"

namespace qf {

BindList everything(const PlanData& plan) {
    BindList list;
    for (std::size_t i = 0; i < plan.leaves.size(); ++i) list.leaves.push_back(static_cast<int>(i));
    for (std::size_t i = 0; i < plan.runs.size(); ++i) list.runs.push_back(static_cast<int>(i));
    for (std::size_t i = 0; i < plan.terms.size(); ++i) list.terms.push_back(static_cast<int>(i));
    return list;
}

namespace {
bool depends(const Leaf& leaf, const std::vector<char>& columns) {
    if (leaf.column < 0) return false;
    if (leaf.kind != LEAF_RV) return columns[leaf.column];
    return columns[leaf.column] || columns[leaf.column + 1] || columns[leaf.column + 2];
}
}  // namespace

BindList varying(const PlanData& plan, const std::vector<char>& column_varies) {
    BindList list;
    for (std::size_t r = 0; r < plan.runs.size(); ++r) {
        bool any = false;
        for (int i = plan.runs[r].first_leaf; i < plan.runs[r].end_leaf; ++i)
            if (depends(plan.leaves[i], column_varies)) {
                list.leaves.push_back(i);
                any = true;
            }
        if (any) list.runs.push_back(static_cast<int>(r));
    }
    for (std::size_t i = 0; i < plan.terms.size(); ++i)
        if (plan.terms[i].column >= 0 && column_varies[plan.terms[i].column]) list.terms.push_back(static_cast<int>(i));
    return list;
}

std::vector<int> runs_without(const PlanData& plan, const std::vector<char>& columns) {
    std::vector<int> runs;
    for (std::size_t r = 0; r < plan.runs.size(); ++r) {
        const auto leaf = plan.leaves.begin() + plan.runs[r].first_leaf,
                   end = plan.leaves.begin() + plan.runs[r].end_leaf;
        if (std::none_of(leaf, end, [&](const Leaf& gate) { return depends(gate, columns); }))
            runs.push_back(static_cast<int>(r));
    }
    return runs;
}

int count_different(const double* row, const double* other, const std::vector<int>& list) {
    int count = 0;
    if (!list.empty() && list.back() - list.front() == static_cast<int>(list.size()) - 1)  // neighbours, in vectors
        for (int c = list.front(); c <= list.back(); ++c) count += row[c] != other[c];
    else
        for (const int c : list) count += row[c] != other[c];
    return count;
}

namespace {

// The kinds of the gates of a run, and whether the run is about_x.
std::vector<int> kinds_of(const PlanData& plan, const Run& run) {
    std::vector<int> kinds{run.about_x};
    for (int i = run.first_leaf; i < run.end_leaf; ++i) kinds.push_back(plan.leaves[i].kind);
    return kinds;
}

bool has_vectors(const PlanData& plan, const Run& run) {
    return std::any_of(plan.leaves.begin() + run.first_leaf, plan.leaves.begin() + run.end_leaf,
                       [](const Leaf& leaf) { return leaf.kind >= LEAF_SU2; });
}

// Add a run of a new pack to the plan of packs. A constant gate SU2 becomes a gate RV without columns.
void add_pack(const PlanData& plan, const Run& run, PlanData& packs) {
    Run pack = run;
    pack.first_leaf = static_cast<int>(packs.leaves.size());
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const int kind = plan.leaves[i].kind;
        Leaf leaf{};
        leaf.coefficient = 1;
        leaf.kind = kind == LEAF_SU2 ? LEAF_RV : kind;
        leaf.column = kind == LEAF_SU2 ? -1 : packs.num_columns;
        packs.num_columns += kind == LEAF_SU2 ? 0 : kind == LEAF_RV ? 3 : 1;
        packs.leaves.push_back(leaf);
    }
    pack.end_leaf = static_cast<int>(packs.leaves.size());
    packs.runs.push_back(pack);
}

}  // namespace

RunPacks::RunPacks(const PlanData& full, int width) : width(width), plan{}, places(full.runs.size()) {
    std::map<std::vector<int>, int> latest;   // the latest pack for runs with gates of these kinds
    std::vector<std::vector<int>> runs;       // [packs]
    for (const bool vectors : {true, false})  // `matrices` ends with the last pack that has one
        for (std::size_t r = 0; r < full.runs.size(); ++r) {
            if (has_vectors(full, full.runs[r]) != vectors) continue;
            int& pack = latest.try_emplace(kinds_of(full, full.runs[r]), -1).first->second;
            if (pack < 0 || static_cast<int>(runs[pack].size()) == width) {
                pack = static_cast<int>(runs.size());
                add_pack(full, full.runs[r], plan);
                runs.emplace_back();
            }
            const int first = pack * width, lane = static_cast<int>(runs[pack].size());
            places[r] = {first * RUN_VALUES + lane, first * 2 + lane, first * 3 + lane};
            runs[pack].push_back(static_cast<int>(r));
        }
    is_single.assign(plan.num_columns, 1);
    for (std::size_t p = 0; p < runs.size(); ++p) {
        const int first = static_cast<int>(angles.size()), count = static_cast<int>(runs[p].size());
        if (has_vectors(full, full.runs[runs[p][0]])) matrices.resize(plan.runs[p].end_leaf * 7 * width);
        int end_of_runs = 0;
        for (int lane = 0; lane < width; ++lane) {
            if (lane == count) end_of_runs = static_cast<int>(angles.size());
            add_gates(full, full.runs[runs[p][std::min(lane, count - 1)]], static_cast<int>(p), lane);
        }
        const int end = static_cast<int>(angles.size());
        angles_of.push_back({first, count < width ? end_of_runs : end, end});
    }
    everything = list_of(qf::everything(full));
    variable = list_of(varying(full, std::vector<char>(full.num_columns, 1)));
}

// Add the angles and matrices of a run.
void RunPacks::add_gates(const PlanData& full, const Run& run, int pack, int lane) {
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const Leaf& leaf = full.leaves[i];
        const int gate = plan.runs[pack].first_leaf + i - run.first_leaf;
        const int number = plan.leaves[gate].column * width + lane;
        if (leaf.kind == LEAF_SU2) {
            const Quaternion& q = leaf.quaternion;
            const double numbers[4] = {q.a, q.b, q.c, q.d};
            for (int j = 0; j < 4; ++j) matrices[(gate * 7 + j) * width + lane] = numbers[j];
        } else if (leaf.kind == LEAF_RV) {
            for (int j = 0; j < 3; ++j) angles.push_back({number + j * width, leaf.column + j, 1, 0});
        } else {
            angles.push_back({number, leaf.column, leaf.coefficient, leaf.offset});
        }
    }
}

RunPacks::List RunPacks::list_of(const BindList& list) const {
    List result;
    result.terms = list.terms;
    std::vector<char> has_pack(plan.runs.size());
    for (const int r : list.runs) has_pack[places[r].rotation / (2 * width)] = 1;
    for (std::size_t p = 0; p < plan.runs.size(); ++p) {
        if (!has_pack[p]) continue;
        result.packs.push_back(static_cast<int>(p));
        for (int i = plan.runs[p].first_leaf; i < plan.runs[p].end_leaf; ++i)
            if (plan.leaves[i].column >= 0) result.leaves.push_back(i);
    }
    return result;
}

std::size_t RunPacks::bytes() const {
    std::size_t numbers = 0;
    for (const auto* list : {&everything, &variable})
        numbers += list->packs.size() + list->leaves.size() + list->terms.size();
    return numbers * sizeof(int) + places.size() * sizeof(Place) + angles.size() * sizeof(Angle) +
           angles_of.size() * sizeof(AnglesOfPack) + is_single.size() + matrices.size() * sizeof(double) +
           plan.leaves.size() * sizeof(Leaf) + plan.runs.size() * sizeof(Run);
}

namespace {
// The buffers of Bound, and the numbers of doubles of each of them.
constexpr Buffer<double> Bound::* buffers[] = {&Bound::angles, &Bound::leaf, &Bound::vector,
                                               &Bound::run,    &Bound::left, &Bound::rotation};
std::array<std::size_t, 6> sizes_of(const RunPacks& packs) {
    const std::size_t width = packs.width, leaves = packs.plan.leaves.size(), runs = packs.plan.runs.size();
    return {packs.plan.num_columns * width, leaves * 2 * width, packs.matrices.size(),
            runs * RUN_VALUES * width,      runs * 2 * width,   runs * 2 * width};
}
}  // namespace

std::size_t Bound::bytes(const PlanData& plan, const RunPacks& packs) {
    std::size_t numbers = 0;
    for (const std::size_t size : sizes_of(packs)) numbers += size;
    return numbers * sizeof(double) + packs.plan.runs.size() + plan.terms.size() * sizeof(Complex);
}

void Bound::resize(const PlanData& plan, const RunPacks& run_packs) {
    if (packs) return;
    packs = &run_packs;
    const auto sizes = sizes_of(run_packs);
    auto size = sizes.begin();
    for (const auto buffer : buffers) this->*buffer = Buffer<double>(*size++);
    std::copy(run_packs.matrices.begin(), run_packs.matrices.end(), vector.data());
    sums_x.resize(run_packs.plan.runs.size());
    term.resize(plan.terms.size());
}

void Bound::copy(const Bound& other) {
    for (const auto buffer : buffers) {
        const Buffer<double>& from = other.*buffer;
        std::copy_n(from.data(), from.size(), (this->*buffer).data());
    }
    term = other.term;
}

PackValues<double> Bound::view() {
    return {leaf.data(), vector.data(), run.data(), left.data(), nullptr, nullptr, sums_x.data(), rotation.data()};
}

namespace {

// Compute exp(-i angle/2) of the terms in a list.
void bind_terms(const PlanData& plan, const std::vector<int>& list, const double* columns, std::vector<Complex>& term) {
    constexpr std::size_t at_once = 64;
    const auto& packs = best_pack_sweeps<double>();
    double angles[at_once], results[2 * at_once];
    for (std::size_t first = 0; first < list.size(); first += at_once) {
        const std::size_t count = std::min(at_once, list.size() - first);
        for (std::size_t j = 0; j < count; ++j) angles[j] = 0.5 * angle_of(plan.terms[list[first + j]], columns);
        packs.sines(angles, static_cast<int>(count), results);
        for (std::size_t j = 0; j < count; ++j) term[list[first + j]] = {results[2 * j], -results[2 * j + 1]};
    }
}

}  // namespace

void bind(const PlanData& plan, const RunPacks::List& list, const double* columns, bool single, Bound& bound) {
    const RunPacks& packs = *bound.packs;
    const auto& sweeps = best_pack_sweeps<double>();
    const auto count = [](const std::vector<int>& numbers) { return static_cast<int>(numbers.size()); };
    PackValues<double> values = bound.view();
    values.rounds_tau = single;
    for (const int p : list.packs)
        for (int i = packs.angles_of[p].first; i < packs.angles_of[p].end; ++i)
            bound.angles[packs.angles[i].number] = angle_of(packs.angles[i], columns);
    sweeps.bind_leaves(packs.plan.leaves.data(), list.leaves.data(), count(list.leaves), bound.angles.data(), values);
    sweeps.bind_runs(packs.plan.runs.data(), packs.plan.leaves.data(), list.packs.data(), count(list.packs), values);
    bind_terms(plan, list.terms, columns, bound.term);
}

Complex phase_of_runs(const Bound& bound) {
    Complex product;
    const std::size_t width = bound.packs->width;
    for (std::size_t r = 0; r < bound.packs->places.size(); ++r) {
        const double* const left = bound.left.data() + bound.packs->places[r].rotation;
        // Ry(beta) is diag(-1, 1) T(tau) X for a flip, and the factor of |1> is negated instead.
        product = (bound.rotor(static_cast<int>(r)).flip ? -1.0 : 1.0) * (product * Complex{left[0], left[width]});
    }
    return (1 / std::sqrt(norm2(product))) * product;
}

void add_run_gradients(const std::vector<int>& list, const Bound& bound, const double* w, double* scratch,
                       double* gradient) {
    const RunPacks& packs = *bound.packs;
    if (!packs.matrices.empty()) std::fill_n(scratch, packs.plan.num_columns * packs.width, 0.0);  // gates RV add
    best_pack_sweeps<double>().add_summed_gradients(packs.plan.runs.data(), packs.plan.leaves.data(), list.data(),
                                                    static_cast<int>(list.size()), const_cast<Bound&>(bound).view(), w,
                                                    packs.is_single.data(), scratch);
    for (const int p : list)
        for (int i = packs.angles_of[p].first; i < packs.angles_of[p].end_of_runs; ++i) {
            const RunPacks::Angle& angle = packs.angles[i];
            if (angle.column >= 0) gradient[angle.column] += angle.coefficient * scratch[angle.number];
        }
}

}  // namespace qf
