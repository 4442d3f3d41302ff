# SPDX-License-Identifier: Apache-2.0
"""The notebooks as they are committed: complete, run from top to bottom, and free of traces of a machine.

``make tutorials`` executes them.
"""

import json
import re
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[2] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
MAX_BYTES = 1_000_000  # a clone holds every version of every picture
ABSOLUTE_PATH = re.compile(r"(?<![\w/.:<])(?:/[\w.-]+){2,}|\b[A-Z]:\\\w")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(lines):
    """Join a multiline string of the notebook format."""
    return lines if isinstance(lines, str) else "".join(lines)


def texts(notebook):
    """Yield all text that a reader sees: sources, printed lines, tracebacks, representations of results."""
    for cell in notebook["cells"]:
        yield text_of(cell["source"])
        for output in cell.get("outputs", []):
            yield text_of(output.get("text", ""))
            yield from output.get("traceback", [])
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield text_of(data)


def test_notebooks_are_numbered_in_the_order_to_read_them():
    assert NOTEBOOKS
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, len(NOTEBOOKS) + 1)]


@each_notebook
def test_notebook_was_run_from_top_to_bottom(path):
    cells = code_cells(load(path))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@each_notebook
def test_notebook_shows_pictures_and_numbers(path):
    outputs = [output for cell in code_cells(load(path)) for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output["output_type"] == "stream" for output in outputs)


@each_notebook
def test_notebook_shows_only_errors_it_means_to_show(path):
    for cell in code_cells(load(path)):
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert "error" not in kinds or "raises-exception" in cell["metadata"].get("tags", [])


@each_notebook
def test_notebook_shows_no_warnings(path):
    for cell in code_cells(load(path)):
        noise = [text_of(output["text"]) for output in cell["outputs"] if output.get("name") == "stderr"]
        assert not noise


@each_notebook
def test_notebook_holds_no_path_of_a_machine(path):
    for text in texts(load(path)):
        assert not ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("/home/ada/tutorials", True),
        ('File "/usr/lib/python3/ast.py", line 1', True),
        (r"C:\Users\ada", True),
        ("see https://arxiv.org/abs/2603.02804", False),
        ("[back](../README.md), and/or 1/2/3", False),
        ("<b>x</b>", False),
    ],
)
def test_paths_of_a_machine_are_told_from_other_text(text, is_path):
    assert bool(ABSOLUTE_PATH.search(text)) == is_path


@each_notebook
def test_links_between_files_lead_somewhere(path):
    for cell in load(path)["cells"]:
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\((?!\w+:|#)([^)#]+)", text_of(cell["source"])):
                assert (TUTORIALS / target).exists(), target


@each_notebook
def test_notebook_names_its_license(path):
    assert "SPDX-License-Identifier: Apache-2.0" in text_of(load(path)["cells"][0]["source"])


@each_notebook
def test_notebook_runs_on_any_python_kernel(path):
    assert load(path)["metadata"]["kernelspec"]["name"] == "python3"


@each_notebook
def test_notebook_is_small(path):
    assert path.stat().st_size < MAX_BYTES
