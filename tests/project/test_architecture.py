# SPDX-License-Identifier: Apache-2.0
"""The structure of the code, kept by tests: a folder imports only folders before it, and files stay short."""

import ast
import re
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "qiskit_fused"

# Data flows from left to right: a file imports files of its own folder and of the folders before it, never of a later
# one. The files of the package's root come last: `import qiskit_fused` shows what the folders offer.
FOLDERS = (
    *("common", "options", "program", "lowering", "fusion", "compilation", "engines", "execution", "inspection"),
    *("distributed", "primitives", "torch", "machine_learning", ""),
)
# The folders that import each package beyond the standard library and NumPy. A package that is not here may be imported
# nowhere; a folder that no longer imports its package has to leave this table.
THIRD_PARTY = {
    "qiskit": set(FOLDERS) - {"common", "program", "fusion", "engines"},
    "qiskit_machine_learning": {"lowering", "primitives", "machine_learning"},
    "typing_extensions": {"options"},
    "sklearn": {"execution"},
    "scipy": {"execution"},
    "threadpoolctl": {"execution"},
    "tqdm": {"execution"},
    "matplotlib": {"inspection"},
    "qiskit_fused._cpu": {"common", "compilation", "engines", "program"},
    "cupy": {"engines"},
    "mpi4py": {"distributed"},
    "torch": {"torch", "machine_learning"},
    "sparse": {"machine_learning"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))
KERNELS = sorted(path for path in (ROOT / "kernels").rglob("*") if path.suffix in {".cpp", ".hpp", ".h", ".cu", ".cuh"})
PYTHON_FILES = MODULES + sorted(
    path for folder in ("tests", "benchmarks", "tutorials") for path in (ROOT / folder).rglob("*.py")
)


def module_name(path):
    """Return the name by which a file of the package is imported: ``qiskit_fused.engines.cpu.engine``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in MODULES}


def imports_of(path):
    """Yield the name of everything that a file imports, also inside functions and for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relative to itself: name the folder"
            names = {f"{node.module}.{alias.name}" for alias in node.names} & (NAMES | {"qiskit_fused._cpu"})
            yield from names or {node.module}


def folder_of(module):
    return module.split(".")[1] if module.count(".") > 1 or (PACKAGE / module.split(".")[-1]).is_dir() else ""


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_folder_imports_only_folders_before_it(path):
    own = FOLDERS.index(folder_of(module_name(path)))
    for imported in NAMES.intersection(imports_of(path)) - {"qiskit_fused"}:
        assert FOLDERS.index(folder_of(imported)) <= own, f"{module_name(path)} imports {imported} of a later folder"


@pytest.mark.parametrize(("engine", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_fast_engines_do_not_import_each_other(engine, other):
    imported = {name for path in (PACKAGE / "engines" / engine).glob("*.py") for name in imports_of(path)}
    assert not [name for name in imported if name.startswith(f"qiskit_fused.engines.{other}")]


def test_no_imports_run_in_a_circle():
    graph = {module_name(path): NAMES.intersection(imports_of(path)) - {module_name(path)} for path in MODULES}
    TopologicalSorter(graph).prepare()  # CycleError names the modules of a circle


def test_each_folder_imports_the_packages_of_the_table_and_no_others():
    found = defaultdict(set)
    for path in MODULES:
        for imported in imports_of(path):
            package = imported if imported == "qiskit_fused._cpu" else imported.partition(".")[0]
            if package not in {"qiskit_fused", "numpy", *sys.stdlib_module_names}:
                found[package].add(folder_of(module_name(path)))
    assert found == THIRD_PARTY


# Tests of a whole folder, which cross its modules. All others are named for the module they test.
TOPICS = {
    "lowering": {"hash_seeds"},
    "engines": {
        "engines",
        "boundary_states",
        "cancelling",
        "dense_gates",
        "linear_maps",
        "outcomes",
        "real_states",
        "recomputation",
    },
    "engines/cpu": {"frames", "instruction_sets", "last_phase", "packs", "run_packs", "windows"},
    "engines/cuda": {"emulation", "fake_driver", "kernels", "large_states", "memory_access", "methods", "mutants"}
    | {"ptx", "real_states"},
    "execution": {"device_arrays", "device_products", "empty_batches", "memory_blocks"},
    "primitives": {"global_phases"},
    "torch": {"distributed", "transforms"},
}


def test_each_test_is_named_for_a_module_or_a_topic_of_its_folder():
    modules = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in MODULES}
    topics = {f"{folder}/{topic}" for folder, names in TOPICS.items() for topic in names}
    tests = {path.relative_to(ROOT / "tests").parent / path.stem[5:] for path in (ROOT / "tests").rglob("test_*.py")}
    tested = {path.as_posix() for path in tests if path.parts[0] != "project"}
    assert topics <= tested - modules and tested <= modules | topics


def test_the_page_of_the_flow_and_the_package_name_the_folders_in_their_order():
    page = (ROOT / "tutorials" / "how_it_works.md").read_text(encoding="utf-8")
    tables = page.split("## The folders of the package")[1].split("## The other folders")
    listed, others = (re.findall(r"^\| `([\w/]+)/` \|", table, re.M) for table in tables)
    assert [folder for folder in listed if "/" not in folder] == list(FOLDERS[:-1])
    assert all((PACKAGE / folder).is_dir() for folder in listed) and all((ROOT / folder).is_dir() for folder in others)
    picture = page.split("```text")[1].split("```")[0]
    assert set(re.findall(r"(\w+)/", picture)) == set(FOLDERS) - {"", "common"}
    order = ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text())).split("in this order:")[1]
    assert re.findall(r"\w+", order) == list(FOLDERS[:-1])


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


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.name)
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


def test_no_filter_hides_deprecations_of_this_package():
    """A pattern for modules of qiskit would match qiskit_fused too if it did not end with a dollar sign."""
    lines = (ROOT / "pyproject.toml").read_text(encoding="utf-8").split("filterwarnings = [")[1].split("\n]")[0]
    patterns = re.findall(r'"ignore:[^:"]*:\w*DeprecationWarning:([^"]+)"', lines.replace("\\\\", "\\"))
    assert patterns and all(re.match(pattern, "qiskit.circuit") for pattern in patterns)
    for module in ("qiskit_fused", "qiskit_fused.engines.cuda.runtime", "test_runtime"):
        assert not [pattern for pattern in patterns if re.match(pattern, module)]
