/* Quantile Huber loss and gradient of sorted atoms in one pass; see learner/quantile_kernel.py.

   Plain C without Python.h: setuptools builds it as an optional extension and ctypes loads it. Works in double. */
#include <math.h>
#include <stdint.h>
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
#endif

#define PAD 8 /* infinities behind the atoms, so that eight can be compared at any place */

typedef struct {
    int64_t below, under, upto; /* atoms < q - k, < q, < q + k */
} places;

static inline __attribute__((always_inline)) int64_t pass_one(const double *atoms, int64_t at, double x) {
    while (atoms[at] < x) at++;
    return at;
}

#if WIDE
/* Eight comparisons and a count of bits: no branch that depends on how many atoms lie between two queries. */
__attribute__((target("avx512f,popcnt"))) static inline int64_t pass_eight(const double *atoms, int64_t at, double x) {
    for (;;) {
        const __m512d eight = _mm512_loadu_pd(atoms + at);
        const int n = __builtin_popcount(_mm512_cmp_pd_mask(eight, _mm512_set1_pd(x), _CMP_LT_OQ));
        at += n;
        if (__builtin_expect(n < 8, 1)) return at;
    }
}
#endif

#define FIND(name, attributes, pass)                                                                                   \
    attributes static void name(const double *q, const double *atoms, double k, int64_t num, places *found) {          \
        /* Two halves at a time, because each step waits for the one before it. */                                     \
        const int64_t half = num / 2;                                                                                  \
        places lo = {0, 0, 0}, hi = {0, 0, 0};                                                                         \
        double lo_last = -INFINITY, hi_last = -INFINITY;                                                               \
        for (int64_t i = 0; i < num - half; i++) {                                                                     \
            if (i < half) {                                                                                            \
                const double x = q[i];                                                                                 \
                if (x < lo_last) lo = (places){0, 0, 0};                                                               \
                lo.below = pass(atoms, lo.below, x - k);                                                               \
                lo.under = pass(atoms, lo.under, x);                                                                   \
                lo.upto = pass(atoms, lo.upto, x + k);                                                                 \
                found[i] = lo;                                                                                         \
                lo_last = x;                                                                                           \
            }                                                                                                          \
            const double x = q[half + i];                                                                              \
            if (x < hi_last) hi = (places){0, 0, 0};                                                                   \
            hi.below = pass(atoms, hi.below, x - k);                                                                   \
            hi.under = pass(atoms, hi.under, x);                                                                       \
            hi.upto = pass(atoms, hi.upto, x + k);                                                                     \
            found[half + i] = hi;                                                                                      \
            hi_last = x;                                                                                               \
        }                                                                                                              \
    }

FIND(find_one, , pass_one)
#if WIDE
FIND(find_eight, __attribute__((target("avx512f,popcnt"))), pass_eight)
#endif

#define EVALUATE(name, attributes)                                                                                     \
    attributes static void name(const double *restrict q, const places *restrict at, const double *restrict sums,      \
                                const double *restrict tau, double k, int64_t num, int64_t count,                      \
                                float *restrict loss, float *restrict grad) {                                          \
        const double *first = sums, *second = sums + count + 1, total = first[count], unit = 1.0 / (k * count);        \
        for (int64_t i = 0; i < num; i++) {                                                                            \
            const int64_t ia = at[i].below, ib = at[i].under, ic = at[i].upto;                                         \
            const double x = q[i], a = ia, b = ib, c = ic, rest = count - ic;                                          \
            const double left = first[ib] - first[ia], right = first[ic] - first[ib];                                  \
            const double slope_left = (b - a) * x - left, slope_right = (c - b) * x - right;                           \
            const double low = k * (a * (x - k / 2) - first[ia])                                                       \
                               + 0.5 * (second[ib] - second[ia] + x * (slope_left - left));                            \
            const double high = k * (total - first[ic] - rest * (x + k / 2))                                           \
                                + 0.5 * (second[ic] - second[ib] + x * (slope_right - right));                         \
            const double value = ((1 - tau[i]) * low + tau[i] * high) * unit;                                          \
            loss[i] = (float)(value < 0 ? 0 : value);                                                                  \
            grad[i] = (float)(((1 - tau[i]) * (slope_left + k * a) + tau[i] * (slope_right - k * rest)) * unit);       \
        }                                                                                                              \
    }

EVALUATE(evaluate, )
#if WIDE
EVALUATE(evaluate_wide, __attribute__((target("avx512f,avx512dq,avx512vl"))))
#endif

/* The number in the name grows with every change of the arguments.
   queries [rows share num], atoms [rows count] ascending, tau [num], k > 0; loss and grad like queries.
   Returns 0, or 1 where there is no memory. */
int dvpo_quantile_huber_1(const float *queries, const float *atoms, const double *tau, double k, int64_t rows,
                        int64_t share, int64_t num, int64_t count, float *loss, float *grad) {
    double *const space = malloc(sizeof(double) * (num + count + PAD + 2 * (count + 1)) + sizeof(places) * num);
    if (!space) return 1;
    double *const q = space, *const y = q + num, *const sums = y + count + PAD;
    places *const at = (places *)(sums + 2 * (count + 1));
#if WIDE
    const int wide = __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    for (int64_t row = 0; row < rows; row++) {
        double center = 0;
        for (int64_t j = 0; j < count; j++) center += atoms[row * count + j];
        center /= count;
        sums[0] = sums[count + 1] = 0;
        for (int64_t j = 0; j < count; j++) {
            y[j] = atoms[row * count + j] - center;
            sums[j + 1] = sums[j] + y[j];
            sums[count + 2 + j] = sums[count + 1 + j] + y[j] * y[j];
        }
        for (int64_t j = 0; j < PAD; j++) y[count + j] = INFINITY;
        for (int64_t head = row * share; head < (row + 1) * share; head++) {
            for (int64_t i = 0; i < num; i++) q[i] = queries[head * num + i] - center;
#if WIDE
            if (wide) {
                find_eight(q, y, k, num, at);
                evaluate_wide(q, at, sums, tau, k, num, count, loss + head * num, grad + head * num);
                continue;
            }
#endif
            find_one(q, y, k, num, at);
            evaluate(q, at, sums, tau, k, num, count, loss + head * num, grad + head * num);
        }
    }
    free(space);
    return 0;
}
