# SPDX-License-Identifier: Apache-2.0
"""Convert the numbers that callers give to NumPy arrays. Each error says how to cure the argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from qiskit_fused.common.row_blocks import copy_rows
from qiskit_fused.common.text import count_text

_USE_LAYER = "use qiskit_fused.torch.FusedLayer"


def as_numbers(values: Any, what: str) -> np.ndarray:
    """Return values as an array of bool, integer, floating-point or complex numbers. Such an array is returned as is.

    Args:
        values: an array, a tensor in CPU memory that requires no gradient, or nested sequences of numbers.
        what: the name of the argument, for errors.

    Raises:
        TypeError: for a tensor that requires a gradient, because the gradient would be lost; for a tensor that NumPy
            cannot read; for None, strings, and other objects that are not numbers.
        ValueError: for nested sequences of different lengths, and for masked values.
    """
    for number, part in enumerate(values) if isinstance(values, (list, tuple)) else ():
        if isinstance(part, np.ma.MaskedArray):  # in a list, NumPy would silently use the numbers under the mask
            as_numbers(part, f"{what}[{number}]")
    try:
        array = np.asarray(values)
    except Exception as error:
        raise _explain(values, what, error) from None
    if array.dtype.kind == "O":
        array = _from_objects(array, what)
    if array.dtype.kind not in "biufc":
        kind = "strings" if array.dtype.kind in "US" else f"of type {array.dtype}"
        raise TypeError(f"{what} are {kind}; allowed: numbers.")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        place = tuple(map(int, np.argwhere(np.ma.getmaskarray(values))[0]))
        raise ValueError(f"{what} are masked at {place}; give values without a mask.")
    return array


def real_values(values: Any, what: str = "parameter_values", owner: str = "parameter of the circuit") -> np.ndarray:
    """Return parameter values as a float64 array. A float64 array is returned as is.

    Complex numbers whose imaginary parts are all zero count as real numbers.

    Args:
        values: anything that `as_numbers` takes.
        what: the name of the argument, for errors.
        owner: the thing that has one value each, for errors.

    Raises:
        TypeError: as `as_numbers`; also for None and for complex numbers, which NumPy would turn into NaN and into
            their real parts.
        ValueError: as `as_numbers`.
    """
    if type(values) is np.ndarray and values.dtype == np.float64:
        return values
    array = as_numbers(values, what) if values is not None else None
    fault = "None" if array is None else None
    if array is not None and array.dtype.kind == "c":
        wrong = array[array.imag != 0]  # NaN is not 0
        fault = f"complex ({wrong[0]:g})" if len(wrong) else None
        array = np.array(array.real)
    if array is None or fault is not None:
        raise TypeError(f"{what} is {fault}; allowed: real numbers, one for each {owner}.")
    return array if array.dtype == np.float64 else copy_rows(array)


def _from_objects(array: np.ndarray, what: str) -> np.ndarray:
    """Return an array of numbers for an array of Python objects, such as Fractions or bound expressions."""
    numbers = [_number(item) for item in array.flat]
    if None in numbers:
        place = np.unravel_index(numbers.index(None), array.shape)
        at, allowed = (f"{what}[{', '.join(map(str, place))}]", "a number") if place else (what, "numbers in an array")
        raise TypeError(f"{at} is {array[place]!r:.60}; allowed: {allowed}.")
    return np.array(numbers).reshape(array.shape)


def _number(item: Any) -> float | complex | None:
    """Return an object as a number; return None if the object is not a number. None and strings are not numbers."""
    if item is None or isinstance(item, str):
        return None
    for kind in (float, complex):
        with suppress(Exception):  # the conversion of a user's class may raise any exception
            return kind(item)
    return None


def _explain(values: Any, what: str, error: Exception) -> Exception:
    """Return the error for values that NumPy cannot convert to an array."""
    tensors = list(_find_tensors(values, what))
    for tensor, place in tensors:
        if getattr(tensor, "requires_grad", False):
            return TypeError(
                f"the tensor {place} requires a gradient, which would be lost here; {_USE_LAYER}, which autograd "
                "differentiates."
            )
    for tensor, place in tensors:
        if not _is_readable(tensor):
            return TypeError(
                f"NumPy cannot read the tensor {place} of {tensor.dtype} on device '{tensor.device}'; "
                f"{_USE_LAYER}, which takes tensors of any device, or give tensor.cpu().double()."
            )
    lengths = list(map(_length, values)) if isinstance(values, (list, tuple)) else []
    other = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
    if other is not None:
        return ValueError(
            f"row 0 of {what} holds {lengths[0]}, and row {other} holds {lengths[other]}; allowed: as much in each row."
        )
    return ValueError(f"{what} are no array of numbers: {error}")


def _length(row: Any) -> str:
    return count_text(len(row), "value") if hasattr(row, "__len__") else "a number"


def _is_readable(tensor: Any) -> bool:
    try:
        np.asarray(tensor)
    except Exception:
        return False
    return True


def _find_tensors(thing: Any, place: str) -> Iterator[tuple[Any, str]]:
    """Yield each tensor in nested sequences with its place, such as ``"values[0][2]"``.

    PyTorch is not imported: an object with a device and a dtype counts as a tensor, unless it is NumPy's.
    """
    if isinstance(thing, (list, tuple)):
        for position, item in enumerate(thing):
            yield from _find_tensors(item, f"{place}[{position}]")
    elif hasattr(thing, "device") and hasattr(thing, "dtype") and not isinstance(thing, (np.ndarray, np.generic)):
        yield thing, place
