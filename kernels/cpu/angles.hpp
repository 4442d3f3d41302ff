// SPDX-License-Identifier: Apache-2.0
//
// Binding turns the angles of one row into rotations and phase factors, and turns the sums of the backward sweep into
// gradients of the angles. All numbers are double. Each angle costs one sine and one cosine, and no other
// transcendental function.
//
// Source: kernels/README.md, sections Normal form and Gradients.
#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "cpu/plan.hpp"
#include "cpu/runtime/buffer.hpp"
#include "cpu/simd/packs.hpp"

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
    if (exponent == 0) return {};
    const Complex base = exponent < 0 ? conj(unit) : unit;
    Complex result = base;
    for (int i = 1; i < std::abs(exponent); ++i) result = result * base;
    return result;
}

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

// The runs of a plan in packs of W runs. Runs of a pack have gates of the same kinds, so the functions for packs of
// rows (simd/packs.hpp) bind W runs at once and compute their gradients: they take the runs as W rows of one run.
// Number j of a vector belongs to run j of the pack; the places after its last run repeat this run.
struct RunPacks {
    struct Place {  // the places of the first numbers of a run in the arrays of Bound, and in w [packs][3][W]
        int run, rotation, w;
    };
    struct Angle {   // of a gate, or one of the three angles of RV
        int number;  // index in an array [plan.num_columns][W] of the angles of all packs
        int column;  // -1: constant angle
        double coefficient, offset;
    };
    struct AnglesOfPack {  // the angles of the runs of a pack, and those of the places that repeat its last run
        int first, end_of_runs, end;
    };
    struct List {  // packs to bind, their leaves with angles, and terms
        std::vector<int> packs, leaves, terms;
    };

    RunPacks(const PlanData& plan, int width);
    List list_of(const BindList& list) const;
    std::size_t bytes() const;
    std::size_t size_of_w() const { return std::size_t(3) * plan.runs.size() * width; }

    const int width;
    PlanData plan;              // run p stands for the runs of pack p; a gate has its angle in a column of its own
    std::vector<Place> places;  // [runs]
    std::vector<Angle> angles;  // in the order of the packs
    std::vector<AnglesOfPack> angles_of;  // [packs]
    std::vector<char> is_single;          // [columns of plan]: 1, because a gradient of a gate has one summand
    // The matrices of constant gates SU2, [leaves of plan][7][W] as PackValues::vector, up to the last pack that has
    // gates SU2 or RV.
    std::vector<double> matrices;
    List everything, variable;  // all packs and terms, and the packs and terms that depend on a column

  private:
    void add_gates(const PlanData& plan, const Run& run, int pack, int lane);
};

// A bound run: the rotation T(tau) X^flip (see Rotation<T>), and factors of the phases around the rotation. tau is
// between 0 and 1, or between -1 and 1 for a run of RY alone.
struct Rotor {
    double tau;
    double scale;                 // the positive factor that T(tau) X^flip leaves out
    double cosine, inverse_sine;  // cos(beta) and 1/sin(beta); NO_INVERSE if sin(beta) is 0
    bool flip;
    Complex out;  // factor of |1> in the phase after the rotation: exp(i phi), negated for a flip
    Complex in;   // factor of |1> in the phase before the rotation: exp(i lambda)
};

// All bound values of one row.
struct Bound {
    const RunPacks* packs = nullptr;         // null before resize()
    Buffer<double> angles;                   // [columns of packs->plan][W]
    Buffer<double> leaf, vector, run, left;  // as in PackValues
    Buffer<double> rotation;                 // [packs][2][W]: tau and scale of the rotors; -scale for a flip
    std::vector<char> sums_x;                // written by bind_runs() of simd/packs.hpp, and not used
    std::vector<Complex> term;               // [terms]: exp(-i angle/2)
    bool has_constants = false;              // true: the packs and terms that depend on no column are bound

    void resize(const PlanData& plan, const RunPacks& run_packs);
    void copy(const Bound& other);
    static std::size_t bytes(const PlanData& plan, const RunPacks& run_packs);
    PackValues<double> view();
    Rotor rotor(int r) const {
        const RunPacks::Place& place = packs->places[r];
        const std::size_t width = packs->width;
        const double* const values = run.data() + place.run;
        const double* const turn = rotation.data() + place.rotation;
        auto value = [&](RunValue number) { return values[number * width]; };
        return {turn[0],
                std::abs(turn[width]),
                value(COSINE),
                value(INVERSE_SINE),
                turn[width] < 0,
                {value(OUT_RE), value(OUT_IM)},
                {value(IN_RE), value(IN_IM)}};
    }
};

// Bind the packs and terms of a list. `single`: tau is rounded to single precision, and the norm of a rotation is
// computed from the rounded tau.
void bind(const PlanData& plan, const RunPacks::List& list, const double* columns, bool single, Bound& bound);

// A rotor leaves out a global phase of its run. Return the product of the phases of all runs, a number of modulus 1.
Complex phase_of_runs(const Bound& bound);

// Add the gradients of all leaves of some packs to gradient [num_columns]. w [packs][3][W] is Im <lam|(X, Y, Z)|psi>
// between Rz(lambda) and Ry(beta). scratch is [columns of packs->plan][W].
void add_run_gradients(const std::vector<int>& packs, const Bound& bound, const double* w, double* scratch,
                       double* gradient);

}  // namespace qf
