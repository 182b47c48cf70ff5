/* Times a peer's scoring through its C interface: no interpreter is in what is measured.
   peer lightgbm LIBRARY MODEL TABLE | peer compiled LIBRARY - TABLE
   The table is as tests/peers/train writes it; prints one JSON object. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS_MAX = 20000, BATCHES = 5 };

union entry {
    int missing;
    double value;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return 1e9 * (double)time.tv_sec + (double)time.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fail(const char *what) {
    fprintf(stderr, "peer: %s\n", what);
    exit(1);
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail(name);
    return found;
}

static uint32_t rows, columns;
static double *values, *scores, *times;

static void read_table(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file || fread(&rows, 4, 1, file) != 1 || fread(&columns, 4, 1, file) != 1) fail(path);
    if (fseek(file, 8 + (long)rows, SEEK_SET)) fail(path);
    if (rows > ROWS_MAX) rows = ROWS_MAX;
    size_t count = (size_t)rows * columns;
    float *raw = malloc(4 * count);
    values = malloc(8 * count);
    scores = malloc(8 * rows);
    times = malloc(8 * rows);
    if (!raw || !values || !scores || !times || fread(raw, 4, count, file) != count) fail(path);
    for (size_t place = 0; place < count; place++) values[place] = raw[place];
    free(raw);
    fclose(file);
}

static void report(double batch) {
    double sum = 0;
    for (uint32_t row = 0; row < rows; row++) sum += scores[row];
    qsort(times, rows, sizeof *times, ascending);
    printf("{\"p50_ns\":%.0f,\"p99_ns\":%.0f,\"batch_ns\":%.1f,\"mean_score\":%.6f}\n", times[rows / 2],
           times[(uint64_t)rows * 99 / 100], batch / rows, sum / rows);
}

static void lightgbm(void *library, const char *model) {
    int (*create)(const char *, int *, void **) = symbol(library, "LGBM_BoosterCreateFromModelfile");
    int (*init)(void *, int, int, int, int, int32_t, const char *, void **) =
        symbol(library, "LGBM_BoosterPredictForMatSingleRowFastInit");
    int (*single)(void *, const void *, int64_t *, double *) = symbol(library, "LGBM_BoosterPredictForMatSingleRowFast");
    int (*many)(void *, const void *, int, int32_t, int32_t, int, int, int, int, const char *, int64_t *, double *) =
        symbol(library, "LGBM_BoosterPredictForMat");
    int iterations;
    void *booster, *fast;
    int64_t length;
    /* 1: 64-bit values; 0: probabilities, from the first tree on, all (-1). */
    if (create(model, &iterations, &booster)) fail("cannot read the model");
    if (init(booster, 0, 0, -1, 1, (int32_t)columns, "num_threads=1", &fast)) fail("cannot prepare");
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t row = 0; row < rows; row++) {
            double begin = now();
            if (single(fast, values + (size_t)row * columns, &length, scores + row)) fail("cannot score");
            times[row] = now() - begin;
        }
    double best = 1e300;
    for (int batch = 0; batch < BATCHES; batch++) {
        double begin = now();
        if (many(booster, values, 1, (int32_t)rows, (int32_t)columns, 1, 0, 0, -1, "num_threads=1", &length, scores))
            fail("cannot score");
        if (now() - begin < best) best = now() - begin;
    }
    report(best);
}

static void compiled(void *library) {
    void (*predict)(union entry *, int, double *) = symbol(library, "predict");
    union entry *entries = malloc((size_t)rows * columns * sizeof *entries);
    if (!entries) fail("no memory");
    for (size_t place = 0; place < (size_t)rows * columns; place++) {
        entries[place].value = values[place];
        if (values[place] != values[place]) entries[place].missing = -1;
    }
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t row = 0; row < rows; row++) {
            double begin = now();
            scores[row] = 0;
            predict(entries + (size_t)row * columns, 0, scores + row);
            times[row] = now() - begin;
        }
    double best = 1e300;
    for (int batch = 0; batch < BATCHES; batch++) {
        double begin = now();
        for (uint32_t row = 0; row < rows; row++) {
            scores[row] = 0;
            predict(entries + (size_t)row * columns, 0, scores + row);
        }
        if (now() - begin < best) best = now() - begin;
    }
    report(best);
}

int main(int count, char **arguments) {
    if (count != 5) fail("usage: peer lightgbm|compiled LIBRARY MODEL TABLE");
    read_table(arguments[4]);
    void *library = dlopen(arguments[2], RTLD_NOW);
    if (!library) fail(dlerror());
    if (strcmp(arguments[1], "lightgbm") == 0)
        lightgbm(library, arguments[3]);
    else
        compiled(library);
    return 0;
}
