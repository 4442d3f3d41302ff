# SPDX-License-Identifier: Apache-2.0
"""What is installed beside the modules: the version, the types, and the sources of the kernels."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import qiskit_fused
from qiskit_fused import _cpu

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Path(qiskit_fused.__file__).resolve().parent
STUB = ROOT / "qiskit_fused" / "_cpu.pyi"

needs_installation = pytest.mark.skipif(INSTALLED.parent == ROOT, reason="qiskit_fused runs from its source")


def test_the_version_is_that_of_the_distribution():
    try:
        expected = version("qiskit-fused")
    except PackageNotFoundError:
        expected = "0+source"
    assert qiskit_fused.__version__ == expected


@needs_installation
def test_the_version_is_written_in_pyproject_alone():
    declared = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert declared == [qiskit_fused.__version__]


@needs_installation
def test_the_package_has_its_types_and_the_sources_of_the_kernels():
    for folder, known in (("cuda", "sweeps.cu"), ("shared", "masks.h")):
        expected = {path.name for path in (ROOT / "kernels" / folder).iterdir()}
        assert known in expected
        assert {path.name for path in (INSTALLED / "kernels" / folder).iterdir()} == expected
    assert {path.name for path in (INSTALLED / "kernels").iterdir()} == {"cuda", "shared"}
    assert (INSTALLED / "py.typed").exists()
    assert (INSTALLED / "_cpu.pyi").read_text() == STUB.read_text()


class WithoutItems(ast.NodeTransformer):
    """Drops the items of tuples and dicts and the signatures of callables, which the compiled module does not have."""

    def visit_Subscript(self, node):
        self.generic_visit(node)
        return node.value if getattr(node.value, "id", None) in ("tuple", "dict", "Callable") else node


def signature(function):
    arguments, returns = ast.unparse(WithoutItems().visit(function.args)), WithoutItems().visit(function.returns)
    return f"({arguments}) -> {ast.unparse(returns)}"


def compiled_signatures(function):
    """Yield how nanobind describes the overloads of a function, with types written as the stub writes them."""
    for text, _, *rest in function.__nb_signature__:
        defaults = rest[0] if rest else ()
        text = re.sub(r"\\(\d+)", lambda number, values=defaults: repr(values[int(number[1])]), text)
        text = re.sub(r"ndarray\[dtype=(\w+)[^]]*\]", r"NDArray[np.\1]", text)
        text = re.sub(r"\b(qiskit_fused\._cpu|collections\.abc)\.", "", text)
        yield signature(ast.parse(f"{text}: ...").body[0])


def test_the_stub_describes_the_compiled_module():
    body = ast.parse(STUB.read_text()).body
    functions = {(node.name, signature(node)) for node in body if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    compiled = {name: value for name, value in vars(_cpu).items() if not name.startswith("_")}
    assert classes == {name for name, value in compiled.items() if isinstance(value, type)}
    names = compiled.keys() - classes
    assert functions == {(name, text) for name in names for text in compiled_signatures(compiled[name])}


@pytest.mark.slow
def test_code_of_users_passes_a_strict_type_check(tmp_path):
    pytest.importorskip("mypy")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"),  # Qiskit has no types
            *("--config-file=", "--cache-dir", tmp_path / "cache", ROOT / "tests" / "project" / "typed_user.py"),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=tmp_path,  # mypy looks in its working directory first, and would find a checkout there
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
