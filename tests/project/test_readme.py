# SPDX-License-Identifier: Apache-2.0
"""What the documentation shows must run, and print what it says; what it links to must exist."""

import doctest
import importlib
import json
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import qiskit_fused

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SOURCES = ("qiskit_fused", "kernels", "tests", "benchmarks", "tutorials")
PAGES = [README, *sorted((ROOT / "tutorials").rglob("*.md"))]
LINKING = [*PAGES, ROOT / "kernels" / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "CHANGELOG.md"]
MODULES = [module.name for module in pkgutil.walk_packages(qiskit_fused.__path__, "qiskit_fused.")]


def path_id(path):
    return str(path.relative_to(ROOT))


def examples(page):
    """Return (code, what it should print or "", package it needs or "") of the Python blocks of a page."""
    blocks = re.findall(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", page.read_text(encoding="utf-8"), re.M | re.S
    )
    needs = [re.match(r"# needs (\w+)\n", code) for code, _ in blocks]
    return [(code, shown, found[1] if found else "") for (code, shown), found in zip(blocks, needs)]


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=path_id)
def test_examples_run_and_print_what_they_show(page, capsys):
    namespace = {"__name__": "__main__"}
    missing = set()
    for code, shown, package in examples(page):
        if package and find_spec(package) is None:
            missing.add(package)
            continue
        exec(compile(code, str(page), "exec"), namespace)  # later examples use the names of earlier ones
        printed = capsys.readouterr().out
        if shown:
            assert printed == shown
    if missing and len(namespace) <= 2:
        pytest.skip(f"needs {', '.join(missing)}, which is not installed")


def test_readme_and_pages_have_examples():
    assert {"README.md", "gates.md", "memory.md", "from_aer.md"} <= {page.name for page in PAGES if examples(page)}


def anchors(page):
    """Return the anchors of a page's headings, as code hosts and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKING, ids=path_id)
def test_relative_links_point_to_what_exists(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.M)
    for link in links:
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{link} is missing"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", [page for page in LINKING if page.name != "CHANGELOG.md"], ids=path_id)
def test_files_that_a_page_names_exist(page):
    files = [path for folder in SOURCES for path in (ROOT / folder).rglob("*")] + list(ROOT.glob("*"))
    known = {path.relative_to(ROOT).as_posix() for path in files}
    for name in re.findall(r"`([\w/.-]+\.(?:py|cpp|hpp|h|cu|cuh|md|ipynb))`", page.read_text(encoding="utf-8")):
        assert any(path == name or path.endswith(f"/{name}") for path in known), f"{name} is missing"


def linked_results(text, name):
    """Return the results that a page links to under a name."""
    return json.loads((ROOT / re.search(rf"^\[{name}\]: (\S+)$", text, re.M)[1]).read_text(encoding="utf-8"))


def test_the_figures_of_the_readme_are_those_of_the_results_it_links_to():
    readme = README.read_text(encoding="utf-8")
    run, deep, training = (linked_results(readme, name) for name in ("run", "deep", "training"))
    first, second, third, fourth = re.search(r"^Measured.*?\n\n(.*?)\n\n", readme, re.M | re.S)[1].split("\n* ")

    workloads = {workload["name"]: workload["contenders"] for workload in run["workloads"]}
    ours, *peers = times(workloads["W1 (16,20)"])
    assert f"**{ours:.3g} ms**" in first and f"{min(peers) / ours:.0f} times faster" in first
    ours, reverse, defaults = times(workloads["W2 (8,5) EstimatorQNN"])
    assert f"**{ours:.3g} ms**" in second
    assert f"{round(reverse / ours, -2):,.0f} times faster" in second
    assert f"{round(defaults / ours, -2):,.0f} times faster" in second
    one = deep["deep"]["entries"][0]
    assert (one["method"], one["rows"], deep["deep"]["num_parameters"]) == ("reverse", 1, 60000)
    assert f"**{one['median_s']:.1f} s**" in third and f"{one['peak_bytes'] / 1e6:.0f} MB" in third
    ours, *peers = times(training["step"]["contenders"])
    assert f"**{ours:.3g} ms**" in fourth and f"takes {min(peers):.3g} ms" in fourth
    assert f"**{training['digits']['median_s']:.2f} s**" in fourth


def times(contenders):
    """Return the milliseconds of qiskit-fused in complex64, then of each other library in its fastest format."""
    best = {}
    for contender in contenders:
        label = contender["label"]
        if "median_ms" not in contender:  # left out
            continue
        if label == "qiskit-fused" and contender["dtype"] == "complex64":
            best[label] = contender["median_ms"]
        elif not label.startswith("qiskit-fused"):
            best[label] = min(contender["median_ms"], best.get(label, float("inf")))
    return list(best.values())


def test_the_times_of_methods_are_those_of_the_results_they_link_to():
    page = ROOT / "tutorials" / "engines.md"
    results = json.loads(
        (page.parent / re.search(r"^\[deep\]: (\S+)$", page.read_text(encoding="utf-8"), re.M)[1]).read_text(
            encoding="utf-8"
        )
    )
    found = {(entry["memory_limit"], entry["method"]): entry for entry in results["budgets"]["entries"]}
    rows = re.findall(r"^\| (\d+) MB \| (.*) \|$", page.read_text(encoding="utf-8"), re.M)
    assert len(rows) == 3
    for limit, cells in rows:
        for method, cell in zip(("reverse", "checkpoint", "store"), cells.split(" | ")):
            entry = found[int(limit) * 10**6, method]
            said = f"{1000 * entry['median_s']:.3g} ms" if "median_s" in entry else "does not fit"
            assert cell == said + (f", {entry['states']} states" if method == "checkpoint" else "")


def test_what_complex64_saves_and_costs_is_in_the_results_it_links_to():
    page = ROOT / "tutorials" / "precision.md"
    link = re.search(r"^\[run\]: (\S+)$", page.read_text(encoding="utf-8"), re.M)[1]
    for workload in json.loads((page.parent / link).read_text(encoding="utf-8"))["workloads"]:
        ours = {one["dtype"]: one for one in workload["contenders"] if one["label"] == "qiskit-fused"}
        saved = ours["complex128"]["median_ms"] / ours["complex64"]["median_ms"]
        assert workload["num_qubits"] < 16 or 1.75 < saved < 2.25  # "half the time"
        assert workload["num_qubits"] > 8 or 0.95 < saved < 1.25  # "nearly as long"
        assert max(ours["complex64"]["value_error"], ours["complex64"]["gradient_error"]) < 1e-6


def test_the_table_of_entry_points_names_every_class_and_function_that_computes_values():
    table = README.read_text(encoding="utf-8").split("### Which entry point is mine?")[1].split("\n## ")[0]
    entry_points = {name for name in qiskit_fused.__all__ if name.startswith("Fused")} - {"FusedJob", "FusedOptions"}
    entry_points |= {"accelerate", "FusedLayer", "FusedProbabilityLayer", "FusedKernelLayer", "expectation_values"}
    entry_points |= {"statevectors", "statevectors_and_vjp"}
    assert entry_points - set(re.findall(r"\w+", table)) == set()


def test_readme_names_every_option():
    options = README.read_text(encoding="utf-8").split("## Options")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", options, re.M) == list(qiskit_fused.FusedOptions.__dataclass_fields__)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith(("._cpu", ".cuda"))])
def test_docstring_examples_hold(name):
    if "torch" in name or name.endswith(".connector"):
        pytest.importorskip("torch")
    if name.endswith(".notebook_figure"):
        pytest.importorskip("matplotlib")
    assert doctest.testmod(importlib.import_module(name)).failed == 0
