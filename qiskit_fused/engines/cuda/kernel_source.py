# SPDX-License-Identifier: Apache-2.0
"""Source text of the CUDA kernels: one string per module, headers included.

CuPy caches compiled kernels by their text. The text contains every header, so the cache never returns an old kernel.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+"([^"\n]*)".*$', re.MULTILINE)
_STAGES = "cuda/interpreted_stages.cuh"
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once.*$", re.MULTILINE)


@cache
def kernel_source(file: str, stages: str = "") -> str:
    """Return the text of a module: each header that a .cu file includes, once and before its use, then the file.

    ``#line`` directives name the files, so that compilers and the emulation report lines by file.

    Args:
        file: name of a file in kernels/cuda, such as "sweeps.cu".
        stages: text in the place of interpreted_stages.cuh (see `compiled_stages`), or "" for the file itself.

    Raises:
        FileNotFoundError: when the file does not exist.
    """
    texts: dict[str, str] = {}
    _add(f"cuda/{file}", texts, {_STAGES: stages} if stages else {})
    return "\n".join(f'#line 1 "{Path(name).name}"\n{text}' for name, text in texts.items())


def _add(name: str, texts: dict[str, str], replaced: dict[str, str]) -> None:
    """Add the files that a kernel file includes, then the file; ``texts`` and ``replaced`` map names to texts."""
    text = replaced[name] if name in replaced else _read(name)
    for included in _INCLUDE.findall(text):
        if included not in texts:
            _add(included, texts, replaced)
    texts[name] = _ONCE.sub("", _INCLUDE.sub("", text))


def _read(name: str) -> str:
    """Return the text of a kernel file, from the installed package or from the source tree of this package."""
    installed = files("qiskit_fused") / "kernels" / name
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[3] / "kernels" / name).read_text(encoding="utf-8")
