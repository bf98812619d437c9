/*
 * exactmath.h -- exp, sigmoid and tanh of + - * / and integers alone: equal to the bit on every
 * device, and vectorised by any compiler.
 *
 * Error, the largest over all floats: exp 1.05 ulp, sigmoid 2.49 ulp, tanh 1.34 ulp
 * (tests/test_kernel.c has a sample).  Sigmoid is 4.5e-39, not 0, from -88.3 down.
 */
#ifndef SIM_EXACTMATH_H
#define SIM_EXACTMATH_H

#include "sim/kernel.h"

/* e^x = 2^k e^r with |r| <= ln2 / 2, e^r by its series to r^7.  Below -87.3 it is 0, so that
 * nothing denormal appears; above 88.3 it stays at e^88.3. */
KERNEL_FN float exact_exp(float x)
{
    float top = x < 88.3f ? x : 88.3f;
    float in = top > -87.3f ? top : -87.3f;
    float rounded = in * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: leaves k in the low bits */
    float k = rounded - 12582912.0f;
    float r = (in - k * 0.693359375f) - k * -2.12194440e-4f;
    float p = 1.9841270e-4f;

    p = p * r + 1.3888889e-3f;
    p = p * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    p = p * bits_float((float_bits(rounded) << 23) + 0x3f800000u);
    return x != x ? x : top > -87.3f ? p : 0.0f;
}

KERNEL_FN float exact_sigmoid(float x)
{
    return 1.0f / (1.0f + exact_exp(-x));
}

/* Near zero, where 1 - 2 / (e^2x + 1) would lose its digits, the series to x^11 (fitted). */
KERNEL_FN float exact_tanh(float x)
{
    float size = x < 0 ? -x : x;
    float s = x * x;
    float far = 1.0f - 2.0f / (exact_exp(2.0f * size) + 1.0f);
    float near = -5.70498872745e-3f;

    near = near * s + 2.06390887954e-2f;
    near = near * s - 5.37397155531e-2f;
    near = near * s + 1.33314422036e-1f;
    near = near * s - 3.33332819422e-1f;
    near = near * s * size + size;
    near = size < 0.625f ? near : far;
    return x < 0 ? -near : near;
}

/* What fades by a factor a step ends as a denormal that no longer changes, and a processor is a
 * hundred times slower with those: below 2^-120 it is 0. */
KERNEL_FN float exact_fade(float x)
{
    return x < 7.523163845262640e-37f && x > -7.523163845262640e-37f ? 0 : x;
}

#endif
