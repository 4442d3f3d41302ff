# SPDX-License-Identifier: Apache-2.0
"""FusedProgram -> text: sentences and a table about its gates, its cost, and the gates that the rows of a batch share.

`explain` writes the sentences of `Plan.explain`, `tabulate` the table that printing a plan shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from textwrap import fill

import numpy as np

from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.choices import DTYPES, check_dtype
from qiskit_fused.common.text import count_text, short_text
from qiskit_fused.engines.cpu.costs import bytes_moved, chunk_bits, flops, num_positions, num_sweeps, state_bytes
from qiskit_fused.engines.cpu.memory import Counts, Footprint
from qiskit_fused.engines.cpu.method import methods_by_speed
from qiskit_fused.execution.shared_parts import Sharing
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.fusion.phase_gadgets import OPS_OF_CX, merge_ladders
from qiskit_fused.program.program import OpKind

_WIDTH, _MARGIN = 110, 12  # characters of a line, and of the name before its text
_MOST_NAMES = 6  # largest number of kinds of gates that are listed by name
_ALL_KEPT = "all gates are kept, since no observables were given"
# In states of more qubits, sweeps take at least twice the time of the sines and cosines of a row's angles.
_SMALL = 9
# Bytes of the second-level cache of a core and of the shared cache of the machine (AMD Zen 4) on which the constants of
# engines/cpu/costs.py were measured.
_CORE_CACHE, _SHARED_CACHE = 1 << 20, 32 << 20


def fused_text(fused: FusedProgram) -> str:
    """Return the numbers of rotations, layers, terms and phases of a fused program, in words."""
    dense = f"{count_text(len(fused.dense_layer), 'dense gate')}, " if len(fused.dense_layer) else ""
    dense += f"{count_text(len(fused.map_layer), 'linear map')}, " if len(fused.map_layer) else ""
    return (
        f"{count_text(fused.num_runs, 'rotation')} in {count_text(fused.num_layers, 'layer')}, {dense}"
        f"{count_text(len(fused.term_phase), 'term')} in {count_text(fused.num_layers + 1, 'phase')}"
    )


def explain(fused: FusedProgram, dtype: str, cones: Sequence[int], shared: Sequence[tuple[str, str]]) -> str:
    """Explain a plan; see `Plan.explain`.

    Args:
        fused: the fused program.
        dtype: number format of the amplitudes.
        cones: number of qubits of each light cone, see `Plan`.
        shared: (name, text) of each part of the circuit that rows share, see `shared_texts`.

    Raises:
        ValueError: for a dtype that is not allowed.
    """
    dtype = check_dtype("dtype", dtype)
    if not fused.num_qubits:
        return "No observable sees a qubit that a gate acts on: values are constants, and nothing is simulated."
    parts: dict[str, Callable[[FusedProgram, str], str]] = {
        "fused": _fused,
        "left out": _left_out,
        "states": _states,
        "one row": _cost,
        "bound by": _bound,
        "method": _method,
    }
    texts = [(name, text(fused, dtype)) for name, text in parts.items()]
    if cones:
        texts.insert(0, ("cones", f"{_cones(cones)}."))
    texts += shared
    indent = " " * _MARGIN
    return "\n".join(fill(f"{name:<{_MARGIN}}{text}", _WIDTH, subsequent_indent=indent) for name, text in texts)


def _simulated(fused: FusedProgram) -> str:
    """Return how many qubits are simulated, and why these."""
    count = count_text(fused.num_qubits, "qubit")
    if fused.support is None:
        return f"{count}; {_ALL_KEPT}"
    return f"{count} that the observables can see"


def tabulate(fused: FusedProgram, cones: Sequence[int], shared: Sequence[tuple[str, str]]) -> str:
    """Return the printed plan: a table of the fused operations and of the cost of a row.

    Args:
        fused: the fused program.
        cones: number of qubits of each light cone, see `Plan`.
        shared: (name, text) of each part of the circuit that rows share, see `shared_texts`.
    """
    program = fused.program
    num_terms, num_dense = (int((program.ops.kind == kind).sum()) for kind in (OpKind.TERM, OpKind.DENSE))
    normal_form = (
        f"{count_text(len(program.ops) - num_terms - num_dense, 'one-qubit gate')}, "
        f"{count_text(num_terms, 'diagonal term')}"
    )
    if num_dense:
        normal_form += f", {count_text(num_dense, 'dense gate')}"
    sweeps = num_sweeps(fused)
    rows = [
        ("circuit", f"{count_text(program.num_circuit_qubits, 'qubit')}, "
                    f"{count_text(program.num_parameters, 'parameter')}"),
        ("simulated", _simulated(fused)),
        ("gates", f"{program.count_gates().total()}"),
        ("normal form", normal_form),
        ("fused", fused_text(fused)),
        ("angles", f"{count_text(program.num_parameters, 'parameter')}, "
                   f"{count_text(program.expressions.num_expressions, 'expression')}"),
        ("sweeps", f"{sweeps} forward, {sweeps} backward, in "
                   f"{count_text(1 << chunk_bits(fused.num_qubits), 'chunk')}"),
    ]  # fmt: skip
    rows += shared
    if cones:
        rows.insert(1, ("cones", _cones(cones)))
    if fused.takes_states:
        rows.insert(2, ("start", "each row in a state of its own"))
    lines = ["Plan", *(f"  {name:<12}{text}" for name, text in rows)]
    lines.append(f"  {'one row':<12}{'flops':>12}{'complex64':>14}{'complex128':>14}{'moved (c64)':>14}")
    for name, gradient in (("value", False), ("gradient", True)):
        cells = [
            short_text(flops(fused, gradient)),
            *(format_bytes(_row_bytes(fused, dtype, gradient)) for dtype in DTYPES[::-1]),
            format_bytes(bytes_moved(fused, "complex64", gradient=gradient)),
        ]
        lines.append(f"  {'  ' + name:<12}{cells[0]:>12}{cells[1]:>14}{cells[2]:>14}{cells[3]:>14}")
    if _row_bytes(fused, "complex64", True) > _row_bytes(fused, "complex128", True):
        lines.append("  complex64 takes more: its tables of phases are small enough to be kept, which saves time")
    return "\n".join(lines)


def shared_texts(sharing: Sharing, num_observables: int) -> list[tuple[str, str]]:
    """Return (name, text) of each part of the circuit that rows share: its size, and when sharing it saves time."""
    texts = []
    size = 1 << sharing.fused.num_qubits
    for name, part, what in (
        ("prefix", sharing.prefix, "once for all rows"),
        ("suffix", sharing.suffix, f"on the observable, by {size:,} columns"),
    ):
        if part is None:
            continue
        rows = [sharing.rows_for(name, num_observables, gradient) for gradient in (False, True)]
        pays = [f"{of} from {count:,}" for of, count in zip(("values", "gradients"), rows) if count is not None]
        text = f"{what}: {', '.join(pays)} rows on" if pays else "not worth sharing"
        texts.append((name, f"{count_text(part.num_runs, 'rotation')}, {text}"))
    return texts or [("shared", "nothing; inputs come first and last")]


def _row_bytes(fused: FusedProgram, dtype: str, gradient: bool) -> int:
    """Return the bytes that the CPU engine holds for one row."""
    return Footprint(fused, dtype).total(Counts.full(1, 1, dtype, gradient), 1)


def _cones(cones: Sequence[int]) -> str:
    few, many = min(cones), max(cones)
    sizes = f"{few} to {many} qubits" if few < many else count_text(many, "qubit")
    return f"{len(cones)} light cones of {sizes}, one after the other; this is the plan of the largest"


def _fused(fused: FusedProgram, dtype: str) -> str:
    gates = fused.program.count_gates()
    names = [f"{number} {name}" for name, number in gates.most_common(_MOST_NAMES)]
    others = gates.total() - sum(number for _, number in gates.most_common(_MOST_NAMES))
    listed = ", ".join([*names, f"{others} others"] if others else names)
    text = f"{count_text(gates.total(), 'gate')} ({listed}) became {fused_text(fused)}. "
    if undone := len(fused.program.ops) - len(merge_ladders(fused.program.ops).ops):
        text += f"{undone // OPS_OF_CX} CX undo each other around diagonals, which they make diagonals of more qubits. "
    if fused.num_runs:
        sizes = np.diff(fused.run_begin)
        text += (
            "Each rotation is a gate of one qubit"
            if sizes.max() == 1
            else (f"A rotation is the product of up to {sizes.max()} gates of one qubit, {sizes.mean():.2g} on average")
        )
        text += "; the gates that a CX or a Pauli rotation needs around its term count, too. "
    if len(fused.term_phase):
        on = Counter(np.bitwise_count(fused.term_care | fused.term_sign).tolist())
        counts = ", ".join(f"{number} on {count_text(size, 'qubit')}" for size, number in sorted(on.items()))
        largest = int(np.bincount(fused.term_phase).argmax())
        most = int((fused.term_phase == largest).sum())
        text += (
            f"Terms are the diagonal gates: {counts}. The most in a phase are {most} (phase {largest}); a phase is one "
            "multiplication per amplitude however many it has."
        )
    if len(fused.dense_layer):
        largest = int(np.bitwise_count(fused.dense_targets).max())
        text = (
            f"{text.rstrip()} A dense gate is a constant matrix that is applied as one: the largest acts on "
            f"{count_text(largest, 'qubit')} and takes {1 << largest} multiplications per amplitude."
        )
    if len(fused.map_layer):
        text = (
            f"{text.rstrip()} A linear map is CX gates that follow each other: it moves each amplitude once, inside "
            "the sweeps before and after it."
        )
    return text


def _left_out(fused: FusedProgram, dtype: str) -> str:
    program = fused.program
    kept = len(fused.leaf_kind) + len(fused.term_phase) + len(fused.dense_layer) + fused.ops_of_maps
    count = len(merge_ladders(program.ops).ops)
    parts = []
    if kept < count:
        parts.append(
            f"{count - kept} operations that no observable sees, of the {count} rotations and terms that the gates are "
            "taken apart into"
        )
    if fused.num_qubits < program.num_qubits:
        parts.append(count_text(program.num_qubits - fused.num_qubits, "qubit") + " that no observable sees")
    if program.num_qubits < program.num_circuit_qubits:
        parts.append(count_text(program.num_circuit_qubits - program.num_qubits, "qubit") + " without gates")
    if fused.support is None and not parts:
        return f"nothing: {_ALL_KEPT}."
    return f"{'; '.join(parts)}." if parts else "nothing: the observables see every gate."


def _states(fused: FusedProgram, dtype: str) -> str:
    text = f"2^{fused.num_qubits} amplitudes, {format_bytes(state_bytes(fused, dtype))} in {dtype}"
    if fused.is_real:
        text += " (on the CPU real numbers only: all rotations are about Y, and all terms are signs)"
    if fused.takes_states:
        text += ", each row with a start of its own"
    if bits := chunk_bits(fused.num_qubits):
        text += (
            f". They are cut into {1 << bits} chunks, which threads share, along the highest "
            f"{count_text(bits, 'qubit')} or the {bits} below; the sweeps take turns between the two"
        )
    return text + "."


def _cost(fused: FusedProgram, dtype: str) -> str:
    value, gradient = (
        f"{short_text(flops(fused, wanted))} flops and moves {format_bytes(bytes_moved(fused, dtype, gradient=wanted))}"
        for wanted in (False, True)
    )
    return (
        f"its value takes {value} in {count_text(num_sweeps(fused), 'sweep')}; with all gradients it takes {gradient}, "
        "in as many sweeps again that take the state back beside its cotangent."
    )


def _bound(fused: FusedProgram, dtype: str) -> str:
    intensity = flops(fused) / bytes_moved(fused, dtype)
    both = 2 * state_bytes(fused, dtype)
    what = f"state and cotangent, {format_bytes(both)},"
    if both <= _CORE_CACHE:
        small = " Below 10 qubits, the sines and cosines of a row's angles take time as well." * (
            fused.num_qubits <= _SMALL
        )
        return f"arithmetic: {what} stay in the cache of a core (counted as {format_bytes(_CORE_CACHE)}).{small}"
    ratio = f"{intensity:.2g} flops for each byte moved"
    if both <= _SHARED_CACHE:
        return (
            f"arithmetic, or the shared cache: {what} leave the cache of a core, but not one of "
            f"{format_bytes(_SHARED_CACHE)}; a gradient makes {ratio}."
        )
    return (
        f"memory, on machines that make more than {intensity:.2g} flops in the time of moving a byte: {what} come "
        f"from memory in every sweep, and a gradient makes {ratio}."
    )


def _method(fused: FusedProgram, dtype: str) -> str:
    positions = num_positions(fused)
    states = f"{count_text(positions, 'state')} on the way, {format_bytes(positions * state_bytes(fused, dtype))}"
    if methods_by_speed(Footprint(fused, dtype), Counts.full(1, 1, dtype), "auto")[0] == "store":
        return (
            f"'auto' is 'store' on the CPU: the {states}, stay in the cache, and are read as fast as gates are undone."
        )
    return f"'auto' is 'reverse': undoing gates takes no longer than reading the {states}, and keeps one of them."
