# SPDX-License-Identifier: Apache-2.0
"""Objects show one short line in repr, and a readable table in notebooks, at prompts and in print."""

import html

import numpy as np
import pytest
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map

from qiskit_fused import (
    FusedEstimator,
    FusedEstimatorGradient,
    FusedEstimatorQNN,
    FusedOptions,
    accelerate,
    compile_circuit,
    fuse,
)
from qiskit_fused.common.display import ShownAsText
from qiskit_fused.execution.expectations import Expectations

SHORT = 200  # characters of a short line, at most

FEATURES, ANSATZ = zz_feature_map(3), real_amplitudes(3, reps=1)
CIRCUIT = FEATURES.compose(ANSATZ)


@pytest.fixture
def plan():
    return fuse(efficient_su2(8, reps=5), "Z" * 8)


def make_network(**options):
    return FusedEstimatorQNN(
        circuit=CIRCUIT, input_params=FEATURES.parameters, weight_params=ANSATZ.parameters, **options
    )


def test_a_repr_is_one_short_line_that_says_what_the_object_is(plan):
    assert repr(plan) == "Plan(8 qubits, 96 parameters, 78 rotations in 16 layers, 70 terms in 17 phases)"
    assert repr(plan.program) == "Program(8 qubits, 96 parameters, 131 gates)"
    report = plan.report(memory_limit="1GB")
    text = "Values and gradients of 1 row of 8 qubits in complex128, within 954 MiB"
    assert repr(report) == f"Report('{text}', {len(report.costs)} rows)"
    assert repr(make_network()) == "FusedEstimatorQNN(3 qubits, 3 inputs, 6 weights, 1 output)"
    network = make_network(dtype="complex64", num_threads=2)
    assert (
        repr(network) == "FusedEstimatorQNN(3 qubits, 3 inputs, 6 weights, 1 output, dtype='complex64', num_threads=2)"
    )
    assert repr(FusedOptions()) == "FusedOptions()"
    assert repr(FusedOptions(memory_limit="1GB", seed=3)) == "FusedOptions(memory_limit='1GB', seed=3)"
    function = Expectations(CIRCUIT, ["ZZZ", "XXX"], FEATURES.parameters, ANSATZ.parameters, FusedOptions(seed=3))
    assert repr(function) == "Expectations(3 qubits, 3 inputs, 6 weights, 2 observables, seed=3)"
    for thing in (plan, report, network, function, compile_circuit(CIRCUIT), plan.program, FusedEstimator()):
        assert len(repr(thing)) < SHORT and "\n" not in repr(thing)


def test_a_repr_cuts_options_that_are_long():
    class Bar:
        def __call__(self, done, total): ...

        def __repr__(self):
            return "long\n" * 1000

    for make in (FusedOptions, FusedEstimator, FusedEstimatorGradient, make_network):
        text = repr(make(progress=Bar()))
        assert len(text) < SHORT and "\n" not in text and text.endswith("...)")


def test_modules_of_torch_say_what_they_map_to_what():
    torch = pytest.importorskip("torch")
    from qiskit_machine_learning.connectors import TorchConnector

    from qiskit_fused.torch import FusedLayer

    layer = FusedLayer(CIRCUIT, ["ZZZ"], FEATURES.parameters, ANSATZ.parameters, dtype="complex64")
    assert repr(layer) == "FusedLayer(num_inputs=3, num_observables=1, num_weights=6, num_qubits=3, dtype='complex64')"
    connector = accelerate(TorchConnector(make_network()))
    assert repr(connector) == "FusedTorchConnector(FusedEstimatorQNN(3 qubits, 3 inputs, 6 weights, 1 output))"
    assert repr(layer) in repr(torch.nn.Sequential(layer, connector))
    for thing in (layer, make_network()):
        assert html.unescape(thing._repr_html_().partition(">")[2].removesuffix("</pre>")) == repr(thing)


class Printer:
    """The members of IPython's pretty printer that the package uses."""

    def __init__(self, indentation):
        self.indentation, self.shown = indentation, ""

    def text(self, text):
        self.shown += text


@pytest.mark.parametrize("what", ["plan", "report"])
def test_a_notebook_shows_the_readable_table(plan, what):
    table = plan if what == "plan" else plan.report(memory_limit="1GB")
    shown = table._repr_html_()
    assert shown.startswith("<pre") and shown.endswith("</pre>")
    assert html.unescape(shown.partition(">")[2].removesuffix("</pre>")) == str(table)
    assert len(shown) < 1500
    at_prompt, in_a_list = Printer(0), Printer(1)
    table._repr_pretty_(at_prompt, False)
    table._repr_pretty_(in_a_list, False)
    assert (at_prompt.shown, in_a_list.shown) == (str(table), repr(table))


def test_ipython_shows_tables():
    formatters = pytest.importorskip("IPython.core.formatters")
    plan = fuse(CIRCUIT)
    data, _ = formatters.DisplayFormatter().format(plan)
    assert data["text/plain"] == str(plan) and str(plan).partition("\n")[0] in data["text/html"]
    data, _ = formatters.DisplayFormatter().format([plan, plan])
    assert data["text/plain"].replace("\n", "") == repr([plan, plan])


def test_html_is_escaped():
    class Table(ShownAsText):
        def short_text(self):
            return "Table()"

        def __str__(self):
            return "<b> & 'x'"

    assert "&lt;b&gt; &amp;" in Table()._repr_html_()


def test_a_vjp_shows_its_arrays():
    function = Expectations(CIRCUIT, "ZZZ", FEATURES.parameters, ANSATZ.parameters, FusedOptions())
    found = function.value_and_vjp(np.zeros((1, 3)), np.zeros(6), np.ones((1, 1)))
    assert repr(found).startswith("Vjp(values=array(")
