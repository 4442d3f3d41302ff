// SPDX-License-Identifier: Apache-2.0
//
// The Python module qiskit_fused._cpu. It takes NumPy arrays and writes NumPy arrays. Python checks all input before
// the call, so this file checks none.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/complex.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <future>
#include <thread>
#include <tuple>
#include <variant>

#include "cpu/instructions.hpp"
#include "cpu/layout.hpp"
#include "cpu/plan.hpp"
#include "cpu/runtime/kept.hpp"
#include "cpu/runtime/pool.hpp"
#include "cpu/sampling.hpp"
#include "shared/plan_records.h"
#include "shared/tuning.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T>
using Array1 = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Array2 = nb::ndarray<const T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Array3 = nb::ndarray<const T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out1 = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out2 = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Out3 = nb::ndarray<T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

qf::Plan* make_plan(int num_qubits, int num_columns, int num_layers, int chunk_bits, bool is_real,
                    Array1<std::uint8_t> leaf_kind, Array1<std::int32_t> leaf_column, Array1<double> leaf_coefficient,
                    Array1<double> leaf_offset, Array2<double> leaf_quaternion, Array1<std::int32_t> run_begin,
                    Array1<std::int32_t> run_qubit, Array1<std::int32_t> run_layer, Array1<std::int32_t> term_phase,
                    Array1<std::int32_t> term_column, Array1<double> term_coefficient, Array1<double> term_offset,
                    Array1<std::uint64_t> term_care, Array1<std::uint64_t> term_value, Array1<std::uint64_t> term_sign,
                    Array1<std::int32_t> dense_layer, Array1<std::uint64_t> dense_targets,
                    Array1<std::uint64_t> dense_care, Array1<std::uint64_t> dense_value,
                    Array1<std::complex<double>> dense_entries, Array1<std::int32_t> map_layer,
                    Array1<std::int32_t> map_number, Array2<std::uint64_t> map_columns,
                    std::optional<Array1<std::complex<double>>> initial) {
    qf::PlanData plan;
    plan.num_qubits = num_qubits;
    plan.num_columns = num_columns;
    plan.num_layers = num_layers;
    plan.chunk_bits = chunk_bits;
    plan.is_real = is_real;
    plan.leaves.reserve(leaf_kind.size());
    plan.runs.reserve(run_qubit.size());
    plan.terms.reserve(term_phase.size());
    for (std::size_t i = 0; i < leaf_kind.size(); ++i)
        plan.leaves.push_back(
            {leaf_coefficient(i),
             leaf_offset(i),
             {leaf_quaternion(i, 0), leaf_quaternion(i, 1), leaf_quaternion(i, 2), leaf_quaternion(i, 3)},
             leaf_kind(i),
             leaf_column(i),
             0,
             0});
    for (std::size_t r = 0; r < run_qubit.size(); ++r) {
        qf::Run run{run_begin(r), run_begin(r + 1), run_qubit(r), run_layer(r), true, false};
        const auto kind = plan.leaves[run.first_leaf].kind;
        for (int i = run.first_leaf; i < run.end_leaf; ++i)
            run.single_axis =
                run.single_axis && plan.leaves[i].kind == kind && (kind == qf::LEAF_RX || kind == qf::LEAF_RY);
        for (int i = run.first_leaf; i < run.end_leaf; ++i)
            run.about_x = run.about_x || (run.single_axis && kind == qf::LEAF_RX && plan.leaves[i].column >= 0);
        plan.runs.push_back(run);
    }
    for (std::size_t i = 0; i < term_phase.size(); ++i)
        plan.terms.push_back({term_phase(i), term_column(i), term_coefficient(i), term_offset(i), term_care(i),
                              term_value(i), term_sign(i)});
    for (std::size_t g = 0, done = 0; g < dense_layer.size(); ++g) {
        qf::DenseGate gate{dense_layer(g), dense_targets(g), dense_care(g), dense_value(g), {}};
        std::size_t entries = 1;
        for (auto left = gate.targets; left; left &= left - 1) entries *= 4;
        gate.matrix.assign(dense_entries.data() + done, dense_entries.data() + done + entries);
        done += entries;
        plan.dense.push_back(std::move(gate));
    }
    for (std::size_t s = 0; s < map_layer.size(); ++s) plan.map_steps.push_back({map_layer(s), map_number(s)});
    for (std::size_t m = 0; m < map_columns.shape(0); ++m) {
        const auto* columns = map_columns.data() + m * map_columns.shape(1);
        plan.maps.push_back({{columns, columns + map_columns.shape(1)}});
    }
    if (initial)
        for (std::size_t i = 0; i < initial->size(); ++i) {
            plan.initial_re.push_back((*initial)(i).real());
            plan.initial_im.push_back((*initial)(i).imag());
        }
    return new qf::Plan(std::move(plan));
}

qf::Observables* make_observables(int num_qubits, int num_observables, Array1<std::int32_t> observable,
                                  Array1<std::uint64_t> x, Array1<std::uint64_t> z, Array1<std::uint64_t> care,
                                  Array1<std::uint64_t> value, Array1<double> real, Array1<double> imag) {
    std::vector<std::vector<qf::ObservableTerm>> terms(num_observables);
    for (std::size_t i = 0; i < observable.size(); ++i)
        terms[observable(i)].push_back({x(i), z(i), care(i), value(i), real(i), imag(i)});
    return new qf::Observables(num_qubits, std::move(terms));
}

qf::Observables* make_outcomes(int num_qubits, int num_outcomes, Array1<std::int32_t> outcome) {
    return new qf::Observables(num_qubits, num_outcomes, outcome.data());
}

// Call function(layout) with the layout of a plan in one number format.
template <class F>
auto with_layout(qf::Plan& plan, bool single_precision, F&& function) {
    return single_precision ? function(plan.layout<float>()) : function(plan.layout<double>());
}

qf::BatchShape shape_of(std::int64_t rows, bool gradient, bool imaginary, bool starts_given) {
    qf::BatchShape shape;
    shape.rows = rows;
    shape.gradient = gradient;
    shape.imaginary = imaginary;
    shape.starts_given = starts_given;
    return shape;
}

std::size_t predict(qf::Plan& plan, bool single_precision, std::int64_t num_rows, std::int64_t values_per_row,
                    std::int64_t num_outcomes, bool gradient, bool imaginary, bool starts_given, bool saves_psi,
                    int num_states, int num_threads, std::tuple<std::size_t, std::size_t, std::size_t> varying,
                    std::size_t num_flips, std::size_t num_diagonals) {
    qf::BatchShape shape = shape_of(num_rows, gradient, imaginary, starts_given);
    shape.values_per_row = values_per_row;
    shape.num_outcomes = num_outcomes;
    shape.saves_psi = saves_psi;
    shape.num_states = std::max(num_states, 1);
    shape.scheduled = num_states > 0;
    shape.num_threads = num_threads;
    return with_layout(plan, single_precision, [&](const auto& layout) {
        const auto [all, largest, count] = varying;
        return layout.predict(shape, {all, largest, count}, num_flips, num_diagonals);
    });
}

nb::tuple varying_tables(qf::Plan& plan, bool single_precision, std::optional<Array1<bool>> columns) {
    return with_layout(plan, single_precision, [&](const auto& layout) {
        std::vector<char> varies(layout.plan.num_columns, 1);
        for (std::size_t c = 0; columns && c < columns->size(); ++c) varies[c] = (*columns)(c);
        const auto phases = qf::phases_of(layout.plan, qf::varying(layout.plan, varies));
        const auto tables = layout.tables_of(phases, layout.skips_first_phase({}));
        return nb::make_tuple(tables.all, tables.largest, tables.count);
    });
}

std::size_t most_shared_bytes(qf::Plan& plan, bool single_precision, std::size_t num_terms) {
    return with_layout(plan, single_precision, [&](const auto& layout) { return layout.most_shared_bytes(num_terms); });
}

std::size_t state_bytes(qf::Plan& plan, bool single_precision, bool imaginary) {
    return with_layout(plan, single_precision, [&](const auto& layout) {
        const bool real = layout.is_real(shape_of(1, true, imaginary, false));
        return layout.state_size(0, real) * (single_precision ? sizeof(float) : sizeof(double));
    });
}

nb::typed<nb::list, int> windows(qf::Plan& plan, bool single_precision) {
    return with_layout(plan, single_precision, [&](const auto& layout) {
        nb::list all;
        for (const char window : layout.forward.window) all.append(static_cast<int>(window));
        return all;
    });
}

nb::tuple side_by_side(qf::Plan& plan, bool single_precision, std::int64_t num_rows, int num_threads) {
    return with_layout(plan, single_precision, [&](const auto& layout) {
        const auto threading = layout.threading(num_rows, num_threads, false);
        return nb::make_tuple(threading.rows, threading.threads);
    });
}

// The constants of shared/, by the names of the fields of Constants in qiskit_fused/common/native.py.
nb::dict constants() {
    nb::dict all;
    all["max_low_bits"] = qf::MAX_LOW_BITS;
    all["widest_vector_bytes"] = qf::WIDEST_VECTOR_BYTES;
    all["widest_block_qubits"] = qf::WIDEST_BLOCK_QUBITS;
    all["max_dense_qubits"] = qf::MAX_DENSE_QUBITS;
    all["smallest_sine"] = qf::SMALLEST_SINE;
    all["most_kept_bytes"] = qf::MOST_KEPT_BYTES;
    all["max_register_qubits"] = qf::MAX_REGISTER_QUBITS;
    all["observed_amplitudes"] = qf::OBSERVED_AMPLITUDES;
    all["output_lanes"] = qf::OUTPUT_LANES;
    all["min_sweep_threads"] = qf::MIN_SWEEP_THREADS;
    all["warp_qubits"] = qf::WARP_QUBITS;
    all["warp_entries"] = qf::WARP_ENTRIES;
    all["leaf_rx"] = static_cast<int>(qf::LEAF_RX);
    all["leaf_ry"] = static_cast<int>(qf::LEAF_RY);
    all["leaf_rz"] = static_cast<int>(qf::LEAF_RZ);
    all["leaf_su2"] = static_cast<int>(qf::LEAF_SU2);
    all["leaf_rv"] = static_cast<int>(qf::LEAF_RV);
    all["source_term"] = static_cast<int>(qf::SOURCE_TERM);
    all["source_run_in"] = static_cast<int>(qf::SOURCE_RUN_IN);
    all["source_run_out"] = static_cast<int>(qf::SOURCE_RUN_OUT);
    all["extra_thread"] = static_cast<int>(qf::EXTRA_THREAD);
    all["extra_register"] = static_cast<int>(qf::EXTRA_REGISTER);
    all["extra_term"] = static_cast<int>(qf::EXTRA_TERM);
    return all;
}

bool all_finite(nb::ndarray<const double, nb::c_contig, nb::device::cpu> numbers) {
    return qf::best_pack_sweeps<double>().all_finite(numbers.data(), numbers.size());
}

// Compute the sines and cosines of half of each angle with the functions that bind packs of rows.
template <class T>
void half_angles(Array1<double> angles, Out2<T> cosines_and_sines) {
    const auto& packs = qf::best_pack_sweeps<T>();
    const qf::Leaf leaf{1, 0, {}, qf::LEAF_RY, 0, 0, 0};
    const int list[] = {0};
    qf::Buffer<double> columns(packs.width);
    qf::Buffer<T> out(2 * packs.width);
    qf::PackValues<T> values{};
    values.leaf = out.data();
    for (std::size_t first = 0; first < angles.size(); first += packs.width) {
        const std::size_t count = std::min<std::size_t>(packs.width, angles.size() - first);
        for (int j = 0; j < packs.width; ++j) columns[j] = angles(first + std::min<std::size_t>(j, count - 1));
        packs.bind_leaves(&leaf, list, 1, columns.data(), values);
        for (std::size_t j = 0; j < count; ++j) {
            cosines_and_sines(0, first + j) = out[j];
            cosines_and_sines(1, first + j) = out[packs.width + j];
        }
    }
}

// Compute exp(i (constant + sum of angles)) of rows of columns with the function that binds packs of rows.
void phase_factors(Array2<double> columns, Array1<std::int64_t> column, Array1<double> coefficient,
                   Array1<double> offset, double constant, Out1<std::complex<double>> factors) {
    const auto& packs = qf::best_pack_sweeps<double>();
    const int num_columns = static_cast<int>(columns.shape(1));
    std::vector<qf::AffineAngle> list;
    std::vector<char> reads(num_columns, 0);
    for (std::size_t k = 0; k < column.size(); ++k) {
        list.push_back({static_cast<int>(column(k)), coefficient(k), offset(k)});
        reads[list[k].column] = 1;
    }
    qf::Buffer<double> angles(static_cast<std::size_t>(num_columns) * packs.width), factor(2 * packs.width);
    for (std::size_t first = 0; first < factors.size(); first += packs.width) {
        const std::size_t count = std::min<std::size_t>(packs.width, factors.size() - first);
        packs.load_columns(columns.data() + first * num_columns, num_columns, static_cast<int>(count), reads.data(),
                           angles.data());
        packs.bind_states(list.data(), static_cast<int>(list.size()), constant, angles.data(), 0, {}, factor.data());
        for (std::size_t j = 0; j < count; ++j) factors(first + j) = {factor[j], factor[packs.width + j]};
    }
}

// The instructions of a copy of a circuit, a CircuitData of Qiskit that the caller gives away.
class PythonInstructions {
  public:
    // functions: the addresses of the functions of CircuitFunctions, in this order.
    PythonInstructions(const std::vector<std::uintptr_t>& functions, nb::object data)
        : functions_(read(functions)), data_(std::move(data)), instructions_(functions_, borrow(data_)) {}
    bool match(nb::handle data) const { return instructions_.match(borrow(data)); }
    std::vector<std::size_t> not_whole() const {
        std::vector<std::size_t> indices;
        for (std::size_t i = 0; i < instructions_.size(); ++i)
            if (!instructions_.is_whole(i)) indices.push_back(i);
        return indices;
    }

  private:
    static qf::CircuitFunctions read(const std::vector<std::uintptr_t>& addresses) {
        static_assert(sizeof(qf::CircuitFunctions) == 6 * sizeof(std::uintptr_t));
        if (addresses.size() != 6) throw std::invalid_argument("functions must be 6 addresses.");
        qf::CircuitFunctions functions;
        std::memcpy(&functions, addresses.data(), sizeof(functions));
        return functions;
    }
    const void* borrow(nb::handle data) const {
        const void* const circuit = functions_.borrow_from_python(data.ptr());
        if (!circuit) throw nb::python_error();
        return circuit;
    }

    const qf::CircuitFunctions functions_;
    const nb::object data_;
    const qf::Instructions instructions_;
};

constexpr std::chrono::milliseconds watch_interval{50};  // time between two looks at signals and at progress

nb::tuple evaluate(qf::Plan& plan, qf::Observables& observables, Array2<double> columns, Array1<std::int64_t> row_pairs,
                   Array1<std::int32_t> pair_observable, std::optional<Array1<double>> cotangents,
                   std::optional<Array1<bool>> sum_columns, Out1<double> values, std::optional<Out2<double>> gradients,
                   bool imaginary, bool single_precision, int num_threads, std::optional<Array2<std::int32_t>> schedule,
                   int num_states, std::size_t kept_bytes, std::optional<Array2<std::complex<double>>> initial_states,
                   std::optional<Array2<std::complex<double>>> final_cotangents,
                   std::optional<std::variant<Out2<std::complex<float>>, Out2<std::complex<double>>>> final_states,
                   std::optional<Out2<std::complex<double>>> state_gradients, std::optional<nb::callable> watch,
                   bool from_end) {
    qf::Request request{};
    request.columns = columns.data();
    request.rows = static_cast<int>(columns.shape(0));
    request.row_pairs = row_pairs.data();
    request.pair_observable = pair_observable.data();
    request.gradient = gradients.has_value();
    request.imaginary = imaginary;
    request.cotangents = cotangents ? cotangents->data() : nullptr;
    static_assert(sizeof(bool) == sizeof(std::uint8_t));
    request.sum_columns = sum_columns ? reinterpret_cast<const std::uint8_t*>(sum_columns->data()) : nullptr;
    request.num_threads = num_threads;
    request.values = values.data();
    request.gradients = gradients ? gradients->data() : nullptr;
    static_assert(sizeof(qf::Action) == 4 * sizeof(std::int32_t));
    request.actions = schedule ? reinterpret_cast<const qf::Action*>(schedule->data()) : nullptr;
    request.num_actions = schedule ? static_cast<std::int64_t>(schedule->shape(0)) : 0;
    request.num_states = num_states;
    request.kept_bytes = kept_bytes;
    request.initial_states = initial_states ? initial_states->data() : nullptr;
    request.shared_start = initial_states && initial_states->shape(0) == 1;
    request.from_end = from_end;
    request.final_cotangents = final_cotangents ? final_cotangents->data() : nullptr;
    if (auto* states = final_states ? std::get_if<Out2<std::complex<double>>>(&*final_states) : nullptr)
        request.final_states = states->data();
    else if (final_states)
        request.single_states = std::get<Out2<std::complex<float>>>(*final_states).data();
    request.state_gradients = state_gradients ? state_gradients->data() : nullptr;
    qf::Progress progress;
    request.progress = &progress;
    auto sweep = [&] {
        return single_precision ? plan.evaluate<float>(request, observables)
                                : plan.evaluate<double>(request, observables);
    };
    qf::Stats stats{};
    if (watch) {
        std::packaged_task<qf::Stats()> task(sweep);
        auto result = task.get_future();
        std::thread beside(std::move(task));
        auto wait = [&](std::chrono::milliseconds time) {
            nb::gil_scoped_release release;
            return result.wait_for(time) == std::future_status::ready;
        };
        try {
            while (!wait(watch_interval)) {
                if (PyErr_CheckSignals() != 0) throw nb::python_error();
                if (nb::cast<bool>((*watch)(progress.done.load(), progress.total.load()))) progress.stop = true;
            }
        } catch (...) {
            progress.stop = true;
            nb::gil_scoped_release release;
            beside.join();
            throw;
        }
        beside.join();
        stats = result.get();
    } else {
        nb::gil_scoped_release release;
        stats = sweep();
    }
    return nb::make_tuple(stats.threads, stats.rows, stats.bytes, stats.bind_seconds, stats.sweep_seconds,
                          stats.is_finite);
}

void draw_shots(Array2<double> probabilities, Array1<std::int64_t> sources, Array1<std::uint64_t> streams,
                Array1<std::uint64_t> key, std::int64_t first_shot, Array3<std::uint64_t> tables, int chunk_bits,
                Out3<std::uint8_t> shots, int num_threads) {
    qf::Draws draws{};
    draws.probabilities = probabilities.data();
    draws.num_outcomes = static_cast<std::int64_t>(probabilities.shape(1));
    draws.sources = sources.data();
    draws.streams = streams.data();
    draws.num_draws = static_cast<std::int64_t>(sources.size());
    draws.key[0] = key(0);
    draws.key[1] = key(1);
    draws.first_shot = first_shot;
    draws.num_shots = static_cast<std::int64_t>(shots.shape(1));
    draws.num_threads = num_threads;
    draws.tables = tables.data();
    draws.num_chunks = static_cast<int>(tables.shape(0));
    draws.chunk_bits = chunk_bits;
    draws.num_words = static_cast<int>(tables.shape(2));
    draws.num_bytes = static_cast<std::int64_t>(shots.shape(2));
    draws.shots = shots.data();
    nb::gil_scoped_release release;
    qf::draw_shots(draws);
}

}  // namespace

NB_MODULE(_cpu, m) {
    nb::set_leak_warnings(false);  // plans live in caches of the package until the interpreter ends
    qf::make_pool();               // at import, so that a fork never happens while a thread makes the pool
    qf::Shelves::bytes();
    m.doc() = "CPU engine of qiskit_fused; see kernels/README.md";
    nb::class_<qf::Plan>(m, "Plan");
    nb::class_<qf::Observables>(m, "Observables");
    nb::class_<PythonInstructions>(m, "Instructions")
        .def(nb::init<const std::vector<std::uintptr_t>&, nb::object>(), "functions"_a, "data"_a)
        .def("match", &PythonInstructions::match, "data"_a,
             "Say whether a circuit has the same instructions. Of instructions in not_whole, not all is compared.")
        .def("not_whole", &PythonInstructions::not_whole, "Return the indices of instructions of other kinds.");
    m.def("make_plan", &make_plan, nb::kw_only(), "num_qubits"_a, "num_columns"_a, "num_layers"_a, "chunk_bits"_a,
          "is_real"_a, "leaf_kind"_a, "leaf_column"_a, "leaf_coefficient"_a, "leaf_offset"_a, "leaf_quaternion"_a,
          "run_begin"_a, "run_qubit"_a, "run_layer"_a, "term_phase"_a, "term_column"_a, "term_coefficient"_a,
          "term_offset"_a, "term_care"_a, "term_value"_a, "term_sign"_a, "dense_layer"_a, "dense_targets"_a,
          "dense_care"_a, "dense_value"_a, "dense_entries"_a, "map_layer"_a, "map_number"_a, "map_columns"_a,
          "initial"_a.none());
    m.def("make_observables", &make_observables, "num_qubits"_a, "num_observables"_a, "observable"_a, "x"_a, "z"_a,
          "care"_a, "value"_a, "real"_a, "imag"_a);
    m.def("make_outcomes", &make_outcomes, "num_qubits"_a, "num_outcomes"_a, "outcome"_a);
    m.def("evaluate", &evaluate, "plan"_a, "observables"_a, "columns"_a, "row_pairs"_a, "pair_observable"_a,
          "cotangents"_a.none(), "sum_columns"_a.none(), "values"_a, "gradients"_a.none(), "imaginary"_a,
          "single_precision"_a, "num_threads"_a, "schedule"_a.none(), "num_states"_a, "kept_bytes"_a,
          "initial_states"_a.none(), "final_cotangents"_a.none(), "final_states"_a.none().noconvert(),
          "state_gradients"_a.none(), "watch"_a.none(), "from_end"_a = false,
          "Evaluate pairs of rows and observables. All elements of values and gradients are written. Of final_states "
          "and state_gradients, rows without pairs write nothing. With watch, another thread sweeps. Every 50 ms this "
          "thread handles signals and calls watch(steps done, all steps); a true result ends the evaluation. With "
          "from_end, see Request in cpu/plan.hpp. During the call the process keeps at most kept_bytes of earlier "
          "calls, beside the items that this call uses.");
    m.def("draw_shots", &draw_shots, "probabilities"_a, "sources"_a, "streams"_a, "key"_a, "first_shot"_a, "tables"_a,
          "chunk_bits"_a, "shots"_a, "num_threads"_a, "Draw shots from rows of probabilities; see cpu/sampling.hpp.");
    m.def("release_memory", &qf::Shelves::release, "most_bytes"_a, nb::call_guard<nb::gil_scoped_release>(),
          "Free kept items that no call uses, until at most most_bytes are left.");
    m.def("kept_bytes", &qf::Shelves::bytes, "Count the bytes that are kept between calls.");
    m.def("predict", &predict, "plan"_a, "single_precision"_a, nb::kw_only(), "num_rows"_a, "values_per_row"_a,
          "num_outcomes"_a, "gradient"_a, "imaginary"_a, "starts_given"_a, "saves_psi"_a, "num_states"_a,
          "num_threads"_a, "varying_tables"_a, "num_flips"_a, "num_diagonals"_a,
          "Return the most bytes that evaluate() holds, without the arrays of the caller.");
    m.def("varying_tables", &varying_tables, "plan"_a, "single_precision"_a, "columns"_a.none(),
          "Return the bytes of the tables of phases that differ between rows, the bytes of the largest, and their "
          "number.");
    m.def("most_shared_bytes", &most_shared_bytes, "plan"_a, "single_precision"_a, "num_terms"_a,
          "Return the most bytes that shared tables and the diagonals of num_terms terms add to a prediction.");
    m.def("state_bytes", &state_bytes, "plan"_a, "single_precision"_a, "imaginary"_a, "Return the bytes of one state.");
    m.def("windows", &windows, "plan"_a, "single_precision"_a,
          "Return the window of the forward pass of each phase, 0 or 1.");
    m.def("side_by_side", &side_by_side, "plan"_a, "single_precision"_a, "num_rows"_a, "num_threads"_a,
          "Return the number of rows in work at the same time, and the number of threads.");
    m.def("constants", &constants, "Return the constants that kernels and Python share.");
    m.def("isa", &qf::isa_name, "Name the instruction set in use.");
    const char* const about_half_angles =
        "Write the cosine and the sine of half of each angle to the two rows of an array, as packs of rows bind them.";
    m.def("half_angles", &half_angles<double>, "angles"_a, "cosines_and_sines"_a.noconvert(), about_half_angles);
    m.def("half_angles", &half_angles<float>, "angles"_a, "cosines_and_sines"_a.noconvert(), about_half_angles);
    m.def("phase_factors", &phase_factors, "columns"_a, "column"_a, "coefficient"_a, "offset"_a, "constant"_a,
          "factors"_a.noconvert(),
          "Write exp(i (constant + sum_k (coefficient[k] columns[row, column[k]] + offset[k]))) of each row.");
    m.def("all_finite", &all_finite, "numbers"_a, "Say whether all numbers are finite.");
    m.def("fma_peak", &qf::fma_peak, "single_precision"_a, "num_threads"_a, "Measure multiply-add speed in flop/s.");
}
