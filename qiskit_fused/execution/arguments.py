# SPDX-License-Identifier: Apache-2.0
"""Turns parameter values, given by position or by name, into arrays in the order of the circuit's parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, ParameterVectorElement
from qiskit.primitives.containers.bindings_array import BindingsArray

from qiskit_fused.common.arrays import real_values

_SHOWN_NAMES = 5  # an error names at most 5 parameters


def is_by_name(values: Any) -> bool:
    """Say whether values are given by the names of their parameters: a mapping or a ``BindingsArray``."""
    return type(values) is not np.ndarray and isinstance(values, (Mapping, BindingsArray))


def ordered_values(values: Any, parameters: Sequence[Parameter], argument: str = "parameter_values") -> np.ndarray:
    """Return values in the order of the parameters, float64 (..., P). A float64 array is returned without a copy.

    Args:
        values: an array (..., P) in the order of the parameters, whose shape is not checked here; or a mapping or
            ``BindingsArray``. A key is a ``Parameter``, a name, or a tuple or ``ParameterVector`` of parameters, whose
            values lie along the last axis. Parameters are identified by their names, as in Qiskit's primitives. Leading
            axes are broadcast: an array (B, I) for the inputs and an array (W,) for the weights give B rows.
        parameters: the P parameters.
        argument: name of the caller's argument, for errors.

    Raises:
        TypeError: for values that are not real numbers, or keys that are no parameters.
        ValueError: for values by name when a parameter has no value or two, when a name is not the name of a parameter,
            or when the shapes of the arrays do not broadcast.
    """
    if not is_by_name(values):
        return real_values(values, argument)
    columns, named = values_by_name(values, parameters, argument)
    if len(columns) < len(parameters):
        missing = set(range(len(parameters))).difference(columns)
        names = [parameters[column].name for column in sorted(missing)]
        raise ValueError(f"{argument} has no values of {listed(names)}; give each parameter one.")
    ordered = np.empty(named.shape)
    ordered[..., columns] = named
    return ordered


def values_by_name(values: Any, parameters: Sequence[Parameter], argument: str) -> tuple[list[int], np.ndarray]:
    """Return the positions of the M parameters that have values, and their values, float64 (..., M).

    Raises:
        TypeError, ValueError: as `ordered_values`, but parameters may be missing.
    """
    arrays = _arrays_by_name(values, argument)
    names = [name for names, _ in arrays for name in names]
    column = {parameter.name: number for number, parameter in enumerate(parameters)}
    foreign = [name for name in names if name not in column]
    if foreign:
        allowed = f"the parameters {listed(list(column))}" if column else "none, there are no parameters"
        raise ValueError(
            f"Could not find placement for parameter {listed(foreign)} of {argument}; allowed: {allowed}"
            f"{_vector_hint(foreign, parameters)}."
        )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"{argument} has values of {listed(repeated)} more than once; give each parameter once.")
    try:
        rows = np.broadcast_shapes(*(array.shape[:-1] for _, array in arrays))
    except ValueError:
        shapes = "; ".join(f"{array.shape[:-1]} of {listed(names)}" for names, array in arrays)
        raise ValueError(f"the rows of {argument} do not go together, they have the shapes {shapes}.") from None
    parts = [np.broadcast_to(array, (*rows, array.shape[-1])) for _, array in arrays]
    return [column[name] for name in names], np.concatenate([np.empty((*rows, 0)), *parts], axis=-1)


def _vector_hint(foreign: Collection[str], parameters: Sequence[Parameter]) -> str:
    """Return a sentence for an error when a foreign name is the name of a ``ParameterVector`` of the circuit."""
    for parameter in parameters:
        if isinstance(parameter, ParameterVectorElement) and parameter.vector.name in foreign:
            name = parameter.vector.name
            return (
                f"; '{name}' is the name of a ParameterVector: give that object as the key, or names as "
                f"'{parameter.name}'"
            )
    return ""


def ordered_rows(values: Any, parameters: Sequence[Parameter], argument: str = "parameter_values") -> np.ndarray:
    """Return values in the order of the parameters as rows, float64 (B, P). Values of shape (P,) are one row.

    Raises:
        TypeError, ValueError: as `ordered_values`, and for another shape.
    """
    rows = ordered_values(values, parameters, argument)
    if rows.ndim == 1:
        rows = rows[None]
    if rows.ndim != 2 or rows.shape[1] != len(parameters):
        shape = np.shape(values) if not is_by_name(values) else rows.shape
        raise ValueError(
            f"{argument} has shape {shape}; the circuit has {len(parameters)} parameters, allowed: (rows, "
            f"{len(parameters)}) or ({len(parameters)},), in {order_of(parameters)}."
        )
    return rows


def check_sequence(argument: str, values: Any, allowed: str) -> None:
    """Raise a TypeError for values that are no list or array: a number, a mapping, a set or a generator.

    Args:
        argument: the name of the values, for errors.
        values: the values.
        allowed: words for the allowed values, for errors.
    """
    is_sequence = hasattr(values, "__len__") and hasattr(values, "__getitem__") and not isinstance(values, Mapping)
    if not is_sequence or getattr(values, "ndim", 1) == 0:
        raise TypeError(f"{argument} is {values!r:.60}; allowed: {allowed}.")


def order_of(parameters: Sequence[Parameter]) -> str:
    """Return words for an error: the order in which values are expected."""
    if not parameters:
        return "no order"
    names = listed([parameter.name for parameter in parameters])
    return f"the order of circuit.parameters, which are sorted by name ({names})"


def _arrays_by_name(values: Any, argument: str) -> list[tuple[tuple[str, ...], np.ndarray]]:
    """Return for each key the names of its parameters, and an array whose last axis runs over these names."""
    if isinstance(values, BindingsArray):
        return list(values.data.items())
    arrays = [(_names(key, argument), real_values(array, argument)) for key, array in values.items()]
    # The array of a single parameter may lack the last axis. An array that ends in an axis of length 1 has the last
    # axis, unless the arrays of other keys show that the axis of length 1 counts rows.
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


def _names(key: Any, argument: str) -> tuple[str, ...]:
    """Return the names of the parameters of a key."""
    if isinstance(key, (str, Parameter)):
        key = (key,)
    names: tuple[Any, ...] = tuple(getattr(part, "name", part) for part in key) if isinstance(key, Iterable) else (key,)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(
            f"{argument} has the key {key!r}; allowed: a Parameter, a name, or a tuple or ParameterVector of them."
        )
    return names


def listed(names: Sequence[str]) -> str:
    """Return quoted names. Of more than 5 names, it shows the first 4 and the last one."""
    quoted = [f"'{name}'" for name in names]
    if len(quoted) > _SHOWN_NAMES:
        quoted[_SHOWN_NAMES - 1 : -1] = ["..."]
    return ", ".join(quoted)
