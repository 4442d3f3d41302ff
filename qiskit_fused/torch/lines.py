# SPDX-License-Identifier: Apache-2.0
"""Functions of rows along lines ``(w, x) + t (v, u)``: the points and the factors of central differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qiskit_fused.execution.row_batches import RowBatch
from qiskit_fused.execution.row_functions import RowFunction
from qiskit_fused.program.shift_rules import central_differences
from qiskit_fused.torch.conversion import detached, to_array

_MAX_DIFFERENCES = 2  # nested differences: a third one would have errors of 1e-5 in float64


@dataclass(eq=False)  # not frozen, because each forward pass makes one and a frozen one takes 1 us longer
class TensorFunction:
    """A function of weights, inputs and initial states, which is never changed.

    Attributes:
        of_rows: the function of rows.
        shape: the dimensions of which the rows were made, for errors.
        num_differences: the number of nested central differences of which the function is a part.
    """

    of_rows: RowFunction
    shape: tuple[int, ...] = ()
    num_differences: int = 0

    def in_difference(self) -> TensorFunction:
        """Return this function as a part of one more difference.

        Raises:
            RuntimeError: if there are too many differences.
        """
        if self.num_differences == _MAX_DIFFERENCES:
            raise RuntimeError(
                "qiskit_fused.torch has derivatives up to the third order, or up to the second order if all are in "
                "forward mode; detach the gradient, leave create_graph=True out, or take the innermost derivative by "
                "torch.func.grad, vjp or jacrev."
            )
        return TensorFunction(self.of_rows, self.shape, self.num_differences + 1)

    def in_rows(self) -> TensorFunction:
        """Return this function with weights that vary by row, as further inputs."""
        return TensorFunction(self.of_rows.with_weights_in_rows, (), self.num_differences)


def bandwidth_along(
    of_rows: RowFunction, point: tuple[Tensor, Tensor], along: tuple[Tensor | None, Tensor | None]
) -> Tensor:
    """Return the rates at which the values of rows change along lines, float64 (B,), without a gradient.

    Args:
        of_rows: the function.
        point: weights (W,) and inputs (B, I).
        along: directions of the weights and of the inputs; None is 0.
    """
    directions = (torch.zeros_like(at) if part is None else part for at, part in zip(point, along))
    rates: Tensor = _Bandwidths.apply(of_rows, *(detached(tensor) for tensor in (*point, *directions)))
    return rates


def line_points(
    function: TensorFunction, point: Sequence[Any], along: tuple[Tensor | None, ...]
) -> list[tuple[Tensor, Tensor, Tensor, Tensor | None]]:
    """Return the points of a central difference: for each its factors (B, 1), weights, inputs and initial states.

    The step of a row is a small number divided by the bandwidth of the row, or by the largest bandwidth of all rows if
    weights move.

    Args:
        function: the function, for its bandwidth.
        point: weights (W,), inputs (B, I), and initial states or None.
        along: directions of the weights and of the inputs; None is 0.
    """
    weight, inputs = (part.to(torch.float64) for part in point[:2])
    v, u = (None if part is None else part.to(torch.float64) for part in along)
    scale = bandwidth_along(function.of_rows, (weight, inputs), (v, u))
    largest = torch.cat([scale, scale.new_zeros(1)]).amax()
    if v is not None:
        scale = largest.expand(scale.shape)
    scale, largest = (torch.where(part > 0, part, 1.0) for part in (scale, largest))
    shifts, factors = central_differences(function.of_rows.options.dtype)
    return [
        (
            factor * scale[:, None],
            weight if v is None else weight + shift / largest * v,
            inputs if u is None else inputs + (shift / scale)[:, None] * u,
            point[2],
        )
        for shift, factor in zip(shifts.tolist(), factors.tolist())
    ]


def batched(size: int, dims: tuple[int | None, ...], tensors: Sequence[Tensor | None]) -> list[Any]:
    """Return tensors with the dimension of ``vmap``, whose size is given, in front."""
    return [
        None if part is None else part.expand(size, *part.shape) if dim is None else part.movedim(dim, 0)
        for dim, part in zip(dims, tensors)
    ]


def with_weights(inputs: Tensor, weight: Tensor) -> Tensor:
    """Return rows (N B, I + W) of inputs (N, B, I) and weights (N, W)."""
    weight = weight[:, None].expand(*inputs.shape[:2], weight.shape[1])
    return torch.cat([inputs, weight], dim=2).flatten(0, 1)


class _Bandwidths(torch.autograd.Function):
    """The result of `bandwidth_along`, which has no gradient."""

    @staticmethod
    def forward(of_rows: RowFunction, weight: Tensor, inputs: Tensor, v: Tensor, u: Tensor) -> Tensor:
        weight_array, inputs_array, v_array, u_array = (to_array(part, None) for part in (weight, inputs, v, u))
        rates = of_rows.bandwidth_along(RowBatch(inputs_array, weight_array), u_array, v_array)
        return torch.from_numpy(rates).to(inputs.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], of_rows: RowFunction, *tensors: Tensor) -> tuple[Tensor, int]:
        weight, inputs, v, u = batched(info.batch_size, in_dims[1:], tensors)
        rows = weight.new_empty(0), with_weights(inputs, weight), weight.new_empty(0), with_weights(u, v)
        return _Bandwidths.apply(of_rows.with_weights_in_rows, *rows).reshape(inputs.shape[:2]), 0
