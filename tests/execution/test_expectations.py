# SPDX-License-Identifier: Apache-2.0
"""`Expectations`: values, Jacobians and vector-Jacobian products of inputs and weights, in blocks of rows."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused.execution import executor as workers
from qiskit_fused.execution import row_functions
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.outcomes import Outcomes

FEATURES, ANSATZ = zz_feature_map(3), real_amplitudes(3, reps=2)
RNG = np.random.default_rng(0)
INPUTS, WEIGHTS, COTANGENTS = RNG.random((7, 3)), RNG.random(9), RNG.normal(size=(7, 2))


def make(**options):
    observables = [SparsePauliOp("ZZI"), SparsePauliOp("XIY")]
    return Expectations(
        FEATURES.compose(ANSATZ), observables, FEATURES.parameters, ANSATZ.parameters, FusedOptions(**options)
    )


def blocks_of(monkeypatch):
    """Return a list to which each evaluation appends its number of rows."""
    sizes, evaluate = [], row_functions.evaluate

    def watched(options, compiled, operators, request, **keywords):
        sizes.append(request.num_rows)
        return evaluate(options, compiled, operators, request, **keywords)

    monkeypatch.setattr(row_functions, "evaluate", watched)
    return sizes


@pytest.mark.parametrize("function", [False, True], ids=["array", "function"])
def test_a_vjp_is_the_jacobian_times_cotangents(function):
    values, of_inputs, of_weights = make().value_and_jacobian(INPUTS, WEIGHTS)
    cotangents = values**2 if function else COTANGENTS
    actual = make().value_and_vjp(INPUTS, WEIGHTS, np.square if function else COTANGENTS)
    assert_allclose(actual.values, values, atol=1e-14)
    assert_allclose(actual.inputs, np.einsum("bk,bki->bi", cotangents, of_inputs), atol=1e-12)
    assert_allclose(actual.weights, np.einsum("bk,bkw->w", cotangents, of_weights), atol=1e-12)
    assert_allclose(make().values(INPUTS, WEIGHTS), values, atol=1e-14)


def test_blocks_shrink_with_the_memory_limit_and_change_nothing(monkeypatch):
    inputs, cotangents = RNG.random((3000, 3)), RNG.normal(size=(3000, 2))
    expected = make().value_and_vjp(inputs, WEIGHTS, cotangents)
    sizes = blocks_of(monkeypatch)
    actual = make(memory_limit="400kB", num_threads=1).value_and_vjp(inputs, WEIGHTS, cotangents)
    assert sum(sizes) == 3000
    assert max(sizes) * 8 * make().compiled.program.num_columns <= 400_000 / 8
    assert_allclose(actual.weights, expected.weights, atol=1e-11)
    assert_allclose(actual.inputs, expected.inputs, atol=1e-12)


def test_without_a_limit_a_batch_of_few_bytes_is_one_block(monkeypatch):
    sizes = blocks_of(monkeypatch)
    make().value_and_vjp(INPUTS, WEIGHTS, COTANGENTS)
    assert sizes == [7]


@pytest.mark.parametrize("how", ["blocks", "threads", "processes"])
def test_a_function_sees_the_values_of_all_rows_at_once_however_these_are_cut(how, monkeypatch):
    inputs, targets, seen = RNG.random((3000, 3)), RNG.random((3000, 2)), []

    def squares(values):
        seen.append(values.shape)
        return 2 * (values - targets) / len(targets)

    expected = make().value_and_vjp(inputs, WEIGHTS, squares)
    pools = {"threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}
    with pools.get(how, ThreadPoolExecutor)(2) as pool:
        monkeypatch.setattr(workers, "_MIN_WORK", 1 << 18)
        options = {"memory_limit": "400kB"} if how == "blocks" else {"executor": pool}
        actual = make(**options, num_threads=1).value_and_vjp(inputs, WEIGHTS, squares)
    assert seen == [(3000, 2)] * 2
    for result, reference in zip(actual[:3], expected):
        assert_allclose(result, reference, atol=1e-12)


def test_cotangents_of_none_are_one_for_each_value():
    for cotangents in (None, lambda values: None):
        with pytest.raises(TypeError, match="cotangents is None; allowed: real numbers, one for each value of each"):
            make().value_and_vjp(INPUTS, WEIGHTS, cotangents)


def test_wrong_shapes_and_numbers_are_named():
    with pytest.raises(ValueError, match=r"inputs have shape \(7, 2\); allowed: \(rows, 3\)"):
        make().values(INPUTS[:, :2], WEIGHTS)
    with pytest.raises(ValueError, match=r"weights have shape \(8,\); allowed: \(9,\)"):
        make().values(INPUTS, WEIGHTS[:8])
    with pytest.raises(
        TypeError, match=r"a tuple of 2 with a number at 0; allowed: an array of shape \(7, 2\). A function"
    ):
        make().value_and_vjp(INPUTS, WEIGHTS, lambda values: ((values**2).sum(), 2 * values))
    with pytest.raises(ValueError, match=r"cotangents have shape \(7, 1\); allowed: \(7, 2\)"):
        make().value_and_vjp(INPUTS, WEIGHTS, COTANGENTS[:, :1])
    with pytest.raises(ValueError, match=r"cotangent of observable 1 in row 2 is nan"):
        make().value_and_vjp(INPUTS, WEIGHTS, np.where(np.arange(14).reshape(7, 2) == 5, np.nan, COTANGENTS))
    with pytest.raises(ValueError, match=r"parameter 'x\[0\]' in row 3 is inf"):
        make().values(np.where(np.arange(21).reshape(7, 3) == 9, np.inf, INPUTS), WEIGHTS)


@pytest.mark.parametrize("inputs", [INPUTS[0], INPUTS[None], 1.0], ids=["row", "rows of rows", "number"])
@pytest.mark.parametrize("cotangents", [COTANGENTS, np.square], ids=["array", "function"])
def test_a_wrong_shape_of_the_inputs_is_named_before_a_wrong_shape_of_the_cotangents(inputs, cotangents):
    with pytest.raises(ValueError, match=r"inputs have shape \((3,|1, 7, 3|)\); allowed: \(rows, 3\)"):
        make().value_and_vjp(inputs, WEIGHTS, cotangents)


def test_a_parameter_that_is_neither_input_nor_weight_is_named():
    with pytest.raises(
        ValueError, match=r"parameter 'x\[2\]' of the circuit must be one input parameter or one weight"
    ):
        Expectations(FEATURES.compose(ANSATZ), "ZZZ", FEATURES.parameters[:2], ANSATZ.parameters, FusedOptions())


def test_old_names_of_inputs_and_weights_still_work():
    with pytest.warns(FutureWarning, match="of Expectations is now called") as record:
        old = Expectations(
            FEATURES.compose(ANSATZ), "ZZZ", input_parameters=FEATURES.parameters, weight_parameters=ANSATZ.parameters
        )
    new = Expectations(
        FEATURES.compose(ANSATZ), "ZZZ", input_params=FEATURES.parameters, weight_params=ANSATZ.parameters, device="cpu"
    )
    assert len(record) == 2
    np.testing.assert_array_equal(old.values(INPUTS, WEIGHTS), new.values(INPUTS, WEIGHTS))


PARITY = [bin(bitstring).count("1") % 2 for bitstring in range(8)]


def outcomes_of(table, num_outcomes, **options):
    return Expectations(
        FEATURES.compose(ANSATZ),
        Outcomes(3, [0, 1, 2], table, num_outcomes),
        FEATURES.parameters,
        ANSATZ.parameters,
        FusedOptions(**options),
    )


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_probabilities_of_outcomes_and_their_derivatives_are_those_of_the_same_projectors(device):
    projectors = [SparsePauliOp(["III", "ZZZ"], [0.5, sign]) for sign in (0.5, -0.5)]
    parameters = FEATURES.parameters, ANSATZ.parameters
    expected = Expectations(FEATURES.compose(ANSATZ), projectors, *parameters)
    actual = outcomes_of(PARITY, 2, device=device)
    for found, wanted in zip(
        actual.value_and_jacobian(INPUTS, WEIGHTS), expected.value_and_jacobian(INPUTS, WEIGHTS), strict=True
    ):
        assert_allclose(found, wanted, atol=1e-12)
    vjps = (function.value_and_vjp(INPUTS, WEIGHTS, COTANGENTS)[:3] for function in (actual, expected))
    for found, wanted in zip(*vjps, strict=True):
        assert_allclose(found, wanted, atol=1e-12)


def test_a_jacobian_of_outcomes_that_add_up_to_one_takes_one_backward_sweep_less(monkeypatch):
    pairs, evaluate = [], row_functions.evaluate

    def counted(options, compiled, operators, request, **keywords):
        pairs.append(request.num_pairs)
        return evaluate(options, compiled, operators, request, **keywords)

    monkeypatch.setattr(row_functions, "evaluate", counted)
    dropped = [-1 if bitstring == 5 else outcome for bitstring, outcome in enumerate(PARITY)]
    complete, incomplete = outcomes_of(PARITY, 2), outcomes_of(dropped, 2)
    values, _, weights = complete.value_and_jacobian(INPUTS, WEIGHTS)
    incomplete.value_and_jacobian(INPUTS, WEIGHTS)
    assert pairs == [7, 14]
    assert_allclose(values.sum(axis=1), 1, atol=1e-14)
    assert_allclose(weights.sum(axis=1), 0, atol=1e-12)


def test_outcomes_of_many_rows_keep_the_memory_limit_and_share_gates_without_a_change():
    inputs, cotangents = RNG.random((2000, 3)), RNG.normal(size=(2000, 8))
    expected = outcomes_of(None, None).value_and_vjp(inputs, WEIGHTS, cotangents)
    actual = outcomes_of(None, None, memory_limit="400kB").value_and_vjp(inputs, WEIGHTS, cotangents)
    assert_allclose(actual.values, expected.values, atol=1e-13)
    assert_allclose(actual.weights, expected.weights, atol=1e-11)


def test_only_qubits_that_the_measured_qubits_see_are_simulated():
    circuit = real_amplitudes(60, reps=1, entanglement="linear")
    function = Expectations(circuit, Outcomes(60, [0, 1]), [], circuit.parameters)
    weights = RNG.random(120)
    few = real_amplitudes(
        3, reps=1, entanglement="linear"
    )  # qubit 1 sees qubit 2, since a CX joins them before the last rotations
    expected = Expectations(few, Outcomes(3, [0, 1]), [], few.parameters)
    actual = function.values(np.zeros((1, 0)), weights)
    assert_allclose(actual, expected.values(np.zeros((1, 0)), weights[[0, 1, 2, 60, 61, 62]]), atol=1e-13)


def test_measured_qubits_that_see_too_many_qubits_together_are_refused():
    circuit = real_amplitudes(60, reps=1, entanglement="linear")
    function = Expectations(circuit, Outcomes(60, [0, 59]), [], circuit.parameters)
    with pytest.raises(MemoryError, match="60 qubits"):
        function.values(np.zeros((1, 0)), RNG.random(120))
