# SPDX-License-Identifier: Apache-2.0
"""What the READMEs show is made from the newest results, and all results are linked."""

import json
import re
from pathlib import Path

import pytest
from benchmarking import BENCHMARKS, ROOT


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import readmes

    return readmes


def test_both_readmes_are_in_step_with_the_results(bench):
    files = bench.load(BENCHMARKS / "results")
    assert files
    for readme in (ROOT / "README.md", BENCHMARKS / "README.md"):
        stale = "stale: run python benchmarks readmes"
        assert bench.updated(readme, files) == readme.read_text(), stale


def test_every_committed_results_file_can_be_printed_and_shows_all_its_medians(bench, capsys):
    from common.tables import number

    for path, results in bench.load(BENCHMARKS / "results").items():
        report = bench.REPORTS[bench.kind_of(results)]
        report.print(results)
        medians = {number(float(digits)) for digits in re.findall(r'"median_ms": ([-+.\de]+)', path.read_text())}
        for text in (report.markdown(results), capsys.readouterr().out):
            assert not [median for median in medians if median not in text], path


def test_every_link_and_picture_of_a_result_exists(bench):
    for readme in (ROOT / "README.md", BENCHMARKS / "README.md"):
        links = re.findall(r"\]\(((?:benchmarks/)?results/[^)]+)\)", readme.read_text())
        assert links
        for link in links:
            assert (readme.parent / link).is_file(), link


def test_all_results_are_linked_and_every_kind_that_was_measured_is_shown(bench):
    text = (BENCHMARKS / "README.md").read_text()
    files = bench.load(BENCHMARKS / "results")
    for path in files:
        assert f"({path.relative_to(BENCHMARKS).as_posix()})" in text.split("## All results")[1]
    for kind in {bench.kind_of(results) for results in files.values()} - {"gpu"}:
        assert f"<!-- generated: {kind} -->" in text
        _, results = bench.newest(files, kind)
        assert results["machine"]["cpu"] in text


def entry(label, median, **more):
    times = dict.fromkeys(("median_ms", "min_ms", "quartile_1_ms", "quartile_3_ms", "peak_mib"), median)
    errors = {"value_error": 0.0, "gradient_error": 0.0, "first_call_s": 1.0, "extrapolated": False}
    return {"label": label, "dtype": "complex64", "times_ms": [median]} | times | errors | more


def results(cpu, date, **more):
    workload = {"name": "some", "batch": 2, "required": None, "work": {"flops": 1e6, "bytes_moved": 1e6}}
    workload["contenders"] = [entry("qiskit-fused", 2.0), entry("peer", 1.0), entry("other", 8.0)]
    shared = {"machine": {"cpu": cpu, "simd": "avx512"}, "num_threads": 2, "revision": "r", "busy_cpus": 0.0}
    ceilings = {"flops_per_second": 1e10, "bytes_per_second": 2e9}
    return shared | {"date": date, "workloads": [workload], "missing": [], "ceilings": ceilings} | more


@pytest.fixture
def folder(tmp_path):
    """Results of two machines; the newest is a part."""
    for name, held in {
        "old/2025.json": results("an old CPU", "2025-01-01T00:00:00"),
        "new/2026.json": results("a new CPU", "2026-01-01T00:00:00", missing=["gone: x is not installed"]),
        "new/2027.json": results("a new CPU", "2027-01-01T00:00:00", partial=True),
    }.items():
        path = tmp_path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(held))
    return tmp_path


def updated(bench, folder: Path, text: str) -> str:
    readme = folder / "README.md"
    readme.write_text(text)
    return bench.updated(readme, bench.load(folder / "results"))


def test_sections_show_the_newest_complete_results_and_name_machine_winners_and_the_missing(bench, folder):
    text = updated(bench, folder, "before\n<!-- generated: run -->\nstale\n<!-- end: run -->\nafter\n")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text
    assert "a new CPU, avx512, 2 threads, 2026-01-01 00:00 UTC" in text and "(results/new/2026.json)" in text
    assert "* some, complex64: peer c64 is 2.00 times faster" in text
    assert "* gone: x is not installed" in text
    assert "| some | 2 | 1 | 10% | 1 | 50% |" in text  # 2 Mflop and 2 MB in 2 ms, of 10 Gflop/s and 2 GB/s
    assert updated(bench, folder, text) == text


def test_the_table_of_the_readme_names_the_peers(bench, folder):
    text = updated(bench, folder, "<!-- generated: speed -->\n<!-- end: speed -->\n")
    assert "beside the fastest of peer and other" in text and "| some | 2 | - | 1, peer c64 | 0.5 |" in text


def test_results_of_other_machines_stay_linked(bench, folder):
    text = updated(bench, folder, "<!-- generated: files -->\n<!-- end: files -->\n")
    assert [re.search(r"\((.*?)\): (.*)", line).groups() for line in text.splitlines() if line.startswith("*")] == [
        ("results/new/2027.json", "a new CPU, run, a part of it, 2027-01-01"),
        ("results/new/2026.json", "a new CPU, run, 2026-01-01"),
        ("results/old/2025.json", "an old CPU, run, 2025-01-01"),
    ]


def test_a_section_that_is_unknown_or_has_no_end_is_an_error(bench, folder):
    for text in ("<!-- generated: no -->\n<!-- end: no -->\n", "<!-- generated: run -->\n"):
        with pytest.raises(ValueError, match="generated sections are"):
            updated(bench, folder, text)
