# SPDX-License-Identifier: Apache-2.0
"""Write the tables of the how-to pages from the code that they describe: ``python tutorials/tables.py``.

A table stands between two comments that name its function: ``<!-- generated: standard_gates -->`` and
``<!-- end: standard_gates -->``.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from qiskit.circuit import ControlledGate, QuantumCircuit
from qiskit.circuit.library import Initialize, RVGate, StatePreparation, efficient_su2
from qiskit.circuit.library.standard_gates import get_standard_gate_name_mapping
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import fuse
from qiskit_fused.common.byte_sizes import format_bytes
from qiskit_fused.common.text import count_text
from qiskit_fused.fusion.layers import MAX_START_STATE_QUBITS
from qiskit_fused.lowering import matrices
from qiskit_fused.lowering import rules as synthesis
from qiskit_fused.lowering.gate_table import GATES
from qiskit_fused.lowering.lower import lower
from qiskit_fused.program.program import MAX_QUBITS, OpKind

FOLDER = Path(__file__).resolve().parent
BATCH, REPS = 100, 10  # rows and repetitions of `efficient_su2` in the table of bytes


def standard_gates() -> str:
    """Describe Qiskit's standard gates: first the gates of the gate table, then controlled versions of these gates."""
    standard = {"rv": RVGate(0.1, 0.2, 0.3)} | get_standard_gate_name_mapping()
    plain = [(name, standard[name]) for name in GATES]
    controlled = [(name, gate) for name, gate in standard.items() if _is_controlled(gate) and name not in GATES]
    lines = [_gate_row(name, gate) for name, gate in plain + sorted(controlled, key=lambda entry: entry[1].num_qubits)]
    return _table(["gate", "qubits", "angles", "controlled", "one-qubit gates", "diagonal terms"], lines)


def _is_controlled(gate: object) -> bool:
    return isinstance(gate, ControlledGate) and gate.base_gate.name in GATES


def _gate_row(name: str, gate: ControlledGate) -> list[object]:
    circuit = QuantumCircuit(gate.num_qubits)
    circuit.append(gate, range(gate.num_qubits))
    kinds = lower(circuit).ops.kind
    terms = int((kinds == OpKind.TERM).sum())
    controls = "" if name in GATES else f"`{gate.base_gate.name}` under {count_text(gate.num_ctrl_qubits, 'control')}"
    return [f"`{name}`", gate.num_qubits, len(gate.params), controls, len(kinds) - terms, terms]


def other_operations() -> str:
    """Describe the operations that have a rule of their own."""
    rules = {kind.__name__: rule for kind, rule in synthesis.RULES.items()}
    rules[f"{Initialize.__name__}`, `{StatePreparation.__name__}"] = synthesis.prepare
    return _table(["operation", "what runs"], [[f"`{name}`", _summary(rule)] for name, rule in sorted(rules.items())])


def _summary(rule: object) -> str:
    """Return the first paragraph of a rule's docstring without "Lower", and with code between single backticks."""
    text = " ".join((inspect.getdoc(rule) or "").split("\n\n")[0].split()).rstrip(".").replace("``", "`")
    text = text.removeprefix("Lower ")
    return text[0].lower() + text[1:]


def sizes() -> str:
    """List the largest sizes; larger sizes raise an error."""
    return _table(
        ["size", "at most"],
        [
            ["qubits that one term of an observable sees", MAX_QUBITS],
            ["qubits of a dense matrix: a `UnitaryGate`, an evolution of terms that do not commute",
             matrices.MAX_DENSE_QUBITS],
            ["qubits of a statevector that starts in a vector: `Initialize`, `raw_feature_vector`",
             MAX_START_STATE_QUBITS],
        ],
    )  # fmt: skip


def bytes_of_qubits() -> str:
    """List the bytes of one state, and the bytes that the CPU engine holds for values, gradients and a batch."""
    rows = []
    for num_qubits in (4, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30):
        plan = fuse(efficient_su2(num_qubits, reps=REPS), SparsePauliOp("Z" * num_qubits))
        single = {"dtype": "complex64", "num_threads": 2}
        counts = [
            8 << num_qubits,
            plan.memory(gradient=False, **single),
            plan.memory(**single),
            plan.memory(dtype="complex128", num_threads=2),
            plan.memory(BATCH, **single),
            plan.memory(BATCH, "checkpoint", num_states=8, **single),
        ]
        rows.append([num_qubits, *(format_bytes(count).replace(" ", "\N{NO-BREAK SPACE}") for count in counts)])
    head = ["qubits", "a state", "values", "gradients", "gradients, complex128", f"gradients, {BATCH} rows",
            f"gradients, {BATCH} rows, 8 checkpoints"]  # fmt: skip
    return _table(head, rows)


TABLES = [standard_gates, other_operations, sizes, bytes_of_qubits]


def _table(head: list[str], rows: list[list[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def fill(text: str) -> str:
    """Return the text of a page with its tables as they should be."""
    for table in TABLES:
        between = rf"(?<=<!-- generated: {table.__name__} -->\n).*?(?=<!-- end: {table.__name__} -->)"
        if re.search(between, text, re.S):
            text = re.sub(between, f"\n{table()}\n\n", text, flags=re.S)
    return text


def main() -> None:
    """Rewrite the pages whose tables have changed."""
    for page in sorted(FOLDER.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (filled := fill(text)) != text:
            page.write_text(filled, encoding="utf-8")
            print(f"{page.name}: written")


if __name__ == "__main__":
    main()
