# SPDX-License-Identifier: Apache-2.0
"""Measurements of the training benchmark that run in a process of their own and return plain data."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from math import pi
from typing import Any

import numpy as np

from common.comparison import Answer
from common.worker import Record, forget_peak_memory, memory_in_use
from common.workloads import Workload, efficient_su2, qiskit_circuit
from training.peers import LEARNING_RATE, network

NUM_CLASSES = 10


def train_digits(
    num_qubits: int, num_layers: int, batch: int, num_images: int | None, epochs: int, num_threads: int
) -> tuple[Record, Answer, Answer]:
    """Train a classifier of scikit-learn's digits; return a record, and two answers for the first batch.

    The model is ``nn.Linear`` behind a `FusedLayer`, whose outputs are Z on each qubit and whose inputs are principal
    components of the images. The record holds seconds and mean loss of each epoch, and the accuracy after the last
    epoch. The first answer comes from the layer, the second from the reference engine in double precision.
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
    answers = _answer(layer, features[:batch]), _answer(reference, features[:batch].double())
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
    record: Record = {
        "dtype": "complex64",
        "num_images": len(labels),
        "batch": batch,
        "num_qubits": num_qubits,
        "num_layers": num_layers,
    }
    record |= {"num_weights": sum(p.numel() for p in model.parameters()), "steps": len(loader), "epochs_s": seconds}
    record |= {"median_s": statistics.median(seconds), "losses": losses, "accuracy": accuracy}
    return record, *answers


def _answer(layer: Any, inputs: Any) -> Answer:
    """Return values, and the gradient of the sum of their squares."""
    values = layer(inputs)
    (values**2).sum().backward()
    gradient = layer.weight.grad.numpy().copy()
    layer.weight.grad = None
    return values.detach().numpy(), gradient


def measure_vjp(workload: Workload, options: Record) -> tuple[Record, Answer]:
    """Run `FusedEstimatorQNN.value_and_vjp` once on all rows; return a record, and values and gradient.

    The record holds the seconds, the bytes in use before the call, and the bytes at the peak. Cotangents and inputs are
    made before the call.
    """
    tiny = efficient_su2(2, 1, batch=2)
    network(tiny, **options | {"memory_limit": None}).vjp(*_split(tiny), np.ones((2, 1)))  # this loads all libraries
    model, inputs = network(workload, **options), _split(workload)
    cotangents = np.random.default_rng(0).normal(size=(workload.batch, workload.num_qubits // 2))
    before = memory_in_use("VmRSS")
    forget_peak_memory()
    start = time.perf_counter()
    values, _, gradient = model.value_and_vjp(*inputs, cotangents)
    seconds = time.perf_counter() - start
    peak = memory_in_use("VmHWM")
    growth = None if before is None or peak is None else peak - before
    return {"seconds": seconds, "before_bytes": before, "growth_bytes": growth}, (values, gradient)


def _split(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (B, I) and weights (W,), without an array of rows times weights, whose memory would be counted."""
    weights = replace(workload, batch=1).parameters(0)[0, workload.num_inputs :]
    inputs = np.random.default_rng(0).uniform(-pi, pi, (workload.batch, workload.num_inputs))
    return inputs, weights
