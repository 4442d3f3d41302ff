# SPDX-License-Identifier: Apache-2.0
"""An emulated device whose arrays are not NumPy arrays: like with CuPy, mixing the two kinds is a TypeError.

Kernels accept arrays of the device only. `asarray` and `array` copy from the host, `from_dlpack` shares the memory of
another library's array, and `to_host` copies to the host and counts the copied bytes.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from cuda_emulation import EmulatedRuntime

FUNCTIONS = (
    *("add", "arange", "array", "asarray", "ascontiguousarray", "einsum", "empty", "exp", "fill_diagonal", "isfinite"),
    *("matmul", "maximum", "minimum", "square", "tril", "zeros"),
)
NAMESPACE = SimpleNamespace()  # the array module of the runtime that was made last


class DeviceArray:
    """An array of the device, with the members of CuPy's arrays that this package uses."""

    __array_ufunc__ = None  # NumPy's operators and functions refuse the array
    __hash__ = None

    def __init__(self, memory):
        self._memory = memory

    def __array__(self, *_, **__):
        raise TypeError("implicit conversion of an array of the device to NumPy's")

    def __getattr__(self, name):
        if name not in (
            "T",
            "all",
            "any",
            "astype",
            "conj",
            "dtype",
            "fill",
            "imag",
            "max",
            "nbytes",
            "ndim",
            "ravel",
            "real",
            "reshape",
            "shape",
            "size",
            "sum",
            "view",
            "view",
        ):
            raise AttributeError(name)
        member = getattr(self._memory, name)
        return DeviceArray(member) if isinstance(member, np.ndarray) else _on_device(member)

    def __array_namespace__(self):
        return NAMESPACE

    def __len__(self):
        return len(self._memory)

    def __bool__(self):
        return bool(self._memory)

    def __float__(self):
        return float(self._memory)

    def __getitem__(self, index):
        return DeviceArray(self._memory[_taken(index)])

    def __setitem__(self, index, value):
        self._memory[_taken(index)] = _taken(value)

    def __dlpack__(self, **keywords):
        return self._memory.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self._memory.__dlpack_device__()


def _taken(value):
    """Return the NumPy array of a device array, and a scalar as it is; raise a TypeError for an array of the host."""
    if isinstance(value, DeviceArray):
        return value._memory
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("an array of the host for one of the device")
    return tuple(map(_taken, value)) if isinstance(value, tuple) else value


def _on_device(function, takes_host=False):
    """Return a function of NumPy as a function of the device, which takes and returns arrays of the device."""
    if not callable(function):
        return function

    def call(*arguments, **keywords):
        keywords = {name: _taken(value) for name, value in keywords.items()}
        if takes_host and not isinstance(arguments[0], DeviceArray):
            first, *arguments = arguments
        else:
            first, *arguments = map(_taken, arguments) if arguments else [None]
            arguments = [first, *arguments] if first is not None else []
            found = function(*arguments, **keywords)
            return DeviceArray(np.asarray(found)) if isinstance(found, (np.ndarray, np.generic)) else found
        return DeviceArray(np.array(function(first, *map(_taken, arguments), **keywords)))

    return call


def _operator(name):
    def apply(self, *others):
        return _on_device(getattr(self._memory, name))(*others)

    return apply


for _name in ("abs", "add", "mul", "rmul", "matmul", "ne", "eq", "le", "gt"):
    setattr(DeviceArray, f"__{_name}__", _operator(f"__{_name}__"))


def _in_place(name):
    def apply(self, other):
        getattr(self._memory, name)(_taken(other))
        return self

    return apply


for _name in ("iadd", "isub", "imul"):
    setattr(DeviceArray, f"__{_name}__", _in_place(f"__{_name}__"))


class StrictRuntime(EmulatedRuntime):
    """An emulated device with its own class of arrays.

    Attributes:
        copied: bytes of each array that was copied to the host.
        streams: handles of the streams that were current.
    """

    def __init__(self, **options):
        super().__init__(**options)
        emulated = self.xp
        self.xp = SimpleNamespace(
            **{name: _on_device(getattr(emulated, name), takes_host=name in ("array", "asarray")) for name in FUNCTIONS}
        )
        self.xp.asnumpy = self.to_host
        NAMESPACE.__dict__.update(self.xp.__dict__)
        self.copied, self.streams = [], []

    def module(self, file, **defines):
        emulated = super().module(file, **defines)

        def function(name):
            launch = emulated.function(name)
            return lambda grid, block, args, shared_memory=0: launch(
                grid, block, tuple(map(_taken, args)), shared_memory
            )

        return SimpleNamespace(function=function)

    def from_dlpack(self, array):
        return DeviceArray(np.from_dlpack(array))

    @contextmanager
    def stream(self, handle):
        self.streams.append(handle)
        yield

    def to_host(self, array):
        assert isinstance(array, DeviceArray)
        self.copied.append(array.nbytes)
        return np.array(array._memory)
