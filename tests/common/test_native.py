# SPDX-License-Identifier: Apache-2.0
"""An extension of other sources is refused when the package is imported."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import qiskit_fused
from qiskit_fused import _cpu
from qiskit_fused.common.native import _NAMES, CONSTANTS, read_constants

PACKAGE = Path(qiskit_fused.__file__).parent


def extension(**changes):
    functions = {name: getattr(_cpu, name) for name in _NAMES}
    return SimpleNamespace(**(functions | changes))


def test_all_functions_that_the_package_calls_are_looked_for():
    stub = (PACKAGE / "_cpu.pyi").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"^(?:def|class) (\w+)", stub, re.M))) == list(_NAMES)


def test_sources_that_are_not_compiled_say_so(tmp_path):
    copy = tmp_path / "qiskit_fused"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("_cpu.*.so", "_cpu.*.pyd", "_cpu.so", "__pycache__"))
    command = [
        sys.executable,
        "-S",
        "-c",
        f"import sys; sys.path[:0] = {[str(tmp_path), *sys.path]}\nimport qiskit_fused",
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.endswith("not compiled; leave this folder, or install the package with pip install -e .")


@pytest.mark.parametrize("name", ["draw_shots", "constants"])
def test_an_extension_without_a_function_is_refused(name):
    old = extension()
    delattr(old, name)
    with pytest.raises(ImportError, match=rf"compiled from other sources .*it has no {name}\); rebuild the extension"):
        read_constants(old)


def test_an_extension_with_other_constants_is_refused():
    assert read_constants(extension()) == CONSTANTS
    for constants in (CONSTANTS._asdict() | {"more": 1}, {"max_low_bits": 1}):
        with pytest.raises(ImportError, match=r"compiled from other sources .*; rebuild the extension"):
            read_constants(extension(constants=lambda given=constants: given))
