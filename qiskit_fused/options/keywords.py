# SPDX-License-Identifier: Apache-2.0
"""Names of keyword arguments: old ones that still work, and errors for names that never were any."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from qiskit_fused.options.fused_options import is_option, unknown_option

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


def checks_keywords(**new_names: str) -> Callable[[Callable[_P, _Result]], Callable[_P, _Result]]:
    """Let a function refuse unknown keywords with the names of its arguments, not of options alone.

    Keyword arguments by a name that they had before are passed on by their new name, with a FutureWarning.

    Args:
        new_names: the name that a keyword has now, for each old one.
    """

    def decorate(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
        name = function.__qualname__.removesuffix(".__init__")
        parameters = inspect.signature(function).parameters.values()
        arguments = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD and one.name != "self"]

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            for given in [given for given in kwargs if given not in arguments and not is_option(given)]:
                new = new_names.get(given)
                if new is None:
                    raise unknown_option(given, name, arguments)
                if new in kwargs:
                    raise TypeError(f"{name} was given {new} and {given}, its old name; give {new} alone.")
                warnings.warn(f"{given} of {name} is now called {new}.", FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(given)
            return function(*args, **kwargs)

        return call

    return decorate
