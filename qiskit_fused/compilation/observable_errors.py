# SPDX-License-Identifier: Apache-2.0
"""Make the errors for observables that Qiskit's containers refuse. Each error names the observable and the cure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from numbers import Complex
from typing import Any

import numpy as np
from qiskit.primitives.containers.observables_array import ObservablesArray
from qiskit.quantum_info import Pauli, PauliList, SparseObservable, SparsePauliOp
from qiskit.quantum_info.operators.base_operator import BaseOperator

_LETTERS = "IXYZ01+-rl"
_ALLOWED = (
    "a string such as 'ZZI', a Pauli, SparsePauliOp or SparseObservable, a mapping such as {'ZZI': 0.5}, or lists of "
    "these"
)


def explain_refusal(observables: Any, error: Exception) -> Exception:
    """Return an error that says which observable is wrong and what to write instead.

    Args:
        observables: the observables of the caller, in any nesting.
        error: Qiskit's error. The new error is of the same class, TypeError or ValueError.
    """
    kind = type(error) if isinstance(error, (TypeError, ValueError)) else ValueError
    first: tuple[str, int] | None = None
    for place, item in _each(observables, "observables"):
        try:
            num_qubits = ObservablesArray.coerce_observable(item).num_qubits
        except Exception as refused:
            text = _explain_one(place, item)
            if "Empty observable" in str(refused):
                text = (
                    f"{place} is zero: its terms have the sum 0, or coefficients below Qiskit's tolerance of 1e-8; "
                    "leave it out, or multiply it by a number and divide the values by that number."
                )
            return kind(text) if text else kind(f"{place} is {_shown(item)}, which is refused: {refused}")
        if text := _not_finite(place, item):
            return kind(text)
        if first is None:
            first = place, num_qubits
        elif first[1] != num_qubits:
            return kind(
                f"{first[0]} is on {first[1]} qubits and {place} on {num_qubits}; allowed: observables on the same "
                "number of qubits."
            )
    lengths = _first_lengths(observables)
    if lengths:
        return kind(f"observables has {lengths}; allowed: lists of one length at each level.")
    return error


def wrong_width(num_qubits: int, width: int, place: int | None = None) -> ValueError:
    """Return the error for observables on another number of qubits than the circuit.

    Args:
        num_qubits: the number of qubits of the circuit.
        width: the number of qubits of the observables.
        place: the number of the circuit and of its observables in lists; None if there is one circuit.
    """
    circuit = "the circuit" if place is None else f"the {place}-th circuit"
    observables = "the observables" if place is None else f"the {place}-th observable"
    return ValueError(
        f"The number of qubits of {circuit} ({num_qubits}) does not match the number of qubits of {observables} "
        f"({width}); after transpiling, use observable.apply_layout(circuit.layout)."
    )


def check_coefficients(observables: Any, coefficients: np.ndarray) -> None:
    """Raise a ValueError that names the first coefficient that is NaN or infinite, if there is one.

    Args:
        observables: the observables of the caller, for the error.
        coefficients: the coefficients of all their terms.
    """
    if not np.isfinite(coefficients).all():
        raise explain_refusal(observables, ValueError("a coefficient of observables is NaN or infinite."))


def _each(observables: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield each single observable in nested lists with its place, such as ``"observables[0][2]"``."""
    numbers = _as_numbers(observables)
    if numbers is not None:
        yield place, numbers
        return
    is_coefficient = isinstance(observables, (list, tuple)) and any(isinstance(item, Complex) for item in observables)
    if isinstance(observables, (list, tuple, np.ndarray, PauliList)) and not is_coefficient:
        for position, item in enumerate(observables):
            yield from _each(item, f"{place}[{position}]")
    else:
        yield place, observables


def _as_numbers(observables: Any) -> np.ndarray | None:
    """Return an array of numbers, or nested lists of numbers, as an array; None for anything else."""
    if not isinstance(observables, (list, tuple, np.ndarray)):
        return None
    first = observables
    while isinstance(first, (list, tuple)) and first:
        first = first[0]
    if not isinstance(first, (Complex, np.generic, np.ndarray)):  # NumPy writes operators as matrices
        return None
    try:
        array = np.asarray(observables)
    except Exception:  # ragged lists
        return None
    return array if array.size and array.dtype.kind in "biufc" else None


def _explain_one(place: str, item: Any) -> str:
    """Return the text of the error for one observable; "" if Qiskit's text is the best one."""
    if isinstance(item, str):
        wrong = sorted(set(item) - set(_LETTERS))
        letters = " ".join(_LETTERS)
        return f"{place} is {_shown(item)} with the letter {wrong[0]!r}; allowed: {letters}." if wrong else ""
    if isinstance(item, (Pauli, SparsePauliOp, SparseObservable, Mapping)):
        return _not_real(place, item)
    if isinstance(item, (list, tuple)):
        return (
            f"{place} is {_shown(item)}: strings with coefficients are one observable as "
            "SparsePauliOp.from_list([('ZZI', 0.5), ...]) or as a mapping {'ZZI': 0.5, ...}."
        )
    if isinstance(item, np.ndarray) and (item.ndim != 2 or item.shape[0] != item.shape[1]):
        return (
            f"{place} is an array of numbers of shape {item.shape}; a PUB of an estimator is (circuit, observables, "
            "parameter_values), observables first. (An estimator cannot take the place of a sampler, whose PUBs have "
            "no observables; a FusedSampler can.)"
        )
    if isinstance(item, (BaseOperator, np.ndarray)) or hasattr(item, "toarray"):
        return (
            f"{place} is {_article(type(item).__name__)}, a matrix; use SparsePauliOp.from_operator(Operator(...)), "
            "which writes it as a sum of Pauli strings."
        )
    return f"{place} is {_shown(item)}, of type {type(item).__name__}; allowed: {_ALLOWED}."


def _terms(item: Any) -> list[tuple[str, Any]]:
    """Return each term of an observable as text, with its coefficient."""
    if isinstance(item, Mapping):
        return [(repr(str(label)), coefficient) for label, coefficient in item.items()]
    if isinstance(item, Pauli):
        return [(repr(item.to_label()), (-1j) ** item.phase)]
    if isinstance(item, SparsePauliOp):
        return list(zip(map(repr, item.paulis.to_labels()), item.coeffs))
    if isinstance(item, SparseObservable):
        return [(f"term {number}", coefficient) for number, coefficient in enumerate(item.coeffs)]
    return []


def _not_finite(place: str, item: Any) -> str:
    for term, coefficient in _terms(item):
        if isinstance(coefficient, Complex) and not isfinite(abs(coefficient)):
            return f"the coefficient of {term} in {place} is {coefficient}; allowed: finite real numbers."
    return ""


def _not_real(place: str, item: Any) -> str:
    """Return the text of the error for a coefficient that is not a finite real number; "" if there is none."""
    for term, coefficient in _terms(item):
        if not isinstance(coefficient, Complex):
            return (
                f"the coefficient of {term} in {place} is {_shown(coefficient)}; allowed: finite real numbers, so bind "
                "its parameters first."
            )
    for term, coefficient in _terms(item):
        if isfinite(abs(coefficient)) and np.imag(coefficient):
            return (
                f"the coefficient of {term} in {place} is {coefficient}; allowed: real numbers, since an observable is "
                "Hermitian."
            )
    return _not_finite(place, item)


def _first_lengths(observables: Any) -> str:
    """Return how the lengths of two lists at one level differ, as text; "" if all lengths are equal."""
    if not isinstance(observables, (list, tuple)):
        return ""
    texts = [
        f"a list of {len(item)}" if isinstance(item, (list, tuple)) else "a single observable" for item in observables
    ]
    for position, text in enumerate(texts):
        if text != texts[0]:
            return f"{texts[0]} at 0 and {text} at {position}"
    return next(filter(None, map(_first_lengths, observables)), "")


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def _shown(thing: Any) -> str:
    text = " ".join(repr(thing).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
