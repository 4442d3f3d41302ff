# SPDX-License-Identifier: Apache-2.0
"""The text of CUDA kernels: one string per module, so that a cache keyed by the text never serves an old kernel."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]*)".*$', re.MULTILINE)
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once.*$", re.MULTILINE)


@cache
def kernel_source(file: str) -> str:
    """Return the text of a module: the headers that a .cu file includes, each once and before its use, and the file.

    Compilers and the emulation name the lines by file, as ``#line`` directives say.

    Args:
        file: name of a file in kernels/cuda, such as "sweeps.cu".

    Raises:
        FileNotFoundError: when there is no such file.
    """
    texts: dict[str, str] = {}
    _add(f"cuda/{file}", texts)
    return "\n".join(f'#line 1 "{Path(name).name}"\n{text}' for name, text in texts.items())


def _add(name: str, texts: dict[str, str]) -> None:
    """Add a file of the folder of kernels behind the files that it includes."""
    text = _read(name)
    for included in _INCLUDE.findall(text):
        if included not in texts:
            _add(included, texts)
    texts[name] = _ONCE.sub("", _INCLUDE.sub("", text))


def _read(name: str) -> str:
    """Return the text of a kernel file: of the installed package, else of the checkout this package lies in."""
    installed = files("qiskit_fused") / "kernels" / name
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[3] / "kernels" / name).read_text(encoding="utf-8")
