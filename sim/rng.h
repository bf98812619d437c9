/*
 * rng.h -- random numbers as a function of (key, counter), the same on every device.
 *
 * Philox4x32-10: Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011.
 * There is no generator state to advance, so an element draws the same numbers whichever thread
 * computes it, for any number of workers in a group.
 */
#ifndef SIM_RNG_H
#define SIM_RNG_H

#include "sim/kernel.h"

/* What a number is drawn for: streams of one seed that never meet. */
enum rng_use {
    RNG_INITIAL_WEIGHTS = 1,
    RNG_DROPOUT,
    RNG_COMPRESSOR,
    RNG_SHUFFLE,
    RNG_TEST,
    RNG_TEXT,
    RNG_SELECTION
};

struct rng_block {
    uint32_t word[4];
};

/* One of ten rounds, of a block whose words lie anywhere: a tile has 64 of them at a time. */
KERNEL_FN void rng_round(uint64_t key, uint32_t round, uint32_t *x0, uint32_t *x1, uint32_t *x2,
                         uint32_t *x3)
{
    uint64_t p0 = (uint64_t)0xD2511F53u * *x0;
    uint64_t p1 = (uint64_t)0xCD9E8D57u * *x2;
    uint32_t k0 = (uint32_t)key + round * 0x9E3779B9u;
    uint32_t k1 = (uint32_t)(key >> 32) + round * 0xBB67AE85u;

    *x0 = (uint32_t)(p1 >> 32) ^ *x1 ^ k0;
    *x1 = (uint32_t)p1;
    *x2 = (uint32_t)(p0 >> 32) ^ *x3 ^ k1;
    *x3 = (uint32_t)p0;
}

KERNEL_FN uint64_t rng_key(uint64_t seed, uint32_t use)
{
    return seed ^ (uint64_t)(use << 24) << 32;
}

KERNEL_FN struct rng_block rng_block(uint64_t seed, uint32_t use, uint32_t a, uint32_t b,
                                     uint32_t c, uint32_t d)
{
    struct rng_block x = {{a, b, c, d}};

    for (uint32_t round = 0; round < 10; round++)
        rng_round(rng_key(seed, use), round, &x.word[0], &x.word[1], &x.word[2], &x.word[3]);
    return x;
}

/* Uniform on [0, 1), a multiple of 2^-24. */
KERNEL_FN float rng_uniform(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 5.9604644775390625e-8f;
}

/* A word for every entry of a tile, by tensor, place in it, worker and number (of the step): entry e
 * has word e / 64 of block e % 64. */
#ifdef __CUDACC__

KERNEL_FN void tile_random(const struct tile *t, uint64_t seed, uint32_t use, uint32_t worker,
                           uint32_t number, uint32_t out[TILE_SLOTS])
{
    uint32_t first = (uint32_t)(t->begin / 4) + t->lane;
    struct rng_block even = rng_block(seed, use, first, worker, t->tensor, number);
    struct rng_block odd = rng_block(seed, use, first + TILE_LANES, worker, t->tensor, number);

    EACH_SLOT (s)
        out[s] = s % 2 == 0 ? even.word[s / 2] : odd.word[s / 2];
}

#else

KERNEL_FN void tile_random(const struct tile *t, uint64_t seed, uint32_t use, uint32_t worker,
                           uint32_t number, uint32_t out[TILE_SLOTS])
{
    uint32_t *x0 = out, *x1 = x0 + TILE / 4, *x2 = x1 + TILE / 4, *x3 = x2 + TILE / 4;

    for (uint32_t i = 0; i < TILE / 4; i++) {
        x0[i] = (uint32_t)(t->begin / 4) + i;
        x1[i] = worker;
        x2[i] = t->tensor;
        x3[i] = number;
    }
    for (uint32_t round = 0; round < 10; round++)
        for (uint32_t i = 0; i < TILE / 4; i++)
            rng_round(rng_key(seed, use), round, &x0[i], &x1[i], &x2[i], &x3[i]);
}

#endif

KERNEL_FN void tile_uniform(const struct tile *t, uint64_t seed, uint32_t use, uint32_t worker,
                            uint32_t number, float out[TILE_SLOTS])
{
    uint32_t word[TILE_SLOTS];

    tile_random(t, seed, use, worker, number, word);
    EACH_SLOT (s)
        out[s] = rng_uniform(word[s]);
}

#endif
