# SPDX-License-Identifier: Apache-2.0
"""Pictures of plans show every operation of an engine exactly once, and stay readable."""

import pickle
import re
import sys
import time
from io import BytesIO
from itertools import pairwise

import pytest
from circuits import circuits
from engine_cases import cx_layers, dense_circuit
from hypothesis import given, settings
from layered_circuits import hardware_efficient, total_z
from qiskit.circuit import Parameter, ParameterVector, QuantumCircuit
from qiskit.circuit.library import efficient_su2
from qiskit.quantum_info import SparsePauliOp

from qiskit_fused import fuse
from qiskit_fused.engines.checkpointing import BACK, FORWARD, schedule_of
from qiskit_fused.engines.cuda.tiling import make_windows
from qiskit_fused.fusion.dense_gates import rotations_and_terms
from qiskit_fused.inspection.drawing.layout import make_layout
from qiskit_fused.inspection.roofline import Ceilings, Run, draw_roofline
from qiskit_fused.options.method import Method

pytest.importorskip("matplotlib")

ALL = 10**6  # more layers than any circuit of these tests has, so that pictures show whole circuits
BELL_PAIR = """\
2 qubits: 3 rotations in 2 layers, 2 terms in 3 phases
3 sweeps forward, as many back

sweep   start      2                   3
phase   0          1                   2
layer         0          1
q0     ─┊─────[H]──┊─■─●───────────────┊── q1
        ┊     ░░░░ ┊   │               ┊
q1     ─┊─────[Ry]─┊───●─[Ry Rx(a[1])]─┊── q0

q2      not simulated: no gate acts on it
[ ]     run: gates fused to one rotation
Rx(a[1])  its angle depends on the parameter a[1]
░       block: rotated together in registers
●       diagonal term: a phase where all of these are 1
■       diagonal term: phases of opposite sign for 0 and 1
┊       sweep: one pass over the state"""
CEILINGS = Ceilings("complex64", 1, 1e11, 5e10, 1e10)


def full_graph(num_qubits):
    circuit = QuantumCircuit(num_qubits)
    angles = iter(ParameterVector("g", num_qubits * (num_qubits + 1) // 2))
    circuit.h(range(num_qubits))
    for i in range(num_qubits):
        for j in range(i):
            circuit.rzz(next(angles), i, j)
    for qubit in range(num_qubits):
        circuit.rx(next(angles), qubit)
    return circuit


def runs_of(layout):
    return [run.run for column in layout.columns for run in column.runs]


def terms_of(layout):
    return [term for column in layout.columns for mark in column.terms for term in mark.terms]


def texts_of(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@settings(max_examples=25, deadline=None)
@given(circuit=circuits(max_qubits=6, max_gates=30))
def test_every_run_term_and_dense_gate_is_drawn_once(circuit):
    fused = fuse(circuit).fused_program
    for device, drawn in (("cpu", fused), ("cuda", rotations_and_terms(fused))):
        layout = make_layout(fused, device=device, max_layers=ALL)
        assert sorted(runs_of(layout)) == list(range(drawn.num_runs))
        assert sorted(terms_of(layout)) == list(range(len(drawn.term_phase)))
        assert sum(len(column.dense) for column in layout.columns) == len(drawn.dense_layer)


@settings(max_examples=25, deadline=None)
@given(circuit=circuits(max_qubits=6, max_gates=30))
def test_marks_and_blocks_do_not_overlap(circuit):
    for column in make_layout(fuse(circuit).fused_program, max_layers=ALL).columns:
        spans = sorted((mark.place, mark.bits[0], mark.bits[-1]) for mark in column.terms)
        assert all(a[0] < b[0] or a[2] < b[1] for a, b in pairwise(spans))
        assert all(a[1] < b[0] for a, b in pairwise(sorted(column.spans)))
        assert sorted(bit for block in column.blocks for bit in block) == sorted(run.bit for run in column.runs)


@pytest.mark.parametrize("num_qubits", [4, 15])
def test_as_many_sweeps_are_drawn_as_the_plan_counts(num_qubits):
    plan = fuse(hardware_efficient(num_qubits, 5), total_z(num_qubits))
    on_cpu, on_gpu = (make_layout(plan.fused_program, device=device, max_layers=ALL) for device in ("cpu", "cuda"))
    assert {column.sweep for column in on_cpu.columns} == set(range(1, plan.num_sweeps + 1))
    assert len(list(on_cpu.sweeps())) == plan.num_sweeps
    assert len(list(on_gpu.sweeps())) == len(make_windows(plan.fused_program, 11, 3))


def test_sweeps_rotate_the_qubits_of_one_window_and_the_windows_take_turns():
    layout = make_layout(fuse(hardware_efficient(16, 3), SparsePauliOp("Z" * 16)).fused_program)
    assert {wire.bit for wire in layout.wires if wire.is_cut} == {12, 13, 14, 15}
    left_out = []
    for begin, end in layout.sweeps():
        columns = layout.columns[begin:end]
        (window,) = {column.window for column in columns}
        assert {run.bit for column in columns for run in column.runs} <= set(window)
        left_out.append(set(range(16)) - set(window))
    assert left_out == [{14, 15}, {12, 13}, {14, 15}, {12, 13}]
    assert "═" in fuse(hardware_efficient(16, 3), SparsePauliOp("Z" * 16)).draw("text")


def test_a_full_graph_is_one_box():
    plan = fuse(full_graph(16), total_z(16))
    (mark,) = make_layout(plan.fused_program).columns[3].terms
    assert mark.is_box and mark.label == "120 terms" and mark.bits == tuple(range(16))
    assert plan.draw("text").count("120 terms") == 2  # once in the phase, and once in the title
    assert "120 terms" in texts_of(plan.draw())


def test_what_is_left_out_is_counted():
    plan = fuse(hardware_efficient(5, 100), total_z(5))
    layout = make_layout(plan.fused_program, method=Method("checkpoint", 10), max_layers=6)
    shown = {column.number for column in layout.columns if column.kind == "layer"}
    assert shown == {0, 1, 2, 97, 98, 99}
    assert layout.gap.steps == plan.num_layers - len(shown)
    assert layout.gap.rotations + len(runs_of(layout)) == plan.num_runs
    assert layout.gap.terms + len(terms_of(layout)) == len(plan.term_phase)
    assert layout.gap.sweeps + len({column.sweep for column in layout.columns}) == plan.num_sweeps
    assert layout.gap.states + sum(column.is_kept for column in layout.columns) + layout.keeps_end == 10
    assert "94 layers more: 470 rotations" in plan.draw("text", max_layers=6)


def test_a_plan_of_a_thousand_layers_takes_a_second_or_two():
    plan = fuse(hardware_efficient(5, 1000), total_z(5))
    start = time.process_time()
    figure = plan.draw(method="checkpoint", num_segments=30)
    figure.savefig(BytesIO())
    text = plan.draw("text")
    assert time.process_time() - start < 4
    assert len(text.splitlines()) < 150 and max(figure.get_size_inches()) < 16


@pytest.mark.parametrize("num_qubits", [1, 4, 20])
def test_text_is_aligned_and_folded(num_qubits):
    lines = fuse(efficient_su2(num_qubits, reps=6), total_z(num_qubits)).draw("text").splitlines()
    assert max(map(len, lines)) <= 118
    for number, line in enumerate(lines):
        if line.startswith("sweep"):
            wires = lines[number + 3 : number + 3 + 2 * num_qubits : 2]
            assert len({re.search("[─═] (q|…)", wire[8:]).start() for wire in wires}) == 1


def test_text_of_a_bell_pair():
    circuit = QuantumCircuit(3)
    angles = ParameterVector("a", 2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.rx(angles[1], 1)
    circuit.rz(angles[0], 0)
    circuit.swap(0, 1)
    assert fuse(circuit, "IXX").draw("text") == BELL_PAIR


@pytest.mark.parametrize("num_qubits", [6, 14])
def test_dense_gates_are_drawn_on_their_qubits_each_in_a_sweep_of_its_own(num_qubits):
    plan = fuse(dense_circuit(num_qubits, 3, 1))
    layout = make_layout(plan.fused_program, max_layers=ALL)
    assert {column.sweep for column in layout.columns} == set(range(1, plan.num_sweeps + 1))
    columns = [column for column in layout.columns if column.dense]
    assert [len(column.dense) for column in columns] == [1, 1]
    assert not any(column.runs for column in columns)
    for column, targets, care in zip(columns, plan.dense_targets.tolist(), plan.dense_care.tolist()):
        (mark,) = column.dense
        assert sum(1 << bit for bit, symbol in zip(mark.bits, mark.symbols) if symbol == "U") == targets
        assert sum(1 << bit for bit, symbol in zip(mark.bits, mark.symbols) if symbol != "U") == care
    text = plan.draw("text")
    assert text.count("[U]") == 6 and "U       dense gate: a constant matrix on these qubits" in text
    assert "U" in texts_of(plan.draw())


@pytest.mark.parametrize("num_qubits", [12, 14])
def test_linear_maps_are_drawn_on_their_qubits_in_the_order_of_the_bits(num_qubits):
    plan = fuse(cx_layers(num_qubits, num_layers=2), total_z(num_qubits))
    layout = make_layout(plan.fused_program, max_layers=ALL)
    assert {column.sweep for column in layout.columns} == set(range(1, plan.num_sweeps + 1))
    marks = [mark for column in layout.columns for mark in column.dense]
    assert [(mark.bits, set(mark.symbols)) for mark in marks] == [(tuple(range(num_qubits)), {"⊕"})] * 2
    assert [wire.start for wire in layout.wires] == [f"q{qubit}" for qubit in reversed(range(num_qubits))]
    text = plan.draw("text")
    assert "linear map: CX gates on these qubits, which move amplitudes" in text
    assert "⊕" in texts_of(plan.draw())
    few = make_layout(plan.fused_program, max_layers=2)
    assert "1 dense gate or map" in str(few.gap)


def test_qubits_that_are_not_simulated_say_why():
    few, many = QuantumCircuit(5), QuantumCircuit(9)
    few.compose(hardware_efficient(4, 1), range(4), inplace=True)
    many.compose(hardware_efficient(7, 1), range(7), inplace=True)
    text = fuse(few, "IIZII").draw("text")
    assert [line[8:] for line in text.splitlines() if line.startswith(("q0", "q4"))] == [
        "not simulated: no observable sees it",
        "not simulated: no gate acts on it",
    ]
    text = fuse(many, "IIIIIIZII").draw("text")
    assert "others  not simulated: 6 that no observable sees, 2 that no gate acts on" in text


def test_swapped_qubits_have_their_new_names_at_the_end():
    circuit = QuantumCircuit(2)
    circuit.ry(0.1, 0)
    circuit.swap(0, 1)
    circuit.ry(0.2, 0)
    assert [(wire.start, wire.end) for wire in make_layout(fuse(circuit).fused_program).wires] == [
        ("q0", "q1"),
        ("q1", "q0"),
    ]


@pytest.mark.parametrize("method", [Method("checkpoint", 3), Method("checkpoint", None, 4), Method("store")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_kept_states_and_recomputed_steps_are_those_of_the_schedule(method, device):
    plan = fuse(hardware_efficient(14, 9), SparsePauliOp("Z" * 14))
    layout = make_layout(plan.fused_program, device=device, method=method, max_layers=ALL)
    num_positions = plan.num_positions() if device == "cpu" else len(make_windows(plan.fused_program, 11, 3))
    actions = schedule_of(method, num_positions).actions.tolist()
    turn = next(k for k, action in enumerate(actions) if action[0] == BACK)
    again = {position for kind, position, _, _ in actions[turn:] if kind == FORWARD}
    held = {target: position for _, position, _, target in actions[:turn]}
    columns = layout.columns
    if device == "cpu":  # rows start in |0...0>, so position p is the state after step p - 1
        made = {column.number + 1 for column in columns if column.is_recomputed}
        kept = {column.number for column in columns if column.is_kept}
    else:
        made = {column.sweep for column in columns if column.is_recomputed}
        kept = {column.sweep - 1 for column in columns if column.is_kept}
    assert made == again
    assert kept | ({num_positions} if layout.keeps_end else set()) == set(held.values())


def test_no_pyplot_figure_is_left_open():
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    fuse(hardware_efficient(3, 2)).draw()
    draw_roofline([Run("run", fuse(hardware_efficient(3, 2)), 1.0, dtype="complex64")], CEILINGS)
    assert pyplot.get_fignums() == before


def test_notebooks_show_figures_without_pyplot():
    figure = fuse(hardware_efficient(2, 1)).draw()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert pickle.loads(pickle.dumps(figure))._repr_png_() == figure._repr_png_()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "qiskit_fused.inspection.drawing.notebook_figure", raising=False)
    plan = fuse(hardware_efficient(2, 1))
    with pytest.raises(ImportError, match="pip install matplotlib"):
        plan.draw()
    assert "2 qubits" in plan.draw("text")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output": "latex"}, "output is 'latex'; allowed: 'mpl', 'text'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"dtype": "float32"}, "dtype is 'float32'"),
        ({"method": "auto"}, "method is 'auto'"),
        ({"max_layers": 1}, "max_layers is 1; allowed: an integer >= 2"),
        ({"max_layers": None}, "max_layers is None; allowed: an integer >= 2"),
        ({"num_states": 0, "method": "checkpoint"}, "num_states is 0"),
        ({"num_segments": 4}, "goes with method='checkpoint'"),
        ({"num_segments": 4, "method": "checkpoint"}, "num_segments is 4, and the fused circuit has 1 layer; use a"),
        ({"num_segments": 4, "num_states": 4, "method": "checkpoint"}, "give one of them"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fuse(hardware_efficient(2, 1)).draw(**({"output": "text"} | arguments))


def test_the_figure_shows_gates_with_few_qubits_and_their_number_with_many():
    few, many = (fuse(hardware_efficient(n, 2), SparsePauliOp("Z" * n)).draw() for n in (4, 20))
    assert {"Rx(a[0]) Ry(a[1])", "Rx(a[21]) Ry(a[22])"} <= set(texts_of(few))
    assert texts_of(many).count("2") == 40 + 1  # on the runs, and the number of a sweep
    assert [text.get_text() for text in few.legends[0].texts][:2] == [
        "run: gates fused to one rotation",
        "Rx(a[0]): its angle depends on the parameter a[0]",
    ]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].texts]


def test_parameters_are_named_or_numbered_where_names_are_long():
    circuit = QuantumCircuit(3)
    long = Parameter("a_name_that_is_too_long")
    circuit.rx(2 * Parameter("x"), 0)
    circuit.rx(long, 1)
    circuit.rx(Parameter("y") * Parameter("z"), 2)
    figure = fuse(circuit).draw()
    place = str(list(circuit.parameters).index(long)).translate(str.maketrans("0123", "₀₁₂₃"))
    assert {"Rx(x)", f"Rx{place}", "Rxₑ₀"} <= set(texts_of(figure))
    assert {
        "Rx(x): its angle depends on the parameter x",
        f"Rx{place}: its angle is of circuit.parameters[{list(circuit.parameters).index(long)}]",
        "Rxₑ₀: its angle is an expression of parameters",
    } <= set(legend_of(figure))


def test_a_picture_labels_each_layer_once_and_no_empty_phase_before_one():
    for num_qubits, device in ((4, "cpu"), (16, "cpu"), (16, "cuda")):
        texts = texts_of(fuse(hardware_efficient(num_qubits, 3), total_z(num_qubits)).draw(device=device))
        labels = [text for text in texts if re.fullmatch(r"(phase|layer|step) \d+", text)]
        assert len(labels) == len(set(labels)) and "phase 0" not in labels
        assert texts.count("sweep") == 1 and not [text for text in texts if text.startswith("sweep ")]
        assert texts.count("start") == (device == "cpu")


def test_every_number_on_a_run_has_an_entry_in_the_legend():
    circuit = QuantumCircuit(12)
    for qubit, angle in enumerate(ParameterVector("a", 12)):
        circuit.rx(angle, qubit)
    assert "1: a run of one gate" in legend_of(fuse(circuit).draw())
    assert "2: a run of two gates" in legend_of(fuse(hardware_efficient(12, 2)).draw())


def test_nothing_to_simulate_can_be_drawn_and_explained():
    plan = fuse(hardware_efficient(2, 1), "II")
    assert plan.draw("text").startswith("0 qubits: 0 rotations")
    assert plan.draw().axes
    assert "constants" in plan.explain()
