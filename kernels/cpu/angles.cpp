// SPDX-License-Identifier: Apache-2.0
//
// Binding of angles to rotations and phase factors, and gradients of runs.
#include "cpu/angles.hpp"

#include <algorithm>

#include "cpu/simd/packs.hpp"
#include "shared/su2.h"
#include "shared/tuning.h"

namespace qf {

void Bound::resize(const PlanData& plan) {
    leaf.resize(plan.leaves.size());
    rotor.resize(plan.runs.size());
    term.resize(plan.terms.size());
    for (const auto& l : plan.leaves)
        if (l.kind == LEAF_RV) {
            leaf_rv.resize(plan.leaves.size());
            break;
        }
}

std::size_t Bound::bytes() const {
    return leaf.size() * sizeof(leaf[0]) + leaf_rv.size() * sizeof(leaf_rv[0]) + rotor.size() * sizeof(rotor[0]) +
           term.size() * sizeof(term[0]);
}

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

// Compute the cosines and sines of half of the angles of gates or terms, and call store(index, half angle) for each.
template <class Gate, class Store>
void bind_half_angles(const std::vector<Gate>& gates, const std::vector<int>& list, const double* columns,
                      Store&& store) {
    constexpr std::size_t at_once = 64;
    const auto& packs = best_pack_sweeps<double>();
    double angles[at_once], results[2 * at_once];
    for (std::size_t first = 0; first < list.size(); first += at_once) {
        const std::size_t count = std::min(at_once, list.size() - first);
        for (std::size_t j = 0; j < count; ++j) angles[j] = 0.5 * angle_of(gates[list[first + j]], columns);
        packs.sines(angles, static_cast<int>(count), results);
        for (std::size_t j = 0; j < count; ++j) store(list[first + j], HalfAngle{results[2 * j], results[2 * j + 1]});
    }
}

Quaternion rotation_of(const Vector3& v) {
    const double t = std::sqrt(dot(v, v));
    return rotation_of(v, t, std::sin(t / 2), std::cos(t / 2));
}

// The first column of the matrix [[alpha, -conj(beta)], [beta, conj(alpha)]] of a run.
struct FirstColumn {
    Complex alpha{1, 0}, beta{0, 0};
};

FirstColumn multiply_gates(const PlanData& plan, const Run& run, const Bound& bound) {
    FirstColumn column;
    Complex &alpha = column.alpha, &beta = column.beta;
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const Complex a = alpha, b = beta;
        const double c = bound.leaf[i].cos, s = bound.leaf[i].sin;
        switch (plan.leaves[i].kind) {
            case LEAF_RX:
                alpha = {c * a.re + s * b.im, c * a.im - s * b.re};
                beta = {c * b.re + s * a.im, c * b.im - s * a.re};
                break;
            case LEAF_RY:
                alpha = {c * a.re - s * b.re, c * a.im - s * b.im};
                beta = {c * b.re + s * a.re, c * b.im + s * a.im};
                break;
            case LEAF_RZ:
                alpha = Complex{c, -s} * a;
                beta = Complex{c, s} * b;
                break;
            default: {
                const auto& q = plan.leaves[i].kind == LEAF_SU2 ? plan.leaves[i].quaternion : bound.leaf_rv[i];
                const Complex u{q.a, -q.d}, v{q.c, -q.b};
                const Complex ua = u * a, vb = conj(v) * b, va = v * a, ub = conj(u) * b;
                alpha = {ua.re - vb.re, ua.im - vb.im};
                beta = {va.re + ub.re, va.im + ub.im};
            }
        }
    }
    return column;
}

Rotor make_rotor(const PlanData& plan, const Run& run, const Bound& bound) {
    const auto [alpha, beta] = multiply_gates(plan, run, bound);
    // alpha = cos(a) exp(-i(phi + lambda)/2), beta = sin(a) exp(i(phi - lambda)/2) with a in [0, pi/2].
    const double cos2 = norm2(alpha), sin2 = norm2(beta), cos = std::sqrt(cos2), sin = std::sqrt(sin2);
    double inverse = 0;              // of cos(a) sin(a); tan(a) and cot(a) are sin(a)^2 and cos(a)^2 times it
    constexpr double tiny = 1e-300;  // a squared modulus below this bound counts as 0
    // If sin(a) or cos(a) is 0, only phi + lambda or phi - lambda matters. A run of RX gates has lambda = pi/2 at every
    // other angle, so it has lambda = pi/2 here too. Constant runs take lambda = 0, which keeps real circuits real.
    Complex out, in = run.about_x ? Complex{0, 1} : Complex{};
    if (sin2 < tiny) {
        out = (1 / cos2) * (conj(alpha) * conj(alpha) * conj(in));
    } else if (cos2 < tiny) {
        out = (1 / sin2) * (beta * beta * in);
    } else {
        inverse = 1 / (cos * sin);
        out = inverse * (beta * conj(alpha));
        in = inverse * conj(alpha * beta);
    }
    const bool flip = sin2 > cos2;
    return {inverse * (flip ? cos2 : sin2), flip ? sin : cos, flip, flip ? -1.0 * out : out, in};
}

}  // namespace

void bind(const PlanData& plan, const BindList& list, const double* columns, Bound& bound) {
    bind_half_angles(plan.leaves, list.leaves, columns, [&](int i, HalfAngle h) { bound.leaf[i] = h; });
    if (!bound.leaf_rv.empty())
        for (const int i : list.leaves)
            if (plan.leaves[i].kind == LEAF_RV) bound.leaf_rv[i] = rotation_of(vector_of(plan.leaves[i], columns));
    for (const int r : list.runs) bound.rotor[r] = make_rotor(plan, plan.runs[r], bound);
    bind_half_angles(plan.terms, list.terms, columns, [&](int i, HalfAngle h) { bound.term[i] = {h.cos, -h.sin}; });
}

Complex phase_of_runs(const PlanData& plan, const Bound& bound) {
    Complex product;
    for (std::size_t r = 0; r < plan.runs.size(); ++r) {
        const auto [alpha, beta] = multiply_gates(plan, plan.runs[r], bound);
        // The first column of the rotor is (cos(a), sin(a) out), or (-cos(a), sin(a) out) for a flip. Its longer entry
        // gives the phase.
        const Rotor& rotor = bound.rotor[r];
        const Complex entry = rotor.flip ? beta * conj(rotor.out) : alpha;
        product = (1 / std::sqrt(norm2(entry))) * (product * entry);
    }
    return product;
}

void add_run_gradients(const PlanData& plan, const std::vector<int>& runs, const Bound& bound, const double* columns,
                       const std::array<double, 3>* w, double* gradient) {
    for (const int r : runs) {
        const Run& run = plan.runs[r];
        // Turn w back through Rz(lambda) to the input of the run, then forward through the gates.
        const Complex in = bound.rotor[r].in;
        std::array<double, 3> v{in.re * w[r][0] + in.im * w[r][1], in.re * w[r][1] - in.im * w[r][0], w[r][2]};
        for (int i = run.first_leaf; i < run.end_leaf; ++i) {
            const Leaf& leaf = plan.leaves[i];
            if (leaf.kind == LEAF_SU2 || leaf.kind == LEAF_RV) {
                const bool constant = leaf.kind == LEAF_SU2;
                const Vector3 turned = turn(constant ? leaf.quaternion : bound.leaf_rv[i], {v[0], v[1], v[2]});
                v = {turned.x, turned.y, turned.z};
                if (constant) continue;
                const Vector3 vector = vector_of(leaf, columns);
                const double t = std::sqrt(dot(vector, vector));
                const Vector3 g = rotation_vector_gradient(vector, t, std::sin(t), std::cos(t), turned);
                gradient[leaf.column] += g.x;
                gradient[leaf.column + 1] += g.y;
                gradient[leaf.column + 2] += g.z;
                continue;
            }
            const int axis = leaf.kind;
            if (leaf.column >= 0) gradient[leaf.column] += leaf.coefficient * v[axis];
            const double c = bound.leaf[i].cos, s = bound.leaf[i].sin;
            const double cos = c * c - s * s, sin = 2 * c * s;
            double &y = v[(axis + 1) % 3], &z = v[(axis + 2) % 3];
            const double old = y;
            y = cos * old - sin * z;
            z = sin * old + cos * z;
        }
    }
}

}  // namespace qf
