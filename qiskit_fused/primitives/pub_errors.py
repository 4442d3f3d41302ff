# SPDX-License-Identifier: Apache-2.0
"""Makes the errors for PUBs whose parts do not fit together. Each error has Qiskit's text and a cure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qiskit_fused.common.row_errors import row_index
from qiskit_fused.common.text import count_text
from qiskit_fused.execution.arguments import order_of


def unbound(parameters: Sequence[Any], part: str) -> ValueError:
    """Return the error for a PUB without values of its parameters, which are the second or third part of a PUB."""
    note = ""
    if part == "second":  # a PUB of a sampler: a circuit alone may be a part of a PUB that is not in a list
        note = (
            " Note that if you want to run a single pub, you need to wrap it with `[]` like `sampler.run([(circuit, "
            "param_values)])` instead of `sampler.run((circuit, param_values))`."
        )
    return ValueError(
        f"The number of values (0) does not match the number of parameters ({len(parameters)}) for the circuit; give "
        f"values as the {part} part of the PUB, in {order_of(parameters)}, or as a mapping {{parameter: value}}.{note}"
    )


def wrong_values(shape: tuple[int, ...], parameters: Sequence[Any]) -> ValueError:
    """Return the error for a number of values that is not the number of parameters."""
    count = len(parameters)
    allowed = f"(..., {count}), in {order_of(parameters)}" if count else "none"
    return ValueError(
        f"parameter_values has shape {shape}; the circuit has {count_text(count, 'parameter')}, allowed: {allowed}."
    )


def not_broadcastable(observables: tuple[int, ...], values: tuple[int, ...], num_parameters: int) -> ValueError:
    """Return the error for shapes of observables and of rows of values that do not broadcast."""
    pairs = (*values, *(1 for _ in observables), num_parameters)
    return ValueError(
        f"The observables shape {observables} and the parameter values shape {values} are not broadcastable; for all "
        f"pairs of both, give parameter_values the shape {pairs}."
    )


def name_row(row: int, shape: tuple[int, ...], number: int) -> str:
    """Return the index of a row in an array of values, and the number of the PUB, for errors."""
    return f"{row_index(row, shape)} of PUB {number}"
