# SPDX-License-Identifier: Apache-2.0
"""The object ``gradient.options``, which shows the engine options and the foreign options of a gradient.

Engine options are the fields of `FusedOptions`. Foreign options are all other names; a gradient stores them and repeats
them in its results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from typing import Any

from qiskit.providers import Options

from qiskit_fused.common.display import arguments_text
from qiskit_fused.options.fused_options import FusedOptions, is_option, resembles_option, unknown_option


class GradientOptions(Options):
    """The options of a gradient: ``gradient.options.dtype = "complex64"`` changes one.

    The fields of `FusedOptions` are read and assigned by name, and each value is checked. All other names are stored
    for ``result.options``. ``items()`` and ``dict(...)`` list the fields of `FusedOptions` that differ from the
    defaults, and all other names. A copy is detached from the gradient.
    """

    __slots__ = ("_read", "_update")

    _read: Callable[[], FusedOptions]
    _update: Callable[..., None]

    def __init__(self, others: Options, read: Callable[[], FusedOptions], update: Callable[..., None]):
        """Show foreign options together with engine options.

        Args:
            others: the foreign options, which are changed in place.
            read: returns the engine options.
            update: changes options of both kinds, given as keywords. If it raises an error, it has changed none.
        """
        for name, value in (("_fields", others.__dict__), ("validator", others.validator)):
            object.__setattr__(self, name, value)  # a plain assignment would change an option
        object.__setattr__(self, "_read", read)
        object.__setattr__(self, "_update", update)

    def __getitem__(self, key: str) -> Any:
        return getattr(self._read(), key) if is_option(key) else super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._read().changed(), *self.__dict__])

    def __len__(self) -> int:
        return len(self._read().changed()) + len(self.__dict__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read(), name) if is_option(name) else super().__getattr__(name)

    def __setattr__(self, key: str, value: Any) -> None:
        self._update(**{key: value})

    def update_options(self, **fields: Any) -> None:
        """Change options of both kinds, given as keywords."""
        self._update(**fields)

    def __repr__(self) -> str:
        return f"GradientOptions({arguments_text(dict(self))})"

    def __copy__(self) -> Options:
        return _detached(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Options:
        return deepcopy(_detached(self), memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return copy, (_detached(self),)


def _detached(options: GradientOptions) -> Options:
    detached = Options()
    detached.__setstate__((dict(options), dict(options.validator)))
    return detached


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options by name into engine options and foreign options.

    Raises:
        TypeError: for a name that looks like a mistyped engine option.
    """
    engine_options = {name: value for name, value in options.items() if is_option(name)}
    other_options = {name: value for name, value in options.items() if name not in engine_options}
    for name in filter(resembles_option, other_options):
        raise unknown_option(name)
    return engine_options, other_options
