// SPDX-License-Identifier: Apache-2.0
//
// Binding turns the angles of one row into rotations and phase factors, and turns the sums of the backward sweep into
// gradients of the angles. All numbers are double. Each angle costs one sine and one cosine, and no other
// transcendental function.
//
// Source: kernels/README.md, sections Normal form and Gradients.
#pragma once

#include <cmath>
#include <vector>

#include "cpu/plan.hpp"

namespace qf {

// A complex number. std::complex checks each product for NaN, which takes longer than the product itself.
struct Complex {
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

// A bound run: the rotation T(tau) X^flip (see Rotation<T>), and factors of the phases around the rotation.
struct Rotor {
    double tau;
    double scale;  // the real factor that T(tau) X^flip leaves out
    bool flip;
    Complex out;  // factor of |1> in the phase after the rotation: exp(i phi), negated for a flip
    Complex in;   // factor of |1> in the phase before the rotation: exp(i lambda)
};

// tan(beta/2) is tau without a flip, and 1/tau with a flip.
inline double sin_beta(const Rotor& rotor) {
    return 2 * rotor.tau / (1 + rotor.tau * rotor.tau);
}
// Say whether sin(beta) is less than a number, without the division of sin_beta().
inline bool is_sine_below(const Rotor& rotor, double number) {
    return 2 * rotor.tau < number * (1 + rotor.tau * rotor.tau);
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
    std::vector<HalfAngle> leaf;      // [leaves]; SU2 and RV leaves do not use it
    std::vector<Quaternion> leaf_rv;  // [leaves], the matrices of RV leaves; empty if the plan has no RV leaf
    std::vector<Rotor> rotor;         // [runs]
    std::vector<Complex> term;        // [terms]: exp(-i angle/2)

    void resize(const PlanData& plan);
    std::size_t bytes() const;
};

// The leaves, runs and terms to bind: all of a plan, or only the ones that depend on columns that vary over the batch.
struct BindList {
    std::vector<int> leaves, runs, terms;
};
BindList everything(const PlanData& plan);
BindList varying(const PlanData& plan, const std::vector<char>& column_varies);
// Return the runs that depend on no column marked with 1.
std::vector<int> runs_without(const PlanData& plan, const std::vector<char>& columns);
// Return how many columns of an ascending list differ between two rows.
int count_different(const double* row, const double* other, const std::vector<int>& list);

void bind(const PlanData& plan, const BindList& list, const double* columns, Bound& bound);

// A rotor leaves out a global phase of its run. Return the product of the phases of all runs, a number of modulus 1.
Complex phase_of_runs(const PlanData& plan, const Bound& bound);

// Add the gradients of all leaves of the runs to gradient [num_columns]. w[run] = Im <lam|(X, Y, Z)|psi> between
// Rz(lambda) and Ry(beta).
void add_run_gradients(const PlanData& plan, const std::vector<int>& runs, const Bound& bound, const double* columns,
                       const std::array<double, 3>* w, double* gradient);

}  // namespace qf
