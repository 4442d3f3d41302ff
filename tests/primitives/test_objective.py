# SPDX-License-Identifier: Apache-2.0
"""`FusedEstimatorGradient.objective` makes functions that SciPy's optimisers take."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes
from qiskit.quantum_info import SparsePauliOp, Statevector
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.gradients import DerivativeType
from qiskit_machine_learning.optimizers import ADAM, L_BFGS_B, SLSQP
from scipy.optimize import Bounds, basinhopping, check_grad, dual_annealing, minimize, minimize_scalar

from qiskit_fused import FusedEstimatorGradient, compile_circuit

CIRCUIT = real_amplitudes(3, reps=2)
OBSERVABLE = SparsePauliOp(["ZZI", "IZZ", "XII", "IXI", "IIX"], [1.0, 1.0, 0.5, 0.5, 0.5])
START = np.random.default_rng(3).normal(scale=0.5, size=CIRCUIT.num_parameters)
# These methods of SciPy take a gradient and need no Hessian.
METHODS = ["CG", "BFGS", "Newton-CG", "L-BFGS-B", "TNC", "SLSQP", "trust-constr"]


def make(**keywords):
    return FusedEstimatorGradient().objective(CIRCUIT, OBSERVABLE, **keywords)


def exact(x, circuit=CIRCUIT):
    return Statevector(circuit.assign_parameters(x)).expectation_value(OBSERVABLE).real


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_takes_a_gradient_finds_a_minimum(method):
    objective = make()
    optimum = minimize(objective, START, jac=True, method=method)
    assert_allclose(optimum.fun, exact(optimum.x), atol=1e-12)
    assert np.abs(objective.gradient(optimum.x)).max() < 0.05
    assert optimum.fun < exact(START) - 0.5


@pytest.mark.parametrize("method", ["L-BFGS-B", "TNC", "SLSQP", "trust-constr"])
def test_bounds_are_kept(method):
    bounds = Bounds(-0.3, 0.3)
    optimum = minimize(make(), np.clip(START, -0.3, 0.3), jac=True, method=method, bounds=bounds)
    assert (np.abs(optimum.x) <= 0.3 + 1e-9).all()
    assert_allclose(optimum.fun, exact(optimum.x), atol=1e-12)


@pytest.mark.parametrize("method", ["trust-krylov", "trust-ncg", "Newton-CG", "trust-constr"])
def test_scipy_takes_hessians_from_differences_of_gradients(method):
    objective = make()
    optimum = minimize(objective, START, jac=True, hess="2-point", method=method)
    assert np.abs(objective.gradient(optimum.x)).max() < 1e-2


def test_methods_that_want_a_matrix_take_a_hessian_of_differences():
    def hessian(x):
        steps = 1e-5 * np.eye(len(x))
        return np.array([(objective.gradient(x + step) - objective.gradient(x - step)) / 2e-5 for step in steps])

    objective = make()
    optimum = minimize(objective, START, jac=True, hess=hessian, method="trust-exact")
    assert np.abs(objective.gradient(optimum.x)).max() < 1e-3


def test_global_and_scalar_searches_take_an_objective():
    optimum = basinhopping(make(), START, niter=2, minimizer_kwargs={"jac": True, "method": "BFGS"})
    assert_allclose(optimum.fun, exact(optimum.x), atol=1e-12)
    objective = make()
    optimum = dual_annealing(objective.value, [(-1, 1)] * len(START), maxiter=3)
    assert_allclose(optimum.fun, exact(optimum.x), atol=1e-12)
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    objective = FusedEstimatorGradient().objective(circuit, "Z")
    assert_allclose(minimize_scalar(objective.value, bounds=(0, 5)).x, np.pi, atol=1e-4)


def test_values_and_gradients_are_those_of_value_and_gradient():
    gradient = FusedEstimatorGradient()
    objective = gradient.objective(CIRCUIT, OBSERVABLE)
    value, slope = objective(START)
    values, gradients = gradient.value_and_gradient(CIRCUIT, OBSERVABLE, START)
    assert type(value) is float and slope.dtype == np.float64 and slope.shape == START.shape
    assert value == values[0, 0]
    np.testing.assert_array_equal(slope, gradients[0, 0])
    assert_allclose(objective.value(START), value, atol=1e-14)
    assert_allclose(value, exact(START), atol=1e-12)
    assert check_grad(objective.value, objective.gradient, START) < 1e-6
    again = objective(START + 0.1)[1]
    assert not np.shares_memory(again, slope)


@pytest.mark.parametrize("kind", [DerivativeType.IMAG, DerivativeType.COMPLEX])
def test_the_gradient_is_real_whatever_the_derivative_type(kind):
    optimum = FusedEstimatorGradient(derivative_type=kind).objective(CIRCUIT, OBSERVABLE)(START)[1]
    np.testing.assert_array_equal(optimum, make()(START)[1])


def test_fixed_parameters_are_left_out_of_the_point():
    order = list(CIRCUIT.parameters)
    fixed = {order[1]: START[1], (order[4], order[6]): START[[4, 6]], order[8].name: START[8]}
    objective = make(fixed=fixed)
    free = np.array([0, 2, 3, 5, 7])
    assert objective.parameters == tuple(order[column] for column in free)
    value, slope = objective(START[free])
    whole = make()(START)
    assert_allclose(value, whole[0], atol=1e-14)
    assert_allclose(slope, whole[1][free], atol=1e-14)
    assert_allclose(objective.value(START[free]), value, atol=1e-14)
    all_fixed = make(fixed=dict(zip(order, START)))
    assert all_fixed(np.zeros(0))[0] == pytest.approx(whole[0]) and all_fixed(np.zeros(0))[1].shape == (0,)


def test_a_point_may_be_given_by_name():
    order = list(CIRCUIT.parameters)
    point = dict(zip(reversed(order), START[::-1]))
    np.testing.assert_array_equal(make()(point)[1], make()(START)[1])


def test_later_changes_of_the_circuit_have_no_effect_and_those_of_the_observable_have():
    circuit, observable = CIRCUIT.copy(), OBSERVABLE.copy()
    objective = FusedEstimatorGradient().objective(circuit, observable)
    before = objective(START)[0]
    circuit.x(0)
    assert objective(START)[0] == before
    observable.coeffs[:] *= 2
    assert_allclose(objective(START)[0], 2 * before, atol=1e-12)


@pytest.mark.parametrize("circuit", [CIRCUIT, compile_circuit(CIRCUIT)], ids=["circuit", "compiled"])
def test_no_observable_is_z_on_all_qubits(circuit):
    gradient = FusedEstimatorGradient()
    assert gradient.objective(circuit)(START)[0] == gradient.objective(CIRCUIT, "ZZZ")(START)[0]
    assert gradient.objective(circuit, ["ZZZ"])(START)[0] == gradient.objective(CIRCUIT, "ZZZ")(START)[0]


@pytest.mark.parametrize("copies", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_give_the_same(copies):
    objective = make(fixed={CIRCUIT.parameters[0]: 0.3})
    np.testing.assert_array_equal(copies(objective)(START[1:])[1], objective(START[1:])[1])
    assert repr(objective) == "Objective(8 parameters, 3 qubits)"


@pytest.mark.parametrize(
    ("error", "text", "call"),
    [
        (
            ValueError,
            r"x has shape \(5,\); allowed: \(9,\), one value for each of objective",
            lambda: make()(START[:5]),
        ),
        (ValueError, r"sorted by name \('θ\[0\]', 'θ\[1\]'.*'θ\[8\]'\)", lambda: make()(START[:5])),
        (ValueError, r"x has shape \(1, 9\)", lambda: make()(START[None])),
        (ValueError, r"x has shape \(\); allowed: \(9,\)", lambda: make()(0.5)),
        (ValueError, r"parameter 'θ\[2\]' in row 0 is nan", lambda: make()(np.where(np.arange(9) == 2, np.nan, START))),
        (TypeError, "complex", lambda: make()(START + 1j)),
        (ValueError, "takes one observable, and observable holds 2; add them up", lambda: objective_of(["ZZZ", "XXX"])),
        (ValueError, r"circuit \(3\) does not match the number of qubits of the obs", lambda: objective_of("ZZ")),
        (TypeError, "circuit must be a QuantumCircuit, not str", lambda: FusedEstimatorGradient().objective("c", "Z")),
        (TypeError, "fixed is of type list; allowed: a dict", lambda: make(fixed=[0.1])),
        (
            ValueError,
            "placement for parameter 'b' of fixed; allowed: the parameters 'θ",
            lambda: make(fixed={"b": 1.0}),
        ),
        (ValueError, "allowed: one value for each parameter", lambda: make(fixed={"θ[0]": [0.1, 0.2]})),
        (ValueError, r"parameter 'θ\[0\]' in row 0 is inf", lambda: make(fixed={"θ[0]": np.inf})),
        (ValueError, r"x has no values of 'θ\[1\]'", lambda: make(fixed={"θ[0]": 0.1})({"θ[2]": 0.1})),
    ],
)
def test_errors_name_arguments_that_do_not_fit(error, text, call):
    with pytest.raises(error, match=text):
        call()


def objective_of(observable):
    return FusedEstimatorGradient().objective(CIRCUIT, observable)


def test_methods_without_gradients_take_the_value():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimum = minimize(make().value, START, method="COBYLA", options={"maxiter": 50})
    assert_allclose(optimum.fun, exact(optimum.x), atol=1e-12)


def test_encoded_features_may_be_fixed():
    features, ansatz = raw_feature_vector(8), real_amplitudes(3, reps=1, parameter_prefix="w")
    circuit, data = features.compose(ansatz), np.linspace(0.1, 1, 8)
    weights = START[:6]
    value, slope = FusedEstimatorGradient().objective(circuit, OBSERVABLE, fixed={tuple(features.parameters): data})(
        weights
    )
    named = {tuple(features.parameters): data, tuple(ansatz.parameters): weights}
    values, gradients = FusedEstimatorGradient().value_and_gradient(circuit, OBSERVABLE, named, ansatz.parameters)
    assert_allclose(value, values[0, 0], atol=1e-12)
    assert_allclose(slope, gradients[0, 0], atol=1e-12)
    free = FusedEstimatorGradient().objective(circuit, OBSERVABLE, fixed={tuple(ansatz.parameters): weights})
    assert check_grad(free.value, free.gradient, data) < 1e-6


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), num_fixed=st.integers(0, 6))
def test_gradients_agree_with_finite_differences_whatever_is_fixed(seed, num_fixed):
    rng = np.random.default_rng(seed)
    parameters = [Parameter(f"p{number}") for number in range(6)]
    circuit = QuantumCircuit(3)
    for _ in range(10):
        first, second = rng.choice(6, 2)
        angle = parameters[first] * parameters[second] + rng.normal() if rng.random() < 0.5 else parameters[first]
        getattr(circuit, rng.choice(["rx", "ry", "rz", "p"]))(angle, int(rng.integers(3)))
        circuit.cx(*map(int, rng.choice(3, 2, replace=False)))
    point = dict(zip(circuit.parameters, rng.normal(size=circuit.num_parameters)))
    names = rng.permutation([parameter.name for parameter in circuit.parameters])[:num_fixed]
    fixed = {parameter.name: value for parameter, value in point.items() if parameter.name in names}
    objective = FusedEstimatorGradient().objective(circuit, OBSERVABLE, fixed=fixed or None)
    x = np.array([point[parameter] for parameter in objective.parameters])
    value, slope = objective(x)
    assert_allclose(value, exact(point, circuit), atol=1e-12)
    steps = 1e-5 * np.eye(len(x))
    differences = [(objective.value(x + step) - objective.value(x - step)) / 2e-5 for step in steps]
    assert_allclose(slope, np.reshape(differences, len(x)), atol=1e-7)


@pytest.mark.parametrize(
    "optimizer", [L_BFGS_B(), SLSQP(), ADAM(maxiter=50, lr=0.1)], ids=lambda optimizer: type(optimizer).__name__
)
def test_optimizers_of_qiskit_take_value_and_gradient(optimizer):
    objective = make()
    optimum = optimizer.minimize(fun=objective.value, x0=START, jac=objective.gradient)
    assert_allclose(optimum.fun, exact(optimum.x), atol=1e-12)
    assert optimum.fun < exact(START) - 0.5
