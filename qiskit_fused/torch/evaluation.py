# SPDX-License-Identifier: Apache-2.0
"""Tensors -> values or gradients as tensors: the one way from PyTorch to a `RowFunction`, on the host and on a GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from qiskit_fused.engines.interface import DoesNotFit
from qiskit_fused.execution.magnitudes import LARGEST_COTANGENT
from qiskit_fused.execution.row_batches import RowBatch, Vjp
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.torch.conversion import device_of, is_on_gpu, to_array, to_tensor


def evaluate_tensors(function: RowFunction, rows: RowBatch) -> Vjp:
    """Return values, or gradients if there are cotangents, in the dtype and on the device of what they belong to.

    Tensors on a GPU on which the sweeps run are shared with the engine, in torch's current stream; all others go by way
    of the host.

    Args:
        function: the function.
        rows: real (B, I), real (W,), real or complex (B, 2^n) or None, and real (B, K) or None, all tensors.
    """
    if not is_on_gpu(rows.weights):
        return _evaluate(function, rows, None)
    found = evaluate_on_gpu(function, rows)
    if found is None:
        with device_of(rows.weights):
            found = _evaluate(function, rows, None)
    return found


def evaluate_on_gpu(function: RowFunction, rows: RowBatch) -> Vjp | None:
    """Do what `evaluate_tensors` does for weights on a GPU, but return None where tensors go by way of the host."""
    weights, inputs = rows.weights, rows.inputs
    if inputs.device != weights.device:
        return None
    with torch.cuda.device(weights.device):
        gradient, any_start = rows.cotangents is not None, rows.initial_states is not None
        runtime = function.device_runtime(len(inputs), gradient=gradient, any_start=any_start)
        if runtime is None or _has_large_cotangents(rows.cotangents, function.options.dtype):
            return None
        try:
            with _current_stream(runtime):
                return _evaluate(function, rows, runtime)
        except DoesNotFit:
            if function.options.device != "auto":
                raise
            return None  # the host has more memory; the evaluation there says why it is asked


def _has_large_cotangents(cotangents: Tensor | None, dtype: str) -> bool:
    """Say whether cotangents are so large that the host has to scale them (see `magnitudes`)."""
    if cotangents is None or dtype != "complex64":
        return False
    return bool((cotangents.abs() > LARGEST_COTANGENT).any())


def _current_stream(runtime: Any) -> AbstractContextManager[Any]:
    """Return a context in which the engine works in torch's current stream."""
    stream: AbstractContextManager[Any] = runtime.stream(torch.cuda.current_stream().cuda_stream)
    return stream


def _evaluate(function: RowFunction, rows: RowBatch, runtime: Any) -> Vjp:
    """Evaluate arrays on the CUDA device of ``runtime``, or on the host if ``runtime`` is None."""
    inputs, weights, states, cotangents, *requested = rows
    states_dtype = torch.complex128 if runtime is None else getattr(torch, function.options.dtype)
    found = function.evaluate(
        RowBatch(
            to_array(inputs, runtime),
            to_array(weights, runtime),
            to_array(states, runtime, states_dtype),
            to_array(cotangents, runtime),
            *requested,
        )
    )
    if cotangents is None:
        return Vjp(to_tensor(found.values, weights))
    return Vjp(
        None,
        None if found.inputs is None else to_tensor(found.inputs, inputs),
        None if found.weights is None else to_tensor(found.weights, weights),
        None if found.initial_states is None or states is None else to_tensor(found.initial_states, states),
    )
