# SPDX-License-Identifier: Apache-2.0
"""The measurement of a classifier: VQC on iris. It runs in a process of its own and returns plain data."""

from __future__ import annotations

import time

import numpy as np

from common.worker import Record


def train_iris(num_features: int, repetitions: int, evaluations: int, accelerated: bool, num_threads: int) -> Record:
    """Train VQC on scikit-learn's iris with COBYLA; return seconds, losses and accuracy.

    The seconds are those of the whole script behind its imports: data, classifier, `fit` and `score`. The losses are
    those of all evaluations.
    """
    from qiskit.circuit.library import real_amplitudes, zz_feature_map
    from qiskit_machine_learning.algorithms import VQC
    from qiskit_machine_learning.optimizers import COBYLA
    from sklearn.datasets import load_iris
    from sklearn.preprocessing import MinMaxScaler

    from qiskit_fused import accelerate

    start = time.perf_counter()
    features, labels = load_iris(return_X_y=True)
    features = MinMaxScaler().fit_transform(features[:, :num_features])
    ansatz = real_amplitudes(num_features, reps=repetitions)
    losses: list[float] = []
    classifier = VQC(
        feature_map=zz_feature_map(num_features),
        ansatz=ansatz,
        output_shape=3,
        optimizer=COBYLA(maxiter=evaluations),
        initial_point=np.random.default_rng(0).uniform(-np.pi, np.pi, ansatz.num_parameters),
        callback=lambda weights, loss: losses.append(float(loss)),
    )
    if accelerated:
        accelerate(classifier, num_threads=num_threads)
    fitting = time.perf_counter()
    classifier.fit(features, labels)
    scoring = time.perf_counter()
    accuracy = float(classifier.score(features, labels))
    end = time.perf_counter()
    return {"seconds": end - start, "fit_s": scoring - fitting, "losses": losses, "accuracy": accuracy}
