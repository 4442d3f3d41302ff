// SPDX-License-Identifier: Apache-2.0
//
// The CUDA runtime as CuPy's compiled modules call it: C functions that CuPy exports to itself. Each function calls the
// function of the same name of a Python object. The last parameter of most functions is unused; Cython passes it.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

static PyObject* target;

void fake_set_target(PyObject* object) {
    Py_XSETREF(target, Py_NewRef(object));
}

static intptr_t number(PyObject* result, intptr_t on_error) {
    if (!result) return on_error;
    const intptr_t value = PyLong_AsSsize_t(result);
    Py_DECREF(result);
    return value;
}

// Functions that return an object, a number (0 with an error), or an int (-1 with an error).
#define OBJECT(name, parameters, ...)                                   \
    PyObject* fake_##name parameters {                                  \
        return PyObject_CallMethod(target, #name, __VA_ARGS__);         \
    }
#define NUMBER(name, parameters, ...)                                   \
    intptr_t fake_##name parameters {                                   \
        return number(PyObject_CallMethod(target, #name, __VA_ARGS__), 0); \
    }
#define INT(name, parameters, ...)                                      \
    int fake_##name parameters {                                        \
        return (int)number(PyObject_CallMethod(target, #name, __VA_ARGS__), -1); \
    }
typedef Py_ssize_t N;

INT(getDevice, (int skip), NULL)
OBJECT(setDevice, (int device, int skip), "i", device)
INT(getDeviceCount, (int skip), NULL)
OBJECT(deviceSynchronize, (int skip), NULL)
INT(driverGetVersion, (int skip), NULL)
INT(runtimeGetVersion, (int skip), NULL)
INT(_getCUDAMajorVersion, (int skip), NULL)
INT(deviceGetAttribute, (int attribute, int device, int skip), "ii", attribute, device)
OBJECT(getDeviceProperties, (int device, int skip), "i", device)
INT(deviceCanAccessPeer, (int device, int peer, int skip), "ii", device, peer)
OBJECT(memGetInfo, (int skip), NULL)
NUMBER(malloc, (size_t bytes, int skip), "n", (N)bytes)
OBJECT(free, (intptr_t address, int skip), "n", (N)address)
NUMBER(hostAlloc, (size_t bytes, unsigned flags, int skip), "n", (N)bytes)
OBJECT(freeHost, (intptr_t address, int skip), "n", (N)address)
OBJECT(memcpy, (intptr_t to, intptr_t from, size_t bytes, int kind, int skip), "nnni", (N)to, (N)from, (N)bytes, kind)
OBJECT(memcpyAsync, (intptr_t to, intptr_t from, size_t bytes, int kind, intptr_t stream, int skip), "nnnin", (N)to,
       (N)from, (N)bytes, kind, (N)stream)
OBJECT(memset, (intptr_t to, int value, size_t bytes, int skip), "nin", (N)to, value, (N)bytes)
OBJECT(memsetAsync, (intptr_t to, int value, size_t bytes, intptr_t stream, int skip), "ninn", (N)to, value, (N)bytes,
       (N)stream)
INT(pointerGetMemoryType, (intptr_t address, int skip), "n", (N)address)
OBJECT(pointerGetAttributes, (intptr_t address, int skip), "n", (N)address)
NUMBER(streamCreate, (int skip), NULL)
NUMBER(streamCreateWithFlags, (unsigned flags, int skip), "I", flags)
NUMBER(streamCreateWithPriority, (unsigned flags, int priority, int skip), "Ii", flags, priority)
OBJECT(streamDestroy, (intptr_t stream, int skip), "n", (N)stream)
OBJECT(streamSynchronize, (intptr_t stream, int skip), "n", (N)stream)
OBJECT(streamQuery, (intptr_t stream, int skip), "n", (N)stream)
OBJECT(streamWaitEvent, (intptr_t stream, intptr_t event, int skip, void* optional), "nn", (N)stream, (N)event)
NUMBER(eventCreate, (int skip), NULL)
NUMBER(eventCreateWithFlags, (unsigned flags, int skip), "I", flags)
OBJECT(eventDestroy, (intptr_t event, int skip), "n", (N)event)
OBJECT(eventRecord, (intptr_t event, intptr_t stream, int skip), "nn", (N)event, (N)stream)
OBJECT(eventQuery, (intptr_t event, int skip), "n", (N)event)
OBJECT(eventSynchronize, (intptr_t event, int skip), "n", (N)event)

PyObject* fake__ensure_context(void) {
    Py_RETURN_NONE;
}
int fake_streamIsCapturing(intptr_t stream, int skip) {
    return 0;
}
