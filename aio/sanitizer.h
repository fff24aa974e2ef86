/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which sanitizer this build is for; gcc and clang say it differently. */
#ifndef AIO_SANITIZER_H
#define AIO_SANITIZER_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define USE_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define USE_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define USE_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define USE_TSAN 1
#endif

#endif
