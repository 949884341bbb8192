/* All terms of dvpo's critic loss and their gradient, a state at a time; see learner/losses/compiled.py.

   The formulas are those of learner/losses/tail.py, which the tests compare with. In double, in units of the running
   scale, centred at the mean of the state's atoms: every term but none of the quantiles' places is invariant to that. */
#include "quantile_kernel.h"

#include <math.h>
#include <stdlib.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones) && !(defined(WIDE) && !WIDE)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "default")))
#endif
#endif
#ifndef FOR_EACH_PROCESSOR
#define FOR_EACH_PROCESSOR
#endif

enum { HUBER, RISK, LOWER, UPPER, SHIFT, SHAPE, CURVATURE, CONSISTENCY, TERMS };
enum { ASYMMETRIC, UNIMODAL, SMOOTH };

/* Like Options in learner/losses/compiled.py. */
typedef struct {
    int64_t rows, heads, num, count, num_low, num_high; /* states, heads, quantiles, atoms, sizes of the tail sets */
    int64_t one_sided, hinge, curvature_form;
    double factor, kappa, alpha, beta; /* 1 / scale; Huber threshold; tail shares */
    double contract, expand, min_iqr;  /* contract and expand: times the variance of Gaussian tails of unit iqr */
    double coef[TERMS];
} options;

static inline double mean_of(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum / n;
}

static inline double variance_of(const double *x, int64_t n, double mean) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return sum / n;
}

static inline double quantile_at(const double *q, int64_t num, double level) {
    const double position = fmin(fmax(level * num - 0.5, 0), num - 1);
    const int64_t low = (int64_t)fmin(floor(position), num > 1 ? num - 2 : 0), high = low + 1 < num ? low + 1 : num - 1;
    return q[low] * (1 - (position - low)) + q[high] * (position - low);
}

/* Eq 5 and 6, Rockafellar-Uryasev: tail [n] of the quantiles, anchor at its inner end, side -1 below and 1 above. */
static inline double calibrate(const table *t, const double *tail, int64_t n, double anchor, double share, int side,
                        int one_sided, double coef, double *grad) {
    double beyond = 0;
    for (int64_t j = 0; j < t->count; j++) {
        const double over = side * (t->atoms[j] - anchor);
        beyond += over > 0 ? over : 0;
    }
    const double goal = anchor + side * beyond / t->count / share, gap = goal - mean_of(tail, n);
    if (one_sided && gap < 0) return 0;
    for (int64_t i = 0; i < n; i++) grad[i] -= 2 * coef * gap / n;
    return gap * gap;
}

/* Eq 7. */
static inline double shift(const options *o, const double *q, double goal, double *grad) {
    const double gap = goal - mean_of(q, o->num), coef = o->coef[SHIFT] / o->num;
    if (o->hinge && gap < 0) return 0;
    const double slope = o->hinge ? -coef : -2 * coef * gap;
    for (int64_t i = 0; i < o->num; i++) grad[i] += slope;
    return o->hinge ? gap : gap * gap;
}

/* One side of Eq 8: side 1 penalises a variance above the reference, -1 one below. */
static inline double shape(const double *tail, int64_t n, double reference, int side, double coef, double *grad) {
    const double mean = mean_of(tail, n), excess = side * (variance_of(tail, n, mean) - reference);
    if (excess < 0) return 0;
    for (int64_t i = 0; i < n; i++) grad[i] += side * 2 * coef * (tail[i] - mean) / n;
    return excess;
}

/* One side of Eq 9: what counts of side * chi is its positive part, or all of it in the smooth form. */
static inline double curvature(const double *tail, int64_t n, double scale, int side, int64_t form, double coef, double *grad) {
    double sum = 0;
    for (int64_t i = 0; i + 2 < n; i++) {
        const double chi = side * scale * (tail[i + 2] - 2 * tail[i + 1] + tail[i]);
        if (chi < 0 && form != SMOOTH) continue;
        const double slope = coef * side * scale / (n - 2) * (form == UNIMODAL ? 1 : 2 * chi);
        sum += form == UNIMODAL ? chi : chi * chi;
        grad[i] += slope;
        grad[i + 1] -= 2 * slope;
        grad[i + 2] += slope;
    }
    return sum / (n - 2);
}

/* Eq 5 to 9 of one head's law q [num] into term; their weighted gradient is added to grad [num]. */
static inline void tails(const options *o, const table *t, const double *q, double *term, double *grad) {
    const double *c = o->coef, *high = q + o->num - o->num_high;
    double *grad_high = grad + o->num - o->num_high;
    const double iqr = quantile_at(q, o->num, 0.75) - quantile_at(q, o->num, 0.25);
    if (c[LOWER] != 0) {
        const double anchor = quantile_at(q, o->num, o->alpha);
        term[LOWER] = calibrate(t, q, o->num_low, anchor, o->alpha, -1, o->one_sided, c[LOWER], grad);
    }
    if (c[UPPER] != 0) {
        const double anchor = quantile_at(q, o->num, 1 - o->beta);
        term[UPPER] = calibrate(t, high, o->num_high, anchor, o->beta, 1, o->one_sided, c[UPPER], grad_high);
    }
    if (c[SHIFT] != 0) term[SHIFT] = shift(o, q, t->sums[2 * t->count] / t->count, grad);
    if (c[SHAPE] != 0)
        term[SHAPE] = shape(q, o->num_low, o->contract * iqr * iqr, 1, c[SHAPE], grad) +
                      shape(high, o->num_high, o->expand * iqr * iqr, -1, c[SHAPE], grad_high);
    if (c[CURVATURE] != 0) {
        const double scale = o->num / fmax(iqr, o->min_iqr);
        const int below = o->curvature_form == UNIMODAL ? 1 : -1;
        term[CURVATURE] = curvature(q, o->num_low, scale, below, o->curvature_form, c[CURVATURE], grad) +
                          curvature(high, o->num_high, scale, -1, o->curvature_form, c[CURVATURE], grad_high);
    }
}

/* Eq 10 of laws q [heads num]; mean [num] is working space; grad as above. */
static inline double consistency(const options *o, const double *restrict q, double *restrict mean, double *restrict grad) {
    const int64_t num = o->num, size = o->heads * num;
    const double factor = 2.0 / ((o->heads - 1) * num), coef = 2 * factor * o->coef[CONSISTENCY];
    const double portion = 1.0 / o->heads;
    double sum = 0;
    for (int64_t i = 0; i < num; i++) mean[i] = 0;
    for (int64_t at = 0; at < size; at += num)
        for (int64_t i = 0; i < num; i++) mean[i] += q[at + i] * portion;
    for (int64_t at = 0; at < size; at += num)
        for (int64_t i = 0; i < num; i++) {
            const double deviation = q[at + i] - mean[i];
            sum += deviation * deviation;
            grad[at + i] += coef * deviation;
        }
    return factor * sum;
}

/* Eq 3 to 10 of one state: q [heads num] centred, grad [heads num], share [heads] of each head in the loss. */
FOR_EACH_PROCESSOR static void state(const options *o, table *t, const double *restrict q, const double *restrict share,
                                     const double *restrict tau, const double *restrict risk, double *restrict term,
                                     double *restrict own, double *restrict loss, double *restrict grad) {
    const int64_t num = o->num;
    for (int64_t h = 0; h < o->heads; h++) {
        double *slope = grad + h * num, plain = 0, weighted = 0;
        table_huber(t, q + h * num, tau, loss, slope);
        for (int64_t i = 0; i < num; i++) {
            plain += loss[i];
            weighted += risk[i] * loss[i];
            slope[i] *= (1 + o->coef[RISK] * risk[i]) / num;
        }
        for (int k = 0; k < TERMS; k++) own[k] = 0;
        own[HUBER] = plain / num;
        own[RISK] = weighted / num;
        tails(o, t, q + h * num, own, slope);
        for (int64_t i = 0; i < num; i++) slope[i] *= share[h];
        for (int k = 0; k < TERMS; k++) term[k] += share[h] * own[k];
    }
    if (o->coef[CONSISTENCY] != 0) term[CONSISTENCY] = consistency(o, q, loss, grad);
}

/* queries [rows heads num] each head ascending, atoms [rows count] ascending, share [rows heads], tau and risk [num];
   total [rows] is the weighted sum of the terms, grad its gradient like queries, sums [TERMS] of each term over rows.
   Returns 0, or 1 where there is no memory. */
int dvpo_critic_terms_1(const options *o, const float *queries, const float *atoms, const double *share,
                        const double *tau, const double *risk, float *total, float *grad, double *sums) {
    table t;
    const int64_t size = o->heads * o->num;
    double *q = malloc(sizeof(double) * (2 * size + o->num)), *slope = q + size, *loss = slope + size;
    if (!q || !table_make(&t, o->num, o->count, o->kappa)) {
        free(q);
        return 1;
    }
    for (int k = 0; k < TERMS; k++) sums[k] = 0;
    for (int64_t row = 0; row < o->rows; row++) {
        double term[TERMS] = {0}, own[TERMS], sum = 0;
        table_fill(&t, atoms + row * o->count, o->factor);
        for (int64_t i = 0; i < size; i++) q[i] = queries[row * size + i] * o->factor - t.center;
        state(o, &t, q, share + row * o->heads, tau, risk, term, own, loss, slope);
        for (int k = 0; k < TERMS; k++) {
            sums[k] += term[k];
            sum += o->coef[k] * term[k];
        }
        total[row] = (float)sum;
        for (int64_t i = 0; i < size; i++) grad[row * size + i] = (float)(slope[i] * o->factor);
    }
    table_free(&t);
    free(q);
    return 0;
}
