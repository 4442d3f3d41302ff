# SPDX-License-Identifier: Apache-2.0
"""Check the names of keyword arguments: former names still work, and unknown names are errors."""

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
    """Return a decorator: the function refuses unknown keywords, and the error lists its arguments and all options.

    A keyword with a former name is passed on under its new name, with a FutureWarning.

    Args:
        new_names: the new name of each keyword by its former name.
    """

    def decorate(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
        name = function.__qualname__.removesuffix(".__init__")
        parameters = inspect.signature(function).parameters.values()
        arguments = [
            parameter.name
            for parameter in parameters
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "self"
        ]

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            for keyword in [keyword for keyword in kwargs if keyword not in arguments and not is_option(keyword)]:
                new = new_names.get(keyword)
                if new is None:
                    raise unknown_option(keyword, name, arguments)
                if new in kwargs:
                    raise TypeError(f"{name} was given {new} and {keyword}, its old name; give {new} alone.")
                warnings.warn(f"{keyword} of {name} is now called {new}.", FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(keyword)
            return function(*args, **kwargs)

        return call

    return decorate
