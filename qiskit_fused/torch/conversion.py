# SPDX-License-Identifier: Apache-2.0
"""Tensors of PyTorch <-> arrays of NumPy, and of an engine on a GPU. Importing this module imports torch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

# NumPy converts small arrays in a quarter of the time of PyTorch.
_NUMPY = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.complex64: np.complex64,
    torch.complex128: np.complex128,
}


def is_on_gpu(tensor: Tensor) -> bool:
    """Say whether a tensor is in the memory of a CUDA device."""
    return bool(tensor.is_cuda)


def detached(tensor: Tensor) -> Tensor:
    """Return a tensor without its history.

    Raises:
        RuntimeError: for a tensor of the vectorised mode of ``torch.autograd``.
    """
    try:
        return tensor.detach()
    except RuntimeError as error:
        if "Batching rule" not in str(error):
            raise
        raise RuntimeError(
            "qiskit_fused.torch cannot be differentiated with vectorize=True or is_grads_batched=True; use "
            "torch.func.jacrev, jacfwd, hessian or vmap, or leave the argument out."
        ) from None


def to_array(tensor: Tensor | None, runtime: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Return a tensor as an array. Both share memory if they have the same dtype and are on the same device.

    Args:
        tensor: any tensor; None stays None.
        runtime: runtime of the CUDA device that holds the tensor and the array; None makes an array of NumPy.
        dtype: dtype of the array.

    Raises:
        RuntimeError: as `detached`.
    """
    if tensor is None:
        return None
    host = detached(tensor)
    if runtime is not None:
        return runtime.from_dlpack(host.to(dtype).resolve_conj().resolve_neg().contiguous())
    if host.dtype not in _NUMPY:
        host = host.cpu().to(dtype)  # not every device has float64
    return host.numpy(force=True).astype(_NUMPY[dtype], copy=False)


def to_tensor(array: Any, like: Tensor) -> Tensor:
    """Return an array as a tensor of the dtype and device of another; a new array's memory is shared if that can be."""
    if isinstance(array, np.ndarray):
        dtype = _NUMPY.get(like.dtype)
        if array.dtype.kind == "c" and not like.is_complex():
            array = array.real
        if dtype is not None:
            array = array.astype(dtype, copy=False)
        tensor = torch.from_numpy(array)
        return tensor if dtype is not None and like.is_cpu else tensor.to(like)
    tensor = torch.from_dlpack(array)
    if tensor.is_complex() and not like.is_complex():
        tensor = tensor.real
    return tensor.to(like)


def device_of(tensor: Tensor) -> AbstractContextManager[Any]:
    """Return a context in which the tensor's CUDA device is the current one, on which the CUDA engine runs."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def as_rows(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Broadcast a tensor (..., D) to the leading dimensions ``shape``, and return it as rows (B, D)."""
    if len(shape) == 1 and tensor.shape[:-1] == shape:
        return tensor
    size = tensor.shape[-1]
    return tensor.expand(*shape, size).reshape(prod(shape), size)
