# SPDX-License-Identifier: Apache-2.0
"""Evaluate a batch by the parts that `Sharing` names: the prefix once, the suffix as evolved observables."""

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

MOST_BYTES = 1 << 28  # bytes of states and matrices at a time, at most
LIMIT_SHARE = 4  # states and matrices take at most this part of memory_limit
_FEW_FLIPS = 8  # sets of flipped bits of an observable; one with more is applied as a matrix product


class Run(Protocol):
    """Evaluates a plan on the device of the batch."""

    def __call__(self, plan: FusedProgram, request: Request, watch: Watch | None) -> Evaluation:
        """Return what an engine returns."""


class SharedBatch(NamedTuple):
    """A batch in which rows share some gates.

    Attributes:
        sharing: the parts of the plan.
        operators: the observables.
        request: rows and pairs.
        room: bytes of states and matrices at a time.
        mode: PREFIX or OBSERVABLE, or ROWS before that is decided.
    """

    sharing: Sharing
    operators: Observables
    request: Request
    room: int
    mode: str = ROWS

    @property
    def gradient(self) -> bool:
        """Whether gradients are wanted."""
        return self.request.gradient is not None

    @property
    def row_bytes(self) -> int:
        """Bytes of the states of a row that are held at a time."""
        return (64 if self.gradient else 32) << self.sharing.plan.num_qubits

    @property
    def matrix_bytes(self) -> int:
        """Bytes of observables as matrices, and of the columns of the suffix."""
        size = 1 << self.sharing.plan.num_qubits
        matrices = (3 if self.gradient else 2) * len(self.operators) * np.dtype(self.request.dtype).itemsize
        return size * (size * (matrices + 48) + 16 * self.request.num_columns)


def find_mode(batch: SharedBatch) -> str:
    """Return the mode that takes least of those that the batch allows; ROWS where nothing is shared."""
    goes_back = _goes_back(batch.sharing, batch.request)
    question = batch.request.num_rows, len(batch.operators), batch.gradient, goes_back
    for evolve in (True, False):
        mode = batch.sharing.choose(*question, evolve)
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
    rows, chosen = (part.reshape(num_rows, count) for part in batch.request.pairs)
    return bool((chosen == np.arange(count)).all() and (rows == np.arange(num_rows)[:, None]).all())


def evaluate_shared(run: Run, batch: SharedBatch, watch: Watch | None = None) -> Evaluation:
    """Evaluate a batch in the mode PREFIX or OBSERVABLE; the stats of its parts are for ``run`` to keep.

    For columns of which only the sum over rows matters, row 0 of the gradients has what comes from prefix and suffix.
    """
    sharing, request = batch.sharing, batch.request
    prefix, start, backwards = sharing.prefix, None, None
    first = Request(request.columns[:1], NO_PAIRS, dtype=request.dtype)
    if prefix is not None:
        start = _final_states(run, prefix, first, share(watch, 0, 0, 1))
        if batch.gradient and _columns_used(prefix).any():
            backwards = np.zeros_like(start)
    evolved = _Evolved(run, batch, watch) if batch.mode == OBSERVABLE else None

    def evaluate(part: Request, watch: Watch | None) -> Evaluation:
        if start is not None:
            part = part._replace(boundary=BoundaryStates(start))
        if part.gradient is not None and start is not None:
            part = part._replace(gradient=part.gradient._replace(of_initial_states=backwards is not None))
        found = run(sharing.rest, part, watch) if evolved is None else evolved.evaluate(part, watch)
        if backwards is None:
            return found
        backwards[...] += found.state_gradients.sum(axis=0)
        return replace(found, state_gradients=None)

    slices = cut_evenly(request.num_rows, rows_that_fit(batch.room, batch.row_bytes))
    found = evaluate_slices(request, slices, evaluate, watch)
    if batch.gradient and evolved is not None:
        found.gradients[0] += evolved.gradient(share(watch, 1, 1, 1))
    if prefix is not None and backwards is not None:
        back = first._replace(gradient=GradientRequest(), boundary=BoundaryStates(final_cotangents=backwards))
        found.gradients[0] += run(prefix, back, share(watch, 1, 1, 1)).gradients[0]
    return Evaluation(found.values, found.gradients, state_gradients=found.state_gradients)


def _final_states(run: Run, plan: FusedProgram, request: Request, watch: Watch | None) -> np.ndarray:
    """Return the states of rows behind a plan; the request keeps only its columns and initial states."""
    boundary = request.boundary._replace(final=True)
    found = run(plan, request._replace(pairs=NO_PAIRS, gradient=None, boundary=boundary), watch)
    assert found.final_states is not None
    return found.final_states


class _Evolved:
    """The observables O_k pulled back through the suffix U: H_k = U^+ O_k U, as matrices, and what a gradient needs.

    With phi_b the state in which row b reaches the suffix, ``value[b, k] = <phi_b|H_k|phi_b>``. Of the sum of
    ``weights[b, k] value[b, k]``, phi_b has the cotangent ``2 sum_k weights[b, k] H_k phi_b``, and column j of U, in
    which U takes the j-th basis state, ``2 sum_k sum_i R_k[j, i] O_k U|i>``, R_k[j, i] = sum_b weights[b, k]
    conj(phi_b[j]) phi_b[i].
    """

    def __init__(self, run: Run, batch: SharedBatch, watch: Watch | None):
        sharing, dtype, size = batch.sharing, batch.request.dtype, 1 << batch.sharing.plan.num_qubits
        assert sharing.suffix is not None
        self._run, self._sharing, self._suffix = run, sharing, sharing.suffix
        columns = np.repeat(batch.request.columns[:1], size, axis=0)
        self._basis = Request(columns, NO_PAIRS, None, BoundaryStates(np.eye(size, dtype=np.complex128)), dtype)
        states = _final_states(run, self._suffix, self._basis, share(watch, 0, 0, 1)).astype(dtype, copy=False)
        terms = batch.operators.restrict(self._suffix.wires)
        self._moved = [apply_observable(terms, k, states) for k in range(len(batch.operators))]  # [j]: O_k U|j>
        self._matrices = [states.conj() @ moved.T for moved in self._moved]
        self._weighted = [np.zeros_like(states) for _ in self._moved] if batch.gradient else []  # R_k

    def evaluate(self, part: Request, watch: Watch | None) -> Evaluation:
        """Evaluate some rows, which differ in the middle only; the gradient is without that of the suffix."""
        middle = self._sharing.middle
        assert middle is not None
        goes_back = part.gradient is not None and _goes_back(self._sharing, part)
        phi = _final_states(self._run, middle, part, share(watch, 0, 1, 3) if goes_back else watch)
        phi = phi.astype(part.dtype, copy=False)
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
        found = self._run(
            middle,
            part._replace(
                pairs=NO_PAIRS,
                gradient=part.gradient._replace(cotangents=None, summed=None, unused=None),
                boundary=part.boundary._replace(final_cotangents=cotangents.astype(np.complex128)),
            ),
            share(watch, 1, 3, 3),
        )
        return replace(found, values=values.ravel())

    def gradient(self, watch: Watch | None) -> np.ndarray:
        """Return what the suffix adds to the gradient, (C,), once all rows were evaluated."""
        cotangents = sum(2 * weighted @ moved for weighted, moved in zip(self._weighted, self._moved))
        boundary = self._basis.boundary._replace(final_cotangents=np.asarray(cotangents, dtype=np.complex128))
        request = self._basis._replace(gradient=GradientRequest(), boundary=boundary)
        gradients: np.ndarray = self._run(self._suffix, request, watch).gradients
        return gradients.sum(axis=0)


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


def _goes_back(sharing: Sharing, request: Request) -> bool:
    """Say whether some gradient of the middle, or of the states it starts in, matters."""
    middle, gradient = sharing.middle, request.gradient
    if middle is None or gradient is None or gradient.unused is None or sharing.prefix is not None:
        return True
    if middle.takes_states and gradient.of_initial_states:
        return True
    return bool((_columns_used(middle) & ~gradient.unused).any())


def _columns_used(plan: FusedProgram) -> np.ndarray:
    """Say which columns the gates of a plan depend on."""
    used = np.zeros(plan.program.num_columns + 1, bool)  # column -1 is a constant
    used[plan.leaf_column] = used[plan.term_column] = True
    vectors = plan.leaf_column[plan.leaf_kind == OpKind.RV]
    used[vectors + 1] = used[vectors + 2] = True
    return used[:-1]
