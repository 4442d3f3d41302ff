# SPDX-License-Identifier: Apache-2.0
"""Turns the parameter values of a PUB into rows, with the rules and the errors of Qiskit's PUBs."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from qiskit.primitives.containers.bindings_array import BindingsArray

from qiskit_fused.common.arrays import real_values
from qiskit_fused.common.row_blocks import copy_rows
from qiskit_fused.execution.arguments import is_by_name, ordered_values
from qiskit_fused.primitives.pub_errors import unbound, wrong_values


def bind_values(values: Any, parameters: tuple[Any, ...], part: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the values of a PUB as a new array (rows, P) in circuit order, and the shape of the rows.

    Args:
        values: an array (..., P), a mapping, a ``BindingsArray``, or None. For a single parameter the last axis may be
            missing: as in Qiskit, a last axis of length 1 is the axis of the parameter.
        parameters: the P parameters of the circuit.
        part: "second" or "third", the part of the PUB that holds the values, for errors.

    Raises:
        TypeError: for values that are not real numbers.
        ValueError: for another number of values than parameters.

    Cost: 2 us, and a copy of the values.
    """
    count = len(parameters)
    if values is None:
        if count:
            raise unbound(parameters, part)
        return np.zeros((1, 0)), ()
    if isinstance(values, BindingsArray) and not values.data:  # rows without parameters, which only have a shape
        if count:
            raise unbound(parameters, part)
        return np.zeros((prod(values.shape), 0)), values.shape
    if is_by_name(values):
        named = ordered_values(values, parameters)
        return named.reshape(prod(named.shape[:-1]), count), named.shape[:-1]
    # Complex values are refused here: `BindingsArray` would drop imaginary parts with a warning of NumPy only.
    array = copy_rows(real_values(values))
    if count and array.shape[-1:] == (count,):
        return array.reshape(-1, count), array.shape[:-1]
    if count == 1:
        return array.reshape(-1, 1), array.shape
    try:
        bindings = BindingsArray.coerce({parameters: array})
    except ValueError:
        raise wrong_values(array.shape, parameters) from None
    return bindings.as_array(parameters).reshape(prod(bindings.shape), count), bindings.shape
