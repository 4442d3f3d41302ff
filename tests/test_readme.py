# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows must run, and print what it says."""

import doctest
import importlib
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import qiskit_fused

README = Path(__file__).resolve().parent.parent / "README.md"
MODULES = [module.name for module in pkgutil.walk_packages(qiskit_fused.__path__, "qiskit_fused.")]


def test_readme_examples_run_and_print_what_they_show(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", README.read_text(), re.M | re.S)
    assert blocks
    namespace = {}
    for code, shown in blocks:
        if code.startswith("# needs torch") and find_spec("torch") is None:
            continue
        exec(compile(code, str(README), "exec"), namespace)  # later examples use the names of earlier ones
        printed = capsys.readouterr().out
        if shown:
            assert printed == shown


def test_readme_names_every_option():
    options = README.read_text().split("## Options")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", options, re.M) == list(qiskit_fused.FusedOptions.__dataclass_fields__)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith(("._cpu", ".cuda"))])
def test_docstring_examples_hold(name):
    if name.endswith((".torch", ".connector")):
        pytest.importorskip("torch")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
