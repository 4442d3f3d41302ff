# SPDX-License-Identifier: Apache-2.0
"""Evaluates a batch whose rows share gates: simulates the prefix once, pulls observables back through the suffix."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from qiskit_fused.engines.evaluation import Evaluation
from qiskit_fused.engines.interface import Watch
from qiskit_fused.engines.request import NO_PAIRS, BoundaryStates, GradientRequest, Request
from qiskit_fused.execution.row_cuts import cut_evenly, evaluate_slices, rows_that_fit, share
from qiskit_fused.execution.shared_parts import OBSERVABLE, ROWS, Sharing
from qiskit_fused.fusion.fused_program import FusedProgram
from qiskit_fused.program.observables import Observables, TermMasks
from qiskit_fused.program.program import OpKind

MOST_BYTES = 1 << 28  # states and matrices of a batch take at most 256 MiB at a time
LIMIT_SHARE = 4  # states and matrices of a batch take at most memory_limit / 4
_FEW_FLIPS = 8  # an observable with more than 8 different sets of flipped bits is applied as a matrix product


class EvaluateProgram(Protocol):
    """Evaluates a fused program on the device of the batch."""

    def __call__(self, fused: FusedProgram, request: Request, watch: Watch | None) -> Evaluation:
        """Return the evaluation of the request by the engine of the device."""


class SharedBatch(NamedTuple):
    """A batch in which rows share some gates.

    Attributes:
        sharing: the parts of the fused program.
        operators: the observables.
        request: rows and pairs.
        room: bytes that states and matrices may take at a time.
        mode: PREFIX or OBSERVABLE; ROWS before the mode is chosen.
    """

    sharing: Sharing
    operators: Observables
    request: Request
    room: int
    mode: str = ROWS

    @property
    def gradient(self) -> bool:
        """Whether gradients are requested."""
        return self.request.gradient is not None

    @property
    def row_bytes(self) -> int:
        """Bytes of all states of one row that are in memory at the same time."""
        return (64 if self.gradient else 32) << self.sharing.fused.num_qubits

    @property
    def matrix_bytes(self) -> int:
        """Bytes of the observables as matrices, and of the columns of the suffix."""
        size = 1 << self.sharing.fused.num_qubits
        matrices = (3 if self.gradient else 2) * len(self.operators) * np.dtype(self.request.dtype).itemsize
        return size * (size * (matrices + 48) + 16 * self.request.num_columns)


def find_mode(batch: SharedBatch) -> str:
    """Return the mode of the least estimated cost among the modes that the batch allows."""
    back = _goes_back(batch.sharing, batch.request)
    for evolve in (True, False) if batch.operators.have_terms else (False,):  # outcomes are not made matrices
        mode = batch.sharing.choose(batch.request.num_rows, len(batch.operators), batch.gradient, back, evolve)
        if mode == ROWS or _allows(batch, mode):
            return mode
    return ROWS


def _allows(batch: SharedBatch, mode: str) -> bool:
    """Say whether the batch can be evaluated in the mode PREFIX or OBSERVABLE, within its room."""
    sharing, request = batch.sharing, batch.request
    if batch.gradient:
        parts = [sharing.prefix] + [sharing.suffix] * (mode == OBSERVABLE)
        used = np.logical_or.reduce([_columns_used(part) for part in parts if part is not None])
        if not request.gradients_are_per_row:
            if mode == OBSERVABLE or used.any():
                return False
        elif request.summed_columns is None or (used & ~request.summed_columns).any():
            return False
    if mode == OBSERVABLE and not (batch.matrix_bytes <= batch.room and _is_product(batch)):
        return False
    return batch.row_bytes <= batch.room


def _is_product(batch: SharedBatch) -> bool:
    """Say whether the pairs are all pairs of rows and observables."""
    num_rows, count = batch.request.num_rows, len(batch.operators)
    if batch.request.num_pairs != num_rows * count:
        return False
    rows, observables = (part.reshape(num_rows, count) for part in batch.request.pairs)
    return bool((observables == np.arange(count)).all() and (rows == np.arange(num_rows)[:, None]).all())


def evaluate_shared(run: EvaluateProgram, batch: SharedBatch, watch: Watch | None = None) -> Evaluation:
    """Evaluate a batch in the mode PREFIX or OBSERVABLE; the returned evaluation has no stats.

    For columns of which only the sum over rows matters, row 0 of the gradients also has the gradients of the prefix and
    of the suffix.
    """
    sharing, request = batch.sharing, batch.request
    prefix, start, prefix_cotangent = sharing.prefix, None, None
    first_row = Request(request.columns[:1], NO_PAIRS, dtype=request.dtype)
    if prefix is not None:
        start = _final_states(run, prefix, first_row, share(watch, 0, 0, 1)).astype(np.complex128, copy=False)
        if batch.gradient and _columns_used(prefix).any():
            prefix_cotangent = np.zeros_like(start)
    evolved = _EvolvedObservables(run, batch, watch) if batch.mode == OBSERVABLE else None

    def evaluate(part: Request, watch: Watch | None) -> Evaluation:
        if start is not None:
            part = part._replace(boundary=BoundaryStates(start))
        if part.gradient is not None and start is not None:
            part = part._replace(gradient=part.gradient._replace(of_initial_states=prefix_cotangent is not None))
        evaluation = run(sharing.rest, part, watch) if evolved is None else evolved.evaluate(part, watch)
        if prefix_cotangent is None:
            return evaluation
        prefix_cotangent[...] += evaluation.state_gradients.sum(axis=0)
        return replace(evaluation, state_gradients=None)

    slices = cut_evenly(request.num_rows, rows_that_fit(batch.room, batch.row_bytes))
    evaluation = evaluate_slices(request, slices, evaluate, watch)
    if batch.gradient and evolved is not None:
        evaluation.gradients[0] += evolved.gradient(share(watch, 1, 1, 1))
    if prefix is not None and prefix_cotangent is not None:
        boundary = BoundaryStates(final_cotangents=prefix_cotangent)
        prefix_request = first_row._replace(gradient=GradientRequest(), boundary=boundary)
        evaluation.gradients[0] += run(prefix, prefix_request, share(watch, 1, 1, 1)).gradients[0]
    return Evaluation(evaluation.values, evaluation.gradients, state_gradients=evaluation.state_gradients)


def _final_states(run: EvaluateProgram, fused: FusedProgram, request: Request, watch: Watch | None) -> np.ndarray:
    """Return the final states of rows. Only the columns and the initial states of the request are used."""
    boundary = request.boundary._replace(final=True)
    states = run(fused, request._replace(pairs=NO_PAIRS, gradient=None, boundary=boundary), watch).final_states
    assert states is not None
    return states


class _EvolvedObservables:
    """The observables O_k pulled back through the suffix U, as the matrices H_k = U^+ O_k U.

    Let phi_b be the state in which row b reaches the suffix. Then ``value[b, k] = <phi_b|H_k|phi_b>``. Let the loss be
    ``sum_bk weights[b, k] value[b, k]``. Then the cotangent of phi_b is ``2 sum_k weights[b, k] H_k phi_b``, and the
    cotangent of U|j>, column j of U, is ``2 sum_k sum_i R_k[j, i] O_k U|i>``, with
    ``R_k[j, i] = sum_b weights[b, k] conj(phi_b[j]) phi_b[i]``.
    """

    def __init__(self, run: EvaluateProgram, batch: SharedBatch, watch: Watch | None):
        sharing, dtype, size = batch.sharing, batch.request.dtype, 1 << batch.sharing.fused.num_qubits
        assert sharing.suffix is not None
        self._run, self._sharing, self._suffix = run, sharing, sharing.suffix
        columns = np.repeat(batch.request.columns[:1], size, axis=0)
        self._basis = Request(columns, NO_PAIRS, None, BoundaryStates(np.eye(size, dtype=np.complex128)), dtype)
        states = _final_states(run, self._suffix, self._basis, share(watch, 0, 0, 1))
        terms = batch.operators.restrict(self._suffix.wires)
        self._moved = [apply_observable(terms, k, states) for k in range(len(batch.operators))]  # [j]: O_k U|j>
        self._matrices = [states.conj() @ moved.T for moved in self._moved]
        self._weighted = [np.zeros_like(states) for _ in self._moved] if batch.gradient else []  # R_k

    def evaluate(self, part: Request, watch: Watch | None) -> Evaluation:
        """Evaluate some rows, which differ only in the middle. The gradient lacks the gradient of the suffix."""
        middle = self._sharing.middle
        assert middle is not None
        goes_back = part.gradient is not None and _goes_back(self._sharing, part)
        phi = _final_states(self._run, middle, part, share(watch, 0, 1, 3) if goes_back else watch)
        num_rows, count = len(phi), len(self._matrices)
        values = np.empty((num_rows, count))
        weights = None if part.cotangents is None else part.cotangents.reshape(num_rows, count).astype(phi.real.dtype)
        cotangents = np.zeros_like(phi)
        for k, matrix in enumerate(self._matrices):
            turned = phi @ matrix.T
            values[:, k] = np.einsum("bi,bi->b", phi.conj(), turned).real
            if part.gradient is not None:
                assert weights is not None
                cotangents += 2 * weights[:, k, None] * turned
                self._weighted[k] += phi.conj().T @ (weights[:, k, None] * phi)
        if not goes_back:
            return Evaluation(values.ravel(), None if part.gradient is None else np.zeros(part.columns.shape))
        assert part.gradient is not None
        evaluation = self._run(
            middle,
            part._replace(
                pairs=NO_PAIRS,
                gradient=part.gradient._replace(cotangents=None, summed=None, unused=None),
                boundary=part.boundary._replace(final_cotangents=cotangents.astype(np.complex128)),
            ),
            share(watch, 1, 3, 3),
        )
        return replace(evaluation, values=values.ravel())

    def gradient(self, watch: Watch | None) -> np.ndarray:
        """Return the gradient of the suffix, float64 (C,). It is complete when all rows have been evaluated."""
        cotangents = sum(2 * weighted @ moved for weighted, moved in zip(self._weighted, self._moved))
        boundary = self._basis.boundary._replace(final_cotangents=np.asarray(cotangents, dtype=np.complex128))
        request = self._basis._replace(gradient=GradientRequest(), boundary=boundary)
        gradients: np.ndarray = self._run(self._suffix, request, watch).gradients
        return gradients.sum(axis=0)


def apply_observable(terms: TermMasks, observable: int, states: np.ndarray) -> np.ndarray:
    """Return O psi for each row psi of states (B, 2**n); see `observables` for the masks of terms.

    Cost: 2**n operations for each term, and B 2**n operations for each distinct set of flipped bits. An observable with
    more than 8 distinct sets of flipped bits takes a matrix product, B 4**n operations.
    """
    is_chosen = terms.observable == observable
    index = np.arange(states.shape[1], dtype=np.uint64)
    flips, group = np.unique(terms.x[is_chosen], return_inverse=True)
    diagonals = np.zeros((len(flips), len(index)), dtype=np.complex128)
    masks = (part[is_chosen] for part in (terms.z, terms.care, terms.value, terms.real, terms.imag))
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


def _goes_back(sharing: Sharing, request: Request) -> bool:
    """Say whether a gradient of the middle, or of the initial states of the middle, is needed."""
    middle, gradient = sharing.middle, request.gradient
    if middle is None or gradient is None or gradient.unused is None or sharing.prefix is not None:
        return True
    if middle.takes_states and gradient.of_initial_states:
        return True
    return bool((_columns_used(middle) & ~gradient.unused).any())


def _columns_used(fused: FusedProgram) -> np.ndarray:
    """Return bool (C,): whether some gate of a fused program depends on a column."""
    used = np.zeros(fused.program.num_columns + 1, bool)  # the last entry is for column -1, which means a constant
    used[fused.leaf_column] = used[fused.term_column] = True
    vectors = fused.leaf_column[fused.leaf_kind == OpKind.RV]
    used[vectors + 1] = used[vectors + 2] = True
    return used[:-1]
