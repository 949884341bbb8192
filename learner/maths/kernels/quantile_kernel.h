/* Atoms of one state, ready for queries; quantile_kernel.c works with them and critic_kernel.c uses them. */
#ifndef DVPO_QUANTILE_KERNEL_H
#define DVPO_QUANTILE_KERNEL_H
#include <stdint.h>

typedef struct {
    int64_t num, count;       /* queries of a row, atoms of a row */
    double kappa, center;     /* the atoms' mean, which is subtracted from atoms and queries */
    int vectors, wide;        /* whether there is AVX-512; whether these atoms may be found by it, in float */
    double *atoms, *sums;     /* [count + 1] centred, infinity last; [count + 1] pairs of sums of y and of y^2 before j */
    float *narrow, *pivots;   /* the atoms in float, and the last one of each sixteen, infinities behind both */
    double *found;            /* [3][num] pairs of sums, for q - k, q and q + k */
    float *shifted;           /* [num] */
    int32_t *places;          /* [3][num] */
} table;

int table_make(table *t, int64_t num, int64_t count, double kappa); /* 0 where there is no memory */
void table_free(table *t);

/* Take in a row of ascending atoms, each times factor. */
void table_fill(table *t, const float *atoms, double factor);

/* Eq 3 at each level and its slope; q [num] centred. */
void table_huber(table *t, const double *q, const double *tau, double *loss, double *slope);

#endif
