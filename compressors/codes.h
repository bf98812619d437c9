/*
 * codes.h -- what may stand for a value in a message: a 32-bit float, or a code of fewer bits.
 *
 * Codes are packed, the first in the lowest bits of the first word; a tile of 256 entries is
 * 8 words a bit, so that every tile begins on a word and a tensor's words are its bytes on the
 * wire.  Of a width that does not divide 32 some codes lie in two words.  Some kinds have a scalar
 * for each tensor, or for each bucket of a tensor, which stands at the place of the bucket's first
 * tile.
 *
 *     sign     1 bit: 1 is +scalar, 0 is -scalar; without scalars +1 and -1
 *     level    the sign in the highest bit, below it a level l: scalar * (l / levels)
 *     power    the sign in the highest bit, below it a number e: 2^(e - bias), but 0 is 0
 *     half     IEEE 754 binary16, to nearest even; past 65504 infinity
 *     bfloat   the upper half of a float, to nearest even
 */
#ifndef COMPRESSORS_CODES_H
#define COMPRESSORS_CODES_H

#include "sim/kernel.h"

enum code_kind { CODE_FLOAT, CODE_SIGN, CODE_LEVEL, CODE_POWER, CODE_HALF, CODE_BFLOAT };

struct code_form {
    enum code_kind kind;
    uint32_t bits;   /* 1 to 16; 32 of a float; 0 of a message of indices alone */
    uint32_t levels; /* of CODE_LEVEL and CODE_POWER: the largest number below the sign */
    uint32_t scaled; /* 1: there are scalars */
    uint32_t bucket; /* tiles that have one together; 0: all of a tensor */
    uint32_t bias;   /* of CODE_POWER, up to 127 */
    /* Kernels get copies, which must be equal byte for byte: no padding. */
};

/* Values of messages, as kernels read them. */
struct values {
    struct code_form form;
    const float *value; /* [senders][stride], where they are floats */
    size_t stride;
    const uint32_t *code; /* [senders][tiles][8 bits] */
    const float *scalar;  /* [senders][tiles] */
    size_t tiles;         /* of a sender */
};

KERNEL_FN float half_float(uint32_t half)
{
    uint32_t sign = (half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 31;
    uint32_t mantissa = half & 1023;

    if (exponent == 31)
        return bits_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) /* mantissa 2^-24 */
        return bits_float(sign | float_bits((float)mantissa * 5.9604644775390625e-8f));
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

KERNEL_FN uint32_t float_half(float x)
{
    uint32_t bits = float_bits(x);
    uint32_t sign = bits >> 16 & 0x8000u;
    uint32_t size = bits & 0x7fffffffu;
    uint32_t rounded;

    if (size > 0x7f800000u)
        return sign | 0x7e00u;
    if (size < 0x38800000u) /* below 2^-14: a multiple of 2^-24, which the addition rounds to */
        return sign | (float_bits(bits_float(size) + 0.5f) - float_bits(0.5f));
    rounded = size + 0xfffu + (size >> 13 & 1);
    return sign | (rounded >= 0x47800000u ? 0x7c00u : (rounded - 0x38000000u) >> 13);
}

KERNEL_FN uint32_t float_bfloat(float x)
{
    uint32_t bits = float_bits(x);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return bits >> 16 | 0x40u;
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

KERNEL_FN float level_float(const struct code_form *form, uint32_t code, float scalar)
{
    uint32_t sign = 1u << (form->bits - 1);
    float size = scalar * ((float)(int32_t)(code & (sign - 1)) / (float)form->levels);

    return code & sign ? -size : size;
}

/* Past the largest float infinity. */
KERNEL_FN float power_float(const struct code_form *form, uint32_t code)
{
    uint32_t sign = 1u << (form->bits - 1);
    uint32_t e = code & (sign - 1);
    float size = e > 0 ? bits_float((e + 127 - form->bias) << 23) : 0;

    return code & sign ? -size : size;
}

/* One code alone. */
KERNEL_FN float code_float(const struct code_form *form, uint32_t code, float scalar)
{
    switch (form->kind) {
    case CODE_SIGN:
        return code ? scalar : -scalar;
    case CODE_LEVEL:
        return level_float(form, code, scalar);
    case CODE_POWER:
        return power_float(form, code);
    case CODE_HALF:
        return half_float(code);
    case CODE_BFLOAT:
        return bits_float(code << 16);
    case CODE_FLOAT:
        break;
    }
    return bits_float(code);
}

/* Scalars that go with so many entries of a tensor. */
KERNEL_FN uint32_t code_scalars(const struct code_form *form, uint32_t entries)
{
    if (!form->scaled || entries == 0)
        return 0;
    return form->bucket == 0 ? 1 : (entries - 1) / (form->bucket * TILE) + 1;
}

/* The first tile of the bucket that a tile of a tensor belongs to. */
KERNEL_FN size_t code_bucket(const struct code_form *form, size_t tile, size_t in_tensor)
{
    return tile - (form->bucket == 0 ? in_tensor : in_tensor % form->bucket);
}

/* One of many. */
KERNEL_FN uint32_t code_at(const uint32_t *words, size_t i, uint32_t bits)
{
    size_t word = i * bits / 32;
    uint32_t place = (uint32_t)(i * bits % 32);
    uint64_t two = words[word];

    if (place + bits > 32)
        two |= (uint64_t)words[word + 1] << 32;
    return (uint32_t)(two >> place) & ((1u << bits) - 1);
}

#ifdef __CUDACC__

/* Of a width that does not divide 32: a slot's 32 codes are `bits` words, and a lane makes one. */
KERNEL_FN void tile_pack_across(const struct tile *t, const uint32_t code[TILE_SLOTS],
                                uint32_t bits, uint32_t *words)
{
    uint32_t first = t->lane * 32 / bits;

    EACH_SLOT (s) {
        uint32_t word = 0;

        for (uint32_t i = first; i < first + 32 / bits + 2; i++) {
            uint32_t other = __shfl_sync(0xffffffffu, code[s], i % TILE_LANES);
            int place = (int)(i * bits) - (int)(t->lane * 32);

            if (i < TILE_LANES && place < 32)
                word |= place < 0 ? other >> -place : other << place;
        }
        if (t->lane < bits)
            words[s * bits + t->lane] = word;
    }
}

/* A tile's codes into its 8 bits words; and back. */
KERNEL_FN void tile_pack(const struct tile *t, const uint32_t code[TILE_SLOTS], uint32_t bits,
                         uint32_t *words)
{
    uint32_t in_word = 32 / bits;

    if (32 % bits != 0) {
        tile_pack_across(t, code, bits, words);
        return;
    }
    EACH_SLOT (s) {
        uint32_t word = code[s] << (t->lane % in_word * bits);

        for (uint32_t w = 1; w < in_word; w *= 2)
            word |= __shfl_xor_sync(0xffffffffu, word, w);
        if (t->lane % in_word == 0)
            words[(s * TILE_LANES + t->lane) / in_word] = word;
    }
}

KERNEL_FN void tile_unpack(const struct tile *t, const uint32_t *words, uint32_t bits,
                           uint32_t code[TILE_SLOTS])
{
    EACH_SLOT (s)
        code[s] = code_at(words, tile_element(t, s), bits);
}

#else

/* The loops of the next two vectorise because they are compiled for each width by itself. */
KERNEL_FN void words_pack(const uint32_t *code, uint32_t bits, uint32_t *words)
{
    uint32_t in_word = 32 / bits;

    for (uint32_t w = 0; w < TILE / in_word; w++) {
        uint32_t word = 0;

        for (uint32_t i = 0; i < in_word; i++)
            word |= code[w * in_word + i] << (i * bits);
        words[w] = word;
    }
}

KERNEL_FN void words_unpack(const uint32_t *words, uint32_t bits, uint32_t *code)
{
    uint32_t in_word = 32 / bits;

    for (uint32_t w = 0; w < TILE / in_word; w++)
        for (uint32_t i = 0; i < in_word; i++)
            code[w * in_word + i] = words[w] >> (i * bits) & ((1u << bits) - 1);
}

/* Of a width that does not divide 32. */
KERNEL_FN void words_pack_across(const uint32_t *code, uint32_t bits, uint32_t *words)
{
    uint64_t open = 0;
    uint32_t held = 0;

    for (uint32_t i = 0; i < TILE; i++) {
        open |= (uint64_t)code[i] << held;
        held += bits;
        if (held >= 32) {
            *words++ = (uint32_t)open;
            open >>= 32;
            held -= 32;
        }
    }
}

KERNEL_FN void tile_pack(const struct tile *t, const uint32_t code[TILE_SLOTS], uint32_t bits,
                         uint32_t *words)
{
    (void)t;
    switch (bits) {
    case 1:
        words_pack(code, 1, words);
        break;
    case 2:
        words_pack(code, 2, words);
        break;
    case 4:
        words_pack(code, 4, words);
        break;
    case 8:
        words_pack(code, 8, words);
        break;
    case 16:
        words_pack(code, 16, words);
        break;
    default:
        words_pack_across(code, bits, words);
    }
}

KERNEL_FN void tile_unpack(const struct tile *t, const uint32_t *words, uint32_t bits,
                           uint32_t code[TILE_SLOTS])
{
    (void)t;
    switch (bits) {
    case 1:
        words_unpack(words, 1, code);
        break;
    case 2:
        words_unpack(words, 2, code);
        break;
    case 4:
        words_unpack(words, 4, code);
        break;
    case 8:
        words_unpack(words, 8, code);
        break;
    case 16:
        words_unpack(words, 16, code);
        break;
    default:
        for (uint32_t i = 0; i < TILE; i++)
            code[i] = code_at(words, i, bits);
    }
}

#endif

/* The values of a tile, of the sender that the tile's worker is.  Past the last entry they mean
 * nothing. */
KERNEL_FN void values_read(const struct values *v, const struct tile *t, float out[TILE_SLOTS])
{
    size_t tile = t->worker * v->tiles + t->place / TILE;
    uint32_t code[TILE_SLOTS];
    float scalar = 1;

    if (v->form.kind == CODE_FLOAT) {
        EACH_SLOT (s)
            out[s] = v->value[t->worker * v->stride + t->place + tile_element(t, s)];
        return;
    }
    if (v->form.scaled)
        scalar = v->scalar[code_bucket(&v->form, tile, t->begin / TILE)];
    tile_unpack(t, v->code + tile * 8 * v->form.bits, v->form.bits, code);
    switch (v->form.kind) {
    case CODE_SIGN:
        EACH_SLOT (s)
            out[s] = code[s] ? scalar : -scalar;
        break;
    case CODE_LEVEL:
        EACH_SLOT (s)
            out[s] = level_float(&v->form, code[s], scalar);
        break;
    case CODE_POWER:
        EACH_SLOT (s)
            out[s] = power_float(&v->form, code[s]);
        break;
    case CODE_HALF:
        EACH_SLOT (s)
            out[s] = half_float(code[s]);
        break;
    case CODE_BFLOAT:
        EACH_SLOT (s)
            out[s] = bits_float(code[s] << 16);
        break;
    case CODE_FLOAT:
        break;
    }
}

/* Those of one sender alone, as if there were no other. */
KERNEL_FN struct values values_of(const struct values *v, uint32_t sender)
{
    struct values own = *v;

    if (own.value)
        own.value += sender * v->stride;
    if (own.code)
        own.code += sender * v->tiles * 8 * v->form.bits;
    if (own.scalar)
        own.scalar += sender * v->tiles;
    return own;
}

#endif
