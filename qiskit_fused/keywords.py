# SPDX-License-Identifier: Apache-2.0
"""Names of keyword arguments: old ones that still work, and errors for those that never existed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


def accepts_old_names(**new_names: str) -> Callable[[Callable[_P, _Result]], Callable[_P, _Result]]:
    """Let a function also take keyword arguments by the names that they had before, with a FutureWarning.

    Args:
        new_names: the name that a keyword has now, for each old one.
    """

    def decorate(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
        name = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                if new in kwargs:
                    raise TypeError(
                        f"{name} was given {new} and {old}, which is the old name of {new}; give {new} alone."
                    )
                warnings.warn(f"{old} of {name} is now called {new}.", FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
