/*
 * wire.h -- messages, what they weigh, and the very bytes.
 *
 * A message is what a group of workers sends in a round: for every sender and tensor a count of
 * entries, and parts (indices, values) with room for the most there can be.  Its bytes are counted
 * on the device from the encoding in use; packet_pack() turns one sender's message into exactly
 * so many bytes on the host, and packet_unpack() back, so that a byte is counted only if it could
 * be sent.
 *
 * An encoding is how indices are written; values are 32-bit floats or, of a quantiser, codes
 * (compressors/codes.h).  sim/WIRE.md has the format, to the bit.  Of k entries of n:
 *
 *     raw      k 32-bit numbers
 *     runs16   for every entry 16 bits, the zeros before it, beside its value; where more than
 *              65,535 stand before it, fillers of run 65535 and value 0 come first (DGC, section 3:
 *              48 bits an entry).  Of floats alone
 *     bitmap   n bits
 *     varint   the zeros before each entry, in bytes of 7 bits
 *     gamma    the gap, which is the zeros + 1, in Elias's gamma code
 *     delta    the same in his delta code
 *     rice     the zeros in the code of Golomb and Rice, with the parameter that is best for the
 *              tensor
 *     best     of these the one of the fewest bytes, tensor by tensor, and a byte that tells which
 *
 * Where all of a tensor's entries are sent (a receiver knows k from the schedule) or all workers
 * know the indices, those are not sent.  Where the data say how many entries there are, a 32-bit
 * count comes first.
 */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H

#include "compressors/method.h"
#include "sim/config.h"
#include "sim/layout.h"

/* What encode() fills. */
struct message {
    struct layout rooms; /* where each tensor's entries begin, in tiles, and the most of them */
    uint32_t senders;
    uint32_t *index;      /* [senders][rooms.length], rising; NULL: all entries in their order */
    uint32_t *count;      /* [senders][tensors] entries used; NULL: all */
    struct values values; /* of the entries: floats, or once a quantiser was at it codes */
    float *own_value;     /* [senders][rooms.length] room for floats; NULL without indices */
    uint32_t *own_code;   /* room for codes and scalars; NULL without a quantiser */
    float *own_scalar;
    bool counted, agreed; /* as the compressor's */
    struct room_bytes {
        size_t index, value, count, code, scalar;
    } bytes; /* of one sender's rooms */
};

/* The values are the floats in the message's own room. */
void message_floats(struct message *m);

/* Bytes of a tensor's message of so many entries of n; if not exact, then those to be expected of
 * entries at random places, for where they are decides. */
size_t message_tensor_bytes(const struct method *method, enum encoding encoding, size_t n,
                            size_t entries);
bool message_tensor_exact(const struct method *method, enum encoding encoding, size_t n,
                          size_t entries);

/* Room for the messages of up to `workers` senders. */
void message_create(struct message *m, const struct method *method, const struct call *call,
                    uint32_t workers);
void message_destroy(struct message *m, struct device *dev, uint32_t workers);
size_t message_bytes_needed(const struct method *method, const struct call *call, uint32_t workers);

/* What a run sends of a tensor, added up on the device over steps and workers. */
struct traffic {
    uint64_t entries; /* values sent */
    uint64_t bytes;   /* of the messages, in the encoding in use */
};

/* By workers in the last round, and in a first one; by a parameter server (server.h). */
enum sending { SENT_LAST, SENT_FIRST, SENT_REPLY, SENDINGS };

/* Adds the message's entries and bytes to total[tensors], and its bytes to each[senders] (may be
 * NULL). */
void message_weigh(const struct message *m, const struct layout *layout, enum encoding encoding,
                   struct traffic *total, uint64_t *each);

/* The scratch that it takes at most. */
size_t message_weigh_bytes(enum encoding encoding, uint32_t tensors, uint32_t senders);

/* That of all tensors, on the host. */
struct traffic traffic_sum(const struct traffic *traffic, uint32_t tensors);

/* One sender's message on the host, from packet_download(). */
struct packet {
    uint32_t tensors;
    const size_t *n; /* [tensors] elements */
    uint32_t *count; /* [tensors] */
    size_t *begin;   /* [tensors] in index, value and code */
    uint32_t *index; /* NULL: values alone */
    float *value;
    bool counted, agreed;
    bool bare; /* indices alone */
    struct code_form form;
    uint32_t *code;       /* what stands for each value; NULL: floats */
    size_t *scalar_begin; /* [tensors] in scalar; NULL: floats */
    float *scalar;
};

void packet_download(struct packet *p, const struct message *m, const struct layout *layout,
                     uint32_t sender);
void packet_free(struct packet *p);

/* Fills a tensor's values with what its codes stand for. */
void packet_decode(struct packet *p, uint32_t tensor);

/* The bytes of p in an encoding, in a new buffer; their number. */
size_t packet_pack(const struct packet *p, enum encoding encoding, uint8_t **bytes);

/* Fills index, value, code and scalar of p, whose counts are what the schedule tells a receiver.  A
 * fault tells at which byte. */
bool packet_unpack(struct packet *p, enum encoding encoding, const uint8_t *bytes, size_t size,
                   struct error *err);

/* Packs every sender's message and unpacks it again.  A fault: the bytes are not those counted, or
 * do not say the same. */
bool message_verify(const struct message *m, const struct layout *layout, enum encoding encoding,
                    struct error *err);

#endif
