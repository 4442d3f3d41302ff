# SPDX-License-Identifier: Apache-2.0
"""Plan: shows a fused program to people. It prints and draws itself, counts operations and predicts bytes.

Engines and compiled circuits hold only the `FusedProgram`; `fuse` returns a plan of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qiskit_fused.common.choices import check_choice, check_count, check_dtype
from qiskit_fused.common.display import ShownAsText
from qiskit_fused.common.free_memory import resolve_limit
from qiskit_fused.common.text import count_text
from qiskit_fused.compilation.circuits import COMPILED, CompiledCircuit
from qiskit_fused.compilation.observables import circuit_observables
from qiskit_fused.engines.cpu import costs
from qiskit_fused.engines.cpu.memory import Counts, Footprint
from qiskit_fused.execution.shared_parts import Sharing, find_sharing
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.inspection.explanation import explain, fused_text, shared_texts, tabulate
from qiskit_fused.inspection.method_table import Report, report
from qiskit_fused.options.method import METHODS
from qiskit_fused.program.amplitude_encoding import Starts
from qiskit_fused.program.program import Program

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _array(name: str) -> property:
    """Return a property that reads a field of the fused program."""
    return property(attrgetter(f"fused_program.{name}"))


@dataclass(frozen=True, eq=False, repr=False)
class Plan(ShownAsText):
    """A circuit as the engines run it. A plan prints itself, draws itself, counts operations and predicts bytes.

    Up to a global phase and the order of the qubits, the engines run ``U(theta) = P_D R_D ... P_2 R_2 P_1 R_1 P_0``. A
    layer ``R_d`` rotates some of the qubits, each of them once, by ``exp(-i beta/2 Y)``. A phase ``P_d`` is a product
    of diagonal gates. A run is the product of one-qubit gates that became one rotation of a layer; a term is one
    diagonal gate of a phase. `fuse` makes plans.

    >>> circuit = QuantumCircuit(1)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> fuse(circuit).num_runs, fuse(circuit).flops(gradient=False)
    (1, 4)

    Attributes:
        fused_program: the fused program, which engines read.
        inputs: bool (C,), True for columns that differ between the rows of a batch; None shows no shared parts. The C
            columns are the parameters of the circuit, then its expressions.
        num_observables: number of observables of the batch, from which the shared parts are estimated.
        cones: number of qubits of each light cone, if the terms of the observables are simulated in several light
            cones; this plan then shows the largest of them.

    The arrays of the fused program, of R runs and T terms, are attributes too. They have the dtypes and meanings of the
    arrays of ``program.ops``:

    * ``leaf_kind``, ``leaf_column``, ``leaf_coefficient``, ``leaf_offset``, ``leaf_quaternion``: the gates of all runs.
    * ``run_begin``: int32 (R + 1,), leaves of run ``r`` are ``run_begin[r]:run_begin[r + 1]``.
    * ``run_qubit``, ``run_layer``: int32 (R,), sorted by layer, then by qubit.
    * ``term_phase``: int32 (T,), ascending, and the other term arrays, with masks over the n bits.
    * ``dense_layer``: int32 (M,), of the M dense gates, with masks over the n bits, and ``dense_matrices``: M matrices.
    * ``map_layer``, ``map_number``, ``map_columns``, ``ops_of_maps``: the linear maps, see ``FusedProgram``.

    Source: arXiv:2603.02804 fuses the gates of the forward and of the backward pass; the rotations and phases are the
    normal form of this project.
    """

    fused_program: FusedProgram
    inputs: np.ndarray | None = None
    num_observables: int = 1
    cones: tuple[int, ...] = ()

    leaf_kind, leaf_column, leaf_coefficient = map(_array, ("leaf_kind", "leaf_column", "leaf_coefficient"))
    leaf_offset, leaf_quaternion = map(_array, ("leaf_offset", "leaf_quaternion"))
    run_begin, run_qubit, run_layer = map(_array, ("run_begin", "run_qubit", "run_layer"))
    term_phase, term_column, term_coefficient = map(_array, ("term_phase", "term_column", "term_coefficient"))
    term_offset, term_care, term_value = map(_array, ("term_offset", "term_care", "term_value"))
    term_sign, dense_layer, dense_targets = map(_array, ("term_sign", "dense_layer", "dense_targets"))
    dense_care, dense_value, dense_matrices = map(_array, ("dense_care", "dense_value", "dense_matrices"))
    map_layer, map_number = map(_array, ("map_layer", "map_number"))
    map_columns, ops_of_maps = map(_array, ("map_columns", "ops_of_maps"))

    @property
    def program(self) -> Program:
        """The program that was fused."""
        return self.fused_program.program

    @property
    def num_qubits(self) -> int:
        """n, the number of simulated qubits, which are the qubits that some observable can see."""
        return self.fused_program.num_qubits

    @property
    def num_layers(self) -> int:
        """D, the number of layers of rotations, dense gates and linear maps."""
        return self.fused_program.num_layers

    @property
    def num_runs(self) -> int:
        """Number of runs; each run is executed as one rotation."""
        return self.fused_program.num_runs

    @property
    def wires(self) -> np.ndarray:
        """Bit of each circuit qubit in the final state, -1 where the qubit is not simulated."""
        return self.fused_program.wires

    @property
    def initial_state(self) -> np.ndarray | None:
        """The start state of all rows, complex128 (2**n,), or None for ``|0...0>``."""
        return self.fused_program.initial_state

    @property
    def starts(self) -> Starts | None:
        """The object that makes the start state of each row from the row's columns, or None."""
        return self.fused_program.starts

    @property
    def start_bits(self) -> np.ndarray:
        """Bit of each active qubit of the program at the start, -1 where it is not simulated."""
        return self.fused_program.start_bits

    @property
    def support(self) -> np.ndarray | None:
        """Action of the observables on each qubit, 0 for none, 1 for diagonal, 2 for other; None if all gates stay."""
        return self.fused_program.support

    @property
    def takes_states(self) -> bool:
        """Whether each row starts in its own state."""
        return self.fused_program.takes_states

    @property
    def starts_at_zero(self) -> bool:
        """Whether all rows start in ``|0...0>``."""
        return self.fused_program.starts_at_zero

    @property
    def is_real(self) -> bool:
        """Whether states stay real, up to a global phase, for all angles. Real states halve memory and work."""
        return self.fused_program.is_real

    @property
    def fused_text(self) -> str:
        """The numbers of rotations, layers, terms and phases of the fused circuit, in words."""
        return fused_text(self.fused_program)

    @property
    def num_sweeps(self) -> int:
        """Passes over all amplitudes of a forward sweep on the CPU; the adjoint makes as many, over two states.

        A layer is one sweep, two if it rotates qubits along which the state is cut, and each dense gate is one more.
        """
        return costs.num_sweeps(self.fused_program)

    def num_positions(self, *, imaginary: bool = False) -> int:
        """Count the states that the CPU engine's backward pass visits: one before each phase, and the final one.

        If rows start in ``|0...0>``, the state before the first layer is left out, unless ``imaginary`` needs it.
        """
        return costs.num_positions(self.fused_program, imaginary=imaginary)

    def flops(self, gradient: bool = True, *, is_real: bool | None = None) -> int:
        """Count the floating-point operations of the sweeps for one row and observable; a multiply-add counts as two.

        A rotation takes 4 flops per amplitude, its adjoint 8, and the sum Im<lam|Y|psi> 4. A phase takes 8 flops, and 8
        more for the product of its two tables (4 if it has one table). The adjoint of a phase takes 16 flops, and 6
        more with the sums of Im(conj(lam) psi). Real states take half of the flops of rotations, and 2 flops for a
        phase or 4 for its adjoint, without sums. A dense gate on k qubits takes 8 2^k flops per amplitude (2 2^k if
        real), half as many per control, its adjoint twice as many. Tables, bindings and rare sums of X are not counted.

        Args:
            gradient: whether the adjoint is counted too.
            is_real: whether states are real; None means real if `is_real` of the plan is True.
        """
        return costs.flops(self.fused_program, gradient, is_real=is_real)

    def state_bytes(self, dtype: str = "complex128") -> int:
        """Return the bytes of a state: 2^n amplitudes, each of 16 bytes (complex128) or 8 bytes (complex64).

        A real state takes half of these bytes.
        """
        return costs.state_bytes(self.fused_program, dtype)

    def bytes_moved(self, dtype: str = "complex128", *, gradient: bool = True) -> int:
        """Count the bytes that the sweeps of one row read and write. Bytes that stay in a cache count too.

        Args:
            dtype: number format of the amplitudes.
            gradient: whether the adjoint is counted too.
        """
        return costs.bytes_moved(self.fused_program, dtype, gradient=gradient)

    def memory(
        self,
        batch_size: int = 1,
        method: str = "reverse",
        dtype: str = "complex128",
        *,
        gradient: bool = True,
        observables: int = 1,
        num_threads: int = 1,
        num_states: int | None = None,
    ) -> int:
        """Predict the bytes that the CPU engine holds at its peak: states, tables, sums, arguments and results.

        The prediction assumes that all angles differ between rows. From some 10 MB on, the process grows by the
        predicted bytes within 15 %.

        Args:
            batch_size: number of rows.
            method: "reverse", "checkpoint" or "store".
            dtype: number format of the amplitudes.
            gradient: whether gradients are returned, float64 (rows x observables, columns).
            observables: number of observables of each row, each with one diagonal.
            num_threads: number of threads; at most this number of rows run side by side.
            num_states: for "checkpoint", number of states kept per row; None is the least, 1.

        Raises:
            ValueError: for a count that is no integer or too small, or if ``method`` or ``dtype`` is not allowed.
        """
        check_choice("method", method, METHODS)
        kept = 1 if num_states is None else check_count("num_states", num_states)
        positions = self.num_positions()
        states = {"reverse": 0, "checkpoint": kept, "store": positions}[method]
        counts = _counts(batch_size, observables, dtype, gradient)
        threads = check_count("num_threads", num_threads)
        return Footprint(self.fused_program, counts.dtype).total(counts, threads, min(states, positions))

    def report(
        self,
        batch_size: int = 1,
        memory_limit: int | float | str | None = None,
        *,
        dtype: str = "complex128",
        observables: int = 1,
        num_threads: int = 1,
    ) -> Report:
        """Compare the methods for gradients: states, bytes, forward sweeps and estimated time; ``print`` shows a table.

        Args:
            batch_size: number of rows.
            memory_limit: as the option ``memory_limit``; None is 80 % of the memory that is free now.
            dtype: number format of the amplitudes.
            observables: number of observables of each row.
            num_threads: number of threads; at most this number of rows run side by side.

        Returns:
            A report whose ``costs`` have one entry for each method and device, with the number of states, the peak in
            bytes and the time in units of the time of "reverse".

        Raises:
            ValueError: for a count that is no integer or too small, or if ``memory_limit`` or ``dtype`` is not allowed.
        """
        counts = _counts(batch_size, observables, dtype)
        threads = check_count("num_threads", num_threads)
        return report(self.fused_program, counts, threads, resolve_limit(memory_limit))

    def sharing(self, varies: np.ndarray) -> Sharing:
        """Return the parts of the circuit that rows share if they differ only in some columns.

        Args:
            varies: bool (C,), True for the columns that differ between rows. The parts are found once for each array.
        """
        return find_sharing(self.fused_program, varies)

    def draw(
        self,
        output: str = "mpl",
        *,
        device: str = "cpu",
        dtype: str = "complex128",
        method: str = "reverse",
        num_states: int | None = None,
        num_segments: int | None = None,
        max_layers: int = 6,
    ) -> Figure | str:
        """Draw the circuit as an engine runs it: fused runs, phases, blocks, sweeps and kept states.

        Args:
            output: "mpl" for a matplotlib figure, which notebooks show and ``savefig`` saves; "text" for a string.
            device: engine whose sweeps are drawn, "cpu" (with the widest vectors) or "cuda". This machine does not
                need the device.
            dtype: number format of the amplitudes; the blocks depend on it.
            method: method of the backward pass, "reverse", "checkpoint" or "store".
            num_states: for "checkpoint", number of states kept (see `report`). None keeps the fewest states with which
                no step is executed more than twice.
            num_segments: for "checkpoint", number of segments of equal length, in the place of ``num_states``; at most
                the number of layers.
            max_layers: largest number of layers shown (for "cuda", of steps of sweeps), at least 2. If there are more,
                the first and the last ones are shown.

        Raises:
            ImportError: for "mpl" without matplotlib.
            ValueError: for an argument that is not allowed.
        """
        # Most processes draw nothing, and the modules of pictures would take 5 % of the import of qiskit_fused.
        from qiskit_fused.inspection.drawing.draw import draw

        return draw(
            self.fused_program,
            output,
            device=device,
            dtype=dtype,
            method=method,
            num_states=num_states,
            num_segments=num_segments,
            max_layers=max_layers,
        )

    def explain(self, dtype: str = "complex128") -> str:
        """Describe in sentences the fused and the omitted gates, the cost of a row, and the bound of its speed.

        Args:
            dtype: number format of the amplitudes.

        Raises:
            ValueError: for a dtype that is not allowed.
        """
        return explain(self.fused_program, dtype, self.cones, self._shared_texts())

    def _shared_texts(self) -> list[tuple[str, str]]:
        return [] if self.inputs is None else shared_texts(self.sharing(self.inputs), self.num_observables)

    def short_text(self) -> str:
        """Return the line that ``repr`` shows."""
        parameters = count_text(self.program.num_parameters, "parameter")
        return f"Plan({count_text(self.num_qubits, 'qubit')}, {parameters}, {self.fused_text})"

    def __str__(self) -> str:
        return tabulate(self.fused_program, self.cones, self._shared_texts())


def _counts(batch_size: int, observables: int, dtype: str, gradient: bool = True) -> Counts:
    rows, per_row = check_count("batch_size", batch_size, 0), check_count("observables", observables)
    return Counts.full(rows, per_row, check_dtype("dtype", dtype), gradient)


# Plans by the id of their fused program. A plan keeps its fused program alive, so the id stays unique. `fuse` returns
# the same plan as long as some variable refers to the plan.
_PLANS: WeakValueDictionary[int, Plan] = WeakValueDictionary()


def fuse(
    circuit: QuantumCircuit | CompiledCircuit, observables: Any = None, inputs: Iterable[Parameter] | None = None
) -> Plan:
    """Fuse a circuit and return its plan. ``print(fuse(circuit))`` counts operations, and ``.draw()`` draws them.

    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.ry(Parameter("a"), 0)
    >>> _ = circuit.cx(0, 1)
    >>> plan = fuse(circuit, "ZZ")
    >>> plan
    Plan(2 qubits, 1 parameter, 3 rotations in 2 layers, 1 term in 3 phases)
    >>> plan.state_bytes("complex64")
    16

    Args:
        circuit: the circuit, with any number of parameters, or the result of `compile_circuit`.
        observables: one observable or a list of them. Gates that no observable can see are left out. None keeps all
            gates. If values take several light cones one after the other, the plan shows the largest light cone, and
            ``plan.cones`` has the number of qubits of each.
        inputs: parameters that differ between the rows of a batch. The plan then also shows the gates that all rows
            share, and the number of rows from which on these gates are simulated once.

    Returns:
        The plan. Without inputs, it is the same object for the same unchanged circuit and observables on the same
        qubits.

    Raises:
        TypeError: if ``circuit`` is no circuit, or for an observable of a wrong type.
        UnsupportedInstruction: if the circuit has an instruction that no engine can simulate.
        MemoryError: if the plan would have more than 64 qubits.
        ValueError: if there are no observables, if they are on another number of qubits than the circuit, or for
            parameters that are not in the circuit.
    """
    compiled = COMPILED.get(circuit)
    count, support, grouping = 1, None, None
    if observables is not None:
        operators = circuit_observables(observables, compiled.num_qubits).operators
        count, support = operators.num_observables, operators.support(compiled.num_qubits)
        grouping = compiled.light_cones.groups(operators, 1, per_pair=False)
    cones = () if grouping is None else tuple(group.num_qubits for group in grouping.groups)
    fused = compiled.fused_program(support) if grouping is None else grouping.groups[0].fused
    if inputs is None:
        return _PLANS.setdefault(id(fused), Plan(fused, cones=cones))
    differs = np.zeros(len(compiled.parameters), bool)
    differs[compiled.find_columns("inputs", inputs)] = True
    return Plan(fused, compiled.program.depends_on(differs), count, cones)
