# SPDX-License-Identifier: Apache-2.0
"""Convert tensors of PyTorch to arrays of NumPy or of an engine on a GPU, and back. This module imports torch."""

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
    """Return tensors on a GPU as arrays of the engine. A tensor of the same dtype shares its memory with the array."""
    plain = (tensor.detach().to(dtype).resolve_conj().resolve_neg().contiguous() for tensor in tensors)
    return [gpu.runtime.from_dlpack(tensor) for tensor in plain]


def from_gpu(array: Any, like: Tensor) -> Tensor:
    """Return an array of the engine as a tensor with the dtype of ``like``. Equal dtypes share the memory."""
    tensor = torch.from_dlpack(array)
    return (tensor.real if tensor.is_complex() and not like.is_complex() else tensor).to(like.dtype)


def to_numpy(tensor: Tensor | None, dtype: torch.dtype = torch.float64) -> Any:
    """Return a tensor as a NumPy array; None for None. A tensor of the same dtype in CPU memory shares its memory."""
    if tensor is None:
        return None
    # first to the CPU, because some devices have no float64
    return tensor.detach().cpu().to(dtype).resolve_conj().resolve_neg().numpy()


def to_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """Return a NumPy array as a tensor with the dtype and device of ``like``. Equal ones share the memory."""
    if np.iscomplexobj(array) and not like.is_complex():
        array = array.real
    return torch.from_numpy(array).to(like.dtype).to(like.device)


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which the tensor's CUDA device is the current one, on which the CUDA engine runs."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def as_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Broadcast a tensor (..., D) to the leading dimensions ``shape``, and return it as rows (B, D)."""
    if len(shape) == 1 and tensor.shape[:-1] == shape:
        return tensor
    size = tensor.shape[-1]
    return tensor.expand(*shape, size).reshape(prod(shape), size)
