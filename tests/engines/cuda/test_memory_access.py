# SPDX-License-Identifier: Apache-2.0
"""Access patterns of the CUDA kernels, counted by the emulation: sectors of global memory, passes over shared memory.

A ratio is the number of accesses over the least number for the same bytes. The table at the end of the run has all
ratios; `pytest -rP` prints every source line with a ratio above 1.
"""

import functools

import numpy as np
import pytest
from asking import ask
from cuda_emulation import EmulatedRuntime, missing_tools, planted
from engine_cases import all_pairs, assert_agree, plan_of, random_circuit, random_observables, rows_of
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import real_amplitudes

from qiskit_fused.engines.cuda import passes
from qiskit_fused.engines.cuda.engine import CudaEngine
from qiskit_fused.engines.cuda.formats import MAX_TILE_QUBITS, REAL_FORMAT, REGISTER_QUBITS
from qiskit_fused.engines.reference import ReferenceEngine
from qiskit_fused.fusion.layers import fuse_program
from qiskit_fused.lowering.lower import lower
from qiskit_fused.options.method import REVERSE, Method
from qiskit_fused.program.outcomes import Outcomes

pytestmark = [
    pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools())),
    pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning"),
]

# (qubits, tile qubits) of three cases: one window, many windows, and blocks of several warps.
SIZES = [(8, 8), (10, 8), (10, 9)]
ITEM = {"complex64": 8, "complex128": 16, "float32": 4, "float64": 8}


@functools.cache
def question_of(num_qubits, is_real=False):
    if is_real:
        circuit = real_amplitudes(num_qubits, reps=3)
    else:
        circuit, parameters = random_circuit(num_qubits, 20, seed=num_qubits), ParameterVector("q", num_qubits)
        for q in range(num_qubits):
            circuit.ry(parameters[q], q)
            circuit.rzz(parameters[q], q, (q + 1) % num_qubits)
            circuit.rx(parameters[q], q)
    plan, operators = plan_of(circuit, random_observables(num_qubits, 1))
    question = plan, operators, rows_of(plan.program), all_pairs(3, 2)
    return question, ask(ReferenceEngine(), *question, gradient=True)


def trace(num_qubits, tile_qubits, dtype, source_edit=None, method=REVERSE, is_real=False):
    """Return the accesses of an evaluation with gradients, by source line, and check its results."""
    question, expected = question_of(num_qubits, is_real)
    runtime = EmulatedRuntime(check=True, source_edit=source_edit)
    with runtime.trace():
        engine = CudaEngine(runtime, max_tile_qubits=tile_qubits)
        measured = ask(engine, *question, gradient=True, dtype=dtype, method=method)
    assert_agree(measured, expected, dtype)
    return [site for site in runtime.sites() if site.instructions]


def group_of(site, dtype):
    """Return the name of the data that a source line accesses."""
    if site.file not in ("sweeps.cu", "sweep_tiles.cuh", "stages.cuh", "stage_sums.cuh"):
        return {"records.cuh": "bind.cu", "plan_records.h": "bind.cu", "threads.cuh": "block sums"}.get(
            site.file, site.file
        )
    if "*from" in site.code or "*to" in site.code:
        return "states"
    if site.space == "shared":
        if "there" not in site.code:
            return "sums of a stage"
        return "Walsh sums" if "v[j]" in site.code or "imaginary_product" in site.code else "exchanges"
    return "partial sums" if site.write else "tables and records"


def ratios(sites, dtype):
    """Return, for each group of lines, the number of passes over the least number."""
    groups = {}
    for site in sites:
        passes_, fewest = groups.get(group_of(site, dtype), (0, 0))
        groups[group_of(site, dtype)] = passes_ + site.passes, fewest + site.fewest
    return {name: passes_ / fewest for name, (passes_, fewest) in groups.items()}


class Table:
    """Prints the ratios of all sizes after the tests."""

    def __init__(self):
        self.columns = {}

    def pytest_terminal_summary(self, terminalreporter):
        if self.columns:
            terminalreporter.section("Accesses of the CUDA kernels: sectors and passes, over the fewest possible")
            names = sorted({name for column in self.columns.values() for name in column})
            lines = [f"{'':<20}" + "".join(f"{title:>13}" for title in self.columns)]
            for name in names:
                cells = (column.get(name) for column in self.columns.values())
                lines.append(f"{name:<20}" + "".join(f"{'-' if r is None else format(r, '.2f'):>13}" for r in cells))
            terminalreporter.write("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def table(request):
    plugin = Table()
    request.config.pluginmanager.register(plugin)
    return plugin


def note(table, sites, num_qubits, tile_qubits, dtype):
    """Add the ratios of a size to the table, print the lines with a ratio above 1, and return the ratios."""
    measured = ratios(sites, dtype)
    table.columns[f"{dtype[0]}{dtype[7:]} {num_qubits}/{tile_qubits}"] = measured
    for site in sites:
        if site.passes > site.fewest:
            place = f"{site.file}:{site.line} {site.space} {'write' if site.write else 'read'} of {site.size}"
            print(f"{site.passes / site.fewest:6.2f} {site.instructions:7d} {place:<40}{site.code[:80]}")  # noqa: T201
    return measured


@pytest.mark.slow
@pytest.mark.parametrize(("num_qubits", "tile_qubits"), SIZES)
def test_states_take_the_fewest_sectors_and_exchanges_the_fewest_passes(num_qubits, tile_qubits, dtype, table):
    sites = trace(num_qubits, tile_qubits, dtype)
    measured = note(table, sites, num_qubits, tile_qubits, dtype)
    states = [site for site in sites if group_of(site, dtype) == "states"]
    assert {site.write for site in states} == {False, True}
    assert measured["states"] == 1 and measured["exchanges"] == 1
    # observe.cu reads states and diagonals of observables, and writes cotangents.
    assert measured["observe.cu"] == 1
    assert measured["Walsh sums"] <= 2
    assert measured["sums of a stage"] <= 2
    assert measured["tables and records"] <= 1.5


def test_adjoint_states_of_outcomes_take_the_fewest_sectors_and_lists_of_a_parity_twice_as_many(dtype):
    """Half of the amplitudes of a sector have an even number of ones, so the two lists read each sector twice."""
    program, parity = lower(random_circuit(10, 5, seed=1)), np.bitwise_count(np.arange(1024)) & 1
    question = fuse_program(program, None), Outcomes(10, range(10), parity, 2), rows_of(program), all_pairs(3, 2)
    runtime = EmulatedRuntime(check=True)
    with runtime.trace():
        ask(CudaEngine(runtime), *question, gradient=True, cotangents=np.ones(6), dtype=dtype)
    found = {"psi[entries[j]]": [], "psi[(row": [], "lam[entry]": []}
    for site in runtime.sites():
        for text, ratios_of_text in found.items():
            # The line that reads psi in the order of the lists also reads this order, numbers of 4 bytes.
            if site.file == "outcomes.cu" and text in site.code and site.size != 4:
                ratios_of_text.append(site.passes / site.fewest)
    assert all(found[name] and max(found[name]) == 1 for name in ("psi[(row", "lam[entry]"))
    assert found["psi[entries[j]]"] and max(found["psi[entries[j]]"]) <= 2


def test_a_kept_state_is_read_and_not_written(dtype):
    """The two pairs of each row share the kept state; the last sweep writes nothing."""
    (question, _), n, rows, units = question_of(10), 10, 3, 6
    passes_ = ask(CudaEngine(EmulatedRuntime(), max_tile_qubits=8), *question, dtype=dtype).stats["sweeps"]
    for method, backward in ((REVERSE, 2), (Method("store"), 1)):
        sites = trace(n, 8, dtype, method=method)
        sectors = {False: 0, True: 0}
        for site in sites:
            if group_of(site, dtype) == "states":
                sectors[site.write] += site.passes
        written = rows * passes_ + backward * units * (passes_ - 1)
        read = rows * passes_ + 2 * units * passes_
        assert sectors == {False: read * ITEM[dtype] << n >> 5, True: written * ITEM[dtype] << n >> 5}


@pytest.mark.parametrize(
    ("tile_qubits", "is_real"),
    [(8, False), (9, False), ("most", False), (8, True), (10, True)],
    ids=lambda value: ("real" if value else "complex") if isinstance(value, bool) else str(value),
)
@pytest.mark.slow
def test_exchanges_have_no_bank_conflicts_in_any_arrangement(tile_qubits, is_real, dtype, monkeypatch, table):
    visited, cover = set(), passes.cover

    def cover_everywhere(bits, arrangement, tile_qubits, register_qubits):
        """Visit every arrangement, needed or not; each call begins with another one."""
        count = tile_qubits - register_qubits + 1
        start, left, groups = len(visited) + arrangement + 1, set(bits), []
        for k in range(count if bits else 0):
            first = (start + k * (1 if start % 2 else count - 1)) % count
            here = {bit for bit in left if first <= bit < first + register_qubits}
            groups.append((first, sorted(here)))
            left -= here
            visited.add(first)
        return groups or cover(bits, arrangement, tile_qubits, register_qubits)

    monkeypatch.setattr(passes, "cover", cover_everywhere)
    amplitudes = REAL_FORMAT[dtype] if is_real else dtype
    t = MAX_TILE_QUBITS[amplitudes] if tile_qubits == "most" else tile_qubits
    sites = trace(max(t, 10), t, dtype, is_real=is_real)
    measured = ratios(sites, amplitudes)
    assert len(visited) == t - REGISTER_QUBITS[amplitudes] + 1
    exchanges = [site for site in sites if group_of(site, amplitudes) == "exchanges"]
    assert {site.write for site in exchanges} == {False, True} and sum(site.instructions for site in exchanges) > 1000
    assert measured["exchanges"] == 1 and measured["states"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["index", "index + (index >> (REGISTER_QUBITS + 1))"], ids=["none", "one bit off"])
def test_a_wrong_padding_shows_as_bank_conflicts(wrong, dtype):
    edit = planted("sweeps.cu", "index + (index >> REGISTER_QUBITS)", wrong)
    measured = ratios(trace(10, 9, dtype, edit), dtype)
    assert measured["exchanges"] > 1.1 and measured["states"] == 1


@pytest.mark.parametrize(("num_qubits", "tile_qubits"), [(8, 4), (8, 6)])
def test_tiny_tiles_cost_no_more_than_a_sector_for_each_amplitude(num_qubits, tile_qubits, dtype, table):
    """One or two threads hold a tile of 4 qubits, so neighbouring threads read neighbouring tiles.

    The engine takes such tiles only for circuits of 4 qubits, whose states are a few sectors in all.
    """
    measured = note(table, trace(num_qubits, tile_qubits, dtype), num_qubits, tile_qubits, dtype)
    assert measured["states"] <= 32 / ITEM[dtype]
    whole = note(table, trace(tile_qubits, tile_qubits, dtype), tile_qubits, tile_qubits, dtype)
    assert whole["states"] <= 32 / ITEM[dtype]
    for ratios_of in (measured, whole):
        assert ratios_of.get("exchanges", 1) == 1 and ratios_of["Walsh sums"] <= 2
