# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch <-> arrays of NumPy and of an engine on a GPU. Importing this module imports torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qiskit_fused.execution.device_expectations import DeviceExpectations


def is_on_gpu(tensor: Tensor) -> bool:
    """Say whether a tensor is in the memory of a CUDA device."""
    return bool(tensor.is_cuda)


def to_gpu(gpu: DeviceExpectations, *tensors: Tensor, dtype: torch.dtype = torch.float64) -> list[Any]:
    """Return tensors of the GPU as arrays of the engine, which share their memory where they have that dtype."""
    plain = (tensor.detach().to(dtype).resolve_conj().resolve_neg().contiguous() for tensor in tensors)
    return [gpu.runtime.from_dlpack(tensor) for tensor in plain]


def from_gpu(array: Any, like: Tensor) -> Tensor:
    """Return an array of the engine as a tensor, in the dtype of another; the memory is shared if that is its own."""
    tensor = torch.from_dlpack(array)
    return (tensor.real if tensor.is_complex() and not like.is_complex() else tensor).to(like.dtype)


def to_numpy(tensor: Tensor | None, dtype: torch.dtype = torch.float64) -> Any:
    """Return a tensor as an array, which shares its memory if that is in CPU memory and of the same dtype."""
    if tensor is None:
        return None
    # first to the CPU: not every device has float64
    return tensor.detach().cpu().to(dtype).resolve_conj().resolve_neg().numpy()


def to_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """Return an array as a tensor of the dtype and device of another; a new array's memory is shared if that can be."""
    if np.iscomplexobj(array) and not like.is_complex():
        array = array.real
    return torch.from_numpy(array).to(like.dtype).to(like.device)


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which the CUDA device of a tensor is current: the one that a CUDA engine runs on."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def as_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Broadcast a tensor (..., D) to leading dimensions, and return it as (B, D)."""
    if len(shape) == 1 and tensor.shape[:-1] == shape:
        return tensor
    size = tensor.shape[-1]
    return tensor.expand(*shape, size).reshape(prod(shape), size)
