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
    RNG_SELECTION,
    RNG_AUGMENT,
    RNG_IMAGES
};

struct rng_block {
    uint32_t word[4];
};

/* Ten rounds, all in line, so that a loop over blocks vectorises; in words of 64 bits, for that is what
 * the products have. */
KERNEL_FN struct rng_block rng_block(uint64_t seed, uint32_t use, uint32_t a, uint32_t b,
                                     uint32_t c, uint32_t d)
{
    uint64_t x0 = a, x1 = b, x2 = c, x3 = d;
    uint32_t k0 = (uint32_t)seed;
    uint32_t k1 = (uint32_t)(seed >> 32) ^ (use << 24);
    struct rng_block out;

    KERNEL_UNROLL for (uint32_t round = 0; round < 10; round++)
    {
        uint64_t p0 = 0xD2511F53u * x0;
        uint64_t p1 = 0xCD9E8D57u * x2;

        x0 = p1 >> 32 ^ x1 ^ k0;
        x1 = (uint32_t)p1;
        x2 = p0 >> 32 ^ x3 ^ k1;
        x3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out.word[0] = (uint32_t)x0;
    out.word[1] = (uint32_t)x1;
    out.word[2] = (uint32_t)x2;
    out.word[3] = (uint32_t)x3;
    return out;
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
    for (uint32_t i = 0; i < TILE / 4; i++) {
        struct rng_block block =
            rng_block(seed, use, (uint32_t)(t->begin / 4) + i, worker, t->tensor, number);

        out[i] = block.word[0];
        out[TILE / 4 + i] = block.word[1];
        out[2 * (TILE / 4) + i] = block.word[2];
        out[3 * (TILE / 4) + i] = block.word[3];
    }
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
