# SPDX-License-Identifier: Apache-2.0
"""Errors about a row name its number in the caller's batch, however rows are cut, joined and deduplicated."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, FusedEstimatorQNN, FusedOptions
from qiskit_fused.common.row_errors import RowError, renumbered, row_index, shifted
from qiskit_fused.execution import executor as workers
from qiskit_fused.execution import row_functions
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.program import amplitude_encoding

A, B, C = Parameter("a"), Parameter("b"), Parameter("c")
BAD = 77
ANGLE = r"'log\(a\)' of instruction 0, 'rx', is -?(nan|inf) for row "
ROOT = r"no finite derivative with respect to 'a' in row "


def circuit_of(expression):
    circuit = QuantumCircuit(2)
    circuit.rx(expression, 0)
    circuit.ry(B, 1)
    circuit.cx(0, 1)
    return circuit


LOG, SQUARE_ROOT = circuit_of(A.log()), circuit_of(A**0.5)


def rows(num_rows=100, bad=BAD, value=0.0):
    values = np.random.default_rng(0).uniform(0.5, 1.5, (num_rows, 2))
    values[bad, 0] = value
    return values


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["here", "threads", "processes"])
def keywords(request, monkeypatch):
    """Return options for one process with small blocks of rows, and for executors with small portions of rows."""
    monkeypatch.setattr(workers, "_MIN_WORK", 1)
    monkeypatch.setattr(row_functions, "_BLOCK_BYTES", 1)
    monkeypatch.setattr("qiskit_fused.program.tapes._MAX_NUMBERS", 1)
    monkeypatch.setattr(amplitude_encoding, "_BLOCK_BYTES", 1)
    if request.param == "here":
        yield {}
    elif request.param == "processes":
        yield {"executor": request.getfixturevalue("processes")}
    else:
        with ThreadPoolExecutor(2) as pool:
            yield {"executor": pool}


def test_values_and_gradients_name_the_row(keywords):
    gradient = FusedEstimatorGradient(**keywords)
    with pytest.raises(ValueError, match=ANGLE + "77 of the"):
        gradient.value_and_gradient(LOG, "ZZ", rows())
    with pytest.raises(ValueError, match=ROOT + "77 of the"):
        gradient.value_and_gradient(SQUARE_ROOT, "ZZ", rows())
    with pytest.raises(ValueError, match="value of parameter 'a' in row 77 is nan"):
        gradient.value_and_gradient(LOG, "ZZ", rows(value=np.nan))


def test_a_pub_is_named_with_its_row(keywords):
    estimator = FusedEstimator(**keywords)
    good = rows(30, value=1.0, bad=0)
    pubs = [(LOG, "ZZ", good), (SQUARE_ROOT, "ZZ", good), (LOG, "XX", good), (LOG, "ZZ", rows()), (LOG, "XX", rows())]
    with pytest.raises(ValueError, match=ANGLE + "77 of PUB 3 of the"):
        estimator.run(pubs).result()
    with pytest.raises(ValueError, match=r"parameter 'a' in row 77 of PUB 1 is inf"):
        estimator.run([(LOG, "ZZ", good), (LOG, "ZZ", rows(value=np.inf))])
    with pytest.raises(ValueError, match=ANGLE + r"\(3, 17\) of PUB 0 of the"):
        estimator.run([(LOG, [["ZZ"], ["XX"], ["YY"], ["IZ"], ["ZI"]], rows().reshape(5, 20, 2))]).result()
    with pytest.raises(ValueError, match=r"'b' in row \(3, 17\) of PUB 0 is nan"):
        estimator.run([(LOG, "ZZ", {A: np.ones((5, 20)), B: rows(value=np.nan)[:, 0].reshape(5, 20)})])


def test_requests_for_gradients_are_named_though_equal_rows_run_once(keywords):
    gradient, values = FusedEstimatorGradient(**keywords), rows(50, bad=27)
    twice = np.concatenate([values, values])
    observables = [SparsePauliOp("ZZ")] * 50 + [SparsePauliOp("XX")] * 50
    with pytest.raises(ValueError, match=ANGLE + "27 of the"):
        gradient.run([LOG] * 100, observables, twice).result()
    with pytest.raises(ValueError, match=ROOT + "27 of the"):
        gradient.run([SQUARE_ROOT] * 100, observables, twice).result()
    # only the second request for this row needs the derivative that is not finite
    asked = [[B] if number != BAD else [A] for number in range(100)]
    with pytest.raises(ValueError, match=ROOT + "77 of the"):
        gradient.run([SQUARE_ROOT] * 100, observables, twice, asked).result()
    circuits = [LOG if number % 2 else SQUARE_ROOT for number in range(100)]
    with pytest.raises(ValueError, match=ANGLE + "77 of the"):
        gradient.run(circuits, observables, rows()).result()
    with pytest.raises(ValueError, match="parameter 'a' in row 77 is nan"):
        gradient.run(circuits, observables, rows(value=np.nan)).result()


def test_training_names_the_row(keywords):
    inputs, weights = rows()[:, :1], [0.3]
    for circuit, text in ((LOG, ANGLE), (SQUARE_ROOT, ROOT)):
        function = Expectations(circuit, ["ZZ", "XI"], [A], [B], FusedOptions(**keywords))
        for cotangents in (np.ones((100, 2)), np.cos):
            with pytest.raises(ValueError, match=text + "77 of the"):
                function.value_and_vjp(inputs, weights, cotangents)
        with pytest.raises(ValueError, match=text + "77 of the"):
            function.value_and_jacobian(inputs, weights)
    with pytest.raises(ValueError, match=r"cotangent of observable 1 in row \d+ is nan"):
        function.value_and_vjp(inputs, weights, lambda values: np.full_like(values, [1.0, np.nan]))
    with pytest.raises(ValueError, match="cotangent of observable 0 in row 77 is inf"):
        function.value_and_vjp(inputs, weights, np.where(np.arange(100)[:, None] == BAD, np.inf, 1.0) * [1.0, 1.0])


def test_amplitudes_without_a_norm_name_the_row(keywords):
    circuit = raw_feature_vector(4).compose(real_amplitudes(2, reps=1, parameter_prefix="y"))
    amplitudes, weights = circuit.parameters[:4], circuit.parameters[4:]
    values = np.random.default_rng(1).normal(size=(100, 8))
    values[BAD, :4] = 0.0
    norm = "have the norm 0.0 in row 77"
    with pytest.raises(ValueError, match=norm + "; allowed"):
        FusedEstimatorGradient(**keywords).value_and_gradient(circuit, "ZZ", values)
    with pytest.raises(ValueError, match=norm + " of PUB 1; allowed"):
        FusedEstimator(**keywords).run([(circuit, "ZZ", values[:3]), (circuit, ["ZZ"], values)]).result()
    function = Expectations(circuit, "ZZ", amplitudes, weights, FusedOptions(**keywords))
    inputs = np.where(np.arange(100)[:, None] == BAD, 0.0, np.ones(4))
    with pytest.raises(ValueError, match=norm + "; allowed"):
        function.value_and_vjp(inputs, np.ones(4), np.ones((100, 1)))
    with pytest.raises(ValueError, match=norm + "; allowed"):
        function.values(inputs, np.ones(4))


def test_samples_of_networks_are_named_by_their_index(keywords):
    inputs, parts = rows()[:, :1], {"circuit": SQUARE_ROOT, "observables": SparsePauliOp("ZZ")}
    network = FusedEstimatorQNN(**parts, input_params=[A], weight_params=[B], input_gradients=True, **keywords)
    stacked = inputs.reshape(5, 20, 1)
    with pytest.raises(ValueError, match=ROOT + "77 of the"):
        network.backward(inputs, [0.3])
    with pytest.raises(ValueError, match=ROOT + r"\(3, 17\) of the"):
        network.backward(stacked, [0.3])
    with pytest.raises(ValueError, match=ROOT + r"\(3, 17\) of the"):
        network.vjp(stacked, [0.3], np.ones((5, 20, 1)))
    bad = np.where(stacked == 0, np.nan, stacked)
    with pytest.raises(ValueError, match=r"'a' in row \(3, 17\) is nan"):
        network.forward(bad, [0.3])
    theirs = EstimatorQNN(
        **parts,
        input_params=[A],
        weight_params=[B],
        input_gradients=True,
        estimator=FusedEstimator(**keywords),
        gradient=FusedEstimatorGradient(**keywords),
    )
    root = ROOT.replace("'a'", r"'inputs\[0\]'")  # names of qiskit-machine-learning
    with pytest.raises(QiskitMachineLearningError, match=root + "77 of the"):
        theirs.backward(inputs, [0.3])


def test_rows_of_a_layer_are_named_by_their_index(keywords):
    torch = pytest.importorskip("torch")
    from qiskit_fused.torch import FusedLayer

    layer = FusedLayer(SQUARE_ROOT, "ZZ", [A], [B], **keywords)
    inputs = torch.tensor(rows()[:, :1])
    for shape, index in (((100, 1), "77"), ((5, 20, 1), r"\(3, 17\)")):
        part = inputs.reshape(shape).requires_grad_()
        with pytest.raises(ValueError, match=ROOT + index + " of the"):
            layer(part).sum().backward()
        with pytest.raises(ValueError, match=ROOT + index + " of the"):
            torch.autograd.grad(layer(part).sum(), part, create_graph=True)
        with pytest.raises(ValueError, match=f"'a' in row {index} is nan"):
            layer(torch.where(part == 0, torch.nan, part))


def test_rows_of_input_derivatives_are_named_by_their_index(keywords):
    torch = pytest.importorskip("torch")
    from qiskit_fused.torch import FusedLayer

    one_gate, product = QuantumCircuit(2), QuantumCircuit(2)
    for circuit, angle in ((one_gate, A + B), (product, A * B)):
        circuit.ry(angle, 0)
        circuit.ry(C, 1)
    inputs = np.zeros((100, 2))
    inputs[BAD, 1] = np.inf
    for circuit in (one_gate, product):
        layer = FusedLayer(circuit, "ZZ", [A, C], [B], **keywords)
        for shape, index in (((100, 2), "row 77"), ((5, 20, 2), r"row \(3, 17\)")):
            with pytest.raises(ValueError, match=index):
                layer.input_derivatives(torch.tensor(inputs.reshape(shape)))


def test_given_states_that_are_not_normalised_are_named(keywords):
    states = np.eye(4)[np.arange(100) % 4]
    states[BAD] *= 2
    with pytest.raises(ValueError, match=r"the state of row 77 of initial_states has the norm 2\.0"):
        FusedEstimatorGradient(**keywords).value_and_gradient(LOG, "ZZ", rows(value=1.0), initial_states=states)


def test_the_row_of_an_error_survives_pickle_and_is_corrected_on_every_level():
    outermost = renumbered(lambda row: row_index(row, (2, 100)))
    with pytest.raises(RowError, match=r"^a row \(1, 15\) b$"), outermost, shifted(100), shifted(10):
        raise RowError("a ", 5, " b")
    error = pickle.loads(pickle.dumps(RowError("a ", 5, " b")))
    error.renumber(lambda row: row + 1)
    assert (str(error), error.row) == ("a row 6 b", 6)
