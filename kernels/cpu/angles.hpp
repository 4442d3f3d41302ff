// SPDX-License-Identifier: Apache-2.0
//
// Binding: from the angles of one row to the numbers the sweeps need, and from the sums of the adjoint sweep back to
// gradients of the angles. Double precision throughout; no transcendental function but one sine and cosine per angle.
#pragma once

#include <cmath>
#include <vector>

#include "cpu/plan.hpp"

namespace qf {

struct Complex {  // std::complex multiplies with NaN recovery, which costs more than the product
    double re = 1, im = 0;
};
inline Complex operator*(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}
inline Complex operator*(double s, Complex a) {
    return {s * a.re, s * a.im};
}
inline Complex conj(Complex a) {
    return {a.re, -a.im};
}
inline double norm2(Complex a) {
    return a.re * a.re + a.im * a.im;
}
inline Complex power(Complex unit, int exponent) {
    const Complex base = exponent < 0 ? conj(unit) : unit;
    Complex result;
    for (int i = 0; i < std::abs(exponent); ++i) result = result * base;
    return result;
}

struct Rotor {  // a run, see Rotation<T>
    double tau;
    double scale;  // the real factor T(tau) X^flip leaves out
    bool flip;
    Complex out;  // exp(i phi), and -1 for the diag(-1, 1) of a flip: factor of |1> in the phase after
    Complex in;   // exp(i lambda): factor of |1> in the phase before
};

// With t = tau, tan(beta/2) is t, or 1/t where the rows are exchanged.
inline double sin_beta(const Rotor& rotor) {
    return 2 * rotor.tau / (1 + rotor.tau * rotor.tau);
}
inline double cos_beta(const Rotor& rotor) {
    const double cos = (1 - rotor.tau * rotor.tau) / (1 + rotor.tau * rotor.tau);
    return rotor.flip ? -cos : cos;
}

struct HalfAngle {
    double cos = 1, sin = 0;
};

// All bound values of one row.
struct Bound {
    std::vector<HalfAngle> leaf;      // [leaves]; unused for SU2 and RV
    std::vector<Quaternion> leaf_rv;  // [leaves] only if the plan has RV leaves: its matrix
    std::vector<Rotor> rotor;         // [runs]
    std::vector<Complex> term;        // [terms]: exp(-i angle/2)

    void resize(const PlanData& plan);
    std::size_t bytes() const;
};

// What of a plan has to be bound: everything, or what depends on columns that vary over the batch.
struct BindList {
    std::vector<int> leaves, runs, terms;
};
BindList everything(const PlanData& plan);
BindList varying(const PlanData& plan, const std::vector<char>& column_varies);
// The runs that depend on none of those columns.
std::vector<int> runs_without(const PlanData& plan, const std::vector<char>& columns);

void bind(const PlanData& plan, const BindList& list, const double* columns, Bound& bound);

// Add the gradients of all leaves of some runs. w[run] = (Im<lam|X|psi>, Y, Z) between Rz(lambda) and Ry(beta).
void add_run_gradients(const PlanData& plan, const std::vector<int>& runs, const Bound& bound, const double* columns,
                       const std::array<double, 3>* w, double* gradient);

}  // namespace qf
