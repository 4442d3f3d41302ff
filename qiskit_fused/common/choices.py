# SPDX-License-Identifier: Apache-2.0
"""Check values that must be one of a few words, a count or a dtype. The errors suggest the word that was meant."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from difflib import get_close_matches
from numbers import Integral
from typing import Any

import numpy as np

DTYPES = ("complex128", "complex64")
"""Number formats of the amplitudes."""

# For each word of this package, the words of other packages with the same meaning, in lower case.
_MEANT = {
    "cuda": ("gpu", "nvidia", "cupy", "lightning.gpu"),
    "cpu": ("host", "c++", "lightning.qubit"),
    "complex64": ("float32", "single", "float", "half", "float16", "c64", "complex32", "bfloat16", "fp32"),
    "complex128": ("float64", "double", "c128", "longdouble", "float128", "complex256", "fp64"),
    "reverse": ("adjoint", "reversible", "uncompute", "reverse-mode", "inverse"),
    "checkpoint": ("checkpointing", "recompute", "remat"),
    "store": ("backprop", "backpropagation", "tape", "save", "keep", "cache"),
    "emulate": ("noise", "noisy", "shots", "sample", "sampling", "stochastic"),
    "exact": ("ideal", "noiseless", "analytic", "none"),
    "mpl": ("matplotlib", "png", "svg", "figure"),
    "text": ("ascii", "txt", "string", "str"),
    "auto": ("default", "automatic", "best", "parameter-shift", "param-shift", "finite-diff"),
    "num_threads": ("threads", "n_threads", "nthreads", "n_jobs", "max_parallel_threads"),
    "memory_limit": ("memory", "max_memory", "max_memory_mb"),
    "dtype": ("precision", "number_format"),
    "device": ("backend", "engine"),
    "method": ("diff_method",),
    "default_shots": ("shots", "num_shots", "n_shots"),
    "shots": ("default_shots", "num_shots", "n_shots"),
    "default_precision": ("shots", "default_shots"),
    "seed": ("seed_simulator", "random_seed"),
}


def check_choice(what: str, value: Any, allowed: Collection[str], hint: str = "") -> str:
    """Return a value that is one of the allowed words.

    Args:
        what: the name of the value, for errors.
        value: the value.
        allowed: the allowed words.
        hint: a sentence at the end of the error.

    Raises:
        ValueError: for any other value. The text names the allowed words and suggests one of them.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"{what} is {value!r}; allowed: {', '.join(map(repr, allowed))}{suggest(value, allowed)}{hint}"
        )
    return value


def check_count(what: str, value: Any, least: int = 1) -> int:
    """Return an integer that is ``least`` or more.

    Raises:
        ValueError: for a smaller integer, and for a value that is not an integer.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{what} is {value!r}; allowed: an integer >= {least}.")
    return int(value)


def check_dtype(what: str, value: Any) -> str:
    """Return the name of a number format of amplitudes, given as a name or as a dtype of NumPy or PyTorch.

    Raises:
        ValueError: for any other format. The text names the allowed formats and suggests one of them.
    """
    name = str(value).removeprefix("torch.")
    if name not in DTYPES and value is not None:
        with suppress(TypeError):
            name = np.dtype(value).name
    if name not in DTYPES:
        words = ", ".join(map(repr, DTYPES))
        raise ValueError(f"{what} is {value!r}; allowed: {words}{suggest(name, DTYPES)}")
    return name


def suggest(value: Any, allowed: Collection[str]) -> str:
    """Return the end of an error: a question with the word that was probably meant, or a full stop without a guess.

    >>> suggest("gpu", ("auto", "cpu", "cuda")), suggest("chekpoint", ("store", "checkpoint")), suggest(3, ("cpu",))
    ("; did you mean 'cuda'?", "; did you mean 'checkpoint'?", '.')
    """
    word = _resemble(value, allowed)
    return "." if word is None else f"; did you mean {word!r}?"


def _resemble(value: Any, allowed: Collection[str]) -> str | None:
    if value is None:
        return None
    text = str(value).strip().lower().removeprefix("torch.")
    text = re.sub(r"\W\d+$", "", text)  # drops the number of a device, as in "cuda:0"
    for word in allowed:
        if text == word or text.replace("_", "-") in _MEANT.get(word, ()) or text in _MEANT.get(word, ()):
            return word
    return next(iter(get_close_matches(text, allowed, n=1, cutoff=0.6)), None)
