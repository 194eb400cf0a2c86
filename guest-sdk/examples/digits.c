/* Labels handwritten digits: the task `digits` once more, in C.
 *
 * In: one digit a line, 64 comma-separated pixels from 0 to 16, row by row. Out: one label a line, in the same order. The job
 * declares the model under the name `digits`: f32 [N, 64] pixels to f32 [N, 10] scores. With an argument, the model is read
 * from that file and loaded from memory.
 *
 *     clang --target=wasm32-wasi -O2 -I guest-sdk/include guest-sdk/examples/digits.c -o digits.wasm
 */
#include <stdio.h>
#include <stdlib.h>

#include "quorate_nn.h"

enum { PIXELS = 64, LABELS = 10, PIXEL_MAX = 16, BATCH = 256, MODEL_BYTES_MAX = 1 << 20 };

static float pixels[BATCH][PIXELS];
static float scores[BATCH][LABELS];
static uint8_t model[MODEL_BYTES_MAX];

static void fail(const char *what, nn_errno number)
{
    fprintf(stderr, "%s: error %u\n", what, (unsigned)number);
    exit(EXIT_FAILURE);
}

static void check(const char *call, nn_errno number)
{
    if (number != NN_SUCCESS)
        fail(call, number);
}

/* Reads one digit; 0 at the end of the input. */
static int read_digit(float digit[PIXELS])
{
    for (int at = 0; at < PIXELS; at++) {
        unsigned pixel;
        if (scanf(at == 0 ? " %u" : ",%u", &pixel) != 1) {
            if (at == 0 && feof(stdin))
                return 0;
            fail("input", NN_INVALID_ARGUMENT);
        }
        if (pixel > PIXEL_MAX)
            fail("pixel", NN_TOO_LARGE);
        digit[at] = (float)pixel;
    }
    return 1;
}

static nn_graph open_model(const char *path)
{
    nn_graph graph;
    if (path == NULL) {
        check("load_by_name", nn_load_by_name("digits", 6, &graph));
        return graph;
    }
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        fail(path, NN_NOT_FOUND);
    nn_builder builder = {model, (uint32_t)fread(model, 1, sizeof model, file)};
    fclose(file);
    check("load", nn_load(&builder, 1, NN_ENCODING_ONNX, NN_TARGET_CPU, &graph));
    return graph;
}

/* Prints the position of each digit's highest score, the first of equals. */
static void label(nn_context context, uint32_t digits)
{
    uint32_t dims[] = {digits, PIXELS};
    nn_tensor tensor = {dims, 2, NN_F32, pixels, digits * (uint32_t)sizeof pixels[0]};
    uint32_t written;
    check("set_input", nn_set_input(context, 0, &tensor));
    check("compute", nn_compute(context));
    check("get_output", nn_get_output(context, 0, scores, sizeof scores, &written));
    if (written != digits * sizeof scores[0])
        fail("output", NN_RUNTIME_ERROR);
    for (uint32_t at = 0; at < digits; at++) {
        int best = 0;
        for (int of = 1; of < LABELS; of++)
            if (scores[at][of] > scores[at][best])
                best = of;
        printf("%d\n", best);
    }
}

int main(int count, char **arguments)
{
    nn_graph graph = open_model(count > 1 ? arguments[1] : NULL);
    nn_context context;
    check("init_execution_context", nn_init_execution_context(graph, &context));
    uint32_t digits = 0;
    while (read_digit(pixels[digits])) {
        if (++digits == BATCH) {
            label(context, digits);
            digits = 0;
        }
    }
    if (digits > 0)
        label(context, digits);
    return EXIT_SUCCESS;
}
