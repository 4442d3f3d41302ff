# SPDX-License-Identifier: Apache-2.0
"""The documentation builds without a warning, is complete, and says what the code does."""

import importlib
import os
import re
import subprocess
import sys
from functools import cached_property
from importlib.util import find_spec
from inspect import cleandoc
from pathlib import Path
from pkgutil import resolve_name

import pytest

import qiskit_fused
import qiskit_fused.distributed
from qiskit_fused.engines import selection
from qiskit_fused.engines.cpu import method as methods
from qiskit_fused.engines.cpu.engine import isa
from qiskit_fused.lowering.gate_table import GATES
from qiskit_fused.lowering.rules import RULES

ROOT = Path(__file__).resolve().parents[2]
TUTORIALS = ROOT / "tutorials"
NEEDED = ("sphinx", "myst_nb", "qiskit_sphinx_theme")
BEYOND_ALL = [
    *(f"distributed.{name}" for name in qiskit_fused.distributed.__all__),
    "execution.expectations.Expectations",
    "execution.expectations.Vjp",
    "execution.fidelities.Fidelities",
    "execution.pair_batches.KernelVjp",
    "execution.projections.Projections",
    "execution.kernel_losses.alignment_loss",
    "execution.kernel_losses.svc_loss",
    "torch.FusedKernelLayer",
    "torch.FusedLayer",
    "torch.FusedProbabilityLayer",
    "machine_learning.torch_connector.FusedTorchConnector",
]


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    """The folder of the HTML, of which every warning is an error."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; pip install '.[docs]'")
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "cache", "-c", TUTORIALS]
    # the package that is tested, not the sources beside the pages
    paths = os.pathsep.join([str(Path(qiskit_fused.__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, ROOT, folder / "html"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "html"


@pytest.mark.slow
def test_the_html_builds_without_a_warning_and_its_folder_opens_the_start_page(html):
    assert 'url=tutorials/index.html"' in (html / "index.html").read_text(encoding="utf-8")
    assert (html / "tutorials" / "index.html").exists()


@pytest.mark.slow
def test_every_page_and_notebook_is_in_the_html(html):
    pages = [
        path
        for path in TUTORIALS.rglob("*")
        if path.suffix in (".md", ".ipynb") and ".ipynb_checkpoints" not in path.parts
    ]
    pages += [ROOT / "README.md", ROOT / "kernels" / "README.md", ROOT / "benchmarks" / "README.md"]
    assert [page for page in pages if not (html / page.relative_to(ROOT).with_suffix(".html")).exists()] == []


@pytest.mark.slow
def test_every_public_name_has_an_entry_in_the_api_reference(html):
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((html / "objects.inv").read_bytes(), uri="").data
    known = {
        name: item.uri for kind, items in inventory.items() if kind.startswith("py:") for name, item in items.items()
    }
    for name in [*qiskit_fused.__all__, *BEYOND_ALL]:
        if name == "__version__":  # autodoc makes no entry for __version__
            continue
        assert known[f"qiskit_fused.{name}"].startswith("tutorials/api/")


def test_no_docstring_of_a_property_is_cut_at_a_colon():
    """Sphinx shows the words before a colon in the first line of a property's docstring as the type of the property."""
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    names = [name for name in [*qiskit_fused.__all__, *BEYOND_ALL] if "torch" not in name or find_spec("torch")]
    public = [resolve_name(f"qiskit_fused.{name}") for name in names]
    classes = {base for item in public if isinstance(item, type) for base in item.__mro__}
    checked, cut = 0, []
    for owner in classes:
        for name, member in vars(owner).items() if owner.__module__.startswith("qiskit_fused") else ():
            if isinstance(member, property | cached_property) and member.__doc__:
                text = napoleon.GoogleDocstring(cleandoc(member.__doc__), what="property", name=name)
                checked, cut = checked + 1, cut + [f"{owner.__name__}.{name}"] * (":type:" in str(text))
    assert checked > 50 and cut == []


@pytest.mark.slow
def test_pictures_and_results_of_the_benchmarks_are_in_the_html(html):
    page = (html / "benchmarks" / "README.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img [^>]*src="([^"]+\.png)"', page)
    files = re.findall(r'href="([^"]+\.json)"', page)
    assert pictures and files
    assert all((html / "benchmarks" / path).exists() for path in pictures + files)


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(html):
    page = (html / "tutorials" / "gates.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css)[^"]*)"', page)
    assert sources == []


@pytest.fixture
def tables(monkeypatch):
    """The module that writes the tables of the pages."""
    monkeypatch.syspath_prepend(str(TUTORIALS))
    return importlib.import_module("tables")


def test_the_tables_of_the_pages_are_those_of_the_code(tables):
    pages = {page.name: page.read_text(encoding="utf-8") for page in TUTORIALS.glob("*.md")}
    assert all(f"<!-- generated: {table.__name__} -->" in "".join(pages.values()) for table in tables.TABLES)
    if isa() != "avx512":
        del pages["memory.md"]  # the memory of a batch of few qubits depends on the width of the vectors
    changed = [name for name, text in pages.items() if tables.fill(text) != text]
    assert changed == [], "run: python tutorials/tables.py"


def test_the_page_of_gates_names_every_gate_of_the_table_and_every_rule():
    named = set(re.findall(r"`(\w+)`", (TUTORIALS / "gates.md").read_text(encoding="utf-8")))
    assert set(GATES) | {kind.__name__ for kind in RULES} <= named


def test_the_page_of_engines_states_the_bounds_of_the_code():
    page = (TUTORIALS / "engines.md").read_text(encoding="utf-8")
    assert f"{selection.MIN_GPU_AMPLITUDES:,} amplitudes and {selection.MIN_GPU_WORK:,}" in page
    assert f"from {methods.STORE_MIN_QUBITS} qubits on" in page
    assert f"all states of a row are within {methods.STORE_MAX_BYTES >> 20} MiB" in page


def test_troubleshooting_names_every_environment_variable():
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "qiskit_fused").rglob("*.py")]
    sources += [path.read_text(encoding="utf-8") for path in (ROOT / "kernels").rglob("*.cpp")]
    used = set(re.findall(r"\bQISKIT_FUSED_[A-Z_]+\b", "".join(sources)))
    page = (TUTORIALS / "troubleshooting.md").read_text(encoding="utf-8")
    assert used and used <= set(re.findall(r"`(QISKIT_FUSED_[A-Z_]+)", page))


def test_the_versions_of_the_citations_are_that_of_the_project():
    released = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    if released is None:
        pytest.skip("pyproject.toml takes the version from elsewhere")
    assert f"\nversion: {released[1]}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{released[1]}}}" in (TUTORIALS / "cite.md").read_text(encoding="utf-8")
