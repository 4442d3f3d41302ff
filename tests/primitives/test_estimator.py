# SPDX-License-Identifier: Apache-2.0
"""FusedEstimator gives the results of StatevectorEstimator: PUBs, caching, precision, fallback and errors."""

import gc
import re
import warnings

import numpy as np
import pytest
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.circuit.library import DiagonalGate, PauliEvolutionGate, UnitaryGate, real_amplitudes, zz_feature_map
from qiskit.primitives import PrimitiveResult, PubResult, StatevectorEstimator
from qiskit.primitives.containers.bindings_array import BindingsArray
from qiskit.primitives.containers.estimator_pub import EstimatorPub
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp, Statevector

from qiskit_fused import FusedEstimator, UnsupportedInstruction, compile_circuit, fuse
from qiskit_fused.compilation.circuits import COMPILED, CompileCache, CompiledCircuit

TOLERANCE = {"complex128": 1e-12, "complex64": 2e-6}


@pytest.fixture
def estimator(device):
    return FusedEstimator(device=device)


@pytest.fixture
def circuit():
    return zz_feature_map(3, reps=1).compose(real_amplitudes(3, reps=1, parameter_prefix="w"))


def rows(circuit, *shape, seed=0):
    return np.random.default_rng(seed).normal(size=(*shape, circuit.num_parameters))


def same(estimator, pubs, atol=1e-12, **keywords):
    """Assert that an estimator gives the results of StatevectorEstimator, and return its result."""
    ours, theirs = estimator.run(pubs, **keywords).result(), StatevectorEstimator().run(pubs).result()
    assert isinstance(ours, PrimitiveResult) and len(ours) == len(theirs) and ours.metadata == theirs.metadata
    for our, their in zip(ours, theirs):
        assert isinstance(our, PubResult)
        assert (our.data.shape, list(our.data.keys())) == (their.data.shape, list(their.data.keys()))
        for mine, original in ((our.data.evs, their.data.evs), (our.data.stds, their.data.stds)):
            assert isinstance(mine, np.ndarray) and mine.dtype == np.float64
            np.testing.assert_allclose(mine, original, atol=atol)
    return ours


# --- values and shapes ---


@pytest.mark.parametrize("seed", range(3))
def test_values_match_in_every_dtype(device, dtype, circuit, seed):
    op = SparsePauliOp(["XYZ", "ZZI", "IIY", "III"], [0.3, -1.2, 0.5, 2.0])
    same(FusedEstimator(device=device, dtype=dtype), [(circuit, op, rows(circuit, 4, seed=seed))], TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("observables", "values"),
    [
        ((), ()),
        ((), (4,)),
        ((3,), ()),
        ((3, 1), (4,)),
        ((2,), (2,)),
        ((2, 3), (4, 1, 1)),
        ((1, 1), (2, 2)),
        ((0,), (1,)),
    ],
)
def test_observables_and_values_broadcast(estimator, circuit, observables, values):
    letters = iter(["ZII", "XXI", "IYZ", "ZZZ", "XIX", "YYY"])
    if observables == ():
        array = next(letters)
    else:
        array = np.array([next(letters) for _ in range(int(np.prod(observables)))], dtype=object)
        array = array.reshape(observables)
    pub = (circuit, array, rows(circuit, *values))
    if 0 in observables:
        assert estimator.run([pub]).result()[0].data.evs.shape == (0,)
    else:
        same(estimator, [pub])


@pytest.mark.parametrize(
    "observable",
    [
        "XYZ",
        Pauli("-ZIX"),
        SparsePauliOp(["XXX", "IIZ"], [1, 2]),
        {"XXX": 1.0, "IIZ": 2.0},
        {Pauli("-IIZ"): 2.0},
        SparseObservable.from_list([("XXX", 0.5), ("III", 1)]),
        ObservablesArray(["XXX", "ZZZ"]),
        PauliList(["XXI", "ZIZ"]),
        [["XXX"], [Pauli("YYI")]],
    ],
    ids=lambda o: type(o).__name__,
)
def test_every_type_of_observable_is_taken(estimator, circuit, observable):
    same(estimator, [(circuit, observable, rows(circuit))])


@pytest.mark.parametrize("label", ["1Z", "+X", "-Z", "0r", "l1", "+-", "rl", "01"])
def test_projector_letters_are_projectors(estimator, label):
    circuit = real_amplitudes(2, reps=2)
    circuit.s(0)
    values = rows(circuit)
    state = Statevector(circuit.assign_parameters(values))
    exact = state.expectation_value(SparsePauliOp.from_sparse_observable(SparseObservable(label))).real
    for observable in (label, SparseObservable(label), {label: 1.0}):
        evs = estimator.run([(circuit, observable, values)]).result()[0].data.evs
        np.testing.assert_allclose(evs, exact, atol=1e-12)


def test_every_form_of_values_is_taken(estimator, circuit):
    names = [parameter.name for parameter in circuit.parameters]
    values = rows(circuit, 3)
    for form in (
        values.tolist(),
        values.astype(np.float32).astype(float),
        BindingsArray({tuple(names): values}),
        dict(zip(circuit.parameters, values.T)),
        {tuple(names[::-1]): values[:, ::-1]},
    ):
        same(estimator, [(circuit, "ZZZ", form)])
    same(estimator, [EstimatorPub.coerce((circuit, "ZZZ", values))])


@pytest.mark.parametrize("values", [0.3, [0.3], [0.1, 0.2, 0.3], [[0.1], [0.2]]], ids=str)
def test_a_single_parameter_may_drop_its_axis(estimator, values):
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    same(estimator, [(circuit, "Z", values)])


@pytest.mark.parametrize("pub", [(), ([],), (np.array([]),), (None,)], ids=str)
def test_circuits_without_parameters_run(estimator, pub):
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    same(estimator, [(circuit, ["ZZ", "XX"], *pub)])


def test_shared_parameters_and_expressions(estimator):
    a, b = Parameter("a"), Parameter("b")
    circuit = QuantumCircuit(2)
    circuit.rx(a, 0)
    circuit.ry(2 * a + b, 1)
    circuit.cx(0, 1)
    circuit.rz(a * b, 1)
    circuit.rxx(a.sin() - b, 0, 1)
    same(estimator, [(circuit, ["XZ", "YI", "IZ"], [0.3, -0.8])])


def test_pubs_may_be_a_generator_and_none(estimator, circuit):
    values = rows(circuit)
    result = estimator.run((circuit, label, values) for label in ("ZII", "IZI")).result()
    assert len(result) == 2
    assert len(estimator.run([]).result()) == 0


def test_metadata_is_equal_to_qiskits(estimator, circuit):
    circuit.metadata = {"mine": 1}
    job = estimator.run([(circuit, "ZZZ", rows(circuit)), (circuit, "ZZZ", rows(circuit), 0.25)], precision=0.5)
    assert [pub.metadata for pub in job.result()] == [
        {"target_precision": 0.5, "circuit_metadata": {"mine": 1}},
        {"target_precision": 0.25, "circuit_metadata": {"mine": 1}},
    ]


def test_final_measurements_are_dropped(estimator, circuit):
    values = rows(circuit)
    expected = estimator.run([(circuit, "ZZZ", values)]).result()[0].data.evs
    circuit.measure_all()
    np.testing.assert_array_equal(estimator.run([(circuit, "ZZZ", values)]).result()[0].data.evs, expected)


def test_a_transpiled_circuit_on_a_wide_device_runs(estimator):
    circuit = real_amplitudes(3, reps=1)
    op = SparsePauliOp(["ZZI", "XIX", "IIY"], [1.0, 0.5, -0.3])
    line = [[i, i + 1] for i in range(59)] + [[i + 1, i] for i in range(59)]
    isa = transpile(
        circuit, coupling_map=line, basis_gates=["rz", "sx", "cx"], initial_layout=[30, 41, 35], seed_transpiler=1
    )
    assert isa.num_qubits == 60
    values = rows(circuit)
    evs = estimator.run([(isa, op.apply_layout(isa.layout), values)]).result()[0].data.evs
    np.testing.assert_allclose(
        evs, StatevectorEstimator().run([(circuit, op, values)]).result()[0].data.evs, atol=1e-10
    )


# --- coalescing ---


def test_pubs_of_one_circuit_and_values_share_rows(estimator, circuit):
    values = rows(circuit, 5)
    pubs = [(circuit, label, values) for label in ("ZII", "IZI", "IIZ")]
    job = estimator.run(pubs)
    same(estimator, pubs)
    assert (job.metrics()["rows"], job.metrics()["pairs"]) == (5, 15)


def test_pubs_of_one_circuit_are_one_batch_in_any_order_of_pubs(estimator, circuit):
    first, second = rows(circuit, 2, 2), rows(circuit, 3, seed=1)
    other = real_amplitudes(3, reps=1)
    pubs = [
        (circuit, [["ZII"], ["IXI"]], first),
        (other, "ZZZ", rows(other, 2)),
        (circuit, ["XYZ", "ZII", "YII"], second),
        (circuit, SparsePauliOp("IXI"), first),
        (circuit, "ZZI", rows(circuit)),
    ]
    same(estimator, pubs)


def test_a_pair_in_two_pubs_is_computed_once(estimator, circuit):
    values, op = rows(circuit, 3), SparsePauliOp("ZZZ")
    job = estimator.run([(circuit, op, values), (circuit, op, values)])
    assert job.metrics()["pairs"] == 3
    np.testing.assert_array_equal(job.result()[0].data.evs, job.result()[1].data.evs)


# --- caching and mutation ---


def test_a_circuit_compiles_once_and_a_change_is_noticed(estimator):
    a = Parameter("a")
    circuit = QuantumCircuit(2)
    circuit.ry(a, 0)
    compiled = COMPILED.get(circuit)
    assert COMPILED.get(circuit) is compiled
    same(estimator, [(circuit, "ZZ", [0.3])])
    circuit.cx(0, 1)
    assert COMPILED.get(circuit) is not compiled
    same(estimator, [(circuit, "ZZ", [0.3])])
    circuit.data[0] = circuit.data[0].replace(qubits=[circuit.qubits[1]])
    same(estimator, [(circuit, "ZZ", [0.3])])
    circuit.assign_parameters({a: 0.5}, inplace=True)
    same(estimator, [(circuit, "ZZ")])


@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")  # Qiskit's exponential of an operator
def test_a_change_inside_an_instruction_is_noticed(estimator):
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.append(PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"]), Parameter("t")), [0, 1])
    circuit.append(DiagonalGate([1, 1, 1, -1]), [0, 1])
    first = same(estimator, [(circuit, ["ZX", "YZ", "XX"], [0.4])])
    circuit.data[2].operation.operator = SparsePauliOp(["XY", "ZI"])
    second = same(estimator, [(circuit, ["ZX", "YZ", "XX"], [0.4])])
    circuit.data[3].operation.params[1] = -1
    third = same(estimator, [(circuit, ["ZX", "YZ", "XX"], [0.4])])
    for before, after in ((first, second), (second, third)):
        assert np.abs(before[0].data.evs - after[0].data.evs).max() > 1e-3


def test_a_change_inside_a_nested_definition_is_noticed(estimator):
    inner = QuantumCircuit(1, name="inner")
    inner.rx(0.4, 0)
    circuit = QuantumCircuit(1)
    circuit.append(inner.to_gate(), [0])
    same(estimator, [(circuit, "Z")])
    circuit.data[0].operation.definition.rx(0.5, 0)
    assert same(estimator, [(circuit, "Z")])[0].data.evs == pytest.approx(np.cos(0.9))


def test_a_replaced_matrix_is_noticed(estimator):
    circuit = QuantumCircuit(1)
    circuit.append(UnitaryGate(np.eye(2)), [0])
    same(estimator, [(circuit, "Z")])
    circuit.data[0] = circuit.data[0].replace(operation=UnitaryGate([[0, 1], [1, 0]]))
    assert same(estimator, [(circuit, "Z")])[0].data.evs == -1.0


def test_circuits_that_look_alike_are_kept_apart(estimator):
    circuits = []
    for gates in (("x", "y"), ("y", "x")):
        x, y = Parameter("p"), Parameter("q")
        by_name = {"x": x, "y": y}
        circuit = QuantumCircuit(1)
        circuit.rx(by_name[gates[0]], 0)
        circuit.ry(by_name[gates[1]], 0)
        circuits.append(circuit)
    same(estimator, [(circuit, "Z", [0.3, 1.1]) for circuit in circuits] * 2)
    same(estimator, [(circuit, "X", [0.3, 1.1]) for circuit in circuits])


def test_a_new_circuit_with_the_id_of_a_deleted_circuit_is_compiled(estimator):
    for turns in range(1, 30):
        circuit = QuantumCircuit(1)
        circuit.rx(0.1 * turns, 0)
        evs = estimator.run([(circuit, "Z")]).result()[0].data.evs
        np.testing.assert_allclose(evs, np.cos(0.1 * turns), atol=1e-12)
        del circuit


@pytest.mark.parametrize("kind", ["sparse_pauli_op", "mapping", "sparse_observable", "list", "array", "pauli"])
def test_a_change_of_an_observable_is_noticed(estimator, circuit, kind):
    def change(observable):
        if kind == "mapping":
            observable["ZZZ"] = 3.0
        elif kind == "list":
            observable[0] = "XXX"
        elif kind == "array":
            observable.slice((0,)).coeffs[0] = 3.0
        elif kind == "pauli":
            observable[0] = "X"
        else:
            observable.coeffs[0] = 3.0

    observable = {
        "sparse_pauli_op": SparsePauliOp(["ZZZ", "XII"]),
        "mapping": {"ZZZ": 1.0},
        "sparse_observable": SparseObservable("ZZZ"),
        "list": ["ZZZ", "IIX"],
        "array": ObservablesArray(["ZZZ"]),
        "pauli": Pauli("ZZZ"),
    }[kind]
    values = rows(circuit)
    first = same(estimator, [(circuit, observable, values)])[0].data.evs
    change(observable)
    second = same(estimator, [(circuit, observable, values)])[0].data.evs
    assert np.abs(first - second).max() > 1e-3


def test_the_compile_cache_is_bounded():
    circuits = [real_amplitudes(2, reps=1) for _ in range(20)]
    cache = CompileCache(max_bytes=8 * (CompiledCircuit(circuits[0]).num_bytes + 1000))
    for circuit in circuits:
        cache.get(circuit)
    assert 6 <= len(cache) <= 9
    big = real_amplitudes(8, reps=50)
    assert cache.get(big) is cache.get(big)
    assert 1 <= len(cache) <= 6
    del big, circuit, circuits
    gc.collect()
    cache.get(real_amplitudes(2, reps=1))
    assert len(cache) == 1


# --- precision ---


@pytest.mark.parametrize("seed", [15, "generator"])
def test_emulated_precision_reproduces_statevector_estimator(estimator, circuit, seed):
    pubs = [
        (circuit, [["ZZZ"], ["XII"]], rows(circuit, 3)),
        (circuit, "ZZZ", rows(circuit), 0.5),
        (circuit, "IIZ", rows(circuit), 0.0),
        (real_amplitudes(2, reps=1), "ZZ", np.zeros(4)),
    ]

    def make_seed():
        return np.random.default_rng(3) if seed == "generator" else seed

    theirs = StatevectorEstimator(default_precision=0.1, seed=make_seed()).run(pubs).result()
    ours = FusedEstimator(default_precision=0.1, seed=make_seed(), device=estimator.options.device).run(pubs).result()
    for our, their in zip(ours, theirs):
        np.testing.assert_allclose(our.data.evs, their.data.evs, atol=1e-12, rtol=0)
        assert our.metadata == their.metadata
        assert not our.data.stds.any()


def test_a_precision_of_a_call_adds_no_noise_to_exact_values(estimator, circuit):
    pub = (circuit, "ZZZ", rows(circuit, 3))
    result = same(estimator, [pub], precision=0.5)
    assert result[0].metadata["target_precision"] == 0.5


def test_precision_modes(device, circuit):
    pub = (circuit, "ZZZ", rows(circuit, 3))
    exact = FusedEstimator(device=device).run([pub]).result()[0].data.evs
    noisy = (
        FusedEstimator(device=device, precision_mode="emulate", seed=1).run([pub], precision=0.5).result()[0].data.evs
    )
    np.testing.assert_array_equal(noisy, np.random.default_rng(1).normal(exact, 0.5))
    quiet = FusedEstimator(device=device, precision_mode="exact", default_precision=0.5)
    np.testing.assert_array_equal(quiet.run([pub]).result()[0].data.evs, exact)
    assert (quiet.default_precision, quiet.seed) == (0.5, None)


class ShotsExecutor:
    """Changes an estimator as the Executor of sQUlearn does: it computes shots from the precision, and sets both."""

    def __init__(self, estimator):
        precision = getattr(estimator.options, "default_precision", None)
        self.shots = round(1 / precision**2) if precision else 1024
        self.estimator = estimator
        estimator.options.default_precision = 1 / self.shots**0.5

    def run(self, pubs):
        return self.estimator.run(pubs, precision=1 / self.shots**0.5).result()


def test_software_that_sets_a_precision_adds_no_noise_to_exact_values(device, circuit):
    pub = (circuit, ["ZZZ", "XII"], np.zeros((4, 1, circuit.num_parameters)))
    expected = FusedEstimator(device=device).run([pub]).result()[0].data.evs
    result = ShotsExecutor(FusedEstimator(device=device)).run([pub])[0]
    np.testing.assert_array_equal(result.data.evs, expected)
    assert result.metadata["target_precision"] == 1 / 32
    noisy = ShotsExecutor(FusedEstimator(device=device, default_precision=0.1, seed=4)).run([pub])[0].data.evs
    np.testing.assert_allclose(noisy, np.random.default_rng(4).normal(expected, 0.1), rtol=0, atol=1e-12)


# --- fallback ---


def entangled_reset():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.reset(0)
    circuit.ry(Parameter("a"), 0)
    return circuit


def test_circuits_that_no_sweep_can_run_fall_back_with_one_warning(device):
    circuit = entangled_reset()
    pubs = [(circuit, ["ZZ", "IX"], [0.3]), (circuit, "IZ", [[0.1], [0.2]])]
    with pytest.warns(UserWarning, match="reset.*StatevectorEstimator") as record:
        job = FusedEstimator(device=device, seed=5).run(pubs)
    assert len(record) == 1
    assert job.metrics()["fallback"] == 2
    for our, their in zip(job.result(), StatevectorEstimator(seed=5).run(pubs).result()):
        np.testing.assert_array_equal(our.data.evs, their.data.evs)
        assert our.metadata == their.metadata


def test_a_fallback_meets_a_precision_exactly_too(device):
    with pytest.warns(UserWarning, match="reset"):
        job = FusedEstimator(device=device, seed=5).run([(entangled_reset(), "ZI", [0.3])], precision=0.5)
    np.testing.assert_allclose(abs(job.result()[0].data.evs), 1.0, atol=1e-12)
    assert job.result()[0].metadata["target_precision"] == 0.5


def test_a_fallback_understands_projectors(device):
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.reset([0, 1])
    with pytest.warns(UserWarning, match="reset"):
        job = FusedEstimator(device=device).run([(circuit, ["+0", "1Z", "rZ"])])
    np.testing.assert_allclose(job.result()[0].data.evs, [0.5, 0.0, 0.5], atol=1e-12)


def test_without_fallback_the_job_raises(device):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = FusedEstimator(device=device, fallback=False).run([(entangled_reset(), "ZZ", [0.3])])
    with pytest.raises(UnsupportedInstruction, match="reset"):
        job.result()


def test_a_circuit_without_a_fallback_raises_an_error_without_a_warning(device):
    circuit = QuantumCircuit(2, 1)
    circuit.h(0)
    circuit.measure(0, 0)
    circuit.x(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        job = FusedEstimator(device=device).run([(circuit, "ZZ")])
    with pytest.raises(UnsupportedInstruction, match="measure"):
        job.result()


# --- errors ---


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        (
            ("ZZ", "values"),
            "circuit (3) does not match the number of qubits of the observables (2); after transpiling,",
        ),
        (("ZZZ",), "for the circuit; give values as the third part of the PUB, in the order of circuit.parameters"),
        (("ZZZ", [0.1, 0.2]), "parameter_values has shape (2,); the circuit has"),
        (("ZZZ", [[0.1, 0.2]]), "in the order of circuit.parameters, which are sorted by name ("),
        (
            (["ZZZ", "XXX"], "rows"),
            "(2,) and the parameter values shape (3,) are not broadcastable; for all pairs of both,",
        ),
    ],
    ids=["width", "unbound", "few", "order", "broadcast"],
)
def test_parts_of_a_pub_that_do_not_fit_together_are_refused_with_the_cure(estimator, circuit, rest, text):
    arrays = {"values": rows(circuit), "rows": rows(circuit, 3)}
    parts = [arrays[part] if isinstance(part, str) and part in arrays else part for part in rest]
    with pytest.raises(ValueError, match=re.escape(text)):
        estimator.run([(circuit, *parts)])


def test_values_for_a_circuit_without_parameters_are_refused(estimator):
    with pytest.raises(ValueError, match=re.escape("has shape (1,); the circuit has 0 parameters, allowed: none.")):
        estimator.run([(QuantumCircuit(1), "Z", [0.1])])


def test_errors_have_the_type_and_text_of_qiskits(estimator, circuit):
    values = rows(circuit)
    bad = [
        (circuit, "ZZZ", values, -1),
        (circuit, "ZZZ", values, "low"),
        (circuit,),
        (circuit, "ZZZ", values, 0.1, 5),
        ("circuit", "ZZZ"),
    ]
    for pub in bad:
        with pytest.raises(Exception) as theirs:  # noqa: PT011 - the error is Qiskit's
            StatevectorEstimator().run([pub])
        with pytest.raises(type(theirs.value)) as ours:
            estimator.run([pub])
        assert str(ours.value) == str(theirs.value)
    for pubs in ((circuit, "ZZZ"), [circuit]):
        with pytest.raises(ValueError, match="An invalid Estimator pub-like was given"):
            estimator.run(pubs)
    with pytest.raises(ValueError, match="precision must be non-negative"):
        estimator.run([(circuit, "ZZZ", values)], precision=-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(estimator, circuit, value):
    values = rows(circuit, 3)
    values[1, 2] = value
    name = circuit.parameters[2].name
    text = f"the value of parameter '{name}' in row 1 of PUB 0 is {value}; allowed: finite numbers."
    with pytest.raises(ValueError, match=re.escape(text)):
        estimator.run([(circuit, "ZZZ", values)])


def test_huge_finite_values_are_no_error(estimator):
    circuit = real_amplitudes(1, reps=1)
    estimator.run([(circuit, "Z", [[1.7e308, 1.7e308]])]).result()


def test_a_wrong_parameter_name_is_refused(estimator):
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("a"), 0)
    with pytest.raises(ValueError, match="Could not find placement for parameter 'b'"):
        estimator.run([(circuit, "Z", {"b": 0.1})])


def test_a_statevector_over_the_memory_limit_is_refused_before_it_is_allocated(device):
    circuit = QuantumCircuit(34)
    for qubit in range(34):
        circuit.h(qubit)
    for qubit in range(33):
        circuit.cx(qubit, qubit + 1)
    job = FusedEstimator(device=device, memory_limit="16GiB").run([(circuit, "Z" * 34)])
    with pytest.raises(MemoryError) as error:
        job.result()
    text = (
        "the statevector of 34 qubits needs 256 GiB in complex128, memory_limit is 16 GiB, enough for 29 qubits; use "
        "fewer qubits( or raise memory_limit)?. The term Z0 Z1 Z2 Z3 Z4 Z5 ... Z33 of observable 0 alone sees 34 qubits"
    )
    assert re.match(text, str(error.value))


@pytest.mark.parametrize(
    ("dtype", "limit", "cure"),
    [
        ("complex128", "400kB", "; use dtype='complex64', fewer qubits or raise memory_limit."),
        ("complex128", "60kB", "; use fewer qubits or raise memory_limit."),
        ("complex64", "60kB", "; use fewer qubits or raise memory_limit."),
    ],
)
def test_complex64_is_advised_only_if_it_fits(device, dtype, limit, cure):
    circuit = QuantumCircuit(14)
    circuit.ry(0.3, range(14))
    job = FusedEstimator(device=device, dtype=dtype, memory_limit=limit).run([(circuit, "Z" * 14)])
    with pytest.raises(MemoryError, match=cure):
        job.result()


@pytest.mark.parametrize("call", [fuse, compile_circuit], ids=["fuse", "compile_circuit"])
def test_something_that_is_no_circuit_is_refused_by_its_type(call):
    with pytest.raises(TypeError, match="circuit must be a QuantumCircuit, not str"):
        call("circuit")


def test_fuse_refuses_an_empty_list_of_observables(circuit):
    with pytest.raises(ValueError, match="observables is empty; allowed: one observable or a list of them"):
        fuse(circuit, [])
