/* wasi-nn for guests in C: the functions and numbers of preview 1 (module `wasi_ephemeral_nn`), as a Quorate host has them.
 *
 * A task declares its models; nn_load_by_name opens one by the local name that the task gave it. nn_load takes an ONNX file
 * from memory, in jobs of class `exact`. Nothing can be closed: graphs and contexts live as long as the task, and have a bound.
 *
 * Every function gives an error number, NN_SUCCESS when it did what it says; then alone its last argument is written. The host
 * reads what a pointer points to during the call, and keeps no pointer.
 *
 * This header needs no library. `clang --target=wasm32-wasi -I guest-sdk/include` compiles guests with it; see
 * `guest-sdk/examples/digits.c`. */
#ifndef QUORATE_NN_H
#define QUORATE_NN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Error numbers (`nn_errno`). */
typedef uint32_t nn_errno;
enum {
    NN_SUCCESS = 0,
    NN_INVALID_ARGUMENT = 1,      /* an argument is wrong, or an input that does not fit the model */
    NN_INVALID_ENCODING = 2,      /* not ONNX */
    NN_MISSING_MEMORY = 3,        /* a pointer or length leads outside the guest's memory */
    NN_BUSY = 4,                  /* never given */
    NN_RUNTIME_ERROR = 5,         /* the model fails on these inputs */
    NN_UNSUPPORTED_OPERATION = 6, /* an operator, a type or a target that is not to be had here */
    NN_TOO_LARGE = 7,             /* over a bound, or more than the room that was given */
    NN_NOT_FOUND = 8              /* the task declared no model of that name */
};

/* Element types of tensors (`tensor_type`), in memory little end first. */
typedef uint8_t nn_tensor_type;
enum {
    NN_F16 = 0,
    NN_F32 = 1,
    NN_F64 = 2,
    NN_U8 = 3,
    NN_I32 = 4,
    NN_I64 = 5
};

/* What a model file is (`graph_encoding`): a Quorate host takes ONNX. */
enum { NN_ENCODING_ONNX = 1 };

/* What it is to run on (`execution_target`): of a model from memory always the processor. */
enum { NN_TARGET_CPU = 0, NN_TARGET_GPU = 1, NN_TARGET_TPU = 2 };

/* Handles. */
typedef uint32_t nn_graph;
typedef uint32_t nn_context;

/* One part of a model file (`graph_builder`): ONNX has one. */
typedef struct {
    const uint8_t *data;
    uint32_t data_len; /* in bytes */
} nn_builder;

/* A tensor: elements in row-major order. */
typedef struct {
    const uint32_t *dims;
    uint32_t dims_len;
    nn_tensor_type type;
    const void *data;
    uint32_t data_len; /* in bytes */
} nn_tensor;

#define NN_IMPORT(name) __attribute__((import_module("wasi_ephemeral_nn"), import_name(name)))

/* Opens a model from memory. `builders` has one element. */
NN_IMPORT("load")
nn_errno nn_load(const nn_builder *builders, uint32_t builders_len, uint32_t encoding, uint32_t target, nn_graph *graph);

/* Opens a model that the task declares. `name` needs no end; its length is in bytes. */
NN_IMPORT("load_by_name")
nn_errno nn_load_by_name(const char *name, uint32_t name_len, nn_graph *graph);

/* Makes a context: where inputs are set and outputs are left, for one inference after the other. */
NN_IMPORT("init_execution_context")
nn_errno nn_init_execution_context(nn_graph graph, nn_context *context);

/* Sets an input, counted from 0 as the model declares them. It stays set for further inferences. */
NN_IMPORT("set_input")
nn_errno nn_set_input(nn_context context, uint32_t index, const nn_tensor *tensor);

/* Infers. Where it fails, there are no outputs. */
NN_IMPORT("compute")
nn_errno nn_compute(nn_context context);

/* Copies an output, counted from 0, into `room` of so many bytes, and says how many it took. */
NN_IMPORT("get_output")
nn_errno nn_get_output(nn_context context, uint32_t index, void *room, uint32_t room_len, uint32_t *written);

#undef NN_IMPORT

/* The layout that the specification has on a 32-bit machine. */
#ifdef __cplusplus
static_assert(sizeof(nn_tensor) == 20, "nn_tensor is laid out as the host reads it");
#else
_Static_assert(sizeof(nn_tensor) == 20, "nn_tensor is laid out as the host reads it");
#endif

#ifdef __cplusplus
}
#endif

#endif
