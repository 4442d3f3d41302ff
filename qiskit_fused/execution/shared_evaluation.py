# SPDX-License-Identifier: Apache-2.0
"""Evaluate a batch by the parts that `Sharing` names: the prefix once, the suffix as evolved observables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from qiskit_fused.common.row_errors import shifted
from qiskit_fused.engines.interface import Ends, Evaluation, Watch
from qiskit_fused.execution.initial_states import FROM_CIRCUIT, RowStarts, join
from qiskit_fused.execution.shared_parts import OBSERVABLE, ROWS, Sharing
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables, TermMasks
from qiskit_fused.program.program import OpKind, Program

MOST_BYTES = 1 << 28  # of states and matrices at a time
LIMIT_SHARE = 4  # these take at most this part of memory_limit
_FEW_FLIPS = 8  # of an observable: more are a matrix product

Pairs = tuple[np.ndarray, np.ndarray]
_NO_PAIRS: Pairs = (np.zeros(0, np.int32), np.zeros(0, np.int32))


class Wanted(NamedTuple):
    """Which gradients of weighted sums a caller needs.

    Attributes:
        summed: bool (C,), columns of which only the sum over all rows matters.
        unused: bool (C,), columns whose gradients do not matter.
    """

    summed: np.ndarray
    unused: np.ndarray

    @classmethod
    def of(cls, program: Program, inputs: np.ndarray, weights: np.ndarray) -> tuple[Wanted, Wanted]:
        """Return what matters of inputs, one value a row, and weights, summed; first without gradients of the inputs.

        Args:
            program: the circuit.
            inputs: columns of the inputs.
            weights: columns of the weights.
        """
        masks = np.zeros((2, program.num_parameters), bool)
        masks[0, inputs] = masks[1, weights] = True
        of_inputs, of_weights = map(program.depends_on, masks)
        return cls(~of_inputs, ~of_weights), cls(~of_inputs, np.zeros_like(of_inputs))


class Batch(NamedTuple):
    """What `execution.evaluate` is asked, see there, and how it is done."""

    sharing: Sharing
    operators: Observables
    columns: np.ndarray
    pairs: Pairs
    gradient: bool
    cotangents: np.ndarray | None
    starts: RowStarts
    wanted: Wanted | None
    dtype: str
    room: int  # bytes of states and matrices at a time
    mode: str = ROWS


class Run(Protocol):
    """Evaluates a plan on the engine of the batch: keywords are those of `Engine.evaluate`."""

    def __call__(
        self, plan: FusedProgram, columns: np.ndarray, pairs: Pairs, starts: RowStarts = FROM_CIRCUIT, **flags: Any
    ) -> Evaluation:
        """Return what the engine returns."""


def find_mode(batch: Batch) -> str:
    """Return the mode that takes least of those that the batch allows; ROWS where nothing is shared."""
    question = len(batch.columns), len(batch.operators), batch.gradient, _goes_back(batch)
    for evolve in (True, False):
        mode = batch.sharing.choose(*question, evolve)
        if mode == ROWS or _allows(batch, mode):
            return mode
    return ROWS


def _allows(batch: Batch, mode: str) -> bool:
    """Say whether the batch can be evaluated in the mode PREFIX or OBSERVABLE, within its room."""
    sharing, wanted = batch.sharing, batch.wanted
    if batch.gradient:
        parts = [sharing.prefix] + [sharing.suffix] * (mode == OBSERVABLE)
        used = np.logical_or.reduce([_columns_used(part) for part in parts if part is not None])
        if batch.cotangents is None:  # each pair has a gradient of its own
            if mode == OBSERVABLE or used.any():
                return False
        elif wanted is None or (used & ~(wanted.summed | wanted.unused)).any():
            return False
    if mode == OBSERVABLE and not (_matrix_bytes(batch) <= batch.room and _is_product(batch)):
        return False
    return _row_bytes(batch) <= batch.room


def _is_product(batch: Batch) -> bool:
    """Say whether the pairs are all pairs of rows and observables."""
    num_rows, count = len(batch.columns), len(batch.operators)
    if len(batch.pairs[0]) != num_rows * count:
        return False
    rows, chosen = (part.reshape(num_rows, count) for part in batch.pairs)
    return bool((chosen == np.arange(count)).all() and (rows == np.arange(num_rows)[:, None]).all())


def evaluate_shared(
    run: Run, batch: Batch, meanwhile: Callable[[], Any] | None = None, watch: Watch | None = None
) -> Evaluation:
    """Evaluate a batch in the mode PREFIX or OBSERVABLE; the stats of its parts are for ``run`` to keep.

    Gradients of columns of which only the sum matters are in the first row as far as they come from shared parts.
    """
    sharing, gradient = batch.sharing, batch.gradient
    prefix, one, start, backwards = sharing.prefix, batch.columns[:1], None, None
    answer = None if meanwhile is None else meanwhile()
    if prefix is not None:
        start = _final_states(run, prefix, one, FROM_CIRCUIT, None, share(watch, 0, 0, 1))
        if gradient and _columns_used(prefix).any():
            backwards = np.zeros_like(start)
    evolved = _Evolved(run, batch, watch) if batch.mode == OBSERVABLE else None
    parts = []
    for rows, watch_block in _blocks(batch, watch):
        part = _part(batch, rows)
        with shifted(rows.start):
            if evolved is not None:
                found = evolved.evaluate(part, start, watch_block)
            else:
                ends = Ends(start, backwards is not None)
                flags: dict[str, Any] = {
                    "gradient": gradient,
                    "cotangents": part.cotangents,
                    "ends": ends,
                    "watch": watch_block,
                }
                found = run(sharing.rest, part.columns, part.pairs, **flags)
        if backwards is not None:
            assert found.state_gradients is not None
            backwards += found.state_gradients.sum(axis=0)
        parts.append(found)
    found = join(parts)
    gradients = found.gradients
    if gradients is not None and evolved is not None:
        gradients[0] += evolved.gradient(share(watch, 1, 1, 1))
    if gradients is not None and prefix is not None and backwards is not None:
        ends = Ends(final_cotangents=backwards)
        back = run(prefix, one, _NO_PAIRS, gradient=True, ends=ends, watch=share(watch, 1, 1, 1))
        assert back.gradients is not None
        gradients[0] += back.gradients[0]
    of_states = found.state_gradients if prefix is None else None
    return Evaluation(found.values, gradients, {}, answer, of_states)


def _final_states(
    run: Run,
    plan: FusedProgram,
    columns: np.ndarray,
    starts: RowStarts,
    initial: np.ndarray | None,
    watch: Watch | None = None,
) -> np.ndarray:
    states = run(plan, columns, _NO_PAIRS, starts, ends=Ends(initial, final=True), watch=watch).final_states
    assert states is not None
    return states


class _Evolved:
    """The observables O_k pulled back through the suffix U: H_k = U^+ O_k U, as matrices, and what a gradient needs.

    With phi_b the state in which row b reaches the suffix, ``value[b, k] = <phi_b|H_k|phi_b>``. Of the sum of
    ``weights[b, k] value[b, k]``, phi_b has the cotangent ``2 sum_k weights[b, k] H_k phi_b``, and column j of U, in
    which U takes the j-th basis state, ``2 sum_k sum_i R_k[j, i] O_k U|i>``, R_k[j, i] = sum_b weights[b, k]
    conj(phi_b[j]) phi_b[i].
    """

    def __init__(self, run: Run, batch: Batch, watch: Watch | None):
        suffix, size = batch.sharing.suffix, 1 << batch.sharing.plan.num_qubits
        assert suffix is not None
        self._run, self._suffix, self._columns = run, suffix, np.repeat(batch.columns[:1], size, axis=0)
        self._basis, self._dtype = np.eye(size, dtype=np.complex128), batch.dtype
        states = _final_states(run, suffix, self._columns, FROM_CIRCUIT, self._basis, share(watch, 0, 0, 1))
        states = states.astype(batch.dtype, copy=False)
        terms = batch.operators.restrict(suffix.wires)
        self._moved = [apply_observable(terms, k, states) for k in range(len(batch.operators))]  # [j]: O_k U|j>
        self._matrices = [states.conj() @ moved.T for moved in self._moved]
        self._weighted = [np.zeros_like(states) for _ in self._moved] if batch.gradient else []  # R_k

    def evaluate(self, part: Batch, start: np.ndarray | None, watch: Watch | None) -> Evaluation:
        """Evaluate some rows, which differ in the middle only; the gradient is without that of the suffix."""
        middle = part.sharing.middle
        assert middle is not None
        question = middle, part.columns, part.starts
        goes_back = part.gradient and _goes_back(part)
        phi = _final_states(self._run, *question, start, share(watch, 0, 1, 3) if goes_back else watch)
        phi = phi.astype(self._dtype, copy=False)
        num_rows, count = len(phi), len(self._matrices)
        values = np.empty((num_rows, count))
        weights = None if part.cotangents is None else part.cotangents.reshape(num_rows, count).astype(phi.real.dtype)
        cotangents = np.zeros_like(phi)
        for k, matrix in enumerate(self._matrices):
            turned = phi @ matrix.T
            values[:, k] = np.einsum("bi,bi->b", phi.conj(), turned).real
            if part.gradient:
                assert weights is not None
                cotangents += 2 * weights[:, k, None] * turned
                self._weighted[k] += phi.conj().T @ (weights[:, k, None] * phi)
        if not goes_back:
            return Evaluation(values.ravel(), np.zeros(part.columns.shape) if part.gradient else None)
        ends = Ends(start, start is not None, final_cotangents=cotangents.astype(np.complex128))
        found = self._run(
            middle, part.columns, _NO_PAIRS, part.starts, gradient=True, ends=ends, watch=share(watch, 1, 3, 3)
        )
        return replace(found, values=values.ravel())

    def gradient(self, watch: Watch | None) -> np.ndarray:
        """Return what the suffix adds to the gradient, (C,), once all rows were evaluated."""
        cotangents = sum(2 * weighted @ moved for weighted, moved in zip(self._weighted, self._moved))
        ends = Ends(self._basis, final_cotangents=np.asarray(cotangents, dtype=np.complex128))
        found = self._run(self._suffix, self._columns, _NO_PAIRS, gradient=True, ends=ends, watch=watch)
        assert found.gradients is not None
        return found.gradients.sum(axis=0)


def apply_observable(terms: TermMasks, observable: int, states: np.ndarray) -> np.ndarray:
    """Return O psi for each row psi of states (B, 2**n); see `observables` for the masks.

    Cost: 2**n for each term, and B 2**n for each distinct set of flipped bits, or a matrix product if these are many.
    """
    chosen = terms.observable == observable
    index = np.arange(states.shape[1], dtype=np.uint64)
    flips, group = np.unique(terms.x[chosen], return_inverse=True)
    diagonals = np.zeros((len(flips), len(index)), dtype=np.complex128)
    masks = (part[chosen] for part in (terms.z, terms.care, terms.value, terms.real, terms.imag))
    for number, z, care, value, real, imag in zip(group.tolist(), *masks):
        signs = 1.0 - 2.0 * (np.bitwise_count(index & z) & 1)
        diagonals[number] += (real + 1j * imag) * signs * ((index & care) == value)
    diagonals = diagonals.astype(states.dtype)
    if len(flips) > _FEW_FLIPS:
        matrix = np.zeros((len(index), len(index)), dtype=states.dtype)
        for x, diagonal in zip(flips, diagonals):
            matrix[index, index ^ x] = diagonal
        return states @ matrix.T
    result = np.zeros_like(states)
    for x, diagonal in zip(flips, diagonals):
        result += diagonal * states[:, index ^ x]
    return result


def _goes_back(batch: Batch) -> bool:
    """Say whether some gradient of the middle, or of the states it starts in, matters."""
    middle, wanted = batch.sharing.middle, batch.wanted
    if middle is None or wanted is None or batch.sharing.prefix is not None:
        return True
    if middle.takes_states and batch.starts.gradients:
        return True
    return bool((_columns_used(middle) & ~wanted.unused).any())


def _columns_used(plan: FusedProgram) -> np.ndarray:
    """Say which columns the gates of a plan depend on."""
    used = np.zeros(plan.program.num_columns + 1, bool)  # column -1 is a constant
    used[plan.leaf_column] = used[plan.term_column] = True
    vectors = plan.leaf_column[plan.leaf_kind == OpKind.RV]
    used[vectors + 1] = used[vectors + 2] = True
    return used[:-1]


def _row_bytes(batch: Batch) -> int:
    """Return the bytes of the states of a row that are held at a time."""
    return (64 if batch.gradient else 32) << batch.sharing.plan.num_qubits


def _matrix_bytes(batch: Batch) -> int:
    size = 1 << batch.sharing.plan.num_qubits
    matrices = (3 if batch.gradient else 2) * len(batch.operators) * np.dtype(batch.dtype).itemsize
    return size * (size * (matrices + 48) + 16 * batch.columns.shape[1])


def _blocks(batch: Batch, watch: Watch | None) -> Iterator[tuple[slice, Watch | None]]:
    """Yield rows whose states fit the room, and what is told of them as a part of them all."""
    num_rows = len(batch.columns)
    size = max(batch.room // _row_bytes(batch), 1)
    count = -(-num_rows // size)
    for number in range(count):
        rows = slice(num_rows * number // count, num_rows * (number + 1) // count)
        yield rows, share(watch, number, number + 1, count)


def _part(batch: Batch, rows: slice) -> Batch:
    if rows == slice(0, len(batch.columns)):
        return batch
    chosen = slice(*np.searchsorted(batch.pairs[0], (rows.start, rows.stop)))
    return batch._replace(
        columns=batch.columns[rows],
        pairs=(batch.pairs[0][chosen] - np.int32(rows.start), batch.pairs[1][chosen]),
        cotangents=None if batch.cotangents is None else batch.cotangents[chosen],
        starts=batch.starts.part(rows),
    )


def share(watch: Watch | None, begin: int, end: int, whole: int) -> Watch | None:
    """Return what hears of a part of the work, from begin to end of a whole."""
    if watch is None or (begin, end) == (0, whole):
        return watch
    return lambda done, total: watch(begin * total + (end - begin) * done, whole * total)
