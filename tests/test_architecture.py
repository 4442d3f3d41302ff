# SPDX-License-Identifier: Apache-2.0
"""The structure of the code, kept by tests: who may import whom, and how large a file or a function may grow."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "qiskit_fused"

# Data flows one way: circuit -> program -> plan -> engine -> result. A module belongs to the first layer that names it
# or its folder; a layer may import itself and the layers listed beside it.
LAYERS = {
    "data": [
        "forks",
        "caches",
        "row_blocks",
        "program",
        "starts",
        "observables",
        "normal_form",
        "gates",
        "records",
        "limits",
        "choices",
        "arrays",
        "display",
        "row_errors",
        "tapes",
    ],
    "lowering": [
        "lowering",
        "standard_gates",
        "synthesis",
        "cosine_sine",
        "modifiers",
        "matrices",
        "expressions",
        "expression_columns",
        "unsupported",
    ],
    "planning": [
        "plan",
        "ladders",
        "layering",
        "light_cones",
        "splitting",
        "sharing",
        "windows",
        "passes",
        "diagonals",
        "slots",
        "schedules",
        "memory",
        "methods",
        "reports",
        "chunks",
        "sweeps",
        "layout",
        "run_labels",
        "draw",
        "figures",
        "explanation",
    ],
    "engines": ["engines"],
    "api": [
        "__init__",
        "__main__",
        "estimator",
        "gradient",
        "gradient_options",
        "batches",
        "execution",
        "block_evaluation",
        "cone_evaluation",
        "metrics",
        "magnitudes",
        "derivatives",
        "jobs",
        "job_threads",
        "stopping",
        "shared_evaluation",
        "row_batches",
        "row_starts",
        "compiler",
        "snapshots",
        "templates",
        "coercion",
        "keywords",
        "arguments",
        "differentiation",
        "objective",
        "observable_errors",
        "pub_errors",
        "options",
        "progress",
        "workers",
        "training",
        "on_device",
        "qnn",
        "network_parameters",
        "acceleration",
        "connector",
        "roofline",
        "torch",
        "tensors",
    ],
}
MAY_IMPORT = {
    "data": {"data"},
    "lowering": {"lowering", "data"},
    "planning": {"planning", "data"},
    "engines": {"engines", "planning", "data"},
    "api": set(LAYERS),
}
# Packages that only some layers or modules may import; NumPy and the standard library are open to all.
THIRD_PARTY = {
    "numpy": set(LAYERS),
    "scipy": {"lowering"},
    "qiskit": {"api", "lowering"},
    "qiskit_machine_learning": {"api", "lowering"},
    "qiskit_algorithms": {"api"},
    "tqdm": {"api"},
    "matplotlib": {"plan", "draw", "figures", "roofline"},  # of the plan for its types alone
    "_cpu": {"engines.cpu"},
    "cupy": {"engines.cupy_runtime"},
    "torch": {"torch", "connector", "tensors"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))
KERNELS = sorted(path for path in (ROOT / "kernels").rglob("*") if path.suffix in {".cpp", ".hpp", ".h", ".cu", ".cuh"})
PYTHON_FILES = MODULES + sorted(
    path for folder in ("tests", "benchmarks", "tutorials") for path in (ROOT / folder).rglob("*.py")
)


def module_name(path):
    """Name a file relative to the package: ``engines.cpu``, and ``engines`` for a package's ``__init__``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(module):
    for layer, names in LAYERS.items():
        if any(module == name or module.startswith(name + ".") for name in names):
            return layer
    raise AssertionError(f"qiskit_fused.{module} belongs to no layer: add it to LAYERS in {Path(__file__).name}")


def imports_of(path):
    """Yield the absolute name of everything a file imports, at any depth: ``qiskit_fused.program``, ``numpy``, ..."""
    package = ("qiskit_fused", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            # `from . import _cpu` and `from qiskit_fused import plan` name modules of the package.
            yield from (f"{source}.{alias.name}" if source == "qiskit_fused" else source for alias in node.names)


def is_module(name):
    path = PACKAGE.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_down(path):
    module = module_name(path)
    layer = layer_of(module)
    for imported in imports_of(path):
        top, _, inner = imported.partition(".")
        if top == "qiskit_fused" and inner != "_cpu":
            target = inner if is_module(inner) else inner.rpartition(".")[0] or "__init__"
            assert layer_of(target) in MAY_IMPORT[layer], f"{module} ({layer}) imports {imported} ({layer_of(target)})"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_third_party_packages_stay_where_they_belong(path):
    module = module_name(path)
    for imported in imports_of(path):
        package = "_cpu" if imported == "qiskit_fused._cpu" else imported.partition(".")[0]
        allowed = THIRD_PARTY.get(package)
        assert allowed is None or {layer_of(module), module} & allowed, f"{module} imports {package}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_files_stay_readable(path):
    text = path.read_text()
    limit = 400 if path in MODULES else 600
    assert len(text.splitlines()) <= limit, f"more than {limit} lines: asks for a better cut"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            given = [argument for argument in arguments if argument.arg not in ("self", "cls")]
            assert len(given) <= 13, f"{node.name} has {len(given)} parameters"


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_kernel_files_stay_readable(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 750, "more than 750 lines: asks for a better cut"
    # clang-format puts a function's first line and its closing brace into column 0.
    start = None
    for number, line in enumerate(lines, start=1):
        if re.match(r"\S.*\{$", line) and not re.match(r"(inline )?(namespace|struct|class|union|enum|extern)\b", line):
            start = number
        elif line.startswith("}") and start is not None:
            assert number - start < 120, f"the function at line {start} has more than 120 lines"
            start = None


@pytest.mark.parametrize("path", PYTHON_FILES + KERNELS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_name_their_license(path):
    assert "SPDX-License-Identifier: Apache-2.0" in path.read_text()[:200]
