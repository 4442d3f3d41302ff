# SPDX-License-Identifier: Apache-2.0
"""The error for a refused observable names the observable, its fault and the cure."""

import re

import numpy as np
import pytest
import scipy.sparse
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Clifford, Operator, Pauli, ScalarOp, SparseObservable, SparsePauliOp, Statevector

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, fuse

CIRCUIT = real_amplitudes(2, reps=1)
POINT = np.zeros(4)
USE_PAULIS = "a matrix; use SparsePauliOp.from_operator(Operator(...))"
ALLOWED = "allowed: a string such as 'ZZI', a Pauli, SparsePauliOp or SparseObservable, a mapping"

WRONG = {
    "operator": (Operator(np.eye(4)), f"observables is an Operator, {USE_PAULIS}"),
    "scalar": (ScalarOp(4), f"observables is a ScalarOp, {USE_PAULIS}"),
    "clifford": (Clifford.from_label("XX"), f"observables is a Clifford, {USE_PAULIS}"),
    "matrix": (np.eye(4), f"observables is a ndarray, {USE_PAULIS}"),
    "sparse matrix": (scipy.sparse.eye(4), USE_PAULIS),
    "operator in a list": (["ZZ", Operator(np.eye(4))], f"observables[1] is an Operator, {USE_PAULIS}"),
    "matrix in lists": ([[1, 0], [0, -1]], USE_PAULIS),
    "values": (
        POINT,
        "observables is an array of numbers of shape (4,); a PUB of an estimator is (circuit, observables",
    ),
    "values in a list": ([0.1] * 4, "observables is an array of numbers of shape (4,); a PUB of an estimator is"),
    "rows of values": (np.zeros((3, 4)), "an array of numbers of shape (3, 4); a PUB of an estimator is"),
    "number": (5, f"observables is 5, of type int; {ALLOWED}"),
    "nothing in a list": (["ZZ", None], f"observables[1] is None, of type NoneType; {ALLOWED}"),
    "circuit": (CIRCUIT, f", of type QuantumCircuit; {ALLOWED}"),
    "state": (Statevector([1, 0, 0, 0]), ALLOWED),
    "pairs": (
        [("ZZ", 0.5), ("XX", 1)],
        "observables[0] is ('ZZ', 0.5): strings with coefficients are",
    ),
    "letter": ("ZA", "observables is 'ZA' with the letter 'A'; allowed: I X Y Z 0 1 + - r l."),
    "lower case": (["ZZ", "zz"], "observables[1] is 'zz' with the letter 'z'"),
    "nan": (SparsePauliOp(["ZZ", "XX"], [1, np.nan]), "the coefficient of 'XX' in observables is (nan"),
    "nan in a mapping": (
        [{"ZZ": np.nan}],
        "the coefficient of 'ZZ' in observables[0] is nan; allowed: finite",
    ),
    "infinite": ({"ZZ": -np.inf}, "the coefficient of 'ZZ' in observables is -inf"),
    "complex": (
        SparsePauliOp(["ZZ", "XX"], [1, 1j]),
        "the coefficient of 'XX' in observables is 1j; allowed: real",
    ),
    "phase": (Pauli("iZZ"), "the coefficient of 'iZZ' in observables is 1j; allowed: real"),
    "complex term": (SparseObservable.from_list([("ZZ", 1j)]), "the coefficient of term 0 in observables is 1j"),
    "parameter": (
        SparsePauliOp("ZZ", np.array([Parameter("p")], dtype=object)),
        "the coefficient of 'ZZ' in observables is ",
    ),
    "zero": (["ZZ", SparsePauliOp("ZZ", [0])], "observables[1] is zero: its terms have the sum 0"),
    "zero among operators": ([SparsePauliOp("ZZ", 0.0), SparsePauliOp("XX")], "observables[0] is zero: its terms"),
    "complex among operators": (
        [SparsePauliOp("ZZ"), SparsePauliOp("XX", [1 + 1j])],
        "the coefficient of 'XX' in observables[1] is (1+1j); allowed: real",
    ),
    "list of operators": ([Operator(np.eye(4))] * 2, f"observables[0] is an Operator, {USE_PAULIS}"),
    "cancelling": (SparsePauliOp(["ZZ", "ZZ"], [1, -1]), "observables is zero: its terms have the sum 0"),
    "sizes": (["ZZ", "Z"], "observables[0] is on 2 qubits and observables[1] on 1; allowed: observables on the same"),
    "nested sizes": ([["ZZ", "XX"], ["ZZ", "Z"]], "observables[0][0] is on 2 qubits and observables[1][1] on 1"),
    "ragged": ([["ZZ"], ["ZZ", "XX"]], "observables has a list of 1 at 0 and a list of 2 at 1; allowed: lists of one"),
    "mixed levels": (["ZZ", ["ZZ"]], "observables has a single observable at 0 and a list of 1 at 1"),
}
wrong = pytest.mark.parametrize(("observables", "text"), WRONG.values(), ids=WRONG)


@wrong
def test_the_error_names_the_observable_what_is_wrong_and_the_cure(observables, text):
    for call in (
        lambda: FusedEstimatorGradient().value_and_gradient(CIRCUIT, observables, POINT),
        lambda: FusedEstimator().run([(CIRCUIT, observables, POINT)]),
        lambda: fuse(CIRCUIT, observables),
    ):
        with pytest.raises((TypeError, ValueError), match=re.escape(text)):
            call()


@wrong
@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:Casting complex values")  # warnings of Qiskit
def test_the_error_is_of_the_kind_that_the_reference_primitive_raises(observables, text):
    def refusal(estimator):
        try:
            return estimator.run([(CIRCUIT, observables, POINT)]).result()
        except Exception as error:
            return error

    ours, theirs = refusal(FusedEstimator()), refusal(StatevectorEstimator())
    assert isinstance(ours, (TypeError, ValueError))
    assert type(ours) is type(theirs) or not isinstance(theirs, Exception)


def test_what_looks_alike_and_is_right_is_understood():
    for observables in ("ZZ", Pauli("-ZZ"), {"ZZ": 0.5, "XX": 1}, ["ZZ", {Pauli("XX"): -1.0}], np.array(["ZZ", "XX"])):
        FusedEstimatorGradient().value_and_gradient(CIRCUIT, observables, POINT)
