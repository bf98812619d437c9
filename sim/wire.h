/*
 * wire.h -- messages, what they weigh, and the very bytes.
 *
 * A message is what a group of workers sends in a round: for every sender and tensor a count of
 * entries, and parts (indices, values) with room for the most there can be.  Its bytes are counted
 * on the device from the encoding in use; message_pack() turns one sender's message into exactly
 * so many bytes on the host, and message_unpack() back, so that a byte is counted only if it could
 * be sent.
 *
 * The format, tensor after tensor, little-endian:
 *
 *     raw      n 32-bit values if all of a tensor's n entries are sent (a receiver knows k from
 *              the schedule); else k 32-bit indices, rising, then k 32-bit values
 *     runs16   the same for a whole tensor; else for every entry 16 bits, the zeros before it, and
 *              its 32-bit value; where more than 65,535 zeros stand before it, fillers of run
 *              65535 and value 0 come first (DGC, section 3: 48 bits an entry)
 */
#ifndef SIM_WIRE_H
#define SIM_WIRE_H

#include "compressors/compressor.h"
#include "sim/config.h"
#include "sim/layout.h"

/* What encode() fills. */
struct message {
    struct layout rooms; /* of both parts: where each tensor's entries begin, in tiles */
    uint32_t senders;
    uint32_t *index;    /* [senders][rooms.length], rising; NULL: values alone, all of them */
    const float *value; /* [senders][stride] */
    float *own_value;   /* the message's own room for values; NULL where value is a wanted slab */
    size_t stride;      /* of value; index has rooms.length */
    uint32_t *count;    /* [senders][tensors] entries used */
};

/* Whether a method's messages are sparse: an index beside every value. */
bool message_has_indices(const struct compressor *c);

/* Of a sparse message's entry, index and value together; fillers of runs16 come on top. */
unsigned message_entry_bytes(enum encoding encoding);

/* Room for the messages of up to `workers` senders. */
void message_create(struct message *m, const struct compressor *c, const struct call *call,
                    uint32_t workers);
void message_destroy(struct message *m, struct device *dev, uint32_t workers);
size_t message_bytes_needed(const struct compressor *c, const struct call *call, uint32_t workers);

/* What a run sends, added up on the device over steps and workers. */
struct traffic {
    uint64_t entries; /* values sent, of compressed tensors */
    uint64_t bytes;   /* of the messages, in the encoding in use */
};

/* Adds the message's entries and bytes to *total, and its bytes to each[senders] (may be NULL). */
void message_weigh(const struct message *m, const struct layout *layout, enum encoding encoding,
                   struct traffic *total, uint64_t *each);

/* One sender's message on the host, from message_download(). */
struct packet {
    uint32_t tensors;
    const size_t *n; /* [tensors] elements */
    uint32_t *count; /* [tensors] */
    size_t *begin;   /* [tensors] in index and value */
    uint32_t *index; /* NULL: values alone */
    float *value;
};

void packet_download(struct packet *p, const struct message *m, const struct layout *layout,
                     uint32_t sender);
void packet_free(struct packet *p);

/* The bytes of p in an encoding, in a new buffer; their number. */
size_t packet_pack(const struct packet *p, enum encoding encoding, uint8_t **bytes);

/* Fills index and value of p, whose counts are what the schedule tells a receiver.  A fault tells at
 * which byte. */
bool packet_unpack(struct packet *p, enum encoding encoding, const uint8_t *bytes, size_t size,
                   struct error *err);

/* Packs every sender's message and unpacks it again.  A fault: the bytes are not those counted, or
 * do not say the same. */
bool message_verify(const struct message *m, const struct layout *layout, enum encoding encoding,
                    struct error *err);

#endif
