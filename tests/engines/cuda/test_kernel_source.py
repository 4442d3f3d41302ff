# SPDX-License-Identifier: Apache-2.0
"""The source text of a CUDA module: the kernel file with all its headers, so that the compiler needs no files."""

from pathlib import Path

import pytest

from qiskit_fused.engines.cuda.kernel_source import kernel_source

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "kernels" / "cuda").glob("*.cu")), ids=lambda path: path.name)
def test_the_text_of_a_module_holds_the_header_and_needs_no_files(path):
    text = kernel_source(path.name)
    assert text.count("constexpr bool IS_REAL = true") == 1 and '#include "' not in text and "#pragma once" not in text
    assert text.count('extern "C"') == path.read_text().count('extern "C"') >= 1
    assert str(ROOT) not in text


def test_a_kernel_file_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"missing\.cu"):
        kernel_source("missing.cu")
