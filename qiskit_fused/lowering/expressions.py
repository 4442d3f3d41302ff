# SPDX-License-Identifier: Apache-2.0
"""Translate Qiskit's ``ParameterExpression`` to tapes (see `program.tapes`).

The steps of a tape follow from Qiskit's record of how the expression was built, and from the columns of the parameters.
They never depend on the order of a set, which differs between processes. A sum of parameters times numbers is one leaf,
parameters that cancel out have no term, and a constant is a leaf without terms.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from qiskit.circuit import Parameter, ParameterExpression

from qiskit_fused.program.tapes import FUNCTIONS, Step, Tape

Key = tuple[int, str]

_LONG = 12  # from this number of parameters on, translating an expression takes longer than making its key
_TOLERANCE = 1e-9  # relative and absolute tolerance of the comparison with Qiskit's value


class _Affine:
    """An affine function of parameters on the stack of the translation. The operation that pops it may change it."""

    def __init__(self, terms: dict[int, complex], offset: complex):
        self.terms, self.offset = terms, offset

    @property
    def is_number(self) -> bool:
        return not self.terms

    def scale(self, factor: complex) -> _Affine:
        terms = {column: factor * value for column, value in self.terms.items()}
        return _Affine({column: value for column, value in terms.items() if value != 0}, factor * self.offset)

    def divide(self, divisor: complex) -> _Affine:
        return _Affine({column: value / divisor for column, value in self.terms.items()}, self.offset / divisor)

    def plus(self, other: _Affine) -> _Affine:
        """Return the sum. The shorter operand is added to the longer one, so a sum of n parameters takes n steps."""
        if len(self.terms) < len(other.terms):
            self, other = other, self
        for column, value in other.terms.items():
            total = self.terms.get(column, 0) + value
            if total != 0:
                self.terms[column] = total
            else:
                self.terms.pop(column, None)
        self.offset += other.offset
        return self

    def step(self) -> Step:
        return affine(self.terms, self.offset)


_Operand = _Affine | int  # an int is the number of a step


def affine(terms: dict[int, complex], offset: complex) -> Step:
    """Return a leaf of terms {column: coefficient} and an offset. Complex numbers with imaginary part 0 become real."""
    nonzero = [(column, _plain(terms[column])) for column in sorted(terms) if terms[column] != 0]
    return "affine", tuple(nonzero), _plain(offset)


def _plain(value: Any) -> complex:
    if isinstance(value, complex):
        return value.real if value.imag == 0 else value
    return float(value)


class _Writer:
    """The steps of one expression. Equal steps are stored once."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._numbers: dict[Step, int] = {}

    def apply(self, operation: str, *operands: _Operand) -> _Operand:
        """Return the result of an operation: a number if all operands are numbers, else a new step."""
        numbers = [operand.offset for operand in operands if isinstance(operand, _Affine) and operand.is_number]
        if len(numbers) == len(operands):
            return _Affine({}, _value(operation, *numbers))
        places = [self._place(operand.step() if isinstance(operand, _Affine) else operand) for operand in operands]
        return self._place((operation, *places))

    def add(self, left: _Operand, right: _Operand) -> _Operand:
        if isinstance(left, _Affine) and isinstance(right, _Affine):
            return left.plus(right)
        for number, other in ((left, right), (right, left)):
            if _equals(number, 0):
                return other
        return self.apply("add", left, right)

    def subtract(self, left: _Operand, right: _Operand) -> _Operand:
        if isinstance(right, _Affine):
            return self.add(left, right.scale(-1))
        return self.multiply(_Affine({}, -1.0), right) if _equals(left, 0) else self.apply("subtract", left, right)

    def multiply(self, left: _Operand, right: _Operand) -> _Operand:
        if isinstance(right, _Affine) and right.is_number:
            left, right = right, left
        if isinstance(left, _Affine) and left.is_number:
            if isinstance(right, _Affine):
                return right.scale(left.offset)
            if left.offset in (0, 1):
                return right if left.offset == 1 else _Affine({}, 0.0)
        return self.apply("multiply", left, right)

    def divide(self, left: _Operand, right: _Operand) -> _Operand:
        if isinstance(right, _Affine) and right.is_number and right.offset != 0:
            if isinstance(left, _Affine):
                return left.divide(right.offset)
            return self.multiply(_Affine({}, 1 / right.offset), left)
        return self.apply("divide", left, right)

    def power(self, left: _Operand, right: _Operand) -> _Operand:
        if _equals(right, 0):
            return _Affine({}, 1.0)
        return left if _equals(right, 1) else self.apply("power", left, right)

    def tape(self, result: _Operand) -> Tape:
        """Return the steps on which the result depends, in the order in which they were stored."""
        if isinstance(result, _Affine):
            return (result.step(),)
        needed = {result}
        for number in range(result, -1, -1):
            if number in needed and self._steps[number][0] != "affine":
                needed.update(self._steps[number][1:])
        places = {number: place for place, number in enumerate(sorted(needed))}
        return tuple(
            step if step[0] == "affine" else (step[0], *(places[argument] for argument in step[1:]))
            for step in (self._steps[number] for number in places)
        )

    def _place(self, step: Step | int) -> int:
        if isinstance(step, int):
            return step
        number = self._numbers.get(step)
        if number is None:
            number = self._numbers[step] = len(self._steps)
            self._steps.append(step)
        return number


def _equals(operand: _Operand, number: float) -> bool:
    return isinstance(operand, _Affine) and operand.is_number and operand.offset == number


def _value(operation: str, *numbers: complex) -> complex:
    """Return the value of an operation on numbers. If the real operation gives NaN, the complex operation is used."""
    with np.errstate(all="ignore"):
        result = FUNCTIONS[operation](*map(_as_float, numbers))
        if np.isnan(result):
            result = FUNCTIONS[operation](*map(complex, numbers))
    return _plain(result.item())


def _as_float(number: complex) -> complex:
    return number if isinstance(number, complex) else float(number)  # NumPy raises an error for int to a negative power


_BINARY: dict[str, Callable[[_Writer, _Operand, _Operand], _Operand]] = {
    "ADD": _Writer.add,
    "SUB": _Writer.subtract,
    "MUL": _Writer.multiply,
    "DIV": _Writer.divide,
    "POW": _Writer.power,
    "RSUB": lambda writer, left, right: writer.subtract(right, left),
    "RDIV": lambda writer, left, right: writer.divide(right, left),
    "RPOW": lambda writer, left, right: writer.power(right, left),
}
_UNARY = {
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
}


def translate(
    expression: ParameterExpression, columns: dict[Parameter, int], translated: dict[Key, Tape] | None = None
) -> Tape:
    """Translate an expression to a tape over parameter columns.

    Args:
        expression: the expression.
        columns: the column of each parameter.
        translated: the tapes of long expressions that were translated before. A new long expression is added.

    Raises:
        KeyError: for a parameter that has no column and does not cancel out.
        NotImplementedError: for an unknown operation, or if the tape's value disagrees with Qiskit's value.

    Cost: about 10 microseconds for each operation. In expressions of thousands of parameters, Qiskit's record takes
    0.25 ms for each operation.
    """
    parameters = expression.parameters
    if not parameters:
        return (affine({}, expression.numeric(strict=False)),)
    key = _key(expression) if translated is not None and len(parameters) >= _LONG else None
    if translated is not None and key in translated:
        return translated[key]
    foreign: dict[Parameter, int] = {}
    writer = _Writer()
    tape = writer.tape(_replay(expression, writer, columns, foreign))
    for parameter, column in foreign.items():
        if any(column == term[0] for step in tape if step[0] == "affine" for term in step[1]):
            raise KeyError(parameter)
    _check(expression, tape, columns)
    if translated is not None and key is not None:
        translated[key] = tape
    return tape


def _key(expression: ParameterExpression) -> Key | None:
    """Return a key that only equal expressions of a circuit share, or None if Qiskit cannot hash the expression.

    Qiskit's comparison of two expressions rounds their numbers, and takes seconds for long expressions. Qiskit's hash
    depends on the structure. The text has all numbers and names, and names are unique in a circuit. The hash of some
    expressions raises an OverflowError.
    """
    try:
        return hash(expression), str(expression)
    except OverflowError:
        return None


def _replay(
    expression: ParameterExpression, writer: _Writer, columns: dict[Parameter, int], foreign: dict[Parameter, int]
) -> _Operand:
    """Repeat the operations by which an expression was built, from the record that Qiskit stores in pickle and QPY.

    Parameters without a column get a negative column in ``foreign``.
    """
    stack: list[_Operand] = []
    for step in expression._qpy_replay:
        for operand in (step.lhs, step.rhs):
            if isinstance(operand, Parameter):
                column = columns.get(operand)
                if column is None:
                    column = foreign.setdefault(operand, -1 - len(foreign))
                stack.append(_Affine({column: 1.0}, 0.0))
            elif isinstance(operand, ParameterExpression):
                stack.append(_replay(operand, writer, columns, foreign))
            elif operand is not None:
                stack.append(_Affine({}, operand))
        code = str(step.op).rpartition(".")[2]
        if code in _BINARY:
            right, left = stack.pop(), stack.pop()
            stack.append(_BINARY[code](writer, left, right))
        elif code in _UNARY:
            stack.append(writer.apply(_UNARY[code], stack.pop()))
        else:
            raise NotImplementedError(f"the operation {code} in {shorten(expression)}")
    return stack.pop()


def _check(expression: ParameterExpression, tape: Tape, columns: dict[Parameter, int]) -> None:
    """Raise a NotImplementedError if a tape and Qiskit give different values at one generic point.

    Qiskit's record of an expression is not a public format and may change.
    """
    point = {parameter: _generic(columns.get(parameter, -1)) for parameter in expression.parameters}
    values = {columns[parameter]: value for parameter, value in point.items() if parameter in columns}
    try:
        expected = complex(expression.bind(point).numeric(strict=False))
        value = _value_at(tape, values)
    except (ArithmeticError, ValueError, TypeError, RuntimeError):
        return  # the expression is not defined at this point
    if not cmath.isfinite(value + expected) or _is_close(value, expected):
        return
    # A long chain of functions may amplify rounding errors: allow for the effect of a relative change of 1e-13.
    beside = _value_at(tape, {column: value * (1 + 1e-13) for column, value in values.items()})
    if not _is_close(value, expected, 1e4 * abs(beside - value)):
        raise NotImplementedError(
            f"{shorten(expression)} was built in a way this version of Qiskit records differently"
        )


def _generic(column: int) -> float:
    return 0.3 + 0.6 * (0.618034 * (column + 2) % 1.0)


def _is_close(value: complex, expected: complex, rounding: float = 0.0) -> bool:
    return cmath.isclose(value, expected, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE + rounding)


def _value_at(tape: Tape, values: dict[int, float]) -> complex:
    """Return the value of a tape at one point, given as {column: parameter value}."""
    results: list = []
    with np.errstate(all="ignore"):
        for operation, *arguments in tape:
            if operation == "affine":
                terms, offset = arguments
                result = offset
                for column, factor in terms:
                    result += factor * values[column]
            else:
                result = FUNCTIONS[operation](*[results[argument] for argument in arguments])
            results.append(result)
    return complex(results[-1])


def constant_value(tape: Tape) -> complex | None:
    """Return the value of a constant tape; None for a tape that depends on parameters."""
    value: complex | None = tape[0][2] if len(tape) == 1 and not tape[0][1] else None
    return value


def is_finite_real(value: complex) -> bool:
    """Say whether a constant is finite and real, so that it can be an angle."""
    try:
        number = complex(value)
    except OverflowError:  # an integer larger than any float
        return False
    return math.isfinite(number.real) and number.imag == 0


def shorten(value: object) -> str:
    """Return an expression as text in quotes, for errors. The middle of a long text is left out."""
    text = str(value)
    return f"'{text}'" if len(text) <= 120 else f"'{text[:80]} ... {text[-30:]}'"
