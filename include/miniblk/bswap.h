/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte order: of values, and of numbers in buffers that need not be aligned. */
#ifndef MINIBLK_BSWAP_H
#define MINIBLK_BSWAP_H

#include <glib.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t bswap16(uint16_t x) { return __builtin_bswap16(x); }
static inline uint32_t bswap32(uint32_t x) { return __builtin_bswap32(x); }
static inline uint64_t bswap64(uint64_t x) { return __builtin_bswap64(x); }
static inline void bswap16s(uint16_t *s) { *s = bswap16(*s); }
static inline void bswap32s(uint32_t *s) { *s = bswap32(*s); }
static inline void bswap64s(uint64_t *s) { *s = bswap64(*s); }

static inline uint16_t le16_to_cpu(uint16_t v) { return GUINT16_FROM_LE(v); }
static inline uint32_t le32_to_cpu(uint32_t v) { return GUINT32_FROM_LE(v); }
static inline uint64_t le64_to_cpu(uint64_t v) { return GUINT64_FROM_LE(v); }
static inline uint16_t be16_to_cpu(uint16_t v) { return GUINT16_FROM_BE(v); }
static inline uint32_t be32_to_cpu(uint32_t v) { return GUINT32_FROM_BE(v); }
static inline uint64_t be64_to_cpu(uint64_t v) { return GUINT64_FROM_BE(v); }
static inline uint16_t cpu_to_le16(uint16_t v) { return GUINT16_TO_LE(v); }
static inline uint32_t cpu_to_le32(uint32_t v) { return GUINT32_TO_LE(v); }
static inline uint64_t cpu_to_le64(uint64_t v) { return GUINT64_TO_LE(v); }
static inline uint16_t cpu_to_be16(uint16_t v) { return GUINT16_TO_BE(v); }
static inline uint32_t cpu_to_be32(uint32_t v) { return GUINT32_TO_BE(v); }
static inline uint64_t cpu_to_be64(uint64_t v) { return GUINT64_TO_BE(v); }

/* The same in place. */
static inline void le16_to_cpus(uint16_t *p) { *p = le16_to_cpu(*p); }
static inline void le32_to_cpus(uint32_t *p) { *p = le32_to_cpu(*p); }
static inline void le64_to_cpus(uint64_t *p) { *p = le64_to_cpu(*p); }
static inline void be16_to_cpus(uint16_t *p) { *p = be16_to_cpu(*p); }
static inline void be32_to_cpus(uint32_t *p) { *p = be32_to_cpu(*p); }
static inline void be64_to_cpus(uint64_t *p) { *p = be64_to_cpu(*p); }
static inline void cpu_to_le16s(uint16_t *p) { *p = cpu_to_le16(*p); }
static inline void cpu_to_le32s(uint32_t *p) { *p = cpu_to_le32(*p); }
static inline void cpu_to_le64s(uint64_t *p) { *p = cpu_to_le64(*p); }
static inline void cpu_to_be16s(uint16_t *p) { *p = cpu_to_be16(*p); }
static inline void cpu_to_be32s(uint32_t *p) { *p = cpu_to_be32(*p); }
static inline void cpu_to_be64s(uint64_t *p) { *p = cpu_to_be64(*p); }

/* ---- buffers: host order, whatever the alignment ------------------------------------ */

static inline int lduw_he_p(const void *ptr)
{
    uint16_t v;
    memcpy(&v, ptr, sizeof(v));
    return v;
}
static inline int ldl_he_p(const void *ptr)
{
    int32_t v;
    memcpy(&v, ptr, sizeof(v));
    return v;
}
static inline uint64_t ldq_he_p(const void *ptr)
{
    uint64_t v;
    memcpy(&v, ptr, sizeof(v));
    return v;
}
static inline void stw_he_p(void *ptr, uint16_t v) { memcpy(ptr, &v, sizeof(v)); }
static inline void stl_he_p(void *ptr, uint32_t v) { memcpy(ptr, &v, sizeof(v)); }
static inline void stq_he_p(void *ptr, uint64_t v) { memcpy(ptr, &v, sizeof(v)); }

/* ---- buffers: a given order ---------------------------------------------------------- */

static inline int ldub_p(const void *ptr) { return *(const uint8_t *)ptr; }
static inline void stb_p(void *ptr, uint8_t v) { *(uint8_t *)ptr = v; }
static inline int lduw_le_p(const void *ptr) { return le16_to_cpu(lduw_he_p(ptr)); }
static inline int ldl_le_p(const void *ptr) { return le32_to_cpu(ldl_he_p(ptr)); }
static inline uint64_t ldq_le_p(const void *ptr) { return le64_to_cpu(ldq_he_p(ptr)); }
static inline int lduw_be_p(const void *ptr) { return be16_to_cpu(lduw_he_p(ptr)); }
static inline int ldl_be_p(const void *ptr) { return be32_to_cpu(ldl_he_p(ptr)); }
static inline uint64_t ldq_be_p(const void *ptr) { return be64_to_cpu(ldq_he_p(ptr)); }
static inline void stw_le_p(void *ptr, uint16_t v) { stw_he_p(ptr, cpu_to_le16(v)); }
static inline void stl_le_p(void *ptr, uint32_t v) { stl_he_p(ptr, cpu_to_le32(v)); }
static inline void stq_le_p(void *ptr, uint64_t v) { stq_he_p(ptr, cpu_to_le64(v)); }
static inline void stw_be_p(void *ptr, uint16_t v) { stw_he_p(ptr, cpu_to_be16(v)); }
static inline void stl_be_p(void *ptr, uint32_t v) { stl_he_p(ptr, cpu_to_be32(v)); }
static inline void stq_be_p(void *ptr, uint64_t v) { stq_he_p(ptr, cpu_to_be64(v)); }

#endif
