// SPDX-License-Identifier: Apache-2.0
#include "cpu/angles.hpp"

#include <algorithm>

namespace qf {

void Bound::resize(const PlanData& plan) {
    leaf.resize(plan.leaves.size());
    rotor.resize(plan.runs.size());
    term.resize(plan.terms.size());
    for (const auto& l : plan.leaves)
        if (l.kind == LeafKind::rv) {
            leaf_rv.resize(plan.leaves.size());
            break;
        }
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
    if (leaf.kind != LeafKind::rv) return columns[leaf.column];
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
        if (std::none_of(leaf, end, [&](const Leaf& one) { return depends(one, columns); }))
            runs.push_back(static_cast<int>(r));
    }
    return runs;
}

namespace {

HalfAngle half_angle(double angle) {
    // The cosine of the double next to pi/2 is not 0: as a rounding error it would give what has no phase a random one.
    auto snapped = [](double x) { return std::abs(x) < 2e-16 ? 0 : x; };
    return {snapped(std::cos(angle / 2)), snapped(std::sin(angle / 2))};
}

// exp(-i/2 (x X + y Y + z Z)) as a quaternion.
std::array<double, 4> rotation_vector(const double* v) {
    const double theta = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    // sin(theta/2)/theta, by its series where the quotient loses digits
    const double s = theta < 1e-4 ? 0.5 - theta * theta / 48 : std::sin(theta / 2) / theta;
    return {std::cos(theta / 2), s * v[0], s * v[1], s * v[2]};
}

// First column (alpha, beta) of the run's SU(2) matrix [[alpha, -conj(beta)], [beta, conj(alpha)]].
Rotor make_rotor(const PlanData& plan, const Run& run, const Bound& bound) {
    Complex alpha{1, 0}, beta{0, 0};
    for (int i = run.first_leaf; i < run.end_leaf; ++i) {
        const Complex a = alpha, b = beta;
        const double c = bound.leaf[i].cos, s = bound.leaf[i].sin;
        switch (plan.leaves[i].kind) {
            case LeafKind::rx:
                alpha = {c * a.re + s * b.im, c * a.im - s * b.re};
                beta = {c * b.re + s * a.im, c * b.im - s * a.re};
                break;
            case LeafKind::ry:
                alpha = {c * a.re - s * b.re, c * a.im - s * b.im};
                beta = {c * b.re + s * a.re, c * b.im + s * a.im};
                break;
            case LeafKind::rz:
                alpha = Complex{c, -s} * a;
                beta = Complex{c, s} * b;
                break;
            default: {
                const auto& q = plan.leaves[i].kind == LeafKind::su2 ? plan.leaves[i].quaternion : bound.leaf_rv[i];
                const Complex u{q[0], -q[3]}, v{q[2], -q[1]};
                const Complex ua = u * a, vb = conj(v) * b, va = v * a, ub = conj(u) * b;
                alpha = {ua.re - vb.re, ua.im - vb.im};
                beta = {va.re + ub.re, va.im + ub.im};
            }
        }
    }
    // alpha = cos(a) exp(-i(phi + lambda)/2), beta = sin(a) exp(i(phi - lambda)/2) with a in [0, pi/2].
    const double cos2 = norm2(alpha), sin2 = norm2(beta);
    bool constant = true;
    for (int i = run.first_leaf; i < run.end_leaf; ++i) constant = constant && plan.leaves[i].column < 0;
    constexpr double tiny = 1e-300;  // below this the direction of a component is not representable
    // Where only phi + lambda or phi - lambda is defined, take the lambda that the run has at every other angle;
    // constants have none, and with lambda = 0 what is real stays real.
    const bool about_x = run.single_axis && plan.leaves[run.first_leaf].kind == LeafKind::rx;
    Complex out, in = about_x && !constant ? Complex{0, 1} : Complex{};
    if (sin2 < tiny) {
        out = (1 / cos2) * (conj(alpha) * conj(alpha) * conj(in));
    } else if (cos2 < tiny) {
        out = (1 / sin2) * (beta * beta * in);
    } else {
        const double inverse = 1 / std::sqrt(cos2 * sin2);
        out = inverse * (beta * conj(alpha));
        in = inverse * conj(alpha * beta);
    }
    Rotor rotor{};
    rotor.in = in;
    rotor.flip = sin2 > cos2;
    if (rotor.flip) {
        rotor.tau = std::sqrt(cos2 / sin2);
        rotor.scale = std::sqrt(sin2);
        rotor.out = -1.0 * out;
    } else {
        rotor.tau = std::sqrt(sin2 / cos2);
        rotor.scale = std::sqrt(cos2);
        rotor.out = out;
    }
    return rotor;
}

using Vector3 = std::array<double, 3>;

// Turn v by the rotation that conjugation with the quaternion's matrix is.
Vector3 turn(const std::array<double, 4>& q, const Vector3& v) {
    const double a = q[0], b = q[1], c = q[2], d = q[3];
    // v + 2 a (u x v) + 2 u x (u x v), u = (b, c, d)
    const Vector3 t{2 * (c * v[2] - d * v[1]), 2 * (d * v[0] - b * v[2]), 2 * (b * v[1] - c * v[0])};
    return {v[0] + a * t[0] + c * t[2] - d * t[1], v[1] + a * t[1] + d * t[0] - b * t[2],
            v[2] + a * t[2] + b * t[1] - c * t[0]};
}

// Gradient of exp(-i/2 v.sigma) with respect to v, for w taken after the gate: the left Jacobian of the rotation group,
// a_j = e_j + (1 - cos t)/t^2 (v x e_j) + (t - sin t)/t^3 (v x (v x e_j)), gradient_j = a_j . w.
Vector3 rotation_vector_gradient(const double* v, const Vector3& w) {
    const double t2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2], t = std::sqrt(t2);
    const double p = t < 1e-3 ? 0.5 - t2 / 24 : (1 - std::cos(t)) / t2;
    const double q = t < 1e-2 ? 1.0 / 6 - t2 / 120 : (t - std::sin(t)) / (t2 * t);
    Vector3 gradient;
    for (int j = 0; j < 3; ++j) {
        Vector3 e{};
        e[j] = 1;
        const Vector3 ve{v[1] * e[2] - v[2] * e[1], v[2] * e[0] - v[0] * e[2], v[0] * e[1] - v[1] * e[0]};
        const Vector3 vve{v[1] * ve[2] - v[2] * ve[1], v[2] * ve[0] - v[0] * ve[2], v[0] * ve[1] - v[1] * ve[0]};
        gradient[j] = 0;
        for (int k = 0; k < 3; ++k) gradient[j] += (e[k] + p * ve[k] + q * vve[k]) * w[k];
    }
    return gradient;
}

}  // namespace

void bind(const PlanData& plan, const BindList& list, const double* columns, Bound& bound) {
    for (const int i : list.leaves) {
        const Leaf& leaf = plan.leaves[i];
        if (leaf.kind == LeafKind::rv)
            bound.leaf_rv[i] = rotation_vector(columns + leaf.column);
        else if (leaf.kind != LeafKind::su2)
            bound.leaf[i] =
                half_angle(leaf.column < 0 ? leaf.offset : leaf.coefficient * columns[leaf.column] + leaf.offset);
    }
    for (const int r : list.runs) bound.rotor[r] = make_rotor(plan, plan.runs[r], bound);
    for (const int i : list.terms) {
        const Term& term = plan.terms[i];
        const HalfAngle h =
            half_angle(term.column < 0 ? term.offset : term.coefficient * columns[term.column] + term.offset);
        bound.term[i] = {h.cos, -h.sin};
    }
}

void add_run_gradients(const PlanData& plan, const std::vector<int>& runs, const Bound& bound, const double* columns,
                       const std::array<double, 3>* w, double* gradient) {
    for (const int r : runs) {
        const Run& run = plan.runs[r];
        // Back through Rz(lambda): the frame of the run's input. Then forward gate by gate.
        const Complex in = bound.rotor[r].in;
        Vector3 v{in.re * w[r][0] + in.im * w[r][1], in.re * w[r][1] - in.im * w[r][0], w[r][2]};
        for (int i = run.first_leaf; i < run.end_leaf; ++i) {
            const Leaf& leaf = plan.leaves[i];
            if (leaf.kind == LeafKind::su2 || leaf.kind == LeafKind::rv) {
                const bool constant = leaf.kind == LeafKind::su2;
                v = turn(constant ? leaf.quaternion : bound.leaf_rv[i], v);
                if (constant) continue;
                const Vector3 g = rotation_vector_gradient(columns + leaf.column, v);
                for (int j = 0; j < 3; ++j) gradient[leaf.column + j] += g[j];
                continue;
            }
            const int axis = static_cast<int>(leaf.kind);
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
