# SPDX-License-Identifier: Apache-2.0
"""Plan -> a few sentences: what was fused, what was left out, what a row costs and what bounds its speed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from textwrap import fill

import numpy as np

from qiskit_fused.common.choices import check_dtype
from qiskit_fused.common.limits import count_text, format_bytes, short_text
from qiskit_fused.engines.cpu.memory import Request
from qiskit_fused.engines.cpu.method import suits_store
from qiskit_fused.fusion.fused_program import Plan
from qiskit_fused.fusion.phase_gadgets import OPS_OF_CX, merge_ladders
from qiskit_fused.program.program import OpKind

_WIDTH, _MARGIN = 110, 12
_MOST_NAMES = 6  # of gates
_SMALL = 9  # qubits; from 10 on, sweeps take twice as long as the sines and cosines of a row's angles, or longer
# Of the machine that the constants of plan.py were measured on (AMD Zen 4).
_CORE_CACHE, _SHARED_CACHE = 1 << 20, 32 << 20


def explain(plan: Plan, dtype: str) -> str:
    """Explain a plan; see `Plan.explain`.

    Raises:
        ValueError: for a dtype that is not allowed.
    """
    dtype = check_dtype("dtype", dtype)
    if not plan.num_qubits:
        return "No observable sees a qubit that a gate acts on: values are constants, and nothing is simulated."
    parts: dict[str, Callable[[Plan, str], str]] = {
        "fused": _fused,
        "left out": _left_out,
        "states": _states,
        "one row": _cost,
        "bound by": _bound,
        "method": _method,
    }
    texts = [(name, text(plan, dtype)) for name, text in parts.items()]
    if plan.cones:
        texts.insert(0, ("cones", f"{_cones(plan)}."))
    if plan.inputs is not None:
        texts += plan.sharing(plan.inputs).lines(plan.num_observables)
    indent = " " * _MARGIN
    return "\n".join(fill(f"{name:<{_MARGIN}}{text}", _WIDTH, subsequent_indent=indent) for name, text in texts)


def tabulate(plan: Plan) -> str:
    """Return the printed plan: what was fused, and what a row costs."""
    program = plan.program
    num_terms = int((program.ops.kind == OpKind.TERM).sum())
    rows = [
        ("circuit", f"{count_text(program.num_circuit_qubits, 'qubit')}, "
                    f"{count_text(program.num_parameters, 'parameter')}"),
        ("simulated", f"{count_text(plan.num_qubits, 'qubit')} that the observables can see"),
        ("gates", f"{program.count_gates().total()}"),
        ("normal form", f"{count_text(len(program.ops) - num_terms, 'one-qubit gate')}, "
                        f"{count_text(num_terms, 'diagonal term')}"),
        ("fused", plan.fused_text),
        ("angles", f"{count_text(program.num_parameters, 'parameter')}, "
                   f"{count_text(program.expressions.num_expressions, 'expression')}"),
        ("sweeps", f"{plan.num_sweeps} forward, {plan.num_sweeps} backward, in "
                   f"{count_text(1 << plan.chunk_bits, 'chunk')}"),
    ]  # fmt: skip
    if plan.inputs is not None:
        rows += plan.sharing(plan.inputs).lines(plan.num_observables)
    if plan.cones:
        rows.insert(1, ("cones", _cones(plan)))
    if plan.takes_states:
        rows.insert(2, ("start", "each row in a state of its own"))
    lines = ["Plan", *(f"  {name:<12}{text}" for name, text in rows)]
    lines.append(f"  {'one row':<12}{'flops':>12}{'complex64':>14}{'complex128':>14}{'moved (c64)':>14}")
    for name, gradient in (("value", False), ("gradient", True)):
        cells = [
            short_text(plan.flops(gradient)),
            *(format_bytes(plan.memory(dtype=dtype, gradient=gradient)) for dtype in ("complex64", "complex128")),
            format_bytes(plan.bytes_moved("complex64", gradient=gradient)),
        ]
        lines.append(f"  {'  ' + name:<12}{cells[0]:>12}{cells[1]:>14}{cells[2]:>14}{cells[3]:>14}")
    of_single, of_double = (plan.memory(dtype=dtype) for dtype in ("complex64", "complex128"))
    if of_single > of_double:
        lines.append("  complex64 takes more: its tables of phases are small enough to be kept, which saves time")
    return "\n".join(lines)


def _cones(plan: Plan) -> str:
    few, many = min(plan.cones), max(plan.cones)
    sizes = f"{few} to {many} qubits" if few < many else count_text(many, "qubit")
    return f"{len(plan.cones)} light cones of {sizes}, one after the other; this is the plan of the largest"


def _fused(plan: Plan, dtype: str) -> str:
    gates = plan.program.count_gates()
    names = [f"{number} {name}" for name, number in gates.most_common(_MOST_NAMES)]
    others = gates.total() - sum(number for _, number in gates.most_common(_MOST_NAMES))
    listed = ", ".join([*names, f"{others} others"] if others else names)
    text = f"{count_text(gates.total(), 'gate')} ({listed}) became {plan.fused_text}. "
    if undone := len(plan.program.ops) - len(merge_ladders(plan.program.ops)):
        text += f"{undone // OPS_OF_CX} CX undo each other around diagonals, which they make diagonals of more qubits. "
    if plan.num_runs:
        sizes = np.diff(plan.run_begin)
        text += (
            "Each rotation is a gate of one qubit"
            if sizes.max() == 1
            else (f"A rotation is the product of up to {sizes.max()} gates of one qubit, {sizes.mean():.2g} on average")
        )
        text += "; the gates that a CX or a Pauli rotation needs around its term count, too. "
    if len(plan.term_phase):
        on = Counter(np.bitwise_count(plan.term_care | plan.term_sign).tolist())
        counts = ", ".join(f"{number} on {count_text(size, 'qubit')}" for size, number in sorted(on.items()))
        largest = int(np.bincount(plan.term_phase).argmax())
        most = int((plan.term_phase == largest).sum())
        text += (
            f"Terms are the diagonal gates: {counts}. The most in a phase are {most} (phase {largest}); a phase is one "
            "multiplication per amplitude however many it has."
        )
    return text


def _left_out(plan: Plan, dtype: str) -> str:
    program = plan.program
    kept, count = len(plan.leaf_kind) + len(plan.term_phase), len(merge_ladders(program.ops))
    found = []
    if kept < count:
        found.append(
            f"{count - kept} operations that no observable sees, of the {count} rotations and terms that the gates are "
            "taken apart into"
        )
    if plan.num_qubits < program.num_qubits:
        found.append(count_text(program.num_qubits - plan.num_qubits, "qubit") + " that no observable sees")
    if program.num_qubits < program.num_circuit_qubits:
        found.append(count_text(program.num_circuit_qubits - program.num_qubits, "qubit") + " without gates")
    return f"{'; '.join(found)}." if found else "nothing: the observables see every gate."


def _states(plan: Plan, dtype: str) -> str:
    text = f"2^{plan.num_qubits} amplitudes, {format_bytes(plan.state_bytes(dtype))} in {dtype}"
    if plan.is_real:
        text += " (on the CPU real numbers only: all rotations are about Y, and all terms are signs)"
    if plan.takes_states:
        text += ", each row with a start of its own"
    if plan.chunk_bits:
        text += (
            f". They are cut into {1 << plan.chunk_bits} chunks, which threads share, along the highest "
            f"{count_text(plan.chunk_bits, 'qubit')}; a layer that rotates one of those takes a second sweep"
        )
    return text + "."


def _cost(plan: Plan, dtype: str) -> str:
    value, gradient = (
        f"{short_text(plan.flops(wanted))} flops and moves {format_bytes(plan.bytes_moved(dtype, gradient=wanted))}"
        for wanted in (False, True)
    )
    return (
        f"its value takes {value} in {count_text(plan.num_sweeps, 'sweep')}; with all gradients it takes {gradient}, "
        "in as many sweeps again that take the state back beside its cotangent."
    )


def _bound(plan: Plan, dtype: str) -> str:
    intensity = plan.flops() / plan.bytes_moved(dtype)
    both = 2 * plan.state_bytes(dtype)
    what = f"state and cotangent, {format_bytes(both)},"
    if both <= _CORE_CACHE:
        small = " Below 10 qubits, the sines and cosines of a row's angles take time as well." * (
            plan.num_qubits <= _SMALL
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


def _method(plan: Plan, dtype: str) -> str:
    positions = plan.num_positions()
    states = f"{count_text(positions, 'state')} on the way, {format_bytes(positions * plan.state_bytes(dtype))}"
    if suits_store(plan.footprint(dtype), Request.full(1, 1, dtype)):
        return (
            f"'auto' is 'store' on the CPU: the {states}, stay in the cache, and are read as fast as gates are undone."
        )
    return f"'auto' is 'reverse': undoing gates takes no longer than reading the {states}, and keeps one of them."
