/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Constants of the NBD protocol, under the section names of its specification
 * (github.com/NetworkBlockDevice/nbd, doc/proto.md). Everything on the wire is big-endian.
 */
#ifndef BLOCK_EXPORT_NBD_H
#define BLOCK_EXPORT_NBD_H

#include <stdint.h>
#include "miniblk/bswap.h"

/* Protocol phases: handshake phase, newstyle negotiation. */
#define NBD_INIT_MAGIC          UINT64_C(0x4e42444d41474943)    /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC          UINT64_C(0x49484156454f5054)    /* "IHAVEOPT" */
#define NBD_REP_MAGIC           UINT64_C(0x0003e889045565a9)

/* Transmission phase: request and reply messages. */
#define NBD_REQUEST_MAGIC           UINT32_C(0x25609513)
#define NBD_SIMPLE_REPLY_MAGIC      UINT32_C(0x67446698)
#define NBD_STRUCTURED_REPLY_MAGIC  UINT32_C(0x668e33ef)

/* Handshake flags; the client's flags have the same values. */
#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0)
#define NBD_FLAG_NO_ZEROES      (1u << 1)

/* Transmission flags. */
#define NBD_FLAG_HAS_FLAGS          (1u << 0)
#define NBD_FLAG_READ_ONLY          (1u << 1)
#define NBD_FLAG_SEND_FLUSH         (1u << 2)
#define NBD_FLAG_SEND_FUA           (1u << 3)
#define NBD_FLAG_ROTATIONAL         (1u << 4)
#define NBD_FLAG_SEND_TRIM          (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES  (1u << 6)
#define NBD_FLAG_SEND_DF            (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN     (1u << 8)
#define NBD_FLAG_SEND_RESIZE        (1u << 9)
#define NBD_FLAG_SEND_CACHE         (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO     (1u << 11)

/* Option types. */
enum {
    NBD_OPT_EXPORT_NAME         = 1,
    NBD_OPT_ABORT               = 2,
    NBD_OPT_LIST                = 3,
    NBD_OPT_PEEK_EXPORT         = 4,
    NBD_OPT_STARTTLS            = 5,
    NBD_OPT_INFO                = 6,
    NBD_OPT_GO                  = 7,
    NBD_OPT_STRUCTURED_REPLY    = 8,
    NBD_OPT_LIST_META_CONTEXT   = 9,
    NBD_OPT_SET_META_CONTEXT    = 10,
    NBD_OPT_EXTENDED_HEADERS    = 11,
};

/* Option reply types. */
#define NBD_REP_FLAG_ERROR          UINT32_C(0x80000000)
#define NBD_REP_ACK                 1u
#define NBD_REP_SERVER              2u
#define NBD_REP_INFO                3u
#define NBD_REP_META_CONTEXT        4u
#define NBD_REP_ERR_UNSUP           (NBD_REP_FLAG_ERROR | 1)
#define NBD_REP_ERR_POLICY          (NBD_REP_FLAG_ERROR | 2)
#define NBD_REP_ERR_INVALID         (NBD_REP_FLAG_ERROR | 3)
#define NBD_REP_ERR_PLATFORM        (NBD_REP_FLAG_ERROR | 4)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_FLAG_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_FLAG_ERROR | 6)
#define NBD_REP_ERR_SHUTDOWN        (NBD_REP_FLAG_ERROR | 7)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_FLAG_ERROR | 8)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_FLAG_ERROR | 9)

/* Information types, in NBD_REP_INFO. */
enum {
    NBD_INFO_EXPORT         = 0,
    NBD_INFO_NAME           = 1,
    NBD_INFO_DESCRIPTION    = 2,
    NBD_INFO_BLOCK_SIZE     = 3,
};

/* Request types. */
enum {
    NBD_CMD_READ            = 0,
    NBD_CMD_WRITE           = 1,
    NBD_CMD_DISC            = 2,
    NBD_CMD_FLUSH           = 3,
    NBD_CMD_TRIM            = 4,
    NBD_CMD_CACHE           = 5,
    NBD_CMD_WRITE_ZEROES    = 6,
    NBD_CMD_BLOCK_STATUS    = 7,
};

/* Command flags. */
#define NBD_CMD_FLAG_FUA        (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE    (1u << 1)
#define NBD_CMD_FLAG_DF         (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE    (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO  (1u << 4)

/* Structured reply flags and types. */
#define NBD_REPLY_FLAG_DONE             (1u << 0)
#define NBD_REPLY_TYPE_NONE             0u
#define NBD_REPLY_TYPE_OFFSET_DATA      1u
#define NBD_REPLY_TYPE_OFFSET_HOLE      2u
#define NBD_REPLY_TYPE_BLOCK_STATUS     5u
#define NBD_REPLY_TYPE_ERROR            32769u

/* The "base:" metadata namespace: base:allocation. */
#define NBD_STATE_HOLE          (1u << 0)
#define NBD_STATE_ZERO          (1u << 1)

/* Error values. */
enum {
    NBD_SUCCESS     = 0,
    NBD_EPERM       = 1,
    NBD_EIO         = 5,
    NBD_ENOMEM      = 12,
    NBD_EINVAL      = 22,
    NBD_ENOSPC      = 28,
    NBD_EOVERFLOW   = 75,
    NBD_ENOTSUP     = 95,
    NBD_ESHUTDOWN   = 108,
};

/* Sizes of what goes over the wire, in bytes. */
#define NBD_GREETING_SIZE           18
#define NBD_OPTION_HEADER_SIZE      16
#define NBD_OPTION_REPLY_SIZE       20
#define NBD_REQUEST_SIZE            28
#define NBD_SIMPLE_REPLY_SIZE       16
#define NBD_STRUCTURED_REPLY_SIZE   20
#define NBD_EXPORT_NAME_ZEROES      124

/* "Values": strings, such as export names, are at most this long. */
#define NBD_MAX_STRING_SIZE     4096
/* Our NBD_INFO_BLOCK_SIZE: the longest payload of a request or reply. */
#define NBD_MAX_PAYLOAD_SIZE    (32u * 1024 * 1024)

/* Numbers on the wire are big-endian and need not be aligned. */
static inline uint16_t nbd_get16(const void *p) { return lduw_be_p(p); }
static inline uint32_t nbd_get32(const void *p) { return ldl_be_p(p); }
static inline uint64_t nbd_get64(const void *p) { return ldq_be_p(p); }
/* Each returns the address behind what it stored. */
static inline uint8_t *nbd_put16(void *p, uint16_t v)
{
    stw_be_p(p, v);
    return (uint8_t *)p + sizeof(v);
}
static inline uint8_t *nbd_put32(void *p, uint32_t v)
{
    stl_be_p(p, v);
    return (uint8_t *)p + sizeof(v);
}
static inline uint8_t *nbd_put64(void *p, uint64_t v)
{
    stq_be_p(p, v);
    return (uint8_t *)p + sizeof(v);
}

#endif
