# SPDX-License-Identifier: Apache-2.0
"""Bound circuits that differ only in their numbers are compiled once and run as one batch, each with its own result."""

import time

import numpy as np
import pytest
from qiskit.circuit import Clbit, Gate, Parameter, QuantumCircuit, Qubit
from qiskit.circuit import library as lib
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping
from qiskit.circuit.random import random_circuit
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import FusedEstimator, compile_circuit
from qiskit_fused.common.caches import release_memory
from qiskit_fused.compilation import templates
from qiskit_fused.compilation.templates import find_template


def bound(seed, num_qubits=3):
    circuit = lib.real_amplitudes(num_qubits, reps=2)
    return circuit.assign_parameters(np.random.default_rng(seed).uniform(-3, 3, circuit.num_parameters))


def nested(num_qubits):
    inner = lib.real_amplitudes(num_qubits, reps=1, insert_barriers=True)
    outer = QuantumCircuit(num_qubits)
    outer.append(inner.to_instruction(), range(num_qubits)[::-1])
    outer.h(0)
    again = QuantumCircuit(num_qubits)
    again.append(outer.to_instruction(), range(num_qubits))
    again.barrier()
    again.rz(inner.parameters[0], 1)
    return again


def assert_like_qiskit(pubs):
    found = FusedEstimator(num_threads=1).run(pubs).result()
    for mine, theirs in zip(found, StatevectorEstimator().run(pubs).result(), strict=True):
        np.testing.assert_allclose(mine.data.evs, theirs.data.evs, atol=1e-12)
        assert mine.data.evs.shape == theirs.data.evs.shape
    return found


def test_circuits_that_differ_in_numbers_share_a_template():
    (first, numbers), (second, others) = find_template(bound(1)), find_template(bound(2))
    assert first is second
    np.testing.assert_array_equal(numbers, np.random.default_rng(1).uniform(-3, 3, 9))
    assert not np.array_equal(numbers, others)


def test_measurements_at_the_end_are_no_part_of_a_template():
    plain, measured, apart = bound(1), bound(2), bound(3)
    measured.measure_all()
    apart.add_bits([Clbit()])
    apart.measure(1, 0)
    assert find_template(plain)[0] is find_template(measured)[0] is find_template(apart)[0]
    assert_like_qiskit([(plain, "ZZX"), (plain.copy(), "IYZ")])
    apart.rz(0.3, 0)  # on another qubit
    assert find_template(apart) is not None
    apart.rz(0.3, 1)
    assert find_template(apart) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda circuit: circuit.x(0),
        lambda circuit: circuit.data.__setitem__(0, circuit.data[0].replace(qubits=circuit.qubits[1:2])),
        lambda circuit: circuit.data.__setitem__(0, circuit.data[0].replace(operation=lib.RXGate(0.3))),
        lambda circuit: circuit.add_bits([Qubit()]),
        lambda circuit: circuit.data.pop(),
    ],
    ids=["longer", "other qubits", "other gate", "more qubits", "shorter"],
)
def test_another_structure_is_another_template(change):
    circuit = bound(1)
    template, _ = find_template(circuit)
    change(circuit)
    assert find_template(circuit)[0] is not template


@pytest.mark.parametrize("name", sorted(get_standard_gate_name_mapping()))
def test_every_standard_gate_gives_its_values(name):
    gate = get_standard_gate_name_mapping()[name]
    if not isinstance(gate, Gate) or name == "delay":
        pytest.skip("no gate")
    pubs = []
    for seed in range(2):
        numbers = np.random.default_rng(seed).uniform(-3, 3, len(gate.params)).tolist()
        circuit = QuantumCircuit(5)
        for qubit in range(5):
            circuit.ry(0.4 + qubit, qubit)
        circuit.append(gate.base_class(*numbers), range(gate.num_qubits)[::-1])
        for qubit in range(5):
            circuit.rx(0.7 - qubit, qubit)
        pubs.append((circuit, ["ZZZZZ", "XIYZI", "IYXIX"]))
    assert_like_qiskit(pubs)


def test_random_circuits_in_one_list_give_their_values():
    pubs = []
    for seed in range(40):
        num_qubits = 1 + seed % 4
        circuit = random_circuit(num_qubits, 4, max_operands=min(num_qubits, 3), seed=seed)
        pubs.append((circuit, ["XYZI"[:num_qubits], "ZZXY"[:num_qubits]]))
    assert_like_qiskit(pubs + pubs[::-1])


def test_a_list_of_bound_circuits_is_one_batch():
    observables = [SparsePauliOp(["ZZI", "IXX"], [0.5, seed]) for seed in range(5)]
    pubs = [(bound(seed), observables[seed % 5]) for seed in range(20)]
    assert_like_qiskit(pubs)
    metrics = FusedEstimator(device="cpu").run(pubs).metrics()
    assert metrics["rows"] == 20
    assert metrics["pairs"] == 20


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [lib.ZZFeatureMap, lib.RealAmplitudes, nested], ids=["features", "ansatz", "nested"])
def test_gates_that_circuits_were_turned_into_are_rows_of_a_template_too(make):
    pubs = []
    for seed in range(3):
        circuit = make(3)
        values = np.random.default_rng(seed).uniform(-3, 3, circuit.num_parameters)
        pubs.append((circuit.assign_parameters(values), ["ZZI", "XYX"]))
        assert find_template(pubs[-1][0])[0] is find_template(pubs[0][0])[0]
    assert_like_qiskit(pubs)


def test_qubits_of_a_gate_that_it_leaves_alone_count():
    pubs = []
    for qubits in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        inner = QuantumCircuit(3, global_phase=0.3)
        inner.rx(0.4, 0)
        inner.barrier()
        circuit = QuantumCircuit(3)
        circuit.append(inner.to_instruction(), qubits)
        pubs.append((circuit, ["ZII", "IZI", "IIZ"]))
    assert_like_qiskit(pubs)


def test_shapes_of_observables_and_of_rows_without_values_are_kept():
    circuit = bound(3)
    pubs = [(circuit, [["ZZI"], ["XIX"]]), (circuit, ["ZZI", "XIX"], np.zeros((3, 1, 0))), (circuit, "ZZI")]
    found = FusedEstimator().run(pubs).result()
    assert [one.data.evs.shape for one in found] == [(2, 1), (3, 2), ()]
    assert_like_qiskit([pubs[0], pubs[2]])


def test_a_circuit_that_is_changed_gives_what_it_is_at_run():
    circuit = bound(4)
    estimator = FusedEstimator()
    for angle in (0.2, 0.9):
        circuit.data[0] = circuit.data[0].replace(operation=lib.RYGate(angle))
        assert_like_qiskit([(circuit, "ZZI")])
    job = estimator.run([(circuit, "ZZI")])
    expected = StatevectorEstimator().run([(circuit, "ZZI")]).result()[0].data.evs
    circuit.x(0)
    np.testing.assert_allclose(job.result()[0].data.evs, expected, atol=1e-12)


def test_the_same_circuit_gives_the_same_bits_whatever_ran_before():
    circuit = bound(5)
    first = FusedEstimator().run([(circuit, "ZZI")]).result()[0].data.evs
    FusedEstimator().run([(bound(seed), "ZZI") for seed in range(5)]).result()
    assert FusedEstimator().run([(circuit.copy(), "ZZI")]).result()[0].data.evs == first
    release_memory()
    assert FusedEstimator().run([(circuit, "ZZI")]).result()[0].data.evs == first


@pytest.mark.parametrize("angle", [np.nan, np.inf])
def test_an_angle_that_is_no_number_is_an_error_that_names_the_gate(angle):
    circuit = QuantumCircuit(1)
    circuit.rx(angle, 0)
    with pytest.raises(ValueError, match="instruction 0, 'rx'"):
        FusedEstimator().run([(circuit, "Z")]).result()


def test_what_is_no_list_of_standard_gates_has_no_template():
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("a"), 0)
    assert find_template(circuit) is None
    for operation in (lib.UnitaryGate(np.eye(2)), lib.CXGate(ctrl_state=0), lib.PauliGate("X")):
        circuit = QuantumCircuit(2)
        circuit.append(operation, range(operation.num_qubits))
        assert find_template(circuit) is None
    assert find_template("circuit") is None


@pytest.mark.parametrize("num_qubits", [10, 11, 16, 70])
def test_a_circuit_of_any_number_of_qubits_has_a_template(num_qubits):
    circuits = [bound(seed, num_qubits) for seed in (1, 2)]
    first, second = map(find_template, circuits)
    assert first[0] is second[0]
    observable = SparsePauliOp.from_sparse_list([("ZX", [num_qubits - 1, num_qubits - 2], 1.0)], num_qubits)
    found = [FusedEstimator().run([(circuit, observable)]).result()[0].data.evs for circuit in circuits]
    wanted = [
        FusedEstimator().run([(compile_circuit(circuit), observable)]).result()[0].data.evs for circuit in circuits
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_circuit_too_long_for_the_cache_has_no_template(monkeypatch):
    assert find_template(bound(1)) is not None
    monkeypatch.setattr(templates, "MAX_ENTRIES", 20)
    assert find_template(bound(1)) is None


def test_a_circuit_bound_before_each_run_takes_less_time_than_with_qiskit():
    def seconds(estimator):
        start = time.process_time()
        for circuit in circuits:
            estimator.run([(circuit, "ZZI")]).result()
        return time.process_time() - start

    circuits = [bound(seed) for seed in range(30)]
    fused, qiskit = FusedEstimator(num_threads=1), StatevectorEstimator()
    ratio = min(seconds(fused) / seconds(qiskit) for _ in range(3))
    assert ratio < 0.8
