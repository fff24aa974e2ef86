/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers of the format, which is described in QEMU's "Qcow2 Image File Format". */
#ifndef IMAGES_QCOW2_FORMAT_H
#define IMAGES_QCOW2_FORMAT_H

#include "miniblk/bswap.h"

#define QCOW2_MAGIC             0x514649fbU
#define QCOW2_V2_HEADER_BYTES   72
#define QCOW2_V3_HEADER_BYTES   104

#define QCOW2_CLUSTER_BITS_MIN  9
#define QCOW2_CLUSTER_BITS_MAX  21
#define QCOW2_L1_BYTES_MAX      (32u * 1024 * 1024)
/* Those of all snapshots together, as far as they are looked at; no sane image comes near. */
#define QCOW2_SNAPSHOT_L1_BYTES_MAX (1ULL << 30)
#define QCOW2_REFTABLE_BYTES_MAX (8u * 1024 * 1024)
#define QCOW2_SNAPSHOTS_MAX     65536u
#define QCOW2_SNAPSHOT_BYTES_MIN 40u
#define QCOW2_SNAPSHOT_EXTRA_BYTES_MAX 1024u
#define QCOW2_SNAPSHOT_TABLE_BYTES_MAX (64u * 1024 * 1024)
#define QCOW2_BACKING_NAME_BYTES_MAX 1023u
#define QCOW2_BITMAPS_MAX       65535u
#define QCOW2_BITMAP_DIR_BYTES_MAX (QCOW2_BITMAPS_MAX * 1024)

/* Feature bits of the header. */
#define QCOW2_INCOMPAT_DIRTY        (1ULL << 0)
#define QCOW2_INCOMPAT_CORRUPT      (1ULL << 1)
#define QCOW2_INCOMPAT_DATA_FILE    (1ULL << 2)
#define QCOW2_INCOMPAT_COMPRESSION  (1ULL << 3)
#define QCOW2_INCOMPAT_EXTL2        (1ULL << 4)
#define QCOW2_INCOMPAT_KNOWN        0x1fULL
#define QCOW2_COMPAT_LAZY_REFCOUNTS (1ULL << 0)
#define QCOW2_AUTOCLEAR_BITMAPS     (1ULL << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW    (1ULL << 1)

/* With extended L2 entries a cluster consists of so many subclusters. */
#define QCOW2_SUBCLUSTERS           32u
#define QCOW2_EXTL2_CLUSTER_BITS_MIN 14

/* Entries of the L1, L2 and refcount tables. */
#define QCOW2_COPIED                (1ULL << 63)
#define QCOW2_COMPRESSED            (1ULL << 62)
#define QCOW2_ZERO                  (1ULL << 0)
#define QCOW2_OFFSET_MASK           UINT64_C(0x00fffffffffffe00)
#define QCOW2_L1_RESERVED           UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED           UINT64_C(0x3f000000000001fe)
#define QCOW2_REFTABLE_MASK         UINT64_C(0xfffffffffffffe00)

#define QCOW2_EXT_END               0x00000000U
#define QCOW2_EXT_BACKING_FORMAT    0xe2792acaU
#define QCOW2_EXT_FEATURE_NAMES     0x6803f857U
#define QCOW2_EXT_BITMAPS           0x23852875U
#define QCOW2_EXT_CRYPTO            0x0537be77U
#define QCOW2_EXT_DATA_FILE         0x44415441U

/* How guest data is encrypted. */
#define QCOW2_CRYPT_AES             1u
#define QCOW2_CRYPT_LUKS            2u

typedef enum Qcow2Compression { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 } Qcow2Compression;

/* The header as read; see qcow2-header.c. */
typedef struct Qcow2Header {
    uint32_t version, cluster_bits, crypt_method, l1_size, reftable_clusters;
    uint32_t nb_snapshots, refcount_order, header_length, backing_size;
    uint64_t backing_offset, size, l1_offset, reftable_offset, snapshots_offset;
    uint64_t incompat, compat, autoclear;
    uint8_t compression_type;
    /* bitmaps extension */
    bool has_bitmaps;
    uint32_t nb_bitmaps;
    uint64_t bitmap_dir_bytes, bitmap_dir_offset;
    /* where the encryption header is, with QCOW2_CRYPT_LUKS */
    uint64_t crypto_offset, crypto_bytes;
} Qcow2Header;

/* ---- numbers in the file are big-endian --------------------------------------------- */

static inline uint32_t qcow2_load32(const uint8_t *p) { return ldl_be_p(p); }
static inline uint64_t qcow2_load64(const uint8_t *p) { return ldq_be_p(p); }
static inline void qcow2_store32(uint8_t *p, uint32_t v) { stl_be_p(p, v); }
static inline void qcow2_store64(uint8_t *p, uint64_t v) { stq_be_p(p, v); }

#endif
