# SPDX-License-Identifier: Apache-2.0
"""Train a quantum classifier on real data with qiskit-fused, and time its gradients.

The task is to distinguish even from odd handwritten digits, from 8 principal components of the 8 x 8 images of
scikit-learn's ``digits``. The model is an ``EstimatorQNN`` of 8 qubits. Its circuit applies the features between
trainable layers (data re-uploading), and Adam trains it on mini-batches. The baseline is a logistic regression on the
same features.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import matplotlib as mpl
import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from qiskit_fused import FusedEstimator, FusedEstimatorGradient, fuse

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

NUM_QUBITS = 8
NUM_UPLOADS = 6
# Radians per standard deviation of a feature. This number and NUM_UPLOADS were chosen on the validation split.
FEATURE_SCALE = 0.6
BATCH_SIZE = 32
LEARNING_RATE = 0.03
DEFAULTS_SAMPLES = 4


def load_data():
    """Return {split: (features (B, 8), labels (B,) of 0 and 1)} of the splits train, validation and test."""
    images, digits = load_digits(return_X_y=True)
    rest, test, rest_labels, test_labels = train_test_split(images, digits % 2, stratify=digits, random_state=0)
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=0.2, stratify=rest_labels, random_state=0
    )
    pca = PCA(NUM_QUBITS, whiten=True, random_state=0).fit(train)
    return {
        "train": (pca.transform(train), train_labels),
        "validation": (pca.transform(validation), validation_labels),
        "test": (pca.transform(test), test_labels),
    }


def make_model():
    """Return the circuit, the observable, and the parameters of inputs and weights."""
    circuit = QuantumCircuit(NUM_QUBITS)
    inputs = ParameterVector("x", NUM_QUBITS)
    weights = ParameterVector("w", 2 * NUM_QUBITS * (NUM_UPLOADS + 1))
    weight = iter(weights)
    for upload in range(NUM_UPLOADS + 1):
        for qubit in range(NUM_QUBITS):
            circuit.ry(next(weight), qubit)
            circuit.rz(next(weight), qubit)
        for qubit in range(NUM_QUBITS):
            circuit.cz(qubit, (qubit + 1) % NUM_QUBITS)
        if upload < NUM_UPLOADS:
            for qubit in range(NUM_QUBITS):
                circuit.ry(FEATURE_SCALE * inputs[qubit], qubit)
    # The sum of all Z lies between -8 and 8, which is a good range for the log-odds of a class.
    observable = SparsePauliOp.from_sparse_list([("Z", [q], 1.0) for q in range(NUM_QUBITS)], NUM_QUBITS)
    return circuit, observable, inputs, weights


def loss_and_slope(logits, labels):
    """Return the mean cross-entropy and its derivative with respect to each logit (B,)."""
    probabilities = 1 / (1 + np.exp(-logits))
    return np.logaddexp(0, np.where(labels == 1, -logits, logits)).mean(), (probabilities - labels) / len(labels)


def accuracy(qnn, data, weights):
    """Return the fraction of the samples that the network puts into the right class."""
    features, labels = data
    return np.mean((qnn.forward(features, weights)[:, 0] > 0) == labels)


class Adam:
    """Adam (Kingma and Ba, arXiv:1412.6980) with a cosine schedule of the learning rate."""

    def __init__(self, num_weights: int, num_steps: int):
        self.step, self.num_steps = 0, num_steps
        self.mean, self.square = np.zeros(num_weights), np.zeros(num_weights)

    def update(self, weights, gradient):
        """Return the weights after one step."""
        rate = LEARNING_RATE * (1 + np.cos(np.pi * self.step / self.num_steps)) / 2
        self.step += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.step), self.square / (1 - 0.999**self.step)
        return weights - rate * mean / (np.sqrt(square) + 1e-8)


def train(qnn, data, num_epochs):
    """Train; return the weights with the best validation accuracy, and for each epoch (loss, validation accuracy)."""
    features, labels = data["train"]
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 0.3, qnn.num_weights)
    batches_per_epoch = len(labels) // BATCH_SIZE
    adam = Adam(qnn.num_weights, num_epochs * batches_per_epoch)
    history, best = [], (0.0, weights)
    # With disable=None, tqdm shows no bar in a log file. A line for each epoch is printed instead.
    with tqdm(total=adam.num_steps, desc="training", unit="step", disable=None) as bar:
        for _ in range(num_epochs):
            losses = []
            order = rng.permutation(len(labels))
            for batch in order[: batches_per_epoch * BATCH_SIZE].reshape(batches_per_epoch, BATCH_SIZE):
                logits = qnn.forward(features[batch], weights)[:, 0]
                loss, slope = loss_and_slope(logits, labels[batch])
                _, jacobian = qnn.backward(features[batch], weights)
                weights = adam.update(weights, slope @ jacobian[:, 0])
                losses.append(loss)
                bar.update()
            history.append((np.mean(losses), accuracy(qnn, data["validation"], weights)))
            best = max(best, (history[-1][1], weights), key=lambda pair: pair[0])
            report = f"loss {history[-1][0]:.3f}, validation {history[-1][1]:.1%}"
            bar.set_postfix_str(report)
            if bar.disable:
                print(f"epoch {len(history)}: {report}", flush=True)
    return best[1], np.array(history)


def time_backward(qnn, features, weights, batch_size):
    """Compute all gradients in mini-batches; return the seconds taken, and the gradients (B, 1, P)."""
    start = perf_counter()
    gradients = [qnn.backward(features[i : i + batch_size], weights)[1] for i in range(0, len(features), batch_size)]
    return perf_counter() - start, np.concatenate(gradients)


def draw(path, history, baseline, fused_seconds, default_seconds):
    """Draw loss and accuracy of the training and the times of the gradients of one epoch, and write the picture."""
    figure, axes = plt.subplot_mosaic(
        [["loss", "times"], ["accuracy", "times"]], figsize=(11, 4.6), layout="constrained"
    )
    blue, gray = "tab:blue", "tab:gray"
    epochs = np.arange(1, len(history) + 1)

    loss = axes["loss"]
    loss.plot(epochs, history[:, 0], color=blue)
    loss.set_ylabel("training loss\n(cross-entropy)")
    loss.set_ylim(bottom=0)
    loss.set_title("Even or odd digit: EstimatorQNN, 8 qubits, 112 weights")
    loss.tick_params(labelbottom=False)

    validation = axes["accuracy"]
    validation.sharex(loss)
    validation.plot(epochs, 100 * history[:, 1], color=blue, label="EstimatorQNN with qiskit-fused")
    validation.axhline(100 * baseline, color=gray, linestyle="dashed", label="logistic regression (validation data)")
    validation.set_xlabel("epoch")
    validation.set_ylabel("validation\naccuracy (%)")
    validation.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 5, 10]))
    validation.legend(frameon=False, loc="lower right")

    times = axes["times"]
    names = [
        "qiskit-fused\n(measured)",
        f"qiskit-machine-\nlearning defaults\n(extrapolated from\n{DEFAULTS_SAMPLES} samples)",
    ]
    seconds = [fused_seconds, default_seconds]
    bars = times.bar(names, seconds, color=[blue, gray], width=0.5)
    times.bar_label(bars, [format_seconds(value) for value in seconds], padding=3)
    times.set_yscale("log")
    times.set_ylim(min(seconds) / 5, max(seconds) * 5)
    times.set_ylabel("seconds")
    times.set_title("Gradients of all samples of one epoch")

    for panel in axes.values():
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def format_seconds(seconds):
    """Write a duration with a fitting unit."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min"


def main():
    """Train, compare, time, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--device", default="auto", help="engine: auto, cpu or reference")
    parser.add_argument("--output", default="demo.png", help="file for the picture")
    arguments = parser.parse_args()

    data = load_data()
    circuit, observable, inputs, weight_parameters = make_model()
    print(fuse(circuit, observable))
    model = {"circuit": circuit, "observables": observable, "input_params": inputs, "weight_params": weight_parameters}
    estimator = FusedEstimator(device=arguments.device)
    qnn = EstimatorQNN(**model, estimator=estimator, gradient=FusedEstimatorGradient(estimator))

    weights, history = train(qnn, data, arguments.epochs)
    regression = LogisticRegression().fit(*data["train"])
    print(f"test accuracy: {accuracy(qnn, data['test'], weights):.1%} EstimatorQNN with qiskit-fused")
    print(f"               {regression.score(*data['test']):.1%} logistic regression on the same 8 features")

    features = data["train"][0]
    few = features[:DEFAULTS_SAMPLES]
    fused_seconds, _ = time_backward(qnn, features, weights, BATCH_SIZE)
    few_seconds, gradients = time_backward(qnn, few, weights, DEFAULTS_SAMPLES)
    print(f"timing the defaults of qiskit-machine-learning on {DEFAULTS_SAMPLES} samples ...", flush=True)
    defaults_few_seconds, default_gradients = time_backward(EstimatorQNN(**model), few, weights, DEFAULTS_SAMPLES)
    default_seconds = defaults_few_seconds * len(features) / len(few)
    difference = np.abs(gradients - default_gradients).max()
    print(f"gradients of {len(few)} samples: {format_seconds(few_seconds)} qiskit-fused, ", end="")
    print(f"{format_seconds(defaults_few_seconds)} defaults (largest difference {difference:.0e})")
    print(f"gradients of one epoch, {len(features)} samples: {format_seconds(fused_seconds)} qiskit-fused, ", end="")
    print(f"{format_seconds(default_seconds)} defaults (extrapolated from {len(few)} samples)")
    draw(arguments.output, history, regression.score(*data["validation"]), fused_seconds, default_seconds)
    print(f"picture: {arguments.output}")


if __name__ == "__main__":
    main()
