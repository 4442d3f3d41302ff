# SPDX-License-Identifier: Apache-2.0
"""Tensors -> values and gradients as tensors: the one way from PyTorch to `Expectations`, on the host and on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.execution.magnitudes import LARGEST_COTANGENT
from qiskit_fused.execution.row_batches import RowBatch, Vjp
from qiskit_fused.torch.conversion import device_of, is_on_gpu, to_array, to_tensor


class TensorRows(NamedTuple):
    """What an evaluation is asked for, as tensors; see `RowBatch`.

    Attributes:
        weight: real (W,).
        inputs: real (B, I).
        initial_states: real or complex (B, 2^n), or None.
        cotangents: real (B, K), or None where values alone are wanted.
        needed: whether gradients of weight, inputs and initial states are needed.
    """

    weight: Tensor
    inputs: Tensor
    initial_states: Tensor | None = None
    cotangents: Tensor | None = None
    needed: tuple[bool, bool, bool] = (True, True, True)


def evaluate_tensors(expectations: Expectations, rows: TensorRows) -> Vjp:
    """Return values and gradients as tensors, in the dtype and on the device of what they are of.

    Tensors on a GPU on which the sweeps run are shared with the engine, in torch's current stream; all others go by way
    of the host.
    """
    found = evaluate_on_gpu(expectations, rows)
    return _evaluate(expectations, rows, None) if found is None else found


def evaluate_on_gpu(expectations: Expectations, rows: TensorRows) -> Vjp | None:
    """Do what `evaluate_tensors` does, but return None where tensors have to go by way of the host."""
    weight, inputs = rows.weight, rows.inputs
    if not (is_on_gpu(weight) and inputs.device == weight.device):
        return None
    with torch.cuda.device(weight.device):
        gradient, any_start = rows.cotangents is not None, rows.initial_states is not None
        runtime = expectations.device_runtime(len(inputs), gradient=gradient, any_start=any_start)
        if runtime is None or _has_large_cotangents(expectations, rows):
            return None
        try:
            return _evaluate(expectations, rows, runtime)
        except DoesNotFit:
            if expectations.options.device != "auto":
                raise
            return None  # the host has more memory; the evaluation there says why it is asked


def _has_large_cotangents(expectations: Expectations, rows: TensorRows) -> bool:
    """Say whether cotangents are so large that the host has to scale them (see `magnitudes`)."""
    cotangents = rows.cotangents
    if cotangents is None or expectations.options.dtype != "complex64":
        return False
    return bool((cotangents.abs() > LARGEST_COTANGENT).any())


def _current_stream(runtime: Any) -> AbstractContextManager[Any]:
    """Return a context in which the engine works in torch's current stream."""
    stream: AbstractContextManager[Any] = runtime.stream(torch.cuda.current_stream().cuda_stream)
    return stream


def _evaluate(expectations: Expectations, rows: TensorRows, runtime: Any) -> Vjp:
    """Evaluate arrays on the CUDA device of ``runtime``, or on the host if ``runtime`` is None."""
    weight, inputs, states, cotangents, needed = rows
    states_dtype = torch.complex128 if runtime is None else getattr(torch, expectations.options.dtype)
    with device_of(weight), nullcontext() if runtime is None else _current_stream(runtime):
        batch = RowBatch(
            to_array(inputs, runtime),
            to_array(weight, runtime),
            to_array(states, runtime, states_dtype),
            to_array(cotangents, runtime),
            input_gradients=needed[1],
            weight_gradients=needed[0],
            state_gradients=needed[2] and states is not None,
        )
        found = expectations.evaluate(batch)
        return Vjp(
            to_tensor(found.values, weight),
            None if found.inputs is None else to_tensor(found.inputs, inputs),
            None if found.weights is None else to_tensor(found.weights, weight),
            None if found.initial_states is None or states is None else to_tensor(found.initial_states, states),
        )
