# SPDX-License-Identifier: Apache-2.0
"""Angles that are not affine in one parameter: translated once, evaluated and differentiated over whole batches.

A Qiskit ``ParameterExpression`` becomes a tree whose leaves are affine in the parameters:

* ``("affine", ((column, coefficient), ...), offset)``;
* ``(operation, child)`` or ``(operation, child, child)``.

Expressions of the same shape (all the ``2 (pi - x_i) (pi - x_j)`` of a ZZFeatureMap) are one `_Group`: the shape is
compiled to a tape once and runs on arrays (rows, expressions), derivatives by reverse accumulation along the tape.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression

Node = tuple

_IMAGINARY_TOLERANCE = 1e-10  # relative; what rounding leaves of (1j * x) * 1j


def _affine(terms: dict[int, complex], offset: complex) -> Node:
    return ("affine", tuple(sorted((column, value) for column, value in terms.items() if value != 0)), offset)


def _number(value: complex) -> Node:
    return ("affine", (), value)


def _is_number(node: Node) -> bool:
    return node[0] == "affine" and not node[1]


def _add(left: Node, right: Node, sign: int = 1) -> Node:
    if left[0] == right[0] == "affine":
        terms = dict(left[1])
        for column, coefficient in right[1]:
            terms[column] = terms.get(column, 0) + sign * coefficient
        return _affine(terms, left[2] + sign * right[2])
    return ("add" if sign > 0 else "subtract", left, right)


def _subtract(left: Node, right: Node) -> Node:
    return _add(left, right, -1)


def _multiply(left: Node, right: Node) -> Node:
    if _is_number(right):
        left, right = right, left
    if _is_number(left) and right[0] == "affine":
        factor = left[2]
        return _affine({column: factor * value for column, value in right[1]}, factor * right[2])
    return ("multiply", left, right)


def _divide(left: Node, right: Node) -> Node:
    if _is_number(right) and right[2] != 0:
        divisor = right[2]
        if left[0] == "affine":
            return _affine({column: value / divisor for column, value in left[1]}, left[2] / divisor)
        return _multiply(_number(1 / divisor), left)
    return ("divide", left, right)


def _power(left: Node, right: Node) -> Node:
    if _is_number(right):
        if right[2] == 0:
            return _number(1.0)
        if right[2] == 1:
            return left
        return ("power_constant", left, right)
    return ("power", left, right)


def _unary(name: str) -> Callable[[Node], Node]:
    return lambda child: (name, child)


_BINARY = {"ADD": _add, "SUB": _subtract, "MUL": _multiply, "DIV": _divide, "POW": _power}
_BINARY |= {
    "RSUB": lambda left, right: _subtract(right, left),
    "RDIV": lambda left, right: _divide(right, left),
    "RPOW": lambda left, right: _power(right, left),
}
_UNARY = {
    code: _unary(name)
    for code, name in {
        "SIN": "sin",
        "COS": "cos",
        "TAN": "tan",
        "ASIN": "arcsin",
        "ACOS": "arccos",
        "ATAN": "arctan",
        "EXP": "exp",
        "LOG": "log",
        "ABS": "abs",
        "SIGN": "sign",
        "CONJ": "conjugate",
    }.items()
}

# operation -> function of the arguments
_FUNCTIONS: dict[str, Callable] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "power_constant": np.power,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "arcsin": np.arcsin,
    "arccos": np.arccos,
    "arctan": np.arctan,
    "exp": np.exp,
    "log": np.log,
    "abs": np.abs,
    "sign": np.sign,
    "conjugate": np.conjugate,
}

# operation -> derivatives with respect to each argument, from (*arguments, result); sign has none
_DERIVATIVES: dict[str, tuple[Callable | None, ...]] = {
    "add": (lambda x, y, r: 1.0, lambda x, y, r: 1.0),
    "subtract": (lambda x, y, r: 1.0, lambda x, y, r: -1.0),
    "multiply": (lambda x, y, r: y, lambda x, y, r: x),
    "divide": (lambda x, y, r: 1 / y, lambda x, y, r: -r / y),
    "power": (lambda x, y, r: y * np.power(x, y - 1), lambda x, y, r: r * np.log(x)),
    "power_constant": (lambda x, y, r: y * np.power(x, y - 1), None),
    "sin": (lambda x, r: np.cos(x),),
    "cos": (lambda x, r: -np.sin(x),),
    "tan": (lambda x, r: 1 + r * r,),
    "arcsin": (lambda x, r: 1 / np.sqrt(1 - x * x),),
    "arccos": (lambda x, r: -1 / np.sqrt(1 - x * x),),
    "arctan": (lambda x, r: 1 / (1 + x * x),),
    "exp": (lambda x, r: r,),
    "log": (lambda x, r: 1 / x,),
    "abs": (lambda x, r: np.sign(x),),
    "conjugate": (lambda x, r: 1.0,),
}
_NOT_HOLOMORPHIC = frozenset(("abs", "sign", "conjugate"))


def translate(expression: ParameterExpression, columns: dict[Parameter, int]) -> Node:
    """Translate an expression to a tree over parameter columns.

    Raises:
        KeyError: for a parameter that has no column.
        NotImplementedError: for an operation that is not known here, or if the translation disagrees with Qiskit.
    """
    if isinstance(expression, Parameter) or expression.is_symbol():
        return _affine({columns[next(iter(expression.parameters))]: 1.0}, 0.0)
    if not expression.parameters:
        return _number(expression.numeric(strict=False))
    stack: list[Node] = []
    # Qiskit's own record of how the expression was built: what pickle and QPY store
    for step in expression._qpy_replay:
        for operand in (step.lhs, step.rhs):
            if isinstance(operand, ParameterExpression):
                stack.append(translate(operand, columns))
            elif operand is not None:
                stack.append(_number(operand))
        code = str(step.op).rpartition(".")[2]
        if code in _BINARY:
            right, left = stack.pop(), stack.pop()
            stack.append(_BINARY[code](left, right))
        elif code in _UNARY:
            stack.append(_UNARY[code](stack.pop()))
        else:
            raise NotImplementedError(f"the operation {code} in {str(expression)!r}")
    node = stack.pop()
    _check(expression, node, columns)
    return node


def _check(expression: ParameterExpression, node: Node, columns: dict[Parameter, int]) -> None:
    """Compare with Qiskit at one generic point: the record is not a public format, so trust it only when it agrees."""
    point = {parameter: 0.37 + 0.113 * position for position, parameter in enumerate(expression.parameters)}
    bindings = {columns[parameter]: value for parameter, value in point.items()}
    try:
        expected = complex(expression.bind(point).numeric(strict=False))
        found = complex(_scalar(node, bindings))
    except (ArithmeticError, ValueError, TypeError):
        return  # not defined at this point
    if not cmath.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9) and cmath.isfinite(found + expected):
        raise NotImplementedError(f"{str(expression)!r} was built in a way this version of Qiskit records differently")


def _scalar(node: Node, bindings: dict[int, float]) -> complex:
    if node[0] == "affine":
        return node[2] + sum(coefficient * bindings[column] for column, coefficient in node[1])
    with np.errstate(all="ignore"):
        return _FUNCTIONS[node[0]](*(_scalar(child, bindings) for child in node[1:]))


@dataclass
class _Leaf:
    columns: np.ndarray  # int (terms, expressions)
    coefficients: np.ndarray  # (terms, expressions)
    offsets: np.ndarray  # (expressions,)


@dataclass
class _Group:
    """Expressions (their indices are ``members``) of one shape, as a tape: (operation, argument steps)."""

    members: np.ndarray
    tape: list[tuple[str, tuple[int, ...]]]
    leaves: list[_Leaf]
    is_complex: bool

    def steps(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the result (B, expressions) of every step; leaves are the steps named "affine"."""
        results: list[np.ndarray] = []
        leaves = iter(self.leaves)
        with np.errstate(all="ignore"):
            for operation, arguments in self.tape:
                if operation == "affine":
                    leaf = next(leaves)
                    result = np.broadcast_to(leaf.offsets, (len(values), len(self.members)))
                    for columns, coefficients in zip(leaf.columns, leaf.coefficients):
                        result = result + values[:, columns] * coefficients
                    results.append(result)
                else:
                    results.append(_FUNCTIONS[operation](*(results[argument] for argument in arguments)))
        return results

    def leaf_derivatives(self, values: np.ndarray) -> list[np.ndarray]:
        """Return d expression / d leaf, (B, expressions) for every leaf."""
        results = self.steps(values)
        adjoints: list = [0.0] * len(self.tape)
        adjoints[-1] = np.ones((len(values), len(self.members)))
        with np.errstate(all="ignore"):
            for step in range(len(self.tape) - 1, -1, -1):
                operation, arguments = self.tape[step]
                if operation == "affine":
                    continue
                inputs = [results[argument] for argument in arguments]
                for argument, derivative in zip(arguments, _DERIVATIVES[operation]):
                    if derivative is not None:
                        adjoints[argument] = adjoints[argument] + adjoints[step] * derivative(*inputs, results[step])
        shape = (len(values), len(self.members))
        leaf_steps = (step for step, (operation, _) in enumerate(self.tape) if operation == "affine")
        return [np.broadcast_to(adjoints[step], shape) for step in leaf_steps]

    def undifferentiable(self) -> str | None:
        """Return the name of an operation without a derivative, if there is one."""
        for operation, _ in self.tape:
            if operation == "sign" or (self.is_complex and operation in _NOT_HOLOMORPHIC):
                return operation
        return None


class CompiledExpressions:
    """The expression columns of a program (see `program.Expressions`).

    Args:
        nodes: one tree per column.
        origins: for each column the expression and the gate it came from, in words, for error messages.
        num_parameters: P.
    """

    def __init__(self, nodes: Sequence[Node], origins: Sequence[str], num_parameters: int) -> None:
        self.num_expressions = len(nodes)
        self._origins = list(origins)
        self._num_parameters = num_parameters
        by_shape: dict[Node, list[int]] = {}
        for index, node in enumerate(nodes):
            by_shape.setdefault(_shape(node), []).append(index)
        self._groups = [
            _compile(shape, members, [nodes[member] for member in members]) for shape, members in by_shape.items()
        ]

    def evaluate(self, values: np.ndarray) -> np.ndarray:
        """Map parameter values (B, P) to expression values (B, E).

        Raises:
            ValueError: if a value is not finite or not real.
        """
        values = np.asarray(values, dtype=np.float64)
        columns = np.empty((len(values), self.num_expressions))
        for group in self._groups:
            result = group.steps(values)[-1]
            if np.iscomplexobj(result):
                wrong = ~(np.abs(result.imag) <= _IMAGINARY_TOLERANCE * np.maximum(1.0, np.abs(result)))
                self._refuse(wrong & np.isfinite(result), group, result, "an angle must be real")
                result = result.real
            self._refuse(~np.isfinite(result), group, result, "an angle must be a finite number")
            columns[:, group.members] = result
        return columns

    def depend_on(self, parameters: np.ndarray) -> np.ndarray:
        """Say which expressions, bool (E,), depend on some of the parameters, bool (P,)."""
        found = np.zeros(self.num_expressions, bool)
        for group in self._groups:
            for leaf in group.leaves:
                for columns in leaf.columns:
                    found[group.members] |= parameters[columns]
        return found

    def pull_back(self, values: np.ndarray, gradients: np.ndarray) -> np.ndarray:
        """Map gradients (B, K, P + E) with respect to columns to (B, K, P) with respect to parameters.

        Raises:
            ValueError: if an expression uses a function without a derivative.
        """
        num_parameters = self._num_parameters
        if not self.num_expressions:
            return gradients
        values = np.asarray(values, dtype=np.float64)
        result = np.array(gradients[..., :num_parameters])
        for group in self._groups:
            operation = group.undifferentiable()
            if operation:
                raise ValueError(
                    f"the angle {self._origins[group.members[0]]} has no derivative because of '{operation}'; "
                    "leave it out of gradients or use a differentiable function"
                )
            incoming = gradients[..., num_parameters + group.members]
            for leaf, derivative in zip(group.leaves, group.leaf_derivatives(values)):
                for columns, coefficients in zip(leaf.columns, leaf.coefficients):
                    _add_at(result, columns, incoming * np.real(derivative * coefficients)[:, None, :])
        return result

    def _refuse(self, wrong: np.ndarray, group: _Group, result: np.ndarray, rule: str) -> None:
        if wrong.any():
            row, member = np.argwhere(wrong)[0]
            raise ValueError(
                f"the angle {self._origins[group.members[member]]} is {result[row, member]} for row {row} of the "
                f"parameter values; {rule}"
            )


def _shape(node: Node) -> Node:
    if node[0] == "affine":
        parts = (node[2], *(coefficient for _, coefficient in node[1]))
        return ("affine", len(node[1]), any(isinstance(part, complex) for part in parts))
    return (node[0], *map(_shape, node[1:]))


def _leaves(node: Node) -> list[Node]:
    return [node] if node[0] == "affine" else [leaf for child in node[1:] for leaf in _leaves(child)]


def _compile(shape: Node, members: list[int], nodes: list[Node]) -> _Group:
    tape: list[tuple[str, tuple[int, ...]]] = []
    is_complex = False

    def visit(part: Node) -> int:
        nonlocal is_complex
        if part[0] == "affine":
            is_complex |= part[2]
            tape.append(("affine", ()))
        else:
            tape.append((part[0], tuple(visit(child) for child in part[1:])))
        return len(tape) - 1

    visit(shape)
    per_node = [_leaves(node) for node in nodes]
    leaves = []
    for position in range(len(per_node[0])):
        same = [leaves_of_node[position] for leaves_of_node in per_node]
        leaves.append(
            _Leaf(
                np.array([[column for column, _ in leaf[1]] for leaf in same], dtype=np.intp).T,
                np.array([[coefficient for _, coefficient in leaf[1]] for leaf in same]).T,
                np.array([leaf[2] for leaf in same]),
            )
        )
    return _Group(np.array(members), tape, leaves, is_complex)


def _add_at(target: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Add values (B, K, E) to target (B, K, P) at ``columns`` (E,), which may repeat."""
    order = np.argsort(columns, kind="stable")
    unique, starts = np.unique(columns[order], return_index=True)
    target[..., unique] += np.add.reduceat(values[..., order], starts, axis=-1)


def constant_value(node: Node) -> complex | None:
    """Return the value of a constant expression, else None."""
    if _is_number(node):
        return node[2]
    return None


def is_finite_real(value: complex) -> bool:
    """Return whether a constant can be an angle."""
    return math.isfinite(complex(value).real) and complex(value).imag == 0
