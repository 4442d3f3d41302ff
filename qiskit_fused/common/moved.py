# SPDX-License-Identifier: Apache-2.0
"""Keep the former paths of moved modules working for one release, with a FutureWarning."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved(old: str, new: str) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module ``old`` whose contents are in the module ``new``."""

    def find(name: str) -> Any:
        if name.startswith("__"):  # Python and its tools ask every module for names such as __path__
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        member = getattr(import_module(new), name)
        warnings.warn(f"{old} is now {new}; its former path will be removed.", FutureWarning, stacklevel=2)
        return member

    return find
