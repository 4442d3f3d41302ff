# SPDX-License-Identifier: Apache-2.0
"""Options of the primitives: one dataclass, every value checked when it is set."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

DEVICES = ("auto", "cpu", "cuda", "reference")
DTYPES = ("complex128", "complex64")
METHODS = ("auto", "reverse")
PRECISION_MODES = ("auto", "emulate", "exact")

_UNITS = {
    unit: base**power
    for power, prefix in enumerate(("", "K", "M", "G", "T"))
    for unit, base in ((f"{prefix}B", 1000), (f"{prefix}IB" if prefix else "B", 1024))
}
_MEMORY_HELP = (
    "None, a number of bytes, a string such as '8GB' or '512MiB', or a fraction of the memory, in (0, 1] or as '50%'"
)


@dataclass
class FusedOptions:
    """Options of `FusedEstimator` and `FusedEstimatorGradient`.

    Attributes:
        device: engine that runs the sweeps: ``"cpu"``, ``"cuda"`` (the current CUDA device; an error with the reason
            where none can be used), ``"reference"``, or ``"auto"``: a GPU for large work where one can be used, else
            the CPU. ``python -m qiskit_fused`` shows what can be used.
        dtype: number format of the amplitudes, ``"complex128"`` or ``"complex64"``. Values and gradients are float64.
        num_threads: CPU threads; None takes ``QISKIT_FUSED_NUM_THREADS``, else ``OMP_NUM_THREADS``, else all CPUs this
            process may run on.
        memory_limit: most memory for statevectors: None (what the machine has, or is free on the GPU), bytes,
            ``"8GB"``, ``"512MiB"``, or a fraction of that, as a number in (0, 1] or as ``"50%"``.
        method: how the adjoint sweep gets its states, ``"reverse"`` (by uncomputing) or ``"auto"``.
        seed: seed or generator of the noise of emulated precision.
        default_precision: target precision of PUBs that bring none.
        precision_mode: ``"emulate"`` adds normal noise of the target precision, as ``StatevectorEstimator`` does;
            ``"exact"`` never adds any; ``"auto"`` emulates when ``default_precision`` is not zero.
        fallback: whether circuits that only ``StatevectorEstimator`` can run go there, with a warning.
        progress: whether long work shows a progress bar (needs tqdm).
    """

    device: str = "auto"
    dtype: str = "complex128"
    num_threads: int | None = None
    memory_limit: int | float | str | None = None
    method: str = "auto"
    seed: int | np.random.Generator | None = None
    default_precision: float = 0.0
    precision_mode: str = "auto"
    fallback: bool = True
    progress: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        check = _CHECKS.get(name)
        if check is None:
            raise unknown_option(name)
        object.__setattr__(self, name, check(name, value))

    @classmethod
    def coerce(cls, options: FusedOptions | Mapping[str, Any] | None = None, **keywords: Any) -> FusedOptions:
        """Return a new FusedOptions from options, a mapping or None, with keywords on top.

        Raises:
            TypeError: for an unknown option, or options of another type.
            ValueError: for a bad value; the text names option, value and what is allowed.
        """
        if isinstance(options, FusedOptions):
            given = {}
        elif options is None or isinstance(options, Mapping):
            given = dict(options or {})
            options = cls()
        else:
            raise TypeError(f"options must be FusedOptions, a mapping or None, not {type(options).__name__}.")
        given |= keywords
        for name in given:
            if name not in _CHECKS:
                raise unknown_option(name)
        return replace(options, **given)

    def changed(self) -> dict[str, Any]:
        """Return the options that differ from the defaults."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}

    @property
    def adds_noise(self) -> bool:
        """Whether a target precision above zero adds noise."""
        if self.precision_mode == "auto":
            return self.default_precision > 0
        return self.precision_mode == "emulate"

    def resolve_num_threads(self) -> int:
        """Return the number of CPU threads to use.

        Raises:
            ValueError: when an environment variable that is asked holds no positive integer.
        """
        if self.num_threads is not None:
            return self.num_threads
        for variable in ("QISKIT_FUSED_NUM_THREADS", "OMP_NUM_THREADS"):
            text = os.environ.get(variable, "").split(",")[0].strip()  # OMP allows a list, one per nesting level
            if text:
                if not text.isdecimal() or int(text) < 1:
                    raise ValueError(f"environment variable {variable} is {text!r}; allowed: an integer >= 1.")
                return int(text)
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def resolve_memory_limit(self, memory: int | None = None) -> int | None:
        """Return the memory limit in bytes, or None when nothing is asked and the machine does not tell.

        Args:
            memory: bytes that a fraction is of, those free on a GPU; None is the memory of the machine.
        """
        limit = self.memory_limit
        if isinstance(limit, str):
            return parse_bytes(limit)
        if isinstance(limit, int):
            return limit
        if memory is None:
            memory = machine_memory()
        return memory if memory is None or limit is None else int(limit * memory)


def unknown_option(name: str) -> TypeError:
    """Return the error for a name that is no option."""
    return TypeError(f"unknown option '{name}'; allowed: {', '.join(_CHECKS)}.")


def resembles_option(name: str) -> bool:
    """Say whether a name looks like an option that was mistyped."""
    return bool(get_close_matches(name, _CHECKS, n=1, cutoff=0.8))


def parse_bytes(text: str) -> int | None:
    """Parse ``"8GB"``, ``"512 mib"``, ``"100B"`` to bytes, in upper or lower case; None if it is no such text."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([KMGT]?I?B)\s*", text.upper())
    if not match or match[2] not in _UNITS:
        return None
    return int(float(match[1]) * _UNITS[match[2]])


def format_bytes(count: float) -> str:
    """Write a number of bytes with a binary unit and three digits: ``format_bytes(2**38) == '256 GiB'``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if count < 1000 or unit == "PiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}"


@lru_cache(maxsize=1)
def machine_memory() -> int | None:
    """Return the bytes of memory this process can have, containers regarded; None where that cannot be told."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return memory
    return min(memory, int(limit)) if limit.isdecimal() else memory


def _bad(name: str, value: Any, allowed: str) -> ValueError:
    return ValueError(f"option {name} is {value!r}; allowed: {allowed}.")


def _choice(*allowed: str) -> Any:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _bad(name, value, ", ".join(map(repr, allowed)))
        return value

    return check


def _dtype(name: str, value: Any) -> str:
    try:
        found = np.dtype(value).name if value is not None else None
    except TypeError:
        found = None
    if found not in DTYPES:
        raise _bad(name, value, ", ".join(map(repr, DTYPES)))
    return found


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise _bad(name, value, "True, False")
    return bool(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _threads(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not _is_integer(value) or value < 1:
        raise _bad(name, value, "None, an integer >= 1")
    return int(value)


def _memory(name: str, value: Any) -> int | float | str | None:
    if value is None:
        return None
    percent = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", value) if isinstance(value, str) else None
    if percent:
        if 0 < float(percent[1]) <= 100:
            return float(percent[1]) / 100
    elif isinstance(value, str):
        if parse_bytes(value):
            return value
    elif _is_integer(value):
        if value > 0:
            return int(value)
    elif isinstance(value, Real) and 0 < float(value) <= 1:
        return float(value)
    raise _bad(name, value, _MEMORY_HELP)


def _seed(name: str, value: Any) -> int | np.random.Generator | None:
    if value is None or isinstance(value, np.random.Generator):
        return value
    if not _is_integer(value) or value < 0:
        raise _bad(name, value, "None, an integer >= 0, a numpy Generator")
    return int(value)


def _precision(name: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < np.inf:
        raise _bad(name, value, "a finite number >= 0")
    return value  # as given: it appears in metadata


_CHECKS = {
    "device": _choice(*DEVICES),
    "dtype": _dtype,
    "num_threads": _threads,
    "memory_limit": _memory,
    "method": _choice(*METHODS),
    "seed": _seed,
    "default_precision": _precision,
    "precision_mode": _choice(*PRECISION_MODES),
    "fallback": _flag,
    "progress": _flag,
}
assert list(_CHECKS) == [field.name for field in fields(FusedOptions)]
