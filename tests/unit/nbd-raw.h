/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client of the NBD protocol that can be as rude as a test wants. Blocking calls, for any
 * thread but the one that serves. What must not fail ends the test program when it does.
 */
#ifndef TESTS_UNIT_NBD_RAW_H
#define TESTS_UNIT_NBD_RAW_H

#include "block/export/nbd.h"
#include <stdbool.h>
#include <stddef.h>

/* Connect to the UNIX socket PATH. */
int raw_connect(const char *path);
/* All of it; false when the peer has hung up. */
bool raw_send(int fd, const void *buf, size_t len);
bool raw_recv(int fd, void *buf, size_t len);
/* Whether the peer has closed: nothing but the end is left to read. */
bool raw_at_eof(int fd);

/* ---- handshake -------------------------------------------------------------------- */

/* Read the greeting and send the client's flags. */
bool raw_greet(int fd, uint32_t client_flags);
bool raw_option(int fd, uint32_t option, const void *data, uint32_t len);
/* The type of the next option reply; its payload goes to TEXT (NUL-terminated, cut). */
uint32_t raw_option_reply(int fd, uint32_t option, char *text, size_t text_size);
/* Greet and GO; the size of the export, or -1 when the server said no or hung up. */
int64_t raw_go(int fd, const char *name, bool structured);
/* Connect and go; must work. */
int raw_open(const char *path, const char *name, int64_t *size);

/* ---- transmission ----------------------------------------------------------------- */

void raw_request_header(uint8_t *buf, uint16_t flags, uint16_t type, uint64_t cookie,
                        uint64_t offset, uint32_t len);
bool raw_request(int fd, uint16_t flags, uint16_t type, uint64_t cookie, uint64_t offset,
                 uint32_t len);
/* A simple reply; false at the end of the connection. */
bool raw_reply(int fd, uint32_t *error, uint64_t *cookie);
/* One request and its reply; the NBD error, or -1 at the end of the connection. */
int raw_pread(int fd, void *buf, uint64_t offset, uint32_t len);
int raw_pwrite(int fd, const void *buf, uint64_t offset, uint32_t len, uint16_t flags);
int raw_command(int fd, uint16_t flags, uint16_t type, uint64_t offset, uint32_t len);

#endif
