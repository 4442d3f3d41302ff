// SPDX-License-Identifier: Apache-2.0
//
// The CPU engine: a Plan (fixed structure) and observables, evaluated for rows of angles.
//
// A plan is phases and layers in turn: phase 0, layer 0, phase 1, layer 1, ..., phase D. A layer holds at most one
// rotation per qubit. A run is a product of one-qubit gates U = Rz(phi) Ry(beta) Rz(lambda); its Ry is a rotation of
// layer k, Rz(lambda) joins phase k and Rz(phi) phase k + 1.
#pragma once

#include <array>
#include <atomic>
#include <complex>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cpu/observables.hpp"
#include "cpu/runtime/stopping.hpp"
#include "cpu/simd/sweeps.hpp"
#include "shared/plan_records.h"

namespace qf {

struct Run {
    int first_leaf, end_leaf;
    int bit, layer;
    bool single_axis;  // all leaves RX, or all RY: the gradient needs Im<lam|Y|psi> only
};

struct Term {  // exp(-i/2 angle [(i & care) == value] (-1)^popcount(i & sign)) in phase `phase`
    int phase;
    int column;
    double coefficient, offset;
    index_t care, value, sign;
};

struct PlanData {
    int num_qubits, num_columns, num_layers;
    int chunk_bits;  // highest bits that cut the state into chunks; 0: one chunk
    bool is_real;    // from a real start, states stay real up to a global phase
    std::vector<Leaf> leaves;
    std::vector<Run> runs;                       // by layer
    std::vector<Term> terms;                     // by phase
    std::vector<double> initial_re, initial_im;  // empty: |0...0>
};

struct Action {  // of a schedule, see qiskit_fused/engines/checkpointing.py
    enum Kind : std::int32_t { forward, back };
    std::int32_t kind, position, source, target;
};

struct Progress {
    StopFlag stop{false};                         // true: evaluate() throws
    std::atomic<std::int64_t> done{0}, total{0};  // steps
};

struct Request {
    const double* columns;  // [rows][num_columns]
    int rows;
    const std::int32_t* pair_observable;  // by row
    const std::int64_t* row_pairs;        // [rows + 1]: pairs of row r are row_pairs[r] .. row_pairs[r + 1]
    bool gradient, imaginary;
    const double* cotangents;  // [pairs], or null; with gradient: one lam per row, the pairs' O psi with these weights
    const std::uint8_t* sum_columns;  // [num_columns], or null; by_row(): 1 where only the sum over the rows matters
    const Action* actions;            // with gradient: how each row gets its states; null: by uncomputing
    std::int64_t num_actions;
    int num_states;  // of the schedule
    int num_threads;
    const std::complex<double>* initial_states;    // [rows][2^num_qubits], or null: all rows start as the plan says
    bool shared_start;                             // there is one initial state, for all rows
    const std::complex<double>* final_cotangents;  // [rows][2^num_qubits], 2 lam at the end in place of pairs, or null
    std::complex<double>* final_states;            // [rows][2^num_qubits], or null
    std::complex<double>* state_gradients;         // 2 lam of the start, [pairs or rows][2^num_qubits], or null
    double* values;                                // [pairs]
    double* gradients;                             // [pairs or rows][num_columns]
    std::size_t kept_bytes;                        // that the process may keep meanwhile, beside what the call uses
    Progress* progress;

    // Whether gradients are those of rows: of the weighted sum of a row's pairs, or of its final state.
    bool by_row() const { return cotangents || final_cotangents; }
    std::int64_t pairs_of(int row) const { return row_pairs[row + 1] - row_pairs[row]; }
    bool asks_for(int row) const { return pairs_of(row) > 0 || final_states || final_cotangents; }
};

struct Stats {
    int threads;
    int rows;              // side by side, each with states of its own
    std::size_t bytes;     // of the call and what its plan and observables keep
    double bind_seconds;   // angles, runs and shared tables of the first row
    double sweep_seconds;  // all sweeps of all rows on the critical thread, binding of rows included
};

template <class T>
class Engine;
template <class T>
class Layout;

class Plan {
  public:
    explicit Plan(PlanData data);
    ~Plan();
    template <class T>
    const Layout<T>& layout();  // made at the first call
    template <class T>
    Stats evaluate(const Request& request, Observables& observables);

  private:
    template <class Object, class Argument>
    Object& made(std::unique_ptr<Object>& object, const Argument& argument);

    const PlanData data_;
    std::unique_ptr<Layout<float>> float_layout_;
    std::unique_ptr<Layout<double>> double_layout_;
    std::unique_ptr<Engine<float>> float_engine_;
    std::unique_ptr<Engine<double>> double_engine_;
};

double fma_peak(bool single_precision, int num_threads);

}  // namespace qf
