# SPDX-License-Identifier: Apache-2.0
"""Parameter values as callers give them, by position or by name -> arrays in the order of the circuit's parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, ParameterVectorElement
from qiskit.primitives.containers.bindings_array import BindingsArray

from qiskit_fused.common.arrays import real_values

_SHOWN_NAMES = 5  # parameters that an error names, at most


def is_by_name(values: Any) -> bool:
    """Say whether values are given by the names of their parameters: a mapping or a ``BindingsArray``."""
    return type(values) is not np.ndarray and isinstance(values, (Mapping, BindingsArray))


def ordered_values(given: Any, parameters: Sequence[Parameter], what: str = "parameter_values") -> np.ndarray:
    """Return values in the order of the parameters as float64 (..., P); an array of float64 is returned itself.

    Args:
        given: an array (..., P) in that order, which is not looked at further; or a mapping or ``BindingsArray``. A key
            is a ``Parameter``, a name, or a tuple or ``ParameterVector`` of them, whose values lie along the last axis.
            Parameters are told apart by their names, as Qiskit's primitives do. Leading axes are broadcast: an array
            (B, I) for the inputs and (W,) for the weights are B rows.
        parameters: the P parameters.
        what: name of the argument, for errors.

    Raises:
        TypeError: for values that are not real numbers, or keys that are no parameters.
        ValueError: for values by name when a parameter has none or two, when a name is not one of the parameters, or
            when shapes do not go together.
    """
    if not is_by_name(given):
        return real_values(given, what)
    columns, values = values_by_name(given, parameters, what)
    if len(columns) < len(parameters):
        missing = set(range(len(parameters))).difference(columns)
        names = [parameters[column].name for column in sorted(missing)]
        raise ValueError(f"{what} has no values of {listed(names)}; give each parameter one.")
    ordered = np.empty(values.shape)
    ordered[..., columns] = values
    return ordered


def values_by_name(given: Any, parameters: Sequence[Parameter], what: str) -> tuple[list[int], np.ndarray]:
    """Return which parameters values are given for, as positions, and the values, float64 (..., number of those).

    Raises:
        TypeError, ValueError: as `ordered_values`, but parameters may be missing.
    """
    arrays = _arrays_by_name(given, what)
    names = [name for names, _ in arrays for name in names]
    column = {parameter.name: number for number, parameter in enumerate(parameters)}
    foreign = [name for name in names if name not in column]
    if foreign:
        allowed = f"the parameters {listed(list(column))}" if column else "none, there are no parameters"
        raise ValueError(
            f"Could not find placement for parameter {listed(foreign)} of {what}; allowed: {allowed}"
            f"{_vector_hint(foreign, parameters)}."
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{what} has values of {listed(repeated)} more than once; give each parameter once.")
    try:
        rows = np.broadcast_shapes(*(array.shape[:-1] for _, array in arrays))
    except ValueError:
        shapes = "; ".join(f"{array.shape[:-1]} of {listed(names)}" for names, array in arrays)
        raise ValueError(f"the rows of {what} do not go together, they have the shapes {shapes}.") from None
    parts = [np.broadcast_to(array, (*rows, array.shape[-1])) for _, array in arrays]
    return [column[name] for name in names], np.concatenate([np.empty((*rows, 0)), *parts], axis=-1)


def _vector_hint(foreign: Collection[str], parameters: Sequence[Parameter]) -> str:
    """Return the part of an error that says how a ``ParameterVector`` is meant whose name was given."""
    for one in parameters:
        if isinstance(one, ParameterVectorElement) and one.vector.name in foreign:
            name = one.vector.name
            return f"; '{name}' is the name of a ParameterVector: give that object as the key, or names as '{one.name}'"
    return ""


def ordered_rows(given: Any, parameters: Sequence[Parameter]) -> np.ndarray:
    """Return values as `ordered_values` does, as rows (B, P); (P,) is one row.

    Raises:
        TypeError, ValueError: as `ordered_values`, and for another shape.
    """
    values = ordered_values(given, parameters)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[1] != len(parameters):
        shape = np.shape(given) if not is_by_name(given) else values.shape
        raise ValueError(
            f"parameter_values has shape {shape}; the circuit has {len(parameters)} parameters, allowed: (rows, "
            f"{len(parameters)}) or ({len(parameters)},), in {order_of(parameters)}."
        )
    return values


def order_of(parameters: Sequence[Parameter]) -> str:
    """Say for an error in which order values are expected."""
    if not parameters:
        return "no order"
    return f"the order of circuit.parameters, which are sorted by name ({listed([one.name for one in parameters])})"


def _arrays_by_name(given: Any, what: str) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Return the names, and arrays whose last axis runs over the names."""
    if isinstance(given, BindingsArray):
        return list(given.data.items())
    arrays = [(_names(key, what), real_values(value, what)) for key, value in given.items()]
    # The values of a single parameter may lack the last axis. An array that ends in an axis of length 1 has it, unless
    # the other values show that this is an axis of rows.
    rows = {array.shape[:-1] for names, array in arrays if len(names) > 1}
    for number, (names, array) in enumerate(arrays):
        if len(names) == 1 and (array.shape[-1:] != (1,) or array.shape in rows):
            arrays[number] = names, array[..., None]
        elif array.shape[-1:] != (len(names),):
            raise ValueError(
                f"the values of {listed(names)} have shape {array.shape}; allowed: (..., {len(names)}), one for each "
                "parameter along the last axis."
            )
    return arrays


def _names(key: Any, what: str) -> tuple[str, ...]:
    if isinstance(key, (str, Parameter)):
        key = (key,)
    names: tuple[Any, ...] = tuple(getattr(one, "name", one) for one in key) if isinstance(key, Iterable) else (key,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{what} has the key {key!r}; allowed: a Parameter, a name, or a tuple or ParameterVector of them."
        )
    return names


def listed(names: Sequence[str]) -> str:
    """Return quoted names, only the first few and the last of very many."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > _SHOWN_NAMES:
        quoted[_SHOWN_NAMES - 1 : -1] = ["..."]
    return ", ".join(quoted)
