# SPDX-License-Identifier: Apache-2.0
"""Check the names of keyword arguments: former names still work, and unknown names are errors."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from qiskit_fused.options.fused_options import is_option, unknown_option

_P = ParamSpec("_P")
_Result = TypeVar("_Result")


_NO_NOISE = "the options about precision add noise to the values of estimators"

NO_PRECISION = dict.fromkeys(("default_precision", "precision_mode"), _NO_NOISE)
"""The options that have no meaning for what has no estimator, with the reason; for `checks_keywords`."""


def no_precision(shots: str) -> dict[str, str]:
    """Return `NO_PRECISION` with a sentence about shots, which is also the cure for keywords about shots."""
    names = "default_precision", "precision_mode"
    return dict.fromkeys(names, f"{_NO_NOISE}; {shots}") | dict.fromkeys(("shots", "default_shots"), shots)


def no_shots(reason: str) -> dict[str, str]:
    """Return keywords about shots with the reason why there are none, for `checks_keywords`."""
    return dict.fromkeys(("shots", "default_shots"), reason)


def checks_keywords(
    refused: Mapping[str, str] | None = None, /, **new_names: str
) -> Callable[[Callable[_P, _Result]], Callable[_P, _Result]]:
    """Return a decorator: the function refuses unknown keywords, and the error lists its arguments and all options.

    A keyword with a former name is passed on under its new name, with a FutureWarning.

    Args:
        refused: for keywords that the function refuses, if they are none of its arguments, the reason and the cure.
            Such entries of the argument ``options`` are refused too if it is a mapping.
        new_names: the new name of each keyword by its former name.
    """

    def decorate(function: Callable[_P, _Result]) -> Callable[_P, _Result]:
        name = function.__qualname__.removesuffix(".__init__")
        parameters = list(inspect.signature(function).parameters.values())
        arguments = [
            parameter.name
            for parameter in parameters
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name != "self"
        ]

        no_meaning = {word: reason for word, reason in (refused or {}).items() if word not in arguments}
        place = [parameter.name for parameter in parameters].index("options") if "options" in arguments else None

        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _Result:
            if no_meaning and place is not None:
                options: Any = args[place] if len(args) > place else kwargs.get("options")
                for entry in options if isinstance(options, Mapping) else ():
                    if entry in no_meaning:
                        raise unknown_option(entry, name, arguments, no_meaning)
            for keyword in kwargs:
                if keyword in no_meaning:
                    raise unknown_option(keyword, name, arguments, no_meaning)
            for keyword in [keyword for keyword in kwargs if keyword not in arguments and not is_option(keyword)]:
                new = new_names.get(keyword)
                if new is None:
                    raise unknown_option(keyword, name, arguments, no_meaning)
                if new in kwargs:
                    raise TypeError(f"{name} was given {new} and {keyword}, its old name; give {new} alone.")
                warnings.warn(f"{keyword} of {name} is now called {new}.", FutureWarning, stacklevel=2)
                kwargs[new] = kwargs.pop(keyword)
            return function(*args, **kwargs)

        if function.__doc__ is None and function.__name__ == "__init__":
            call.__doc__ = f"Make a {name}. The class describes the arguments."  # else help() shows the base class
        return call

    return decorate
