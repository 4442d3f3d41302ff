# SPDX-License-Identifier: Apache-2.0
"""Refuses results that no memory holds, by their number, before anything is allocated for them.

The outcomes of a measurement are given by a few numbers, and n measured qubits have 2^n of them. So the lists of rows
and outcomes that an engine takes can be too large themselves.
"""

from __future__ import annotations

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.free_memory import ALWAYS_FREE, DEFAULT_SHARE, resolve_limit
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import CompiledCircuit
from qiskit_fused.engines.cuda import availability
from qiskit_fused.execution.derivatives import num_differentiated
from qiskit_fused.options import FusedOptions
from qiskit_fused.program.observables import Observables
from qiskit_fused.program.outcomes import noun_of, ways_to_fewer

_NUMBER_BYTES = 8  # bytes of a value or a derivative, float64


def check_results(
    options: FusedOptions,
    compiled: CompiledCircuit,
    operators: Observables,
    num_rows: int,
    *,
    gradient: bool,
    number_bytes: int = _NUMBER_BYTES,
) -> None:
    """Raise a MemoryError if the results of all rows exceed the free memory, or those of one row the memory limit.

    Args:
        options: the options. Their memory limit counts for results on the CPU only.
        compiled: the circuit.
        operators: the K observables.
        num_rows: number of rows B.
        gradient: whether each pair of a row and an observable has a gradient.
        number_bytes: bytes of a number of the results.

    Raises:
        MemoryError: the text names the number of results, their bytes, the limit and a cure.
    """
    most_bytes = num_rows * len(operators) * (_NUMBER_BYTES + number_bytes * compiled.program.num_columns)
    if most_bytes <= DEFAULT_SHARE * ALWAYS_FREE:
        return  # such results always fit, and the free memory is not read for them
    count = num_differentiated(operators) if gradient else len(operators)
    row_bytes = count * (_NUMBER_BYTES + number_bytes * compiled.program.num_columns * gradient)
    if num_rows * row_bytes <= DEFAULT_SHARE * ALWAYS_FREE:
        return
    limit, limit_name = resolve_limit(None), f"{DEFAULT_SHARE:.0%} of the free memory"
    if options.memory_limit is not None and options.executor is None and _is_on_cpu(options):
        of_row = options.resolve_memory_limit()
        if num_rows and row_bytes > of_row:
            num_rows, limit, limit_name = 1, of_row, "memory_limit"
    if num_rows * row_bytes <= limit:
        return
    noun = noun_of(operators)
    what = f"the {'gradients' if gradient else 'values'} of {len(operators):,} {noun} in {count_text(num_rows, 'row')}"
    if gradient:
        what += f" with respect to {count_text(compiled.program.num_parameters, 'parameter')}"
    cure = ways_to_fewer(noun, gradient)
    if row_bytes <= limit:
        cure = f"ask for fewer rows at a time, {count_text(limit // row_bytes, 'row')} at most, or {cure}"
    raise MemoryError(
        f"{what} take {format_bytes(num_rows * row_bytes)}, {limit_name} is {format_bytes(limit)}; {cure}."
    )


def _is_on_cpu(options: FusedOptions) -> bool:
    """Say whether the CPU engine evaluates whatever the size of the work is."""
    return options.device == "cpu" or (options.device == "auto" and availability.usable_gpu()[0] is None)
