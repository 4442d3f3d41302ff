# SPDX-License-Identifier: Apache-2.0
"""How Sphinx builds the documentation: ``make docs``.

The source folder is the root of the repository, so that links between files are the same in the HTML and on a code
host. Notebooks are shown with their saved outputs. The build executes no code and fetches no files.
"""

from importlib.util import find_spec

import qiskit_fused
from qiskit_fused.primitives import estimator, sampler

project = "qiskit-fused"
author = "the qiskit-fused developers"
project_copyright = author
language = "en"
release = qiskit_fused.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "qiskit_sphinx_theme"]
root_doc = "tutorials/index"
include_patterns = ["README.md", "CHANGELOG.md", "kernels/README.md", "benchmarks/README.md", "tutorials/**"]
exclude_patterns = ["build", "dist", ".*", "**/.*", "tests"]

nb_execution_mode = "off"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
# The full text of each of these type aliases takes twenty lines.
estimator.EstimatorPubLike = type("EstimatorPubLike", (), {})
sampler.SamplerPubLike = type("SamplerPubLike", (), {})
toc_object_entries_show_parents = "hide"
if find_spec("torch") is None:
    autodoc_mock_imports = ["torch"]
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "any"  # single backticks in docstrings link to any object of this name

nitpicky = True
# Most types in signatures belong to other projects. Links to them would need inventories fetched from the network.
nitpick_ignore_regex = [("py:(class|obj|exc)", ".*")]

html_theme = "qiskit-ecosystem"
html_title = project
html_baseurl = ""
html_copy_source = False
html_show_sphinx = False
html_additional_pages = {"index": "to_root.html"}  # the folder itself leads to the start page
templates_path = ["templates"]
