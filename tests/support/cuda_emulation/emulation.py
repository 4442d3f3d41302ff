# SPDX-License-Identifier: Apache-2.0
"""Run the CUDA kernels on a host without a GPU, and find errors that a GPU would hide.

`EmulatedRuntime` replaces the runtime on top of CuPy: g++ compiles the unchanged text of a kernel file, every CUDA
thread is a fiber, and arrays are NumPy's. All host code of the CUDA engine runs as it runs with a device.

    runtime = EmulatedRuntime(check=True, seed=1)
    kernel = runtime.module("sweeps.cu", QF_DOUBLE=1, ...).function("forward_sweep")
    kernel(num_blocks, num_threads, (psi, np.int32(n), None), shared_memory=4096)

These errors are always found, as an `EmulationError` that names kernel, line, block and thread:
  * threads of a block at different barriers, or returned while others wait; deadlocks; local variables above 64 KiB
  * masks of warp collectives without the calling lane, different masks, shuffles from a lane outside the mask
  * launches that a device refuses: too many threads (also for the __launch_bounds__), too much shared memory
  * arguments (TypeError): number, exact type of scalars, type and size of the elements of arrays, read-only arrays for
    pointers that are not const
Shared memory of each block, and arrays from `xp.empty`, begin as NaN, so that a missing write shows in results.
With check=True these errors are also found:
  * races in shared and global memory (also between blocks), by 4 bytes; __syncwarp orders accesses, shuffles and votes
    do not
  * reads and writes out of bounds: each array of a launch is copied to its own place, so that a step from one slice of
    a large array into the next slice is found; overlapping slices stay together
  * reads of shared memory that no thread of the block wrote, and of arrays from `xp.empty` that nothing wrote
  * writes to the array of a `const __restrict__` pointer; misaligned vectors; undefined arithmetic
With check=True, `trace()` records sectors of 32 bytes and passes over the banks of shared memory for each source line,
see `Site`. Each array has the alignment that it has in a pool that starts at a multiple of 512 bytes, like CuPy's pool.
`seed` permutes the order of blocks, warps and lanes (0: no permutation). A correct kernel gives the same bits for every
seed.

Not emulated: inline PTX, asynchronous copies, tensor cores, clusters, grid synchronisation, waiting for another block
(which would never end), atomics other than atomicAdd, __restrict__ of pointers that are not const, two- and
three-dimensional launches, streams, registers, time. Barriers are distinguished by their source line. The checker
remembers at most three threads that read a word. g++ rounds as the device does, but not inside functions (sine, ...),
and it may choose other fused multiply-adds. So results must be compared with a tolerance.
"""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from .building import CompilationError, build, kernels_of, lines_by_file, missing_tools, source_lines

__all__ = [
    "CompilationError",
    "EmulatedModule",
    "EmulatedRuntime",
    "EmulationError",
    "Site",
    "missing_tools",
    "planted",
]

MAX_THREADS = 1024
MAX_GRID = 2**31 - 1
POOL_ALIGNMENT = 512
MAX_SITES = 1 << 16
# One launch runs at a time, because a library keeps its blocks, threads and messages in static variables.
_LAUNCH_LOCK = threading.Lock()


class EmulationError(RuntimeError):
    """An error of a kernel or of its launch."""


@dataclass(frozen=True)
class Site:
    """The memory accesses of all warps at one line of a kernel file, in all traced launches.

    ``passes`` counts sectors of 32 bytes (global memory) or passes over the banks (shared memory). ``fewest`` is the
    smallest number of passes for the same number of bytes.
    """

    file: str
    line: int
    code: str  # the text of the line
    space: str  # "global" or "shared"
    write: bool
    size: int  # bytes of one access
    instructions: int  # number of warp instructions
    passes: int
    fewest: int


class EmulatedRuntime:
    """The Runtime protocol of the CUDA engine on this host.

    Args:
        check: whether to find races, accesses out of bounds and reads of unwritten shared memory; about three times
            slower.
        seed: seed of the order of blocks, warps and lanes.
        source: returns the text of a kernel file; by default the text that the CuPy runtime compiles.
        source_edit: ``source_edit(file, text)`` returns the changed text of a file before it is compiled; see
            `planted`.
        shared_memory_per_block: bytes of shared memory that a block may use, at most 232448.
        shared_memory_per_multiprocessor: bytes of shared memory that the runtime reports for a multiprocessor.
        num_multiprocessors: number of multiprocessors that the runtime reports.
        l2_bytes: bytes of the L2 cache that the runtime reports.
        memory: bytes that free_memory() returns.

    Attributes:
        in_place: whether checked launches access the arrays themselves, not copies; for arrays of many gigabytes.
        selected_blocks: ``selected_blocks(grid)`` returns the numbers of the blocks that run; None: all blocks run.
    """

    name, product_fault = "emulated", ""
    out_of_memory = MemoryError

    def __init__(
        self,
        *,
        check: bool = False,
        seed: int = 0,
        source: Callable[..., str] | None = None,
        source_edit: Callable[[str, str], str] | None = None,
        shared_memory_per_block: int = 232448,
        shared_memory_per_multiprocessor: int = 233472,
        num_multiprocessors: int = 4,
        l2_bytes: int = 1 << 20,
        memory: int = 1 << 30,
    ):
        self.xp = _numpy_with_nan_in_empty()
        self.check = check
        self.seed = seed
        self.shared_memory_per_block = shared_memory_per_block
        self.shared_memory_per_multiprocessor = shared_memory_per_multiprocessor
        self.num_multiprocessors = num_multiprocessors
        self.l2_bytes = l2_bytes
        self.memory = memory
        self._source = source or _package_source
        self._source_edit = source_edit
        self._modules: dict[tuple, EmulatedModule] = {}
        self.in_place = False
        self.selected_blocks: Callable[[int], list[int]] | None = None
        self.tracing = False
        self._sites: dict[tuple, np.ndarray] = {}

    def free_memory(self) -> int:
        return self.memory

    def free_unused_memory(self) -> None:
        """Do nothing, because there is no memory pool."""

    def module(self, file: str, *, stages: str = "", **defines: int) -> EmulatedModule:
        key = (file, stages, tuple(sorted(defines.items())))
        if key not in self._modules:
            self._modules[key] = EmulatedModule(self, file, self.text_of(file, stages), defines)
        return self._modules[key]

    def text_of(self, file: str, stages: str = "") -> str:
        """Return the text of a kernel file, with the changes of ``source_edit``."""
        text = self._source(file, stages) if stages else self._source(file)
        return text if self._source_edit is None else self._source_edit(file, text)

    def context(self):
        return nullcontext()

    def to_device(self, array: np.ndarray):
        return self.xp.array(array)

    def to_host(self, array) -> np.ndarray:
        return np.array(array)

    def stream_of_kept_arrays(self):
        return nullcontext()

    def synchronize(self) -> None:
        pass

    def current_stream(self) -> int:
        return 0

    def mark(self) -> None:
        pass

    def wait_for(self, mark) -> None:
        pass

    @contextmanager
    def trace(self) -> Iterator[None]:
        """Record the access patterns of all launches inside the ``with`` block; `sites` returns them."""
        if not self.check:
            raise EmulationError("only EmulatedRuntime(check=True) can trace")
        self._sites.clear()
        self.tracing = True
        try:
            yield
        finally:
            self.tracing = False

    def sites(self) -> list[Site]:
        """Return the sites that the last trace recorded, sorted by file and line."""
        sites = []
        for (file, line, code, space, write, size), (instructions, passes, fewest) in sorted(self._sites.items()):
            sites.append(Site(file, line, code, space, write, size, int(instructions), int(passes), int(fewest)))
        return sites

    def record(self, module: EmulatedModule, rows: np.ndarray) -> None:
        """Add the accesses of a traced launch. The rows are in the format of read_sites in checks.cpp."""
        places = module.places_of([int(row[0]) for row in rows])
        for (file, line, code), row in zip(places, rows.astype(np.int64)):
            key = (file, line, code, "shared" if row[1] else "global", bool(row[3]), int(row[2]))
            self._sites[key] = self._sites.get(key, 0) + row[4:]


class EmulatedModule:
    """The kernels of one file, compiled with one set of definitions.

    Args:
        runtime: the emulated device.
        file: name of the file.
        text: text of the file, or C++ text that registers its own kernels.
        defines: macros.
        parameters: names of the parameters of each kernel of a text that registers its own kernels.
        constant: their parameters that are `const __restrict__` pointers.
    """

    def __init__(
        self,
        runtime: EmulatedRuntime,
        file: str,
        text: str,
        defines: dict[str, int],
        parameters: dict[str, list[str]] | None = None,
        constant: dict[str, set[str]] | None = None,
    ):
        self.runtime = runtime
        self.file = file
        self.kernels = parameters or {name: names for name, (_, names) in kernels_of(text).items()}
        self.constant = constant if constant is not None else constant_parameters(text)
        self._path = build(text, file, defines, runtime.check)
        self._lines = lines_by_file(text, file)
        self._library = load_library(self._path)
        self._address = self._library.library_address()

    def function(self, name: str) -> Callable[..., None]:
        """Return the function ``launch(grid, block, args, shared_memory=0)`` of a kernel.

        Raises:
            KeyError: for a name that is not a kernel of this module.
        """
        kernel = self._library.find_kernel(name.encode())
        if not kernel:
            raise KeyError(f"{self.file} has no kernel {name!r}, but {sorted(self.kernels)}")
        parameters = [
            (parameter_name, kernel.contents.parameters[i]) for i, parameter_name in enumerate(self.kernels[name])
        ]

        def launch(grid: int, block: int, args: tuple, shared_memory: int = 0) -> None:
            self._check_launch(name, kernel.contents, grid, block, shared_memory)
            if len(args) != len(parameters):
                raise TypeError(f"{name} has {len(parameters)} parameters, got {len(args)} arguments")
            arrays = []
            for (parameter_name, parameter), argument in zip(parameters, args):
                _check_argument(f"{name}: {parameter_name}", parameter, argument)
                if isinstance(argument, np.ndarray) and argument.nbytes:
                    arrays.append((parameter_name, argument, parameter.kind == ord("p")))
            memory = _Copies(arrays) if self.runtime.check and not self.runtime.in_place else _InPlace(arrays)
            with _LAUNCH_LOCK, memory:
                values = [_value(argument, memory) for argument in args]
                shape = Launch(grid, block, shared_memory, self.runtime.seed, self.runtime.tracing)
                shape.num_buffers = len(memory.buffers)
                shape.buffers = (_Buffer * max(1, len(memory.buffers)))(*memory.buffers)
                constant = [
                    (memory.address_of(argument), argument.nbytes, parameter_name.encode())
                    for (parameter_name, _), argument in zip(parameters, args)
                    if parameter_name in self.constant.get(name, ()) and isinstance(argument, np.ndarray)
                ]
                shape.num_constant, shape.constant = len(constant), (_Buffer * max(1, len(constant)))(*constant)
                if self.runtime.selected_blocks is not None:
                    selected = self.runtime.selected_blocks(grid)
                    shape.num_selected, shape.selected = len(selected), (ctypes.c_uint * len(selected))(*selected)
                self._launch(name, kernel, shape, values)

        return launch

    def places_of(self, instructions: list[int]) -> list[tuple[str, int, str]]:
        """Return file, line and text of the line of instructions, given by their return addresses."""
        places = []
        for place in source_lines(self._path, [address - 1 - self._address for address in instructions]):
            file, _, number = place.rpartition(":")
            line = int(number) if number.isdigit() else 0
            lines = self._lines.get(file, [])
            places.append((file, line, lines[line - 1].strip() if 0 < line <= len(lines) else ""))
        return places

    def _check_launch(self, name: str, kernel: _Kernel, grid: int, block: int, shared_memory: int) -> None:
        if not 1 <= grid <= MAX_GRID:
            raise EmulationError(f"{name}: a grid of {grid} blocks; a device takes 1 to {MAX_GRID}")
        if not 1 <= block <= min(MAX_THREADS, kernel.max_threads):
            raise EmulationError(f"{name}: a block of {block} threads; its limit is {kernel.max_threads}")
        if not 0 <= shared_memory <= self.runtime.shared_memory_per_block:
            limit = self.runtime.shared_memory_per_block
            raise EmulationError(f"{name}: {shared_memory} bytes of dynamic shared memory; the device has {limit}")

    def _launch(self, name: str, kernel, shape: Launch, values: list[np.ndarray]) -> None:
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(value.ctypes.data for value in values))
        message = self._library.launch_kernel(kernel, pointers, ctypes.byref(shape))
        if message is not None:
            raise EmulationError(f"{name}: {self._with_places(message.decode())}")
        if shape.trace:
            rows = np.zeros((MAX_SITES, 7), np.uint64)
            number = self._library.read_sites(rows.ctypes.data_as(ctypes.c_void_p), MAX_SITES)
            self.runtime.record(self, rows[:number])

    def _with_places(self, message: str) -> str:
        def place(match: re.Match) -> str:
            ((file, line, code),) = self.places_of([int(match[1], 16)])
            return f"{file}:{line} `{code}`"

        return re.sub(r"pc (0x[0-9a-f]+)", place, message)


def load_library(path: Path) -> ctypes.CDLL:
    """Load the library of a module."""
    library = ctypes.CDLL(str(path))
    library.find_kernel.restype = ctypes.POINTER(_Kernel)
    library.launch_kernel.restype = ctypes.c_char_p
    library.library_address.restype = ctypes.c_size_t
    return library


def planted(file: str, old: str, new: str) -> Callable[[str, str], str]:
    """Return a source_edit that replaces `old`, which must occur once in `file`, and leaves other files alone."""

    def edit(edited_file: str, text: str) -> str:
        if edited_file != file:
            return text
        if text.count(old) != 1:
            raise ValueError(f"{file} contains {text.count(old)} times, not once: {old!r}")
        return text.replace(old, new)

    return edit


class _Parameter(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("element", ctypes.c_int), ("size", ctypes.c_int))


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("call", ctypes.c_void_p),
        ("num_parameters", ctypes.c_int),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("max_threads", ctypes.c_int),
    )


class _Buffer(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_size_t), ("bytes", ctypes.c_size_t), ("name", ctypes.c_char_p))


class Launch(ctypes.Structure):
    """The shape of a launch, its order, and the arrays that a checked launch may access."""

    _fields_ = (
        ("grid", ctypes.c_uint),
        ("block", ctypes.c_uint),
        ("shared_bytes", ctypes.c_size_t),
        ("seed", ctypes.c_uint),
        ("trace", ctypes.c_int),
        ("num_buffers", ctypes.c_int),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("num_selected", ctypes.c_uint),
        ("selected", ctypes.POINTER(ctypes.c_uint)),
        ("num_constant", ctypes.c_int),
        ("constant", ctypes.POINTER(_Buffer)),
    )


class _InPlace(nullcontext):
    """The arrays of a launch in their own memory."""

    def __init__(self, arrays: list[tuple[str, np.ndarray, bool]]):
        super().__init__()
        self.buffers = [(array.ctypes.data, array.nbytes, name.encode()) for name, array, _ in arrays]

    def address_of(self, array: np.ndarray) -> int:
        return array.ctypes.data


class _Copies:
    """Copies of the arrays of a launch, each with unused bytes around it. Written arrays are copied back at the end."""

    ROOM = 4096  # unused bytes around a copy, so that a small step out of the copy hits no other array

    def __init__(self, arrays: list[tuple[str, np.ndarray, bool]]):
        self._groups: list[list] = []  # arrays that overlap: [begin, end, names, written, place of the copy]
        for name, array, written in sorted(arrays, key=lambda entry: entry[1].ctypes.data):
            begin, end = array.ctypes.data, array.ctypes.data + array.nbytes
            group = self._groups[-1] if self._groups else None
            if group is not None and begin < group[1]:
                group[1] = max(group[1], end)
                group[2].append(name)
                group[3] |= written
            else:
                self._groups.append([begin, end, [name], written, (begin - _root(array)) % POOL_ALIGNMENT])
        size = sum(end - begin + 2 * POOL_ALIGNMENT + self.ROOM for begin, end, *_ in self._groups)
        self._memory = np.empty(size + self.ROOM + POOL_ALIGNMENT, np.uint8)
        free = self._memory.ctypes.data + self.ROOM
        for group in self._groups:
            group[4] += -(-free // POOL_ALIGNMENT) * POOL_ALIGNMENT
            free = group[4] + group[1] - group[0] + self.ROOM
        self.buffers = [(copy, end - begin, "|".join(names).encode()) for begin, end, names, _, copy in self._groups]

    def __enter__(self) -> None:
        for begin, end, _, _, copy in self._groups:
            ctypes.memmove(copy, begin, end - begin)

    def __exit__(self, *error) -> None:
        for begin, end, _, written, copy in self._groups:
            if written:
                ctypes.memmove(begin, copy, end - begin)

    def address_of(self, array: np.ndarray) -> int:
        address = array.ctypes.data
        for begin, end, _, _, copy in self._groups:
            if begin <= address < end:
                return copy + address - begin
        return address  # an array without elements has no copy


def _value(argument, memory: _InPlace | _Copies) -> np.ndarray:
    """Return an array that holds the bytes of an argument."""
    if isinstance(argument, np.ndarray):
        return np.array(memory.address_of(argument), np.uintp)
    return np.zeros((), np.uintp) if argument is None else np.array(argument)


def _check_argument(name: str, parameter: _Parameter, argument) -> None:
    kind, element, size = chr(parameter.kind), chr(parameter.element), parameter.size
    expected = f"elements of kind {element!r} and {size} bytes"
    if kind == "v":
        if not isinstance(argument, np.generic):
            raise TypeError(f"{name}: {type(argument).__name__} for {expected}; use a NumPy scalar")
        if argument.dtype.itemsize != size or not _fits(argument.dtype, element, size):
            raise TypeError(f"{name}: {argument.dtype} for {expected}")
        return
    if argument is None:
        return
    if not isinstance(argument, np.ndarray):
        raise TypeError(f"{name}: {type(argument).__name__} for a pointer; use an array or None")
    if not argument.flags.c_contiguous:
        raise TypeError(f"{name}: the array is not contiguous")
    if kind == "p" and not argument.flags.writeable:
        raise TypeError(f"{name}: a read-only array for a pointer that is not const")
    if not _fits(argument.dtype, element, size) or (size and argument.nbytes % size):
        raise TypeError(f"{name}: {argument.dtype} of shape {argument.shape} for {expected}")


def _fits(dtype: np.dtype, element: str, size: int) -> bool:
    """Say whether the elements of a NumPy type have the type of a kernel's pointer. Plain bytes fit every type."""
    if element == "v" or dtype == np.uint8:
        return True
    if element == "s":  # a struct fits a record of its size, or numbers that fill it
        return dtype.itemsize == size or (dtype.kind in "iuf" and size % dtype.itemsize == 0)
    if dtype.kind == "c":
        return element == "f" and dtype.itemsize == 2 * size
    kinds = {"f": "f", "i": "iu", "b": "b"}
    return dtype.kind in kinds[element] and dtype.itemsize == size


def _root(array: np.ndarray) -> int:
    """Return the address of the allocation of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.ctypes.data


def _package_source(file: str, stages: str = "") -> str:
    from qiskit_fused.engines.cuda.kernel_source import kernel_source

    return kernel_source(file, stages)


def constant_parameters(text: str) -> dict[str, set[str]]:
    """Return the names of the `const __restrict__` pointers of each kernel: nobody may write their arrays."""
    constant = re.compile(r"^const\b.*\*\s*__restrict__\s+(\w+)$", re.DOTALL)
    return {
        name: {match[1] for match in map(constant.match, parameters) if match}
        for name, (_, parameters) in kernels_of(text, whole=True).items()
    }


UNWRITTEN = (
    0xFFFDEAD5  # the words of arrays that nothing wrote, which are NaN in both precisions; checks.cpp finds reads
)


def _numpy_with_nan_in_empty() -> ModuleType:
    """Return NumPy with an `empty` that fills arrays with `UNWRITTEN`, because device memory is not cleared."""
    module = ModuleType("numpy")
    module.__dict__.update(np.__dict__)

    def fill(array: np.ndarray) -> np.ndarray:
        if array.nbytes:
            ctypes.memset(array.ctypes.data, 0xFF, array.nbytes)
            words = (ctypes.c_uint32 * (array.nbytes // 4)).from_address(array.ctypes.data)
            np.frombuffer(words, np.uint32)[:] = UNWRITTEN
        return array

    module.empty = lambda *args, **kwargs: fill(np.empty(*args, **kwargs))
    module.empty_like = lambda *args, **kwargs: fill(np.empty_like(*args, **kwargs))
    return module
