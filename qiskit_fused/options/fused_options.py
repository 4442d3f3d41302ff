# SPDX-License-Identifier: Apache-2.0
"""The options of the primitives: one dataclass, which checks each value at its assignment."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from copy import copy, deepcopy
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypedDict

import numpy as np

from qiskit_fused.common.byte_sizes import LIMIT_HELP, parse_limit, suggest_limit
from qiskit_fused.common.choices import check_choice, check_dtype, suggest
from qiskit_fused.common.display import arguments_text
from qiskit_fused.common.free_memory import ALWAYS_FREE, DEFAULT_SHARE, resolve_limit
from qiskit_fused.options.default_threads import default_num_threads
from qiskit_fused.options.method import METHODS, Method, methods_to_try

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
else:
    from typing_extensions import Unpack as Unpack  # a dependency of Qiskit

DEVICES = ("auto", "cpu", "cuda", "reference")
PRECISION_MODES = ("auto", "emulate", "exact")


@dataclass
class FusedOptions:
    """The options of estimators, samplers and gradients. Each value is checked when it is assigned.

    >>> options = FusedOptions(dtype="complex64", memory_limit="8 GB")
    >>> options.num_threads = 4
    >>> options
    FusedOptions(dtype='complex64', num_threads=4, memory_limit='8 GB')

    Attributes:
        device: the engine that computes. ``"cpu"`` is the compiled engine. ``"cuda"`` is the current CUDA device; if it
            cannot be used, an error says why. ``"reference"`` is NumPy, one gate at a time. ``"auto"`` takes a usable
            GPU for large work, else the CPU. ``python -m qiskit_fused`` shows the engines that can be used.
        dtype: number format of the amplitudes: ``"complex128"`` takes 16 bytes per amplitude, ``"complex64"`` takes 8.
            Values and gradients are float64 in both formats.
        num_threads: number of CPU threads. None takes ``QISKIT_FUSED_NUM_THREADS``, else ``OMP_NUM_THREADS``, else the
            number of CPUs that this process may run on. Results are the same bits for any number of threads.
        memory_limit: most memory for an evaluation, in bytes. On the CPU, the arguments and the results count too. A
            batch that does not fit is evaluated in blocks of rows that fit; the arrays of the whole batch then do not
            count. The limit is a number of bytes from 1,000 on, such as ``8e9``; a string such as ``"8GB"``,
            ``"512 MiB"`` or ``"8G"``; or a fraction of the memory that is free when the work begins, as a float in (0,
            1] or as ``"50%"``. None is 80 % of the free memory, and nearly all of it on a GPU. The integer 1 is
            refused, because it may mean ``1.0``, which is all of the free memory.
        method: how the backward sweep of a gradient gets the states that it visits. ``"reverse"`` uncomputes them, in
            the memory of two states per row. ``"store"`` keeps all states. ``"checkpoint"`` keeps some states, within
            ``memory_limit``, and recomputes the others (arXiv:2603.02804). ``"auto"`` takes ``"store"`` if all states
            of a row are few bytes, else ``"reverse"``. All methods give the same gradients up to rounding.
            ``print(fuse(circuit).report())`` compares them.
        num_segments: for ``"checkpoint"``, number of segments of equal length into which the circuit is cut. The states
            at the starts of all segments, and all states of one segment at a time, are kept. The limit is the number of
            layers of the fused circuit, ``fuse(circuit, observables).num_layers``; one segment for each layer keeps all
            states.
        seed: seed, an integer from 0 on, or NumPy generator of the shots of a sampler, and of the noise of emulated
            precision. None is a random seed.
        default_precision: target precision of PUBs that do not state one: the standard deviation of a value.
        precision_mode: ``"emulate"`` adds normal noise whose standard deviation is the target precision, as
            ``StatevectorEstimator`` does. ``"exact"`` never adds noise. ``"auto"`` emulates if the options are made
            with a ``default_precision`` above zero. A ``default_precision`` that is assigned later does not change
            whether noise is added: the assignment first turns ``"auto"`` into ``"exact"`` or ``"emulate"``, whichever
            was in effect. Software that sets a precision by itself, such as the ``Executor`` of sQUlearn, thus adds no
            noise to exact values.
        fallback: whether circuits that only ``StatevectorEstimator`` or ``StatevectorSampler`` can run are run there,
            with a warning. If False, ``job.result()`` raises an `UnsupportedInstruction`.
        progress: True shows a progress bar (needs tqdm) for each job or call that takes more than half a second. A
            function is called with two numbers of steps, ``(done, total)``, by the thread that works: when the work
            begins, when it ends without an error, and in between every 50 ms or less often. The function may wait for
            other jobs. An exception in it ends the job and is raised by ``job.result()``.
        executor: a ``concurrent.futures.Executor`` whose workers share the rows of a batch: a pool of processes,
            ``mpi4py.futures.MPIPoolExecutor``, ``client.get_executor()`` of a Dask client. Less than some 20 ms of work
            stays in the process of the caller. Each worker obeys all options, ``memory_limit`` too. A worker uses one
            CPU thread unless ``num_threads`` says more. Pickled options have no executor.

    Raises:
        TypeError: if a name that is no option is assigned, or is a keyword.
        ValueError: for a value that is not allowed, or for ``num_segments`` with another method than ``"checkpoint"``.
            The text names the option, the value and the allowed values.
    """

    device: str = "auto"
    dtype: str = "complex128"
    num_threads: int | None = None
    memory_limit: int | float | str | None = None
    method: str = "auto"
    num_segments: int | None = None
    seed: int | np.random.Generator | None = None
    default_precision: float = 0.0
    precision_mode: str = "auto"
    fallback: bool = True
    progress: bool | Callable[[int, int], Any] = False
    executor: Executor | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        check = _CHECKS.get(name)
        if check is None:
            raise unknown_option(name)
        value = check(name, value)
        # Inside __init__ there is no mode yet, because precision_mode is the later field.
        is_late = name == "default_precision" and "precision_mode" in self.__dict__
        if is_late and self.precision_mode == "auto" and value != self.default_precision:
            self.precision_mode = "emulate" if self.adds_noise else "exact"
        object.__setattr__(self, name, value)
        object.__setattr__(self, "_state", object())

    @property
    def state(self) -> object:
        """An object that stands for the current values. Each assignment of an option makes another object."""
        state: object = self.__dict__["_state"]
        return state

    def __post_init__(self) -> None:
        self.check_method()

    def __repr__(self) -> str:
        return f"FusedOptions({arguments_text(self.changed())})"

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"executor": None}

    def __copy__(self) -> FusedOptions:
        """Return a copy with the same executor. The default copy uses `__getstate__`, which has no executor."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> FusedOptions:
        copied = copy(self)
        copied.__dict__.update({name: deepcopy(value, memo) for name, value in self.__getstate__().items()})
        copied.executor = self.executor
        return copied

    @classmethod
    def coerce(cls, options: FusedOptions | Mapping[str, Any] | None = None, **keywords: Any) -> FusedOptions:
        """Return new FusedOptions, made of options, a mapping or None. Keywords override them.

        Args:
            options: the options that are copied, or a mapping of names and values; None is the defaults.
            keywords: values by the names of options.

        Raises:
            TypeError: for an unknown option, or options of another type.
            ValueError: for a bad value. The text names the option, the value and the allowed values.
        """
        if isinstance(options, FusedOptions):
            changes = {}
        elif options is None or isinstance(options, Mapping):
            changes = dict(options or {})
            options = cls()
        else:
            raise TypeError(f"options must be FusedOptions, a mapping or None, not {type(options).__name__}.")
        changes |= keywords
        for name in changes:
            if name not in _CHECKS:
                raise unknown_option(name)
        return replace(options, **changes)

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from the defaults, by name."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

    def update_options(self, **values: Any) -> None:
        """Assign options by name. ``ComputeUncompute`` of qiskit-machine-learning calls this method on a copy.

        Raises:
            TypeError: for an unknown option.
            ValueError: for a bad value.
        """
        for name, value in values.items():
            setattr(self, name, value)

    @property
    def adds_noise(self) -> bool:
        """Whether a target precision above zero adds noise."""
        if self.precision_mode == "auto":
            return self.default_precision > 0
        return self.precision_mode == "emulate"

    def resolve_num_threads(self) -> int:
        """Return the number of CPU threads, from the option, the environment variables or the number of CPUs.

        Raises:
            ValueError: if an environment variable that is read does not hold a positive integer.
        """
        if self.num_threads is not None:
            return self.num_threads
        return default_num_threads()

    def check_method(self) -> None:
        """Raise a ValueError if ``num_segments`` is given for another method than "checkpoint"."""
        if self.num_segments is not None and self.method != "checkpoint":
            raise ValueError(
                f"option num_segments is {self.num_segments} with method={self.method!r}; "
                "allowed: None, or an integer >= 1 with method='checkpoint'."
            )

    def gpu_method(self) -> Method:
        """Return the method for the CUDA engine. "auto" is "reverse", and "checkpoint" keeps as many states as fit.

        Raises:
            ValueError: as `check_method`.
        """
        self.check_method()
        return Method(methods_to_try(self.method)[0], None, self.num_segments)

    def resolve_memory_limit(self, memory: int | None = None) -> int:
        """Return the memory limit in bytes.

        Args:
            memory: free memory of a GPU in bytes, of which a fractional limit is a share. None is the free memory of
                this machine.
        """
        return resolve_limit(self.memory_limit, memory)

    def limit_for(self, num_bytes: int) -> int | None:
        """Return the memory limit in bytes for an evaluation that needs ``num_bytes``.

        Return None if the limit is a fraction and ``num_bytes`` always fit: then the free memory is not read.
        """
        limit = DEFAULT_SHARE if self.memory_limit is None else parse_limit(self.memory_limit)
        if isinstance(limit, float):
            return None if num_bytes <= limit * ALWAYS_FREE else self.resolve_memory_limit()
        return limit


class SamplerOptionsDict(TypedDict, total=False):
    """Options of samplers as keywords, for type checkers and editors: no options about precision, and no ``seed``.

    Functions with an argument ``seed`` cannot also take it as a keyword option.
    """

    device: str
    dtype: str
    num_threads: int | None
    memory_limit: int | float | str | None
    method: str
    num_segments: int | None
    fallback: bool
    progress: bool | Callable[[int, int], Any]
    executor: Executor | None


class ExactOptionsDict(SamplerOptionsDict, total=False):
    """All options but the options about precision, for what has no noise or the noise of shots."""

    seed: int | np.random.Generator | None


class EngineOptionsDict(SamplerOptionsDict, total=False):
    """Options of estimators as keywords: `FusedOptions` without ``default_precision`` and ``seed``.

    Functions with arguments of these two names cannot also take them as keyword options.
    """

    precision_mode: str


class NetworkOptionsDict(EngineOptionsDict, total=False):
    """All options but ``default_precision``, which is an argument of a network."""

    seed: int | np.random.Generator | None


class FusedOptionsDict(NetworkOptionsDict, total=False):
    """All options as keywords."""

    default_precision: float


def unknown_option(
    name: str, owner: str = "", arguments: Collection[str] = (), refused: Mapping[str, str] | None = None
) -> TypeError:
    """Return the error for a keyword that is unknown, or that has no meaning for its owner.

    Args:
        name: the keyword.
        owner: the name of the function or class that got the keyword.
        arguments: the names of the owner's arguments.
        refused: for names that have no meaning for the owner, the reason and the cure.
    """
    refused = refused or {}
    allowed = [option for option in _CHECKS if option not in refused and option not in arguments]
    also = f", and the arguments {', '.join(arguments)} of {owner}" if arguments else ""
    what = f"{owner} has no option '{name}'" if is_option(name) else f"unknown option '{name}'"
    end = f"; {refused[name]}." if name in refused else suggest(name, [*arguments, *allowed])
    return TypeError(f"{what}; allowed: {', '.join(allowed)}{also}{end}")


def is_option(name: str) -> bool:
    """Say whether a name is the name of an option."""
    return name in _CHECKS


def resembles_option(name: str) -> bool:
    """Say whether a name looks like a mistyped option."""
    return bool(get_close_matches(name, _CHECKS, n=1, cutoff=0.8))


def _bad(name: str, value: Any, allowed: str) -> ValueError:
    return ValueError(f"option {name} is {value!r}; allowed: {allowed}.")


def _choice(*allowed: str) -> Any:
    return lambda name, value: check_choice(f"option {name}", value, allowed)


def _device(name: str, value: Any) -> str:
    is_numbered = re.search(r"(cuda|gpu)\W?\d+\s*$", str(value).lower())
    hint = " It is the current CUDA device; CUDA_VISIBLE_DEVICES chooses which GPU that is." if is_numbered else ""
    return check_choice(f"option {name}", value, DEVICES, hint)


def _dtype(name: str, value: Any) -> str:
    return check_dtype(f"option {name}", value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise _bad(name, value, "True, False")
    return bool(value)


def _progress(name: str, value: Any) -> bool | Callable[[int, int], Any]:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if not callable(value):
        raise _bad(name, value, "True, False, a function of done and total steps")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _count(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not _is_integer(value) or not 1 <= value < 1 << 31:
        raise _bad(name, value, "None, an integer from 1 to 2^31 - 1")
    return int(value)


def _memory(name: str, value: Any) -> int | float | str | None:
    if value is None:
        return None
    limit = parse_limit(value)
    if limit is None:
        raise ValueError(f"option {name} is {value!r}; allowed: {LIMIT_HELP}{suggest_limit(value)}")
    return value if isinstance(value, str) and isinstance(limit, int) else limit


def _executor(name: str, value: Any) -> Executor | None:
    if value is not None and not isinstance(value, Executor):
        raise _bad(name, value, "None, a concurrent.futures.Executor; client.get_executor() of a Dask client is one")
    return value


def _seed(name: str, value: Any) -> int | np.random.Generator | None:
    if value is None or isinstance(value, np.random.Generator):
        return value
    if not _is_integer(value) or value < 0:
        raise _bad(name, value, "None, an integer >= 0, a numpy Generator")
    return int(value)


def _precision(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise _bad(name, value, "a finite number >= 0")
    return value  # in the type of the caller, because metadata shows this value


_CHECKS = {
    "device": _device,
    "dtype": _dtype,
    "num_threads": _count,
    "memory_limit": _memory,
    "method": _choice("auto", *METHODS),
    "num_segments": _count,
    "seed": _seed,
    "default_precision": _precision,
    "precision_mode": _choice(*PRECISION_MODES),
    "fallback": _flag,
    "progress": _progress,
    "executor": _executor,
}
assert list(_CHECKS) == [field.name for field in fields(FusedOptions)]
