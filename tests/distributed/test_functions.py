# SPDX-License-Identifier: Apache-2.0
"""Values, gradients and vector-Jacobian products of ranks agree with the reference engine on the whole state."""

import re

import numpy as np
import pytest
from circuits import circuits, values_of
from engine_cases import TOLERANCE, cx_layers, dense_circuit, random_circuit, random_observables
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import StatePreparation, efficient_su2
from qiskit.quantum_info import SparseObservable, SparsePauliOp
from qiskit_machine_learning.circuit.library import raw_feature_vector

from qiskit_fused import FusedEstimatorGradient, compile_circuit
from qiskit_fused.distributed import expectation_values, plan_ranks, run_on_threads, value_and_gradient, value_and_vjp
from qiskit_fused.engines.cuda.availability import usable_gpu

pytestmark = pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")

DTYPES = ["complex64", "complex128"]


def assert_ranks_agree_with_reference(circuit, observables, values, num_ranks, dtype="complex128"):
    """Assert that all ranks get the values and gradients of the reference engine."""
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, observables, values)
    results = run_on_threads(
        num_ranks, lambda ranks: value_and_gradient(circuit, observables, values, ranks, dtype=dtype, num_threads=1)
    )
    scale = max(1.0, *(np.abs(part).max(initial=0) for part in expected))
    for result in results:
        for found, wanted in zip(result, expected):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype] * scale)


def mixed(num_qubits, seed):
    """Return observables that flip one, some and all qubits, projectors, and a sum of many terms."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice([*"IXYZ+-rl01"], size=num_qubits, p=[0.46, *[0.06] * 9])) for _ in range(4)]
    sums = SparseObservable.from_list(list(zip(words, rng.normal(size=4))))
    return [
        *random_observables(num_qubits, seed),
        sums,
        SparsePauliOp("X" * num_qubits),
        SparsePauliOp("Y" * num_qubits),
    ]


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_ladders_of_cx_that_one_process_takes_as_linear_maps_agree_with_the_reference(num_ranks):
    circuit = cx_layers(11, "ring", 2)
    values = np.random.default_rng(0).normal(size=(1, len(circuit.parameters)))
    assert_ranks_agree_with_reference(circuit, random_observables(11, 1), values, num_ranks)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_circuits_of_every_gate_agree_with_the_reference(data):
    n, num_global = data.draw(st.integers(8, 11)), data.draw(st.integers(1, 3))
    circuit = QuantumCircuit(n)
    for seed in range(2):
        for qubit in range(n):
            circuit.ry(0.2 + 0.3 * qubit + seed, qubit)
        part = data.draw(circuits(max_qubits=5, max_gates=6))
        part = part.assign_parameters({p: Parameter(f"{p.name}_{seed}") for p in part.parameters})
        circuit.compose(part, data.draw(st.permutations(range(n)))[: part.num_qubits], inplace=True)
        for qubit in range(n - 1):
            circuit.cz(qubit, qubit + 1)
    observables = mixed(n, seed=n)[data.draw(st.integers(0, 1)) :: 2]
    dtype = data.draw(st.sampled_from(DTYPES))
    assert_ranks_agree_with_reference(circuit, observables, values_of(circuit), 1 << num_global, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_global", [0, 1, 2, 3])
@pytest.mark.parametrize("num_qubits", [6, 9])
def test_many_exchanges_agree_with_the_reference(num_qubits, num_global, dtype):
    circuit = random_circuit(num_qubits, 80, seed=num_global)
    observables = mixed(num_qubits, seed=num_global)
    assert_ranks_agree_with_reference(circuit, observables, values_of(circuit), 1 << num_global, dtype)


@pytest.mark.parametrize("num_controls", [0, 2])
@pytest.mark.parametrize("num_global", [1, 3])
def test_dense_gates_agree_with_the_reference(num_global, num_controls):
    circuit = dense_circuit(8, 3, num_controls=num_controls, seed=num_global)
    assert_ranks_agree_with_reference(circuit, mixed(8, seed=2), values_of(circuit), 1 << num_global)


def test_light_cones_leave_qubits_out():
    circuit = random_circuit(4, 20, seed=3)
    wide = QuantumCircuit(12)
    wide.compose(circuit, [1, 5, 6, 11], inplace=True)
    wide.h(range(12))
    observable = SparsePauliOp.from_sparse_list([("ZX", [1, 5], 1.0)], 12)
    assert_ranks_agree_with_reference(wide, observable, values_of(wide), 2)


def test_swapped_qubits_and_idle_qubits_agree_with_the_reference():
    circuit = random_circuit(7, 40, seed=4)
    circuit.swap(0, 6)
    wide = QuantumCircuit(9)
    wide.compose(circuit, [2, 0, 8, 1, 4, 7, 5], inplace=True)
    assert_ranks_agree_with_reference(wide, mixed(9, seed=3), values_of(wide), 4)


@pytest.mark.parametrize("qubits", [[0, 5, 2], [3], [0, 1, 2, 3, 4, 5]])
def test_constant_start_states_agree_with_the_reference(qubits):
    vector = np.random.default_rng(0).normal(size=(2 ** len(qubits), 2)) @ [1, 1j]
    circuit = QuantumCircuit(6)
    circuit.initialize(vector / np.linalg.norm(vector), qubits)
    circuit.compose(random_circuit(6, 30, seed=5), inplace=True)
    assert_ranks_agree_with_reference(circuit, mixed(6, seed=4), values_of(circuit), 4)
    prepared = QuantumCircuit(6)
    prepared.append(StatePreparation(vector / np.linalg.norm(vector)), qubits)
    prepared.h(range(6))
    assert_ranks_agree_with_reference(prepared, mixed(6, seed=4), np.zeros(0), 4)


def test_rows_are_evaluated_one_by_one_and_values_alone_are_the_same():
    circuit, observables = random_circuit(6, 30, seed=6), mixed(6, seed=5)
    rows = np.random.default_rng(0).normal(size=(3, circuit.num_parameters))
    assert_ranks_agree_with_reference(circuit, observables, rows, 2)
    both = run_on_threads(
        2,
        lambda ranks: (
            expectation_values(compile_circuit(circuit), observables, rows, ranks, num_threads=1),
            value_and_gradient(circuit, observables, rows, ranks, num_threads=1)[0],
        ),
    )
    for alone, with_gradients in both:
        np.testing.assert_allclose(alone, with_gradients, atol=1e-12, rtol=0)
    empty = run_on_threads(2, lambda ranks: value_and_gradient(circuit, "Z" * 6, rows[:0], ranks))[1]
    assert [part.shape for part in empty] == [(0, 1), (0, 1, circuit.num_parameters)]


@pytest.mark.parametrize("by_row", [False, True], ids=["shared", "by row"])
def test_the_vector_jacobian_product_is_the_weighted_sum_of_gradients(by_row):
    circuit, observables = random_circuit(7, 40, seed=7), mixed(7, seed=6)
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2, circuit.num_parameters))
    cotangents = rng.normal(size=(2, len(observables)) if by_row else len(observables))
    values, gradients = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, observables, rows)
    expected = np.einsum("bk,bkp->bp", np.broadcast_to(cotangents, values.shape), gradients)
    for found in run_on_threads(4, lambda ranks: value_and_vjp(circuit, observables, rows, cotangents, ranks)):
        np.testing.assert_allclose(found[0], values, atol=1e-11, rtol=0)
        np.testing.assert_allclose(found[1], expected, atol=1e-11, rtol=0)


def test_wrong_arguments_are_errors_that_name_the_cure():
    circuit = random_circuit(4, 10, seed=0)
    values = values_of(circuit)
    encoded = QuantumCircuit(4)
    encoded.compose(raw_feature_vector(4), [0, 2], inplace=True)
    encoded.cx(0, 1)
    for num_ranks, arguments, text in (
        (3, (circuit, "ZZZZ", values), "there are 3 ranks; allowed: a power of 2, such as 2"),
        (16, (circuit, "ZZZZ", values), "use at most 8 ranks"),
        (2, (circuit, "ZZZ", values), "observables"),
        (2, (circuit, "ZZZZ", values * np.nan), "nan"),
        (2, (encoded, "ZZZZ", np.ones(4)), "depends on parameters"),
        (1, (QuantumCircuit(0), SparsePauliOp(""), np.ones(0)), "the circuit has no qubits"),
    ):
        with pytest.raises(ValueError, match=text):
            run_on_threads(num_ranks, lambda ranks, given=arguments: expectation_values(*given, ranks))
    with pytest.raises(ValueError, match=r"cotangents have shape \(2,\)"):
        run_on_threads(2, lambda ranks: value_and_vjp(circuit, "ZZZZ", values, [1, 2], ranks))
    with pytest.raises(ValueError, match="device is 'auto'; allowed for ranks: 'cpu', 'cuda'"):
        run_on_threads(2, lambda ranks: expectation_values(circuit, "ZZZZ", values, ranks, device="auto"))


@pytest.mark.gpu
def test_ranks_hold_their_amplitudes_on_a_gpu():
    runtime, reason = usable_gpu()
    if runtime is None:
        pytest.skip(reason)
    circuit, observables = random_circuit(7, 40, seed=7), mixed(7, seed=6)
    values = values_of(circuit)
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, observables, values)
    for found in run_on_threads(
        2, lambda ranks: value_and_gradient(circuit, observables, values, ranks, device="cuda")
    ):
        np.testing.assert_allclose(found[0], expected[0], atol=1e-11, rtol=0)
        np.testing.assert_allclose(found[1], expected[1], atol=1e-11, rtol=0)


def different_circuit(rank):
    return efficient_su2(5, reps=2 + rank % 2), "ZZZZZ", None


def different_values(rank):
    return efficient_su2(5, reps=2), "ZZZZZ", rank


def different_rows(rank):
    return efficient_su2(5, reps=2), "ZZZZZ", np.ones((1 + rank, 30))


def different_observables(rank):
    return efficient_su2(5, reps=2), "XXXXX" if rank == 1 else "ZZZZZ", None


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize(
    "make", [different_circuit, different_values, different_rows, different_observables], ids=lambda make: make.__name__
)
def test_ranks_whose_arguments_differ_all_raise_one_error(make, num_ranks):
    def work(ranks):
        circuit, observables, values = make(ranks.rank)
        if values is None or np.ndim(values) == 0:
            values = np.linspace(0, 1, circuit.num_parameters) + (values or 0)
        with pytest.raises(ValueError, match="the ranks made different calls"):
            value_and_gradient(circuit, observables, values, ranks)
        return True

    assert run_on_threads(num_ranks, work) == [True] * num_ranks


def test_ranks_that_call_different_functions_raise_one_error():
    circuit = efficient_su2(4, reps=1)
    values = np.zeros(circuit.num_parameters)

    def work(ranks):
        with pytest.raises(ValueError, match="the ranks made different calls"):
            (value_and_gradient if ranks.rank else expectation_values)(circuit, "ZZZZ", values, ranks)

    run_on_threads(2, work)


def test_a_rank_that_ends_early_ends_the_ranks_that_wait_for_it():
    circuit = efficient_su2(4, reps=1)
    values = np.zeros(circuit.num_parameters)
    with pytest.raises(RuntimeError, match="rank 1 ended while rank 0 waited for it"):
        run_on_threads(2, lambda ranks: ranks.rank or value_and_gradient(circuit, "ZZZZ", values, ranks))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_cotangent_that_is_not_finite_is_named(bad):
    circuit = efficient_su2(4, reps=1)
    values = np.zeros((2, circuit.num_parameters))
    with pytest.raises(ValueError, match=f"the cotangent of observable 1 in row 1 is {bad}"):
        run_on_threads(2, lambda ranks: value_and_vjp(circuit, ["ZZZZ", "XXXX"], values, [[1, 1], [1, bad]], ranks))


def test_an_observable_that_sees_no_qubit_has_its_value_and_no_gradient():
    circuit = efficient_su2(4, reps=1)
    values = np.ones(circuit.num_parameters)
    observable = SparsePauliOp("IIII", 2.5)
    for found, gradients in run_on_threads(2, lambda ranks: value_and_gradient(circuit, observable, values, ranks)):
        assert found == pytest.approx(2.5) and np.abs(gradients).max() < 1e-14


@pytest.mark.parametrize("bad", [0, -1, 3, 2.0, "2", None])
def test_a_wrong_number_of_ranks_is_named(bad):
    for call in (lambda: run_on_threads(bad, len), lambda: plan_ranks(efficient_su2(4), "ZZZZ", bad)):
        with pytest.raises((TypeError, ValueError), match=f"{re.escape(str(bad))}.* allowed: .*a power of 2"):
            call()
    assert plan_ranks(efficient_su2(4), "ZZZZ", np.int64(2)).num_ranks == 2


def test_an_object_that_is_no_communicator_is_named():
    circuit = efficient_su2(4, reps=1)
    values = np.zeros(circuit.num_parameters)
    with pytest.raises(TypeError, match="communicator is a NoneType without rank, size, exchange, sum"):
        value_and_gradient(circuit, "ZZZZ", values, None)

    class Renumbered:
        rank, size, exchange, sum = 5, 2, None, None

    with pytest.raises(ValueError, match=r"communicator\.rank is 5; allowed: 0 to 1"):
        value_and_gradient(circuit, "ZZZZ", values, Renumbered())
