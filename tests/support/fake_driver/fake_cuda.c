// SPDX-License-Identifier: Apache-2.0
//
// The functions of the CUDA driver that CuPy calls. A module is the text of a PTX module, a link of one object is this
// object, and all work goes to four functions of Python. The library must not be named libcuda.so.1: NVRTC opens that
// name itself and needs more functions than these.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 801 };

typedef int (*Load)(const char* ptx, uint64_t* module);
typedef int (*Find)(uint64_t module, const char* name, uint64_t* function);
typedef int (*Launch)(uint64_t function, unsigned grid, unsigned block, unsigned shared, uint64_t stream, void** arguments);
typedef int (*Attribute)(uint64_t function, int which, int* value, int is_set);
static Load load;
static Find find;
static Launch launch;
static Attribute attribute;

void fake_set_callbacks(Load a, Find b, Launch c, Attribute d) {
    load = a, find = b, launch = c, attribute = d;
}

int cuInit(unsigned flags) {
    return SUCCESS;
}
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}
int cuGetErrorName(int error, const char** text) {
    static _Thread_local char name[64];
    snprintf(name, sizeof name, "FAKE_ERROR_%d", error);
    *text = name;
    return SUCCESS;
}
int cuGetErrorString(int error, const char** text) {
    return cuGetErrorName(error, text);
}
int cuCtxGetCurrent(void** context) {
    *context = (void*)1;
    return SUCCESS;
}
int cuCtxSetCurrent(void* context) {
    return SUCCESS;
}
int cuCtxGetDevice(int* device) {
    *device = 0;
    return SUCCESS;
}

typedef struct {
    char* text;
    size_t size;
} Link;

int cuLinkCreate_v2(unsigned count, void* options, void* values, void** state) {
    *state = calloc(1, sizeof(Link));
    return SUCCESS;
}
int cuLinkAddData_v2(void* state, int type, void* data, size_t size, const char* name, unsigned count, void* options,
                     void* values) {
    Link* link = state;
    link->text = malloc(size + 1);
    memcpy(link->text, data, size);
    link->text[size] = 0;
    link->size = size + 1;
    return SUCCESS;
}
int cuLinkComplete(void* state, void** image, size_t* size) {
    Link* link = state;
    *image = link->text;
    *size = link->size;
    return SUCCESS;
}
int cuLinkDestroy(void* state) {
    return SUCCESS;
}

int cuModuleLoadData(void** module, const void* image) {
    uint64_t handle = 0;
    const int error = load(image, &handle);
    *module = (void*)handle;
    return error;
}
int cuModuleUnload(void* module) {
    return SUCCESS;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
    uint64_t handle = 0;
    const int error = find((uint64_t)module, name, &handle);
    *function = (void*)handle;
    return error;
}
int cuFuncGetAttribute(int* value, int which, void* function) {
    return attribute((uint64_t)function, which, value, 0);
}
int cuFuncSetAttribute(void* function, int which, int value) {
    return attribute((uint64_t)function, which, &value, 1);
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared, void* stream, void** arguments, void** extra) {
    if (extra || grid_y != 1 || grid_z != 1 || block_y != 1 || block_z != 1) return NOT_SUPPORTED;
    return launch((uint64_t)function, grid_x, block_x, shared, (uint64_t)stream, arguments);
}
