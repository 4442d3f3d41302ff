# SPDX-License-Identifier: Apache-2.0
"""Run the code of a test in a new interpreter, with an instruction set of the CPU engine."""

import os
import subprocess
import sys

import pytest

from qiskit_fused.engines.cpu.engine import isa

NAMES = "baseline", "avx2", "avx512"
every_instruction_set = pytest.mark.parametrize("name", NAMES)


def run_python(code, name, file=__file__):
    """Run code in a new interpreter with an instruction set, and return the finished process.

    The interpreter starts in the folder of a file, whose modules the code may import. The current folder may hold the
    source of the package without its extension module.
    """
    environment = os.environ | {"QISKIT_FUSED_ISA": name, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, cwd=os.path.dirname(file), capture_output=True, text=True)


def check_on(name, code, file):
    """Run code with an instruction set, in the folder of a file, and fail if the code fails.

    The test is skipped if this CPU or build does not have the instruction set.
    """
    if NAMES.index(name) > NAMES.index(isa()):
        pytest.skip(f"this CPU or build has no {name}")
    start = f"from qiskit_fused.engines.cpu.engine import isa\nassert isa() == {name!r}\n"
    done = run_python(start + code, name, file)
    assert done.returncode == 0, done.stderr
