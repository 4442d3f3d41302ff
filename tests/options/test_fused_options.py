# SPDX-License-Identifier: Apache-2.0
"""Options can be given in every documented way, and each refusal has its text."""

import copy
import inspect
import os
import pickle
import re
from dataclasses import fields
from typing import get_type_hints

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.circuit.library import real_amplitudes
from qiskit_machine_learning.gradients import DerivativeType
from qiskit_machine_learning.neural_networks import SamplerQNN

from qiskit_fused import (
    FusedEstimator,
    FusedEstimatorGradient,
    FusedEstimatorQNN,
    FusedOptions,
    FusedQuantumKernel,
    FusedSampler,
    FusedSamplerGradient,
    FusedSamplerQNN,
    accelerate,
)
from qiskit_fused.common import free_memory
from qiskit_fused.common.caches import release_memory
from qiskit_fused.execution.expectations import Expectations
from qiskit_fused.options.fused_options import EngineOptionsDict, FusedOptionsDict, NetworkOptionsDict
from qiskit_fused.options.method import REVERSE, Method


def test_options_are_copied_from_a_dataclass_a_mapping_or_keywords():
    given = FusedOptions(device="reference")
    estimator = FusedEstimator(options=given, dtype="complex64")
    assert (estimator.options.device, estimator.options.dtype, given.dtype) == ("reference", "complex64", "complex128")
    given.device = "cpu"
    assert estimator.options.device == "reference"
    assert FusedEstimator(options={"num_threads": 3}).options.num_threads == 3
    assert FusedEstimator(default_precision=0.5, seed=7).options == FusedOptions(default_precision=0.5, seed=7)


def test_options_of_an_estimator_can_be_changed_later():
    estimator = FusedEstimator()
    estimator.options.dtype = "complex64"
    assert estimator.options.dtype == "complex64"
    with pytest.raises(ValueError, match="option dtype is 'half'"):
        estimator.options.dtype = "half"


def test_a_gradient_shares_the_options_of_its_estimator():
    estimator = FusedEstimator(device="reference")
    gradient = FusedEstimatorGradient(estimator)
    estimator.options.dtype = "complex64"
    assert gradient.fused_options is estimator.options
    assert FusedEstimatorGradient(estimator, dtype="complex128").fused_options == FusedOptions(device="reference")
    assert FusedEstimatorGradient(options={"device": "cpu", "shots": 3}).fused_options == FusedOptions(device="cpu")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("device", "gpu", "'auto', 'cpu', 'cuda', 'reference'"),
        ("device", None, "'auto', 'cpu', 'cuda', 'reference'"),
        ("dtype", "float32", "'complex128', 'complex64'"),
        ("dtype", None, "'complex128', 'complex64'"),
        ("num_threads", 0, "None, an integer from 1 to 2^31 - 1"),
        ("num_threads", 2.0, "None, an integer from 1 to 2^31 - 1"),
        ("num_threads", 10**30, "None, an integer from 1 to 2^31 - 1"),
        ("num_threads", True, "None, an integer from 1 to 2^31 - 1"),
        (
            "memory_limit",
            "8 apples",
            "None, a number of bytes from 1,000 on, a string such as '8GB' or '512MiB', or a fraction",
        ),
        ("memory_limit", 0, "None, a number of bytes"),
        ("memory_limit", 1.5, "None, a number of bytes"),
        ("memory_limit", "0%", "None, a number of bytes"),
        ("memory_limit", "101%", "None, a number of bytes"),
        ("memory_limit", -1, "None, a number of bytes"),
        ("memory_limit", "-8GB", "None, a number of bytes"),
        ("memory_limit", "0GB", "None, a number of bytes"),
        ("memory_limit", True, "None, a number of bytes"),
        ("memory_limit", float("inf"), "None, a number of bytes"),
        ("memory_limit", 1000.5, "None, a number of bytes"),
        ("memory_limit", float("nan"), "None, a number of bytes"),
        ("memory_limit", [8], "None, a number of bytes"),
        ("method", "forward", "'auto', 'reverse', 'checkpoint', 'store'"),
        ("method", None, "'auto', 'reverse', 'checkpoint', 'store'"),
        ("num_segments", 0, "None, an integer from 1 to 2^31 - 1"),
        ("num_segments", 2.5, "None, an integer from 1 to 2^31 - 1"),
        ("num_segments", "8", "None, an integer from 1 to 2^31 - 1"),
        ("seed", -1, "None, an integer >= 0, a numpy Generator"),
        ("default_precision", -0.1, "a finite number >= 0"),
        ("default_precision", float("nan"), "a finite number >= 0"),
        ("default_precision", "x", "a finite number >= 0"),
        ("precision_mode", "noisy", "'auto', 'emulate', 'exact'"),
        ("fallback", "no", "True, False"),
        ("progress", 1, "True, False"),
    ],
)
def test_a_bad_value_is_refused_by_name_value_and_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=re.escape(f"option {name} is {value!r}; allowed: {allowed}")):
        FusedOptions(**{name: value})


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1", "gpu:0"])
def test_a_numbered_device_is_refused_with_the_way_to_choose_one(device):
    with pytest.raises(ValueError, match=r"did you mean 'cuda'\? It is the current CUDA device; CUDA_VISIBLE_DEVICES"):
        FusedOptions(device=device)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("device", "gpu", "cuda"),
        ("device", "GPU", "cuda"),
        ("device", "cuda:0", "cuda"),
        ("device", "cuda:3", "cuda"),
        ("device", "CPU", "cpu"),
        ("device", "referense", "reference"),
        ("dtype", "float32", "complex64"),
        ("dtype", "single", "complex64"),
        ("dtype", np.float32, "complex64"),
        ("dtype", float, "complex128"),
        ("dtype", "double", "complex128"),
        ("dtype", "Complex64", "complex64"),
        ("method", "adjoint", "reverse"),
        ("method", "checkpointing", "checkpoint"),
        ("method", "parameter_shift", "auto"),
        ("precision_mode", "shots", "emulate"),
        ("precision_mode", "EXACT", "exact"),
    ],
)
def test_an_error_names_the_word_that_was_probably_meant(name, value, meant):
    with pytest.raises(
        ValueError,
        match=re.escape(f"option {name} is {value!r}; allowed: ") + f".*; did you mean '{meant}'\\?( It is .*)?$",
    ):
        FusedOptions(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("device", 3), ("device", "quantum"), ("dtype", "int8"), ("method", None)])
def test_an_error_names_no_word_where_none_was_probably_meant(name, value):
    with pytest.raises(ValueError, match=f"option {name} is .*'\\.$"):
        FusedOptions(**{name: value})


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (1, "1.0, which is all of the free memory, or '1GB'"),
        ("1", "1.0, which is all of the free memory, or '1GB'"),
        (8, "'8GB' or '8%'"),
        (2.0, "'2GB' or '2%'"),
        (1.5, "'1.5GB' or '1.5%'"),
        ("0.5", "'0.5GB' or '50%'"),
        (512, "'512MB' or '512GB'"),
    ],
)
def test_a_memory_limit_that_lacks_its_unit_is_refused(value, meant):
    for limit in (value, np.asarray(value)[()] if not isinstance(value, str) else value):
        with pytest.raises(ValueError, match=re.escape(f"; did you mean {meant}?")):
            FusedOptions(memory_limit=limit)


@pytest.mark.parametrize(
    "value", [8e9, np.float64(8e9), np.float32(8e9), np.int64(8 * 10**9), "8G", "8 GB", "8e9", "8gb"]
)
def test_a_whole_number_of_bytes_is_a_memory_limit_in_whatever_type(value):
    assert FusedOptions(memory_limit=value).resolve_memory_limit() == 8 * 10**9


def test_an_unknown_option_is_refused():
    for make in (FusedOptions.coerce, FusedEstimator, FusedEstimatorGradient):
        with pytest.raises(TypeError, match="unknown option 'devcie'; allowed: device, dtype, num_threads"):
            make(devcie="cpu")
        with pytest.raises(TypeError, match=r"unknown option 'threads'; .*; did you mean 'num_threads'\?$"):
            make(threads=2)
    with pytest.raises(TypeError, match="options must be FusedOptions, a mapping or None, not str"):
        FusedEstimator(options="cpu")


@pytest.mark.parametrize(
    "wrong",
    [FusedOptions(dtype="complex64"), {"dtype": "complex64"}, "cpu", FusedEstimator],
    ids=lambda x: str(type(x)),
)
def test_options_in_the_place_of_the_estimator_are_refused(wrong):
    with pytest.raises(TypeError, match=r"estimator must be an estimator or None, not \w+; options go into options="):
        FusedEstimatorGradient(wrong)


@pytest.mark.parametrize("name", ["devcie", "num_thread", "dtpye", "memorylimit", "Device"])
def test_a_mistyped_option_among_those_of_others_is_refused(name):
    with pytest.raises(TypeError, match=f"unknown option '{name}'; allowed: device, dtype, num_threads"):
        FusedEstimatorGradient(options={name: "cpu", "shots": 3})


def test_options_of_others_are_kept():
    others = {"shots": 3, "seed_simulator": 4, "resilience_level": 1, "optimization_level": 2, "precision": 0.1}
    gradient = FusedEstimatorGradient(FusedEstimator(), options=others)
    assert dict(gradient._default_options.items()) == others


def test_options_of_a_gradient_can_be_assigned_and_are_checked():
    estimator = FusedEstimator(num_threads=1)
    gradient = FusedEstimatorGradient(estimator, options={"shots": 3})
    gradient.options.dtype = "complex64"
    gradient.options["method"] = "store"
    gradient.update_default_options(device="reference", shots=5)
    assert gradient.fused_options == FusedOptions(num_threads=1, dtype="complex64", method="store", device="reference")
    assert estimator.options == FusedOptions(num_threads=1)
    assert (gradient.options.dtype, gradient.options.get("method"), gradient.options.shots) == ("complex64", "store", 5)
    chosen = {"device": "reference", "dtype": "complex64", "num_threads": 1, "method": "store"}
    assert dict(gradient.options) == chosen | {"shots": 5} and len(gradient.options) == 5
    another = FusedEstimatorGradient(options=gradient.options)
    assert another.fused_options == gradient.fused_options and another.options.shots == 5
    assert dict(copy.copy(gradient.options)) == dict(gradient.options) and "shots" in gradient.options
    assert repr(gradient.options).endswith("shots=5)") and "dtype='complex64'" in repr(gradient.options)
    for made in (copy.copy, copy.deepcopy, lambda options: pickle.loads(pickle.dumps(options))):
        copied = made(gradient.options)
        copied.shots = 6
        assert (copied.shots, gradient.options.shots) == (6, 5)
    with pytest.raises(ValueError, match="option dtype is 'half'"):
        gradient.options.dtype = "half"
    with pytest.raises(ValueError, match="option method is 'stor'"):
        gradient.update_default_options(shots=7, num_threads=2, method="stor")
    with pytest.raises(TypeError, match=r"unknown option 'dtpye'; .*; did you mean 'dtype'"):
        gradient.options.dtpye = "complex64"
    with pytest.raises(TypeError, match="unknown option 'num_thread'"):
        gradient.update_default_options(num_thread=2)
    assert (gradient.options.shots, gradient.options.num_threads) == (5, 1)


def test_options_of_a_gradient_that_are_given_to_run_hold_for_that_job():
    circuit, gradient = real_amplitudes(2, reps=1), FusedEstimatorGradient()
    arguments = [circuit], ["ZZ"], [[0.1, 0.2, 0.3, 0.4]]
    job = gradient.run(*arguments, dtype="complex64", shots=3)
    assert job.metrics()["dtype"] == "complex64" and job.result().options.shots == 3
    assert gradient.run(*arguments).metrics()["dtype"] == "complex128"
    with pytest.raises(ValueError, match="option dtype is 'half'"):
        gradient.run(*arguments, dtype="half")
    with pytest.raises(TypeError, match="unknown option 'dtpye'"):
        gradient.run(*arguments, dtpye="complex64")


@pytest.mark.parametrize("make", [FusedEstimator, FusedEstimatorGradient])
def test_a_device_that_cannot_be_used_is_refused_at_construction(make, monkeypatch):
    monkeypatch.setenv("QISKIT_FUSED_DISABLE_CUDA", "1")
    with pytest.raises(RuntimeError, match=r"device='cuda' is not available: .* QISKIT_FUSED_DISABLE_CUDA is set"):
        make(device="cuda")


def test_primitives_show_the_options_that_differ_from_the_defaults():
    estimator = FusedEstimator(dtype="complex64", num_threads=2)
    assert repr(estimator) == "FusedEstimator(dtype='complex64', num_threads=2)"
    assert repr(FusedEstimator()) == "FusedEstimator()"
    assert repr(FusedEstimatorGradient(estimator)) == "FusedEstimatorGradient(dtype='complex64', num_threads=2)"
    imaginary = FusedEstimatorGradient(derivative_type=DerivativeType.IMAG)
    assert repr(imaginary).startswith("FusedEstimatorGradient(derivative_type=<DerivativeType.IMAG")


def test_numpy_dtypes_are_understood():
    assert FusedOptions(dtype=np.complex64).dtype == "complex64"


def test_threads_come_from_the_option_then_the_environment_then_the_machine(monkeypatch):
    for variable in ("QISKIT_FUSED_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    assert 1 <= FusedOptions().resolve_num_threads() <= (os.cpu_count() or 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert FusedOptions().resolve_num_threads() == 3
    monkeypatch.setenv("QISKIT_FUSED_NUM_THREADS", "5")
    assert FusedOptions().resolve_num_threads() == 5
    assert FusedOptions(num_threads=7).resolve_num_threads() == 7
    for text in ("many", "0", "-1", "2.5", str(2**31)):
        monkeypatch.setenv("QISKIT_FUSED_NUM_THREADS", text)
        with pytest.raises(ValueError, match=f"variable QISKIT_FUSED_NUM_THREADS is '{text}'; allowed: an integer"):
            FusedOptions().resolve_num_threads()


def test_memory_limits_resolve_to_bytes(monkeypatch):
    release_memory()  # cached memory counts as free
    monkeypatch.setattr(free_memory, "free_memory", lambda: 10**9)
    for limit, expected in (
        ("2GiB", 2**31),
        (12345, 12345),
        (0.5, 5 * 10**8),
        ("50 %", 5 * 10**8),
        (None, 8 * 10**8),
        (1.0, 10**9),
    ):
        assert FusedOptions(memory_limit=limit).resolve_memory_limit() == expected


def test_fractions_are_of_the_memory_of_the_device():
    assert FusedOptions(memory_limit=0.5).resolve_memory_limit(1000) == 500
    assert FusedOptions(memory_limit="2GiB").resolve_memory_limit(1000) == 2**31
    assert FusedOptions().resolve_memory_limit(1000) == 800


def test_few_bytes_never_ask_what_is_free(monkeypatch):
    monkeypatch.setattr(free_memory, "free_memory", lambda: pytest.fail("asked"))
    assert FusedOptions().limit_for(50 << 20) is None
    assert FusedOptions(memory_limit=0.5).limit_for(30 << 20) is None
    assert FusedOptions(memory_limit="1MB").limit_for(1) == 10**6
    release_memory()  # cached memory counts as free
    monkeypatch.setattr(free_memory, "free_memory", lambda: 10**9)
    assert FusedOptions().limit_for(60 << 20) == 8 * 10**8
    assert FusedOptions(memory_limit=0.001).limit_for(10**6) == 10**6


@pytest.mark.parametrize("method", ["auto", "reverse", "store"])
def test_segments_belong_to_checkpoints(method):
    text = f"num_segments is 4 with method='{method}'; allowed: None, or an integer >= 1 with method='checkpoint'"
    with pytest.raises(ValueError, match=re.escape(text)):
        FusedOptions(method=method, num_segments=4)
    options = FusedOptions(method="checkpoint", num_segments=4)
    options.method = method
    with pytest.raises(ValueError, match=re.escape(text)):
        options.check_method()


def test_a_gpu_uncomputes_unless_told_otherwise():
    assert FusedOptions().gpu_method() == REVERSE
    assert FusedOptions(method="store").gpu_method() == Method("store")
    assert FusedOptions(method="checkpoint", num_segments=3).gpu_method() == Method("checkpoint", None, 3)


def test_noise_is_added_when_the_mode_says_so():
    assert not FusedOptions().adds_noise
    assert FusedOptions(default_precision=0.1).adds_noise
    assert FusedOptions(precision_mode="emulate").adds_noise
    assert not FusedOptions(default_precision=0.1, precision_mode="exact").adds_noise


def test_a_precision_assigned_later_does_not_change_whether_noise_is_added():
    exact, noisy = FusedOptions(), FusedOptions(default_precision=0.1)
    exact.default_precision = noisy.default_precision = 0.25
    assert not exact.adds_noise and noisy.adds_noise
    assert (exact.precision_mode, noisy.precision_mode) == ("exact", "emulate")
    assert not FusedOptions.coerce(exact, dtype="complex64").adds_noise and not copy.deepcopy(exact).adds_noise
    exact.precision_mode = "emulate"
    assert exact.adds_noise
    same = FusedOptions()
    same.default_precision = 0.0
    assert same == FusedOptions()


def test_options_survive_pickle_and_deepcopy():
    options = FusedOptions(device="cpu", memory_limit=0.25, seed=3)
    assert pickle.loads(pickle.dumps(options)) == copy.deepcopy(options) == options


def test_the_types_of_keywords_are_those_of_the_options():
    options = {field.name: field.type for field in fields(FusedOptions)}
    kinds = (EngineOptionsDict, NetworkOptionsDict, FusedOptionsDict)
    types = [{name: hint.__forward_arg__ for name, hint in kind.__annotations__.items()} for kind in kinds]
    assert types[-1] == options
    assert types[1] == {name: options[name] for name in options if name != "default_precision"}
    assert types[0] == {name: types[1][name] for name in types[1] if name != "seed"}


def test_unknown_keywords_are_refused_with_the_arguments_there_are():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    for owner, arguments, call in [
        ("FusedEstimator", "default_precision, seed, options", lambda **given: FusedEstimator(**given)),
        (
            "FusedEstimatorGradient",
            "estimator, options, derivative_type",
            lambda **given: FusedEstimatorGradient(**given),
        ),
        ("FusedEstimatorQNN", "circuit, estimator", lambda **given: FusedEstimatorQNN(circuit=circuit, **given)),
        ("FusedSamplerGradient", "sampler, options, pass_manager", lambda **given: FusedSamplerGradient(**given)),
        ("FusedSamplerQNN", "circuit, sampler", lambda **given: FusedSamplerQNN(circuit=circuit, **given)),
        ("accelerate", "model, default_shots of", lambda **given: accelerate(FusedEstimator(), **given)),
    ]:
        with pytest.raises(
            TypeError, match=f"unknown option 'bogus'; allowed: device, .*and the arguments {arguments}"
        ):
            call(bogus=1)
        with pytest.raises(TypeError, match=f"of {owner}; did you mean 'device'"):
            call(devcie="cpu")
    with pytest.raises(TypeError, match="did you mean 'weight_params'"):
        FusedEstimatorQNN(circuit=circuit, weight_parameters=circuit.parameters)


def test_the_types_of_arguments_can_be_read_when_the_code_runs():
    networks = FusedEstimatorQNN, FusedSamplerQNN
    for owner in (FusedEstimator, FusedEstimatorGradient, FusedSamplerGradient, *networks, Expectations):
        assert "options" in get_type_hints(owner.__init__)
    assert "model" in get_type_hints(accelerate)


def owners_without_precision():
    """Return functions that make what has no estimator, by the name of the class."""
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    return {
        "FusedSampler": FusedSampler,
        "FusedSamplerGradient": FusedSamplerGradient,
        "FusedSamplerQNN": lambda **given: FusedSamplerQNN(circuit=circuit, weight_params=circuit.parameters, **given),
        "FusedQuantumKernel": lambda **given: FusedQuantumKernel(feature_map=circuit, **given),
    }


@pytest.mark.parametrize("name", ["default_precision", "precision_mode"])
@pytest.mark.parametrize("owner", owners_without_precision())
def test_options_about_precision_are_refused_where_they_have_no_meaning(owner, name):
    make, value = owners_without_precision()[owner], {"default_precision": 0.1, "precision_mode": "exact"}[name]
    for given in ({name: value}, {"options": {name: value}}):
        with pytest.raises(TypeError, match=f"{owner} has no option '{name}'; .* noise to the values of estimators"):
            make(**given)
    with pytest.raises(TypeError, match="unknown option 'bogus'") as error:
        make(bogus=1)
    assert "precision" not in str(error.value) and str(error.value).count(" seed") == 1
    make(options=FusedOptions(default_precision=0.1))  # options that are shared with an estimator


def test_keywords_about_shots_lead_to_the_argument_that_has_them():
    owners = owners_without_precision()
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    network = SamplerQNN(circuit=circuit, weight_params=circuit.parameters)
    for text, call in [
        ("; default_shots=None gives exact probabilities", lambda: owners["FusedSampler"](shots=100)),
        (r"; sampler=FusedSampler\(default_shots=100\)", lambda: owners["FusedSamplerQNN"](shots=100)),
        (r"; sampler=FusedSampler\(default_shots=100\)", lambda: owners["FusedSamplerQNN"](default_shots=100)),
        (r"; did you mean 'shots'\?", lambda: owners["FusedQuantumKernel"](default_shots=100)),
        (r"; did you mean 'default_shots'\?", lambda: accelerate(network, shots=100)),
        (r"; did you mean 'default_precision'\?", lambda: FusedEstimator(shots=100)),
    ]:
        with pytest.raises(TypeError, match=r"unknown option '(default_)?shots'; .*" + text):
            call()


def test_the_help_of_constructors_is_not_that_of_base_classes():
    for owner in (FusedSampler, FusedSamplerQNN, FusedQuantumKernel, FusedEstimatorQNN):
        assert inspect.getdoc(owner.__init__) == f"Make a {owner.__name__}. The class describes the arguments."
