# SPDX-License-Identifier: Apache-2.0
"""What runs in the processes of the training benchmark (see main/worker.py); plain data comes back."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from math import pi
from typing import Any

import numpy as np

from common.workloads import Workload, efficient_su2, qiskit_circuit
from main.worker import _current, forget_peak_memory, memory_in_use
from training.peers import LEARNING_RATE, output_operators

NUM_CLASSES = 10  # digits

Record = dict[str, Any]


def first_calls(count: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Call with the seeds 0 to count - 1; return seconds of the first call, all values and all gradients."""
    seconds, answers = 0.0, []
    for seed in range(count):
        parameters = _current["workload"].parameters(seed)
        start = time.perf_counter()
        values, gradient = _current["contender"](parameters)
        seconds = seconds or time.perf_counter() - start
        answers.append((np.array(values), np.array(gradient)))
    values, gradients = zip(*answers, strict=True)
    return seconds, np.stack(values), np.stack(gradients)


def errors(found: tuple[np.ndarray, np.ndarray], true: tuple[np.ndarray, np.ndarray]) -> Record:
    """Return the largest error of a value and, relative to the largest component, of a gradient."""
    (values, gradients), (true_values, true_gradients) = found, true
    if values.shape != true_values.shape or gradients.shape != true_gradients.shape:
        raise ValueError(
            f"shapes {values.shape} and {gradients.shape}, not {true_values.shape}, {true_gradients.shape}"
        )
    return {
        "value_error": float(np.abs(values - true_values).max()),
        "gradient_error": float(np.abs(gradients - true_gradients).max() / np.abs(true_gradients).max()),
    }


def train_digits(
    num_qubits: int, num_layers: int, batch: int, num_images: int | None, epochs: int, num_threads: int
) -> Record:
    """Train a classifier of scikit-learn's digits; return seconds and mean loss of each epoch, and what was learnt.

    The model is ``nn.Linear`` behind a `FusedLayer`, whose outputs are Z on each qubit and whose inputs are principal
    components of the images. Errors are those of the first batch, beside the reference engine in double precision.
    """
    import torch
    from qiskit.quantum_info import SparsePauliOp
    from sklearn.datasets import load_digits
    from sklearn.decomposition import PCA
    from torch.utils.data import DataLoader, TensorDataset

    from qiskit_fused.torch import FusedLayer

    torch.manual_seed(0)
    images, labels = (torch.as_tensor(array[:num_images]) for array in load_digits(return_X_y=True))
    features = PCA(num_qubits, random_state=0).fit_transform(images.numpy())
    features *= pi / np.abs(features).max()
    features = torch.as_tensor(features, dtype=torch.float32)
    circuit, *parameters = qiskit_circuit(efficient_su2(num_qubits, num_layers))
    outputs = [SparsePauliOp.from_sparse_list([("Z", [q], 1.0)], num_qubits) for q in range(num_qubits)]
    layer = FusedLayer(circuit, outputs, *parameters, num_threads=num_threads)
    reference = FusedLayer(circuit, outputs, *parameters, layer.weight.detach().double(), device="reference")
    record: Record = errors(
        _answer(layer, features[:batch]),
        _answer(reference, features[:batch].double()),
    )
    model = torch.nn.Sequential(layer, torch.nn.Linear(num_qubits, NUM_CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    loader = DataLoader(TensorDataset(features, labels), batch_size=batch, shuffle=True)
    seconds, losses = [], []
    for _ in range(epochs):
        start, total = time.perf_counter(), 0.0
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(inputs)
        seconds.append(time.perf_counter() - start)
        losses.append(total / len(labels))
    with torch.no_grad():
        accuracy = (model(features).argmax(1) == labels).double().mean().item()
    record |= {"num_images": len(labels), "batch": batch, "num_qubits": num_qubits, "num_layers": num_layers}
    record |= {"num_weights": sum(p.numel() for p in model.parameters()), "steps": len(loader), "epochs_s": seconds}
    record |= {"median_s": statistics.median(seconds), "losses": losses, "accuracy": accuracy}
    return record


def _answer(layer: Any, inputs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return values, and the gradient of the sum of their squares."""
    values = layer(inputs)
    (values**2).sum().backward()
    gradient = layer.weight.grad.numpy().copy()
    layer.weight.grad = None
    return values.detach().numpy(), gradient


def measure_vjp(workload: Workload, options: Record) -> tuple[Record, tuple[np.ndarray, np.ndarray]]:
    """Run `FusedEstimatorQNN.value_and_vjp` once on all rows; return a record, and values and gradient.

    The record holds seconds, the bytes in use before, and those at the peak. Cotangents and inputs are made before.
    """
    tiny = efficient_su2(2, 1, batch=2)
    _network(tiny, options | {"memory_limit": None}).vjp(*_split(tiny), np.ones((2, 1)))  # loads all libraries
    network, inputs = _network(workload, options), _split(workload)
    cotangents = np.random.default_rng(0).normal(size=(workload.batch, workload.num_qubits // 2))
    before = memory_in_use("VmRSS")
    forget_peak_memory()
    start = time.perf_counter()
    values, _, gradient = network.value_and_vjp(*inputs, cotangents)
    seconds = time.perf_counter() - start
    peak = memory_in_use("VmHWM")
    growth = None if before is None or peak is None else peak - before
    return {"seconds": seconds, "before_bytes": before, "growth_bytes": growth}, (values, gradient)


def _network(workload: Workload, options: Record) -> Any:
    from qiskit_fused.machine_learning.estimator_qnn import FusedEstimatorQNN

    circuit, inputs, weights = qiskit_circuit(workload)
    observables = output_operators(workload.num_qubits)
    return FusedEstimatorQNN(
        circuit=circuit, observables=observables, input_params=inputs, weight_params=weights, **options
    )


def _split(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (B, I) and weights (W,); no array of rows times weights is made, which would be counted."""
    weights = replace(workload, batch=1).parameters(0)[0, workload.num_inputs :]
    inputs = np.random.default_rng(0).uniform(-pi, pi, (workload.batch, workload.num_inputs))
    return inputs, weights
