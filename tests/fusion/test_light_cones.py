# SPDX-License-Identifier: Apache-2.0
"""Wide circuits with many local observables: terms are simulated in groups, by their light cones."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import (
    Pauli,
    SparseObservable,
    SparsePauliOp,
    Statevector,
    random_statevector,
    random_unitary,
)
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.gradients import DerivativeType

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, FusedOptions, compile_circuit, fuse
from qiskit_fused.compilation.observables import coerce_observables
from qiskit_fused.engines.request import Request, all_pairs
from qiskit_fused.execution.evaluate import evaluate
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.fusion import light_cones


def put_apart(patch):
    """Make terms of circuits of any size be simulated apart if this is estimated to be less work."""
    for name, value in (("_MIN_QUBITS", 0), ("_FIXED", 0), ("_ROW", 0), ("_GAIN", 1.0)):
        patch.setattr(light_cones, name, value)


def brickwork(num_qubits, depth, entangle="cx"):
    circuit = QuantumCircuit(num_qubits)
    angles = iter(ParameterVector("a", num_qubits * (depth + 1)))
    for layer in range(depth):
        for qubit in range(num_qubits):
            circuit.ry(next(angles), qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            getattr(circuit, entangle)(qubit, qubit + 1)
    for qubit in range(num_qubits):
        circuit.rx(next(angles), qubit)
    return circuit


def neighbours(num_qubits, pauli="ZZ"):
    width = len(pauli)
    places = range(num_qubits - width + 1)
    return [SparsePauliOp.from_sparse_list([(pauli, range(q, q + width), 0.5 + q)], num_qubits) for q in places]


def angles_of(circuit, *shape):
    return np.random.default_rng(7).uniform(-3, 3, (*shape, circuit.num_parameters))


def values_of(circuit, observables, values, **options):
    return FusedEstimator(**options).run([(circuit, observables, values)]).result()[0].data.evs


ANGLES = ParameterVector("a", 6)


def random_circuit(seed, num_qubits):
    random = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    for _ in range(12):
        first, second, third = (int(q) for q in random.permutation(num_qubits)[:3])
        angle = 0.3 * ANGLES[random.integers(6)] + random.uniform()
        name = random.choice(["ry", "rx", "rz", "cx", "cz", "rzz", "swap", "ccx", "crx", "h", "s", "cp"])
        if name in ("ry", "rx", "rz"):
            getattr(circuit, name)(angle, first)
        elif name in ("rzz", "crx", "cp"):
            getattr(circuit, name)(angle, first, second)
        else:
            getattr(circuit, name)(
                *{"ccx": (first, second, third)}.get(name, (first, second)[: 1 + (name not in "hs")])
            )
    return circuit


def random_observables(seed, num_qubits):
    random = np.random.default_rng(seed)
    letters = np.array(list("IIIXYZ01+-rl"))
    return [
        SparseObservable.from_list(
            [
                ("".join(random.choice(letters, num_qubits)), float(random.normal()))
                for _ in range(int(random.integers(1, 4)))
            ]
        )
        for _ in range(4)
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["cpu", "reference"]))
def test_values_and_gradients_in_groups_are_those_of_all_terms_together(seed, device):
    num_qubits = 6
    circuit, observables = random_circuit(seed, num_qubits), random_observables(seed, num_qubits)
    values = np.random.default_rng(seed).uniform(-2, 2, (3, len(circuit.parameters)))
    weights = np.random.default_rng(seed).normal(size=(3, 4))
    results = []
    for apart in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if apart:
                put_apart(patch)
            compiled = compile_circuit(circuit.copy())
            evs, gradients = FusedEstimatorGradient(device=device).value_and_gradient(compiled, observables, values)
            function = Expectations(compiled, observables, (), circuit.parameters, FusedOptions(device=device))
            vjp = function.value_and_vjp(np.zeros((1, 0)), values[0], weights[:1]).weights
            results.append((evs, gradients, vjp))
    for together, apart in zip(*results):
        np.testing.assert_allclose(apart, together, atol=1e-12)
    bound = circuit.assign_parameters(values[0])
    exact = [
        Statevector(bound).expectation_value(SparsePauliOp.from_sparse_observable(observable.as_paulis())).real
        for observable in observables
    ]
    np.testing.assert_allclose(results[1][0][0], exact, atol=1e-12)


def test_neighbouring_terms_of_sixty_qubits_take_one_call():
    circuit, observables = brickwork(60, 3), neighbours(60)
    values = angles_of(circuit)
    one_by_one = [float(values_of(circuit, observable, values)) for observable in observables]
    np.testing.assert_allclose(values_of(circuit, observables, values), one_by_one, atol=1e-10)
    total = SparsePauliOp.sum(observables)
    assert values_of(circuit, total, values) == pytest.approx(sum(one_by_one), abs=1e-10)
    gradient = FusedEstimatorGradient()
    evs, gradients = gradient.value_and_gradient(circuit, observables, values)
    np.testing.assert_allclose(evs[0], one_by_one, atol=1e-10)
    for observable, actual in zip(observables[::20], gradients[0, ::20]):
        np.testing.assert_allclose(
            actual, gradient.value_and_gradient(circuit, observable, values)[1][0, 0], atol=1e-10
        )
    of_total = gradient.value_and_gradient(circuit, total, values)[1]
    np.testing.assert_allclose(of_total[0, 0], gradients[0].sum(axis=0), atol=1e-9)


@pytest.mark.parametrize("num_qubits", [66, 70, 130])
def test_more_than_64_qubits_are_simulated_where_observables_see_few(num_qubits):
    def at_the_end(of):
        return SparsePauliOp.from_sparse_list([("XZ", [of - 1, of - 2], 1.0)], of)

    circuit, small = brickwork(num_qubits, 2, "cz"), brickwork(8, 2, "cz")
    values = angles_of(circuit)
    last = np.arange(num_qubits - 8, num_qubits)
    values_of_last = values.reshape(3, -1)[:, last].ravel()
    gradient = FusedEstimatorGradient()
    actual = gradient.value_and_gradient(circuit, at_the_end(num_qubits), values)
    expected = gradient.value_and_gradient(small, at_the_end(8), values_of_last)
    np.testing.assert_allclose(actual[0], expected[0], atol=1e-12)
    gradients = actual[1].reshape(3, -1)
    np.testing.assert_allclose(gradients[:, last], expected[1].reshape(3, -1), atol=1e-12)
    assert not gradients[:, : last[0]].any()


def test_the_reference_engine_runs_the_cones_of_wide_circuits():
    circuit, observables = brickwork(80, 2), neighbours(80)[::9]
    values = angles_of(circuit)
    actual = [
        FusedEstimatorGradient(device=device).value_and_gradient(circuit, observables, values)
        for device in ("cpu", "reference")
    ]
    for ours, expected in zip(*actual):
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_what_cannot_be_split_is_refused_by_name_and_all_else_runs():
    circuit = brickwork(50, 60)
    local = SparsePauliOp.from_sparse_list([("Z", [49], 1.0)], 50)
    shallow = QuantumCircuit(50)
    shallow.compose(brickwork(40, 60), range(40), inplace=True)
    shallow.ry(0.3, range(40, 50))
    values = angles_of(shallow)
    sees_ten = SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(40, 50)], 50)
    assert values_of(shallow, sees_ten, values) == pytest.approx(10 * np.cos(0.3))
    sees_forty = SparsePauliOp.from_sparse_list([("Z", [45], 1.0), ("ZX", [45, 3], 1.0)], 50)
    for operator, name in (
        (sees_forty, "X3 Z45 of observable 1"),
        (SparsePauliOp("Z" * 50), "Z0 Z1 Z2 Z3 Z4 Z5 ... Z49"),
    ):
        with pytest.raises(MemoryError, match=name.replace(".", "[.]")) as error:
            values_of(shallow, [local, operator], values, memory_limit="1GiB")
        assert "enough for 25 qubits" in str(error.value)
        assert "use fewer qubits." in str(error.value)
    with pytest.raises(MemoryError, match="term Z49 of observable 0 alone sees 50 qubits"):
        FusedEstimatorGradient().value_and_gradient(circuit, local, angles_of(circuit))


def test_terms_that_do_not_fit_together_are_simulated_apart():
    num_qubits = 18
    circuit, angles = QuantumCircuit(num_qubits), np.linspace(0.5, 2.5, num_qubits)
    for qubit, angle in enumerate(angles):
        circuit.ry(angle, qubit)
    terms = ["X" * (num_qubits - 1 - q) + "I" + "X" * q for q in range(num_qubits)]
    operator = SparsePauliOp(terms)
    expected = sum(np.prod(np.sin(np.delete(angles, q))) for q in range(num_qubits))
    limit = int(1.3 * fuse(circuit, terms[0]).memory(gradient=False))
    assert fuse(circuit, operator).num_qubits == num_qubits
    for options, num_cones in (({}, 1), ({"memory_limit": limit}, num_qubits)):
        job = FusedEstimator(device="cpu", num_threads=1, **options).run([(circuit, operator)])
        assert job.result()[0].data.evs == pytest.approx(expected, abs=1e-12)
        assert job.metrics()["cones"] == num_cones


def test_deep_circuits_whose_observables_see_everything_are_simulated_whole():
    circuit = brickwork(14, 14)
    job = FusedEstimator().run([(circuit, neighbours(14), angles_of(circuit))])
    job.result()
    assert job.metrics()["cones"] == 1
    assert fuse(circuit, neighbours(14)).cones == ()


def test_the_printed_plan_counts_light_cones():
    circuit = brickwork(40, 2)
    plan = fuse(circuit, neighbours(40, "X"))
    assert plan is fuse(circuit, neighbours(40, "X"))
    assert plan.num_qubits == max(plan.cones) < 14
    few, many = min(plan.cones), max(plan.cones)
    text = (
        f"{len(plan.cones)} light cones of {few} to {many} qubits, one after the other; this is the plan of the largest"
    )
    assert text in str(plan)
    assert text[:40] in plan.explain()
    with pytest.raises(MemoryError, match="this needs all of 70 qubits, a statevector has at most 64; use real"):
        fuse(brickwork(70, 2))


def test_imaginary_derivatives_of_wide_circuits_are_refused_by_their_qubits():
    circuit = brickwork(70, 1)
    gradient = FusedEstimatorGradient(derivative_type=DerivativeType.IMAG)
    with pytest.raises(MemoryError, match="70 qubits"):
        gradient.value_and_gradient(circuit, neighbours(70)[3], angles_of(circuit))


def test_qaoa_of_one_and_two_layers_agrees_term_by_term():
    num_qubits = 60
    edges = [(q, (q + 1) % num_qubits) for q in range(num_qubits)] + [(q, q + 30) for q in range(30)]
    for layers in (1, 2):
        circuit, angles = QuantumCircuit(num_qubits), ParameterVector("a", 2 * layers)
        circuit.h(range(num_qubits))
        for layer in range(layers):
            for first, second in edges:
                circuit.cx(first, second)
                circuit.rz(angles[2 * layer], second)
                circuit.cx(first, second)
            circuit.rx(angles[2 * layer + 1], range(num_qubits))
        terms = [SparsePauliOp.from_sparse_list([("ZZ", edge, 1.0)], num_qubits) for edge in edges]
        gradient = FusedEstimatorGradient()
        evs, gradients = gradient.value_and_gradient(circuit, SparsePauliOp.sum(terms), angles_of(circuit))
        each, of_each = gradient.value_and_gradient(circuit, terms, angles_of(circuit))
        one, of_one = gradient.value_and_gradient(circuit, terms[-1], angles_of(circuit))
        np.testing.assert_allclose(evs[0, 0], each.sum(), atol=1e-11)
        np.testing.assert_allclose(gradients[0, 0], of_each[0].sum(axis=0), atol=1e-11)
        np.testing.assert_allclose(each[0, -1], one[0, 0], atol=1e-13)
        np.testing.assert_allclose(of_each[0, -1], of_one[0, 0], atol=1e-13)


def test_networks_jobs_and_gradients_of_lists_run_in_cones():
    circuit, observables = brickwork(40, 2), neighbours(40)[::3]
    parameters = list(circuit.parameters)
    inputs, weights = parameters[:10], parameters[10:]
    values = angles_of(circuit, 3)
    values[:, 10:] = values[0, 10:]
    evs, gradients = FusedEstimatorGradient().value_and_gradient(circuit, observables, values)
    cotangents = np.random.default_rng(3).normal(size=evs.shape)
    expected = np.einsum("bk,bkp->bp", cotangents, gradients)
    steps = []
    for executor in (None, ThreadPoolExecutor(2)):
        qnn = FusedEstimatorQNN(
            circuit=circuit,
            observables=observables,
            input_params=inputs,
            weight_params=weights,
            input_gradients=True,
            executor=executor,
            progress=lambda done, total: steps.append(done / total),
        )
        actual, of_inputs, of_weights = qnn.value_and_vjp(values[:, :10], values[0, 10:], cotangents)
        np.testing.assert_allclose(actual, evs, atol=1e-11)
        np.testing.assert_allclose(of_inputs, expected[:, :10], atol=1e-10)
        np.testing.assert_allclose(of_weights, expected[:, 10:].sum(axis=0), atol=1e-10)
        np.testing.assert_allclose(qnn.backward(values[:, :10], values[0, 10:])[1], gradients[:, :, 10:], atol=1e-10)
    assert steps[-1] == 1.0
    assert all(0.0 <= step <= 1.0 for step in steps)
    # The job evaluates observable k in row k only.
    job = FusedEstimatorGradient().run([circuit] * 3, observables[:3], values)
    for k, actual in enumerate(job.result().gradients):
        np.testing.assert_allclose(actual, gradients[k, k], atol=1e-11)
    assert job.metrics()["pairs"] == 3


def test_constants_and_terms_on_idle_qubits_cost_nothing():
    circuit = QuantumCircuit(90)
    circuit.compose(brickwork(30, 2), range(30), inplace=True)
    terms = [("ZZ", [q, q + 1], 1.0) for q in range(29)] + [("", [], 5.0), ("Z", [70], 2.0), ("X", [71], 3.0)]
    operator = SparsePauliOp.from_sparse_list(terms, 90)
    values = angles_of(circuit)
    active = SparsePauliOp.from_sparse_list(terms[:29], 90)
    expected = float(values_of(circuit, active, values)) + 7.0
    assert values_of(circuit, operator, values) == pytest.approx(expected, abs=1e-12)
    each = [SparsePauliOp.from_sparse_list([term], 90) for term in terms]
    actual = values_of(circuit, each, values)
    np.testing.assert_allclose(actual[-3:], [5.0, 2.0, 0.0], atol=1e-12)
    assert actual.sum() == pytest.approx(expected, abs=1e-12)


def test_results_of_all_cones_count_beside_the_states_of_a_block_of_rows():
    circuit, observables = brickwork(40, 2), neighbours(40)
    values = angles_of(circuit, 100)
    num_bytes = 8 * len(values) * len(observables) * (1 + circuit.num_parameters)
    whole = FusedEstimatorGradient(memory_limit=2 * num_bytes).value_and_gradient(circuit, observables, values)
    cut = FusedEstimatorGradient(memory_limit=num_bytes).value_and_gradient(circuit, observables, values)
    np.testing.assert_allclose(cut[1], whole[1], atol=1e-13)
    of_row = num_bytes // 100
    with pytest.raises(MemoryError, match=r"take 36\.9 KiB, memory_limit is 36\.9 KiB; ask for fewer"):
        FusedEstimatorGradient(memory_limit=of_row).value_and_gradient(circuit, observables, values)


def test_blocks_scattered_over_a_wide_circuit_have_the_values_of_each_block():
    random = np.random.default_rng(11)
    blocks = [random_circuit(seed, 5) for seed in range(16)]
    for block in blocks[::3]:  # add a ladder that becomes a term, and a dense gate
        block.cx(0, 1)
        block.cx(1, 4)
        block.rz(0.7, 4)
        block.cx(1, 4)
        block.cx(0, 1)
        block.append(random_unitary(4, seed=3).to_instruction(), [4, 2])
    start = QuantumCircuit(5)
    start.initialize(random_statevector(4, seed=5).data, [3, 0])
    blocks[1] = start.compose(blocks[1])
    circuit, places = QuantumCircuit(83), random.permutation(83)[:80].reshape(16, 5)
    for block, place in zip(blocks, places.tolist()):
        circuit.compose(block, place, inplace=True)
    values = dict(zip(circuit.parameters, random.uniform(-2, 2, circuit.num_parameters)))
    states = [Statevector(block.assign_parameters({p: values[p] for p in block.parameters})) for block in blocks]
    terms, expected = [], 0.0
    for first in range(16):
        value, pairs = 1.0, []
        for number in (first, (first + 5) % 16):
            label = "".join(random.choice(list("IXYZ"), 5))
            value *= states[number].expectation_value(Pauli(label)).real
            pairs += zip(label[::-1], places[number].tolist())
        terms.append(("".join(letter for letter, _ in pairs), [place for _, place in pairs], 1.0 + first))
        expected += (1.0 + first) * value
    operator = SparsePauliOp.from_sparse_list(terms, 83)
    array = np.array([values[p] for p in circuit.parameters])
    assert values_of(circuit, operator, array) == pytest.approx(expected, abs=1e-10)
    evs, gradients = FusedEstimatorGradient().value_and_gradient(circuit, operator, array)
    assert evs[0, 0] == pytest.approx(expected, abs=1e-10)
    step = 1e-5 * np.eye(len(array))
    differences = (values_of(circuit, operator, array + step) - values_of(circuit, operator, array - step)) / 2e-5
    np.testing.assert_allclose(gradients[0, 0], differences, atol=1e-6)


def test_encoded_and_prepared_starts_of_wide_circuits_count_where_they_are_seen():
    circuit = QuantumCircuit(70)
    circuit.compose(raw_feature_vector(4), [3, 9], inplace=True)
    circuit.initialize([0.6, 0.8j], 20)
    circuit.compose(brickwork(70, 2), inplace=True)
    observables = [SparsePauliOp.from_sparse_list([("ZX", [q, q + 1], 1.0)], 70) for q in (2, 9, 19, 60)]
    values = angles_of(circuit, 2)
    evs, gradients = FusedEstimatorGradient().value_and_gradient(circuit, observables, values)
    expected = FusedEstimatorGradient(device="reference").value_and_gradient(circuit, observables, values)
    np.testing.assert_allclose(evs, expected[0], atol=1e-12)
    np.testing.assert_allclose(gradients, expected[1], atol=1e-12)
    encoded = [number for number, parameter in enumerate(circuit.parameters) if parameter.name.startswith("x")]
    assert np.abs(gradients[:, :2, encoded]).min() > 1e-6
    assert not gradients[:, 2:, encoded].any()
    assert [fuse(circuit, one).takes_states for one in observables] == [True, True, False, False]
    assert not fuse(circuit, observables[2]).starts_at_zero


def test_work_in_cones_tells_its_progress_and_ends_between_them():
    circuit, observables = brickwork(60, 2), neighbours(60)
    operators, values = coerce_observables(observables).operators, angles_of(circuit, 1)
    compiled, told = compile_circuit(circuit), []

    def ask(stop_after):
        told.clear()
        evaluate(
            FusedOptions(),
            compiled,
            operators,
            Request(values, all_pairs(1, len(observables))),
            watch=lambda done, total: told.append(done / total) or len(told) >= stop_after,
        )

    ask(1000)
    assert len(told) >= 5
    assert told == sorted(told)
    assert 0 < told[0] < told[-1] < 1
    with pytest.raises(RuntimeError, match="cancelled"):
        ask(3)
    assert len(told) == 3
