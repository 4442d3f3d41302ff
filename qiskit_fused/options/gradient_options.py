# SPDX-License-Identifier: Apache-2.0
"""``gradient.options``: options of the engine, and options of others, which a gradient keeps for its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from typing import Any

from qiskit.providers import Options

from qiskit_fused.common.display import arguments_text
from qiskit_fused.options.fused_options import FusedOptions, is_option, resembles_option, unknown_option


class GradientOptions(Options):
    """The options of a gradient: ``gradient.options.dtype = "complex64"`` changes one.

    Options of the engine, those of `FusedOptions`, are read and assigned by name, and checked. All other names are
    kept for ``result.options``. ``items()`` and ``dict(...)`` list the engine's options that differ from the defaults,
    and the other ones. A copy is detached from the gradient.
    """

    __slots__ = ("_read", "_update")

    _read: Callable[[], FusedOptions]
    _update: Callable[..., None]

    def __init__(self, others: Options, read: Callable[[], FusedOptions], update: Callable[..., None]):
        """Show other options, which are changed in place, beside the engine's.

        Args:
            others: options of others.
            read: returns the engine's options.
            update: changes options of both kinds, given as keywords, or none of them where it raises an error.
        """
        for name, value in (("_fields", others.__dict__), ("validator", others.validator)):
            object.__setattr__(self, name, value)  # assignment changes an option
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
        """Change options."""
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
    """Return which of the options are the engine's, and which are options of others.

    Raises:
        TypeError: for a name that looks like an option of the engine that was mistyped.
    """
    engine_options = {name: value for name, value in options.items() if is_option(name)}
    other_options = {name: value for name, value in options.items() if name not in engine_options}
    for name in filter(resembles_option, other_options):
        raise unknown_option(name)
    return engine_options, other_options
