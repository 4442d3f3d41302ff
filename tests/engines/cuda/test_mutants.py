# SPDX-License-Identifier: Apache-2.0
"""Bugs planted in the CUDA kernels are found: the emulation reports an error, or a result differs from NumPy's.

The tests remove every barrier and every guard of a store in turn; `MUTANTS` lists the other bugs. A pattern that no
longer matches the kernel is an error of this file; write a pattern for the changed kernel.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from cuda_emulation import EmulatedRuntime, EmulationError, missing_tools
from kernel_scenarios import SCENARIOS

from qiskit_fused.engines.cuda.kernel_source import kernel_source

pytestmark = [
    pytest.mark.skipif(missing_tools() is not None, reason=str(missing_tools())),
    pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning"),
]


class Mutant(NamedTuple):
    """A planted bug: match ``number`` of a pattern is replaced. The scenarios reach the bug, the most likely first."""

    file: str
    pattern: str
    replacement: str
    scenarios: tuple[str, ...]
    label: str
    number: int = 0

    @property
    def name(self):
        return f"{self.file}: {self.label}"

    def edit(self, file, text):
        if file != self.file:
            return text
        matches = list(re.finditer(self.pattern, text))
        if self.number >= len(matches):
            raise LookupError(f"{self.name}: found {len(matches)} times; the kernel has changed, plant this bug anew")
        match = matches[self.number]
        return text[: match.start()] + match.expand(self.replacement) + text[match.end() :]


def plant(file, pattern, replacement, *scenarios):
    """Plant a bug where a pattern matches."""
    return Mutant(file, pattern, replacement, scenarios, f"{pattern} -> {replacement or 'nothing'}".replace("\\", ""))


def plant_everywhere(label, file, pattern, replacement, *scenarios, but_in=None):
    """Plant a bug at every match in a file and in the headers that it is compiled with, except for one header."""
    text = kernel_source(file)
    headers = [re.findall(r'^#line 1 "(.*)"', text[: match.start()], re.M)[-1] for match in re.finditer(pattern, text)]
    numbers = [k for k, header in enumerate(headers) if header != but_in]
    assert numbers, f"{file} has no {pattern} any more"
    return [Mutant(file, pattern, replacement, scenarios, f"{label} {k}", k) for k in numbers]


BARRIER = r"__syncthreads\(\);"
STORE_GUARD = r"(?<=[( ])(?:here|place)\.valid(?=\) (?:\*to|store|partial|\{))"
MUTANTS = [
    *plant_everywhere("no barrier", "gradients.cu", BARRIER, "", "sums"),
    *plant_everywhere("no barrier", "observe.cu", BARRIER, "", "warps"),
    # No sweep calls block_sums of threads.cuh.
    *plant_everywhere("no barrier", "sweeps.cu", BARRIER, "", "warps", "lanes", "one state", but_in="threads.cuh"),
    *plant_everywhere("stores beyond the last tile", "sweeps.cu", STORE_GUARD, "true", "lanes"),
    # threads, tiles, addresses
    plant("sweeps.cu", r"if \(!place\.valid\) number = last;", "", "lanes"),
    plant("sweeps.cu", r"above = tile >> between", "above = tile", "lanes"),
    plant("sweeps.cu", r"below << low", "below", "lanes"),
    plant("sweeps.cu", r"\(index >> low\) << high", "(index >> low) << low", "lanes"),
    plant("sweeps.cu", r"LOAD_ARRANGEMENT \+ window\.high - window\.low", "LOAD_ARRANGEMENT", "warps"),
    plant("sweeps.cu", r"window\.low <= LOAD_ARRANGEMENT \|\|", "true ||", "lanes"),
    plant("sweeps.cu", r"blockIdx\.x >> tile_bits", "blockIdx.x >> (tile_bits + 1)", "tile of a block"),
    plant("sweeps.cu", r"= row_of_unit\[here\.unit\]", "= here.unit", "lanes"),
    plant("sweeps.cu", r"index \^ \(index >>", "index | (index >>", "real"),
    plant("sweeps.cu", r"place_of\(1 << TILE_QUBITS\) :", "1 << TILE_QUBITS :", "lanes"),
    plant("sweeps.cu", r"there\[STATE_PLACES\] = lam", "there[0] = lam", "lanes"),
    plant("sweeps.cu", r"STATES_AT_ONCE \* STATE_PLACES", "STATE_PLACES", "lanes"),
    plant("sweeps.cu", r"\(s & 1\) \*", "0 *", "warps"),
    plant("sweeps.cu", r"(?<=num_stages \? pass\.stages\[s\]\.arrangement : )LOAD_ARRANGEMENT", "arrangement", "lanes"),
    plant("sweeps.cu", r"(?<=s >= 0 \? pass\.stages\[s\]\.arrangement : )LOAD_ARRANGEMENT", "arrangement", "warps"),
    # states: either the units of a row share one state, which is read only, or each unit uncomputes its own state
    plant("sweeps.cu", r"psi_of_rows \? row : here\.unit", "here.unit", "kept"),
    plant("sweeps.cu", r"psi_of_rows \? row : here\.unit", "row", "lanes"),
    plant(
        "sweeps.cu",
        r"if \(target\) store\(psi, target",
        "store(psi, target ? target : const_cast<Complex*>(source)",
        "kept",
    ),
    plant("sweeps.cu", r"if \(target\) store", "if (false) store", "lanes"),
    plant("sweeps.cu", r"if \(target\) store\(psi, target, here\.unit", "if (target) store(psi, target, row", "lanes"),
    plant("sweeps.cu", r"if \(store_lam\) store", "if (target) store", "kept"),
    plant("sweeps.cu", r"load\(psi, source, here\.unit", "load(psi, target, here.unit", "kept"),
    # sums
    plant("sweeps.cu", r"partial\[stage\.y_partial \+ k\]", "partial[stage.y_partial + k + 1]", "lanes"),
    plant("sweeps.cu", r"step < LANE_QUBITS", "step < LANE_QUBITS - 1", "lanes"),
    plant("sweeps.cu", r"q < LANE_QUBITS", "q < LANE_QUBITS - 1", "lanes"),
    plant("sweeps.cu", r"__shfl_xor_sync\(ALL_LANES, walsh", "__shfl_xor_sync(0x7fffffffu, walsh", "lanes"),
    plant("sweeps.cu", r"warp & signs", "warp & 0", "warps"),
    plant("sweeps.cu", r"place_of\(masks\[k\]\)", "masks[k]", "lanes"),
    plant("sweeps.cu", r"total \+= scratch\[warp\]", "total = scratch[warp]", "warps"),
    # phases and rotations
    plant("sweeps.cu", r"mask >> TILE_QUBITS", "mask >> (TILE_QUBITS + 1)", "lanes"),
    plant("sweeps.cu", r"piece\.signs\[b\]", "piece.signs[0]", "lanes"),
    plant("sweeps.cu", r"piece\.register_signs >> j", "piece.register_signs >> (j ^ 1)", "lanes"),
    plant("sweeps.cu", r"extra\.bit == b", "extra.bit <= b", "lanes"),
    plant("sweeps.cu", r"inverse \? multiply_conjugate", "!inverse ? multiply_conjugate", "lanes"),
    plant("sweeps.cu", r"rotate<BIT>\(lam, (-c\.shears\.x), -c", r"rotate<BIT>(lam, \1, c", "lanes"),
    plant("sweeps.cu", r"place\(piece\.table, row,", "place(piece.table, 0,", "lanes"),
    # compiled passes
    plant(
        "sweeps.cu",
        r"(?<=rotate_scaled<BIT>\(psi, c\.scaled\.x\);\n            )scale \*= c\.scaled\.y;",
        "",
        "compiled",
    ),
    plant(
        "sweeps.cu",
        r"(?<=rotate_scaled<BIT>\(lam, -c\.scaled\.x\);\n            )scale \*= c\.scaled\.y;",
        "",
        "compiled",
    ),
    plant("sweeps.cu", r"rotate_scaled<BIT>\(lam, -c", "rotate_scaled<BIT>(lam, c", "compiled"),
    plant("sweeps.cu", r"multiple\(factors\.head, scale\)", "factors.head", "compiled"),
    plant("sweeps.cu", r"scale = 1;(?=\n    // The loop)", "", "compiled"),
    plant("sweeps.cu", r"\* \(scale \* scale\);", "* scale;", "compiled"),
    plant("sweeps.cu", r"stage\.sum_x, x, scale \* scale", "stage.sum_x, x, 1", "compiled"),
    plant("sweeps.cu", r"z\[b\] \*= square", "z[b] *= 1", "compiled"),
    plant("sweeps.cu", r"p\[0\] \* square", "p[0]", "compiled"),
    plant("sweeps.cu", r"j\] = multiple\(a\[j\], s\)", "j] = a[j]", "compiled"),
    plant("bind.cu", r"1 / sqrt\(1 \+ t \* t\)", "1 / (1 + t)", "compiled"),
    # real amplitudes
    plant("sweeps.cu", r": 1 << TILE_QUBITS;", ": 1 << (TILE_QUBITS - 1);", "real"),
    plant("sweeps.cu", r"(?<=invert_if\(Real a, unsigned\) \{\n    return )a", "-a", "real"),
    plant("bind.cu", r"(?<=set\(Real& a, Real re, Real\) \{\n    a = )re", "1", "real"),
    plant("observe.cu", r"(?<=set\(Real& a, Real re, Real\) \{\n    a = )re", "1", "real"),
    plant("sweeps.cu", r"(?<=add_multiple\(Real& a, Real s, Real b\) \{\n    a \+= )s \* b", "b", "real"),
    plant("sweeps.cu", r"negate_if\(table\[b\], odd\)", "table[b]", "real"),
    plant("bind.cu", r"if \(IS_REAL\) \{", "if (false) {", "real"),
    plant("bind.cu", r" && !IS_REAL", "", "real"),
    plant("bind.cu", r"u\.b \* u\.b \+ u\.d \* u\.d > u\.a", "u.a", "real"),
    # angles and tables
    plant("bind.cu", r"if \(entry >= slots->shared_runs [^;]*\) return;", "", "lanes"),
    plant("bind.cu", r"run\.only_rx && !IS_REAL \? [^:]* :", "false ? 0 :", "small"),
    plant("bind.cu", r"1 << \(k - THREADS_PER_TILE\)", "2 << (k - THREADS_PER_TILE)", "lanes"),
    plant("bind.cu", r"- row \* num_varying", "- row", "lanes"),
    plant("bind.cu", r"SOURCE_RUN_IN \? angles\.x : angles\.y", "SOURCE_RUN_IN ? angles.y : angles.x", "lanes"),
    # observables and gradients
    plant("observe.cu", r"if \(i >= size\) return;", "", "small"),
    plant("observe.cu", r"inside\[j\] \? psi\[index\[j\]\]", "true ? psi[index[j]]", "small"),
    plant("observe.cu", r"!cotangents && inside\[j\]", "!cotangents", "small"),
    plant("observe.cu", r"index\[j\] \^ group\.flip", "index[j]", "lanes"),
    plant("outcomes.cu", r"if \(task >= [^;]*\) return;", "", "long lists"),
    plant("outcomes.cu", r"task % num_parts", "0", "long lists"),
    plant("outcomes.cu", r"task / num_parts << num_address_bits", "0", "long lists"),
    plant("outcomes.cu", r"static_cast<int>\(part\.end - part\.begin\)", "1024", "long lists"),
    plant("outcomes.cu", r"if \(lane == 0\) partial", "partial", "long lists"),
    plant(
        "outcomes.cu", r"= lane; j < count; j \+= num_lanes\) \{", "= 0; j < count; ++j) {", "long lists", "short lists"
    ),
    plant("outcomes.cu", r"offset = num_lanes / 2", "offset = num_lanes / 4", "long lists", "short lists"),
    plant("outcomes.cu", r"ALL_LANES, x, offset(?=\);\n    return x;\n\})", "1u, x, offset", "long lists"),
    plant(
        "outcomes.cu", r"valid \? static_cast<int>\(([^?:]*)\) : num_pairs - 1", r"static_cast<int>(\1)", "short lists"
    ),
    plant("outcomes.cu", r"!valid \|\| lane", "lane", "short lists"),
    plant("outcomes.cu", r"!valid \|\| lane", "!valid", "long lists"),
    plant("outcomes.cu", r"row = row_of_pair\[pair\]", "row = 0", "short lists"),
    plant("outcomes.cu", r"row \* num_parts \+ list\.begin", "list.begin", "long lists"),
    plant("outcomes.cu", r"if \(list\.has_parts\)", "if (false)", "long lists"),
    plant("outcomes.cu", r"row \* num_outcomes \+ pair_outcome\[pair\]\]", "pair_outcome[pair]]", "short lists"),
    plant("outcomes.cu", r"if \(unit >= units\) return;", "", "short lists"),
    plant("outcomes.cu", r"weights \? unit : row_of_pair\[unit\]", "unit", "short lists"),
    plant("outcomes.cu", r"if \(k >= 0\)", "", "short lists"),
    plant("outcomes.cu", r"k == pair_outcome\[unit\]", "k == pair_outcome[0]", "short lists"),
    plant("outcomes.cu", r"weights\[row \* num_outcomes \+ k\]", "weights[k]", "short lists"),
    plant("outcomes.cu", r"imaginary \? times_i\(result\) : ", "", "short lists"),
    plant("gradients.cu", r"tile & output\.outside", "tile & 0", "sums"),
    plant("gradients.cu", r" && o < num_outputs\)", ")", "sums"),
    plant("gradients.cu", r"unit \* num_leaf_outputs \+ leaf\.output", "unit * num_leaf_outputs", "lanes"),
    plant("gradients.cu", r"row = row_of_unit\[unit\]", "row = 0", "lanes"),
    plant("gradients.cu", r" && unit < units", "", "summed"),
    plant("gradients.cu", r"first = s \* units_per_sum", "first = s", "summed"),
    plant("gradients.cu", r"column = chosen\[k\]", "column = k", "summed"),
    plant("gradients.cu", r"\+ units_per_sum - 1\) / units_per_sum", "/ units_per_sum)", "summed"),
    plant("gradients.cu", r"s \* sum_stride \+ k \* chosen_stride(?=\] =)", "s * num_chosen + k", "summed"),
]


def find(mutant, scenario):
    """Run a scenario with a planted bug; return the error that it causes, or None."""
    try:
        SCENARIOS[scenario](EmulatedRuntime(check=True, seed=1, source_edit=mutant.edit))
    except EmulationError as error:
        return str(error)
    except AssertionError:
        return "wrong results"
    return None


def find_by_any(mutant):
    return next(filter(None, (find(mutant, scenario) for scenario in mutant.scenarios)), None)


@pytest.fixture(scope="module")
def findings(request):
    """The error of each mutant that is tested, as a future: two threads compile and run the mutants."""
    tested = [
        item.callspec.params
        for item in request.session.items
        if item.path == request.path and hasattr(item, "callspec")
    ]
    pool = ThreadPoolExecutor(2)
    yield {params["mutant"]: pool.submit(find_by_any, params["mutant"]) for params in tested if "mutant" in params}
    pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_right_kernels_pass(scenario):
    SCENARIOS[scenario](EmulatedRuntime(check=True, seed=1))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
@pytest.mark.slow
def test_a_planted_bug_is_found(mutant, findings):
    assert findings[mutant].result() is not None, f"{mutant.name} changes nothing that is tested"
