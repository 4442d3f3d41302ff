# SPDX-License-Identifier: Apache-2.0
"""Errors of circuits that a sampler cannot run, and errors of bad PUBs. Each error has Qiskit's text and a cure."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from qiskit.circuit import ControlFlowOp, QuantumCircuit

from qiskit_fused.common.text import whole_text
from qiskit_fused.lowering.errors import UnsupportedInstruction

NO_REGISTERS = (
    "One of your circuits has no output classical registers and so the result will be empty. Did you mean to add "
    "measurement instructions?"
)


def check_shots(shots: Any, name: str = "shots", may_be_none: bool = False) -> int | None:
    """Return a number of shots.

    Raises:
        TypeError, ValueError: as in Qiskit, for shots that are no integer, not positive, or too large for NumPy.
    """
    if shots is None and may_be_none:
        return None
    also = ", or None for exact probabilities" if may_be_none else ""
    if isinstance(shots, bool) or not isinstance(shots, Integral):
        raise TypeError(f"{name} must be an integer, not {shots!r}{also}.")
    if shots <= 0:
        raise ValueError(f"{name} must be positive, not {shots!r}{also}.")
    if int(shots) >= 1 << 63:
        raise ValueError(f"{name} must be smaller than 2^63, not {whole_text(int(shots))}{also}.")
    return int(shots)


def explain(error: Exception, circuit: QuantumCircuit) -> Exception:
    """Return the error of a circuit that no engine can run, after the text of Qiskit's sampler where it has one."""
    if not isinstance(error, UnsupportedInstruction):
        return error
    if isinstance(circuit.data[error.index].operation, ControlFlowOp):
        return error.prefaced("StatevectorSampler cannot handle ControlFlowOp, nor can FusedSampler")
    if "mid-circuit measurement" in str(error):
        return error.prefaced("StatevectorSampler cannot handle mid-circuit measurements, nor can FusedSampler")
    return error
