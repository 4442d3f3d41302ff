# SPDX-License-Identifier: Apache-2.0
"""Checks the option ``num_segments`` against the number of layers of the fused program."""

from __future__ import annotations

from contextlib import suppress

from qiskit_fused.common.free_memory import TooManyQubits
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.checkpointing import check_segments
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables


def check_option(
    options: FusedOptions, compiled: CompiledCircuit, operators: Observables, *, whole: bool, any_start: bool
) -> None:
    """Raise a ValueError when the option ``num_segments`` is larger than the number of layers of the fused program.

    On every device, the limit is the number of layers of the fused program of all observables together. Light cones and
    the parts that rows share may have fewer layers, and a pass of a GPU may apply several layers: then each layer or
    pass is a segment. Observables that see more than 64 qubits together have no such fused program, and no limit.

    Args:
        options: the options, with ``num_segments``.
        compiled: the circuit.
        operators: the observables.
        whole: whether all gates are needed (see `Request.needs_all_gates`).
        any_start: whether rows bring initial states.
    """
    assert options.num_segments is not None
    support = None if whole else operators.support(compiled.num_qubits)
    with suppress(TooManyQubits):
        check_segments(
            "option num_segments", options.num_segments, compiled.fused_program(support, any_start).num_layers
        )
