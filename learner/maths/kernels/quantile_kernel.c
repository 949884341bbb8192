/* Quantile Huber loss and gradient of queries against sorted atoms; see learner/quantile_kernel.py.

   Plain C without Python.h: setuptools builds it as an optional extension and ctypes loads it.

   With G(n, x) = 1/2 sum over the first n atoms of (x - y_j)^2, and a, b, c the numbers of atoms below q - k, q, q + k:
     sum over atoms below q of H(q - y_j) = G(b, q) - G(a, q - k),
     sum over the others                  = G(K, q) - G(b, q) - G(K, q + k) + G(c, q + k).
   G and its slope come from prefix sums, in double of centred numbers, since the differences cancel. */
#include "quantile_kernel.h"

#include <math.h>
#include <stdlib.h>

#ifndef WIDE
#if defined(__x86_64__) && defined(__GNUC__)
#define WIDE 1
#else
#define WIDE 0
#endif
#endif
#if WIDE
#include <immintrin.h>
#define VECTORS __attribute__((target("avx512f,avx512dq,avx512vl,fma,popcnt")))
#endif

#define BLOCK 16 /* floats that are compared at a time */
#define MOST_ATOMS 4096 /* beyond, looking at one atom in sixteen for each query takes longer than going through them */

int table_make(table *t, int64_t num, int64_t count, double kappa) {
    const int64_t pivots = count / BLOCK + 2 * BLOCK;
    const int64_t doubles = 3 * (count + 1) + 6 * num;
    double *space = malloc(sizeof(double) * doubles + sizeof(float) * (count + 2 * BLOCK + pivots + 4 * num));
    if (!space) return 0;
    *t = (table){.num = num, .count = count, .kappa = kappa, .atoms = space};
    t->sums = t->atoms + count + 1;
    t->found = t->sums + 2 * (count + 1);
    t->narrow = (float *)(space + doubles);
    t->pivots = t->narrow + count + 2 * BLOCK;
    t->shifted = t->pivots + pivots;
    t->places = (int32_t *)(t->shifted + num);
    for (int64_t j = 0; j < 2 * BLOCK; j++) t->narrow[count + j] = t->pivots[count / BLOCK + j] = INFINITY;
    t->atoms[count] = INFINITY;
#if WIDE
    t->vectors = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#endif
    return 1;
}

void table_free(table *t) { free(t->atoms); }

void table_fill(table *t, const float *atoms, double factor) {
    const int64_t count = t->count;
    double sum = 0, first = 0, second = 0;
    for (int64_t j = 0; j < count; j++) sum += atoms[j];
    t->center = sum * factor / count;
    t->sums[0] = t->sums[1] = 0;
    for (int64_t j = 0; j < count; j++) {
        const double y = atoms[j] * factor - t->center;
        t->atoms[j] = y;
        t->narrow[j] = (float)y;
        t->sums[2 * j + 2] = first += y;
        t->sums[2 * j + 3] = second += y * y;
    }
    for (int64_t j = 0; j < count / BLOCK; j++) t->pivots[j] = t->narrow[BLOCK * j + BLOCK - 1];
    /* The loss is C1: an atom on the wrong side of a query by d changes the slope by d / k of its share 1 / K. */
    const double far = fmax(-t->atoms[0], t->atoms[count - 1]);
    t->wide = t->vectors && count <= MOST_ATOMS && far * 0x1p-24 <= 1e-5 * t->kappa * count;
}

/* Atoms below q + shift for each query, and their sums; from the last place on as long as queries ascend. */
static void find(const table *t, const double *q, double shift, int32_t *places, double *found) {
    int64_t at = 0;
    double last = -INFINITY;
    for (int64_t i = 0; i < t->num; i++) {
        const double x = q[i] + shift;
        if (x < last) at = 0;
        while (t->atoms[at] < x) at++;
        places[i] = (int32_t)at;
        found[2 * i] = t->sums[2 * at];
        found[2 * i + 1] = t->sums[2 * at + 1];
        last = x;
    }
}

#if WIDE
/* The same by comparing sixteen pivots and then sixteen atoms: no branch, and no query waits for another. */
VECTORS static inline __attribute__((always_inline)) void find_among(const table *t, const double *restrict q,
                                                                     double shift, int64_t groups,
                                                                     int32_t *restrict places, double *restrict found) {
    const float *restrict atoms = t->narrow, *restrict pivots = t->pivots;
    const double *restrict sums = t->sums;
    float *restrict shifted = t->shifted;
    const int64_t num = t->num;
    for (int64_t i = 0; i < num; i++) shifted[i] = (float)(q[i] + shift);
    for (int64_t i = 0; i < num; i++) {
        const __m512 x = _mm512_set1_ps(shifted[i]);
        uint64_t place = 0;
        for (int64_t g = 0; g < groups; g++)
            place += (uint64_t)_mm_popcnt_u64(_mm512_cmp_ps_mask(_mm512_loadu_ps(pivots + BLOCK * g), x, _CMP_LT_OQ));
        place *= BLOCK;
        place += (uint64_t)_mm_popcnt_u64(_mm512_cmp_ps_mask(_mm512_loadu_ps(atoms + place), x, _CMP_LT_OQ));
        places[i] = (int32_t)place;
        _mm_storeu_pd(found + 2 * i, _mm_loadu_pd(sums + 2 * place));
    }
}

VECTORS static void find_wide(const table *t, const double *q, double shift, int32_t *places, double *found) {
    const int64_t groups = t->count / (BLOCK * BLOCK) + 1;
    if (groups == 1)
        find_among(t, q, shift, 1, places, found);
    else
        find_among(t, q, shift, groups, places, found);
}
#endif

#define EVALUATE(name, attributes)                                                                                     \
    attributes static void name(const table *t, const double *restrict q, const double *restrict tau,                  \
                                double *restrict loss, double *restrict slope) {                                       \
        const int64_t num = t->num;                                                                                    \
        const double k = t->kappa, all = (double)t->count, total = t->sums[2 * t->count], unit = 1 / (k * all);        \
        const int32_t *restrict a = t->places, *restrict b = a + num, *restrict c = b + num;                           \
        const double *restrict sa = t->found, *restrict sb = sa + 2 * num, *restrict sc = sb + 2 * num;                \
        for (int64_t i = 0; i < num; i++) {                                                                            \
            const double x = q[i], low = x - k, high = x + k;                                                          \
            const double da = a[i] * low - sa[2 * i], db = b[i] * x - sb[2 * i], dc = c[i] * high - sc[2 * i];         \
            const double ga = low * (da - sa[2 * i]) + sa[2 * i + 1], gb = x * (db - sb[2 * i]) + sb[2 * i + 1];       \
            const double gc = high * (dc - sc[2 * i]) + sc[2 * i + 1], far = k * (total - all * (x + k / 2));          \
            const double value = ((1 - tau[i]) * 0.5 * (gb - ga) + tau[i] * (far + 0.5 * (gc - gb))) * unit;           \
            loss[i] = value < 0 ? 0 : value;                                                                           \
            slope[i] = ((1 - tau[i]) * (db - da) + tau[i] * (dc - db - k * all)) * unit;                               \
        }                                                                                                              \
    }

EVALUATE(evaluate, )
#if WIDE
EVALUATE(evaluate_wide, VECTORS)
#endif

void table_huber(table *t, const double *q, const double *tau, double *loss, double *slope) {
    for (int side = 0; side < 3; side++) {
        const double shift = (side - 1) * t->kappa;
        int32_t *places = t->places + side * t->num;
        double *found = t->found + 2 * side * t->num;
#if WIDE
        if (t->wide) {
            find_wide(t, q, shift, places, found);
            continue;
        }
#endif
        find(t, q, shift, places, found);
    }
#if WIDE
    if (t->vectors) {
        evaluate_wide(t, q, tau, loss, slope);
        return;
    }
#endif
    evaluate(t, q, tau, loss, slope);
}

/* The number in a name grows with every change of the arguments.
   queries [rows share num], atoms [rows count] ascending, tau [num], k > 0; loss and grad like queries.
   Returns 0, or 1 where there is no memory. */
int dvpo_quantile_huber_1(const float *queries, const float *atoms, const double *tau, double k, int64_t rows,
                          int64_t share, int64_t num, int64_t count, float *loss, float *grad) {
    table t;
    if (!table_make(&t, num, count, k)) return 1;
    double *q = malloc(sizeof(double) * 3 * num), *values = q + num, *slopes = values + num;
    for (int64_t row = 0; q && row < rows; row++) {
        table_fill(&t, atoms + row * count, 1.0);
        for (int64_t at = row * share * num; at < (row + 1) * share * num; at += num) {
            for (int64_t i = 0; i < num; i++) q[i] = queries[at + i] - t.center;
            table_huber(&t, q, tau, values, slopes);
            for (int64_t i = 0; i < num; i++) {
                loss[at + i] = (float)values[i];
                grad[at + i] = (float)slopes[i];
            }
        }
    }
    table_free(&t);
    free(q);
    return q ? 0 : 1;
}
