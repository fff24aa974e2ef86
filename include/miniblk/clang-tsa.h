/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Annotations for clang's thread-safety analysis. They document which lock guards what, and
 * expand to nothing: the library asserts its rules at run time instead.
 */
#ifndef MINIBLK_CLANG_TSA_H
#define MINIBLK_CLANG_TSA_H

#define TSA(x)
#define TSA_CAPABILITY(name)
#define TSA_SCOPED_CAPABILITY
#define TSA_GUARDED_BY(x)
#define TSA_PT_GUARDED_BY(x)
#define TSA_REQUIRES(...)
#define TSA_REQUIRES_SHARED(...)
#define TSA_EXCLUDES(...)
#define TSA_ACQUIRE(...)
#define TSA_ACQUIRE_SHARED(...)
#define TSA_TRY_ACQUIRE(...)
#define TSA_RELEASE(...)
#define TSA_RELEASE_SHARED(...)
#define TSA_ASSERT(...)
#define TSA_ASSERT_SHARED(...)
#define TSA_NO_TSA

#endif
