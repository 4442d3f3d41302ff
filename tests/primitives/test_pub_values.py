# SPDX-License-Identifier: Apache-2.0
"""Values of PUBs become the rows that Qiskit's BindingsArray makes of them."""

import numpy as np
import pytest
from qiskit.circuit import Parameter
from qiskit.primitives.containers.bindings_array import BindingsArray

from qiskit_fused.primitives.pub_values import bind_values

SHAPES = [
    (),
    (1,),
    (2,),
    (3,),
    (0,),
    (1, 1),
    (2, 1),
    (1, 2),
    (2, 3),
    (3, 2),
    (0, 2),
    (2, 0),
    (2, 1, 3),
    (2, 3, 1),
    (3, 2, 2),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_arrays_are_read_as_by_bindings_arrays(count, shape):
    parameters = tuple(Parameter(f"p{number}") for number in range(count))
    array = np.arange(np.prod(shape, dtype=int), dtype=float).reshape(shape)
    try:
        expected = BindingsArray.coerce({parameters: array})
    except ValueError:
        with pytest.raises(ValueError, match="parameter_values has shape"):
            bind_values(array, parameters, "second")
        return
    rows, rows_shape = bind_values(array, parameters, "second")
    assert rows_shape == expected.shape and rows.shape == (np.prod(rows_shape, dtype=int), count)
    np.testing.assert_array_equal(rows.reshape(*rows_shape, count), expected.as_array(parameters))
    assert rows.base is not array and not np.shares_memory(rows, array)


def test_rows_without_parameters_have_the_shape_of_the_bindings_array():
    rows, shape = bind_values(BindingsArray(shape=(2, 3)), (), "second")
    assert rows.shape == (6, 0) and shape == (2, 3)
    assert bind_values(None, (), "second")[1] == ()
    with pytest.raises(ValueError, match=r"values \(0\) does not match the number of parameters \(1\)"):
        bind_values(BindingsArray(shape=(2,)), (Parameter("p"),), "second")
