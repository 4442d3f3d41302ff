# SPDX-License-Identifier: Apache-2.0
"""The text of CUDA kernels: one string per module, so that a cache keyed by the text never serves an old kernel."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

HEADER = "device.cuh"

_OURS = re.compile(r'^[ \t]*#[ \t]*(?:pragma[ \t]+once|include[ \t]+"[^"\n]*").*$', re.MULTILINE)


@cache
def kernel_source(file: str) -> str:
    """Return the text of a module: the shared header and one .cu file, without their include lines.

    Args:
        file: name of a file in kernels/cuda, such as "sweeps.cu".

    Raises:
        FileNotFoundError: when there is no such file.
    """
    return "\n".join(_OURS.sub("", _read(name)) for name in (HEADER, file))


def _read(name: str) -> str:
    """Return the text of a kernel file: of the installed package, else of the checkout this package lies in."""
    installed = files("qiskit_fused") / "kernels" / "cuda" / name
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[3] / "kernels" / "cuda" / name).read_text(encoding="utf-8")
