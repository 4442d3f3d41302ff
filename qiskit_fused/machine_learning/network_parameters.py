# SPDX-License-Identifier: Apache-2.0
"""Check the inputs and weights of a network, and name them in errors as the user does.

``EstimatorQNN`` renames the parameters of its circuit to ``inputs[i]`` and ``weights[i]``. Errors show the user's
names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.exceptions import QiskitError

from qiskit_fused.execution.arguments import listed

_RENAMED = re.compile(r"\b(inputs|weights)\[(\d+)\]")


def as_parameters(parameters: Iterable[Parameter] | Parameter | None) -> list[Any] | None:
    """Return parameters as a list. A single parameter becomes a list of length 1, and None stays None."""
    if isinstance(parameters, (Parameter, str)):
        return [parameters]
    return None if parameters is None else list(parameters)


def check_parameters(circuit: QuantumCircuit, inputs: Sequence[Any], weights: Sequence[Any]) -> None:
    """Check that each parameter of a circuit is one input or one weight.

    Raises:
        ValueError: for a foreign, repeated or missing parameter. The text names all repeated or missing parameters.
    """
    circuit_parameters = set(circuit.parameters)
    for argument, parameters in (("input_params", inputs), ("weight_params", weights)):
        for parameter in parameters:
            if not isinstance(parameter, Parameter) or parameter not in circuit_parameters:
                name = getattr(parameter, "name", parameter)
                raise ValueError(
                    f"{argument} contains '{name}', which is not in circuit.parameters; allowed: the Parameter objects "
                    "in there (equal names are not enough)."
                )
    repeated = [parameter.name for parameter, count in Counter([*inputs, *weights]).items() if count > 1]
    if repeated:
        raise ValueError(
            f"input_params and weight_params contain {listed(repeated)} more than once; give each parameter of the "
            "circuit once."
        )
    missing = [parameter.name for parameter in circuit.parameters if parameter not in {*inputs, *weights}]
    if missing:
        raise ValueError(
            f"input_params and weight_params lack {listed(missing)} of the circuit; give each parameter of the circuit "
            "in one of both."
        )


class UserNames:
    """A context in which errors name parameters as the user does: ``x[0]``, not ``inputs[0]``."""

    __slots__ = ("_inputs", "_weights")

    def __init__(self, inputs: Sequence[Parameter], weights: Sequence[Parameter]):
        self._inputs, self._weights = inputs, weights

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, (ValueError, TypeError, QiskitError)):
            error.args = tuple(map(self._rename, error.args))
            for name, value in vars(error).items():  # some errors store texts in attributes beside ``args``
                setattr(error, name, self._rename(value))

    def _rename(self, text: Any) -> Any:
        return _RENAMED.sub(self._name_of, text) if isinstance(text, str) else text

    def _name_of(self, match: re.Match[str]) -> str:
        parameters, index = self._inputs if match[1] == "inputs" else self._weights, int(match[2])
        return parameters[index].name if index < len(parameters) else match[0]
