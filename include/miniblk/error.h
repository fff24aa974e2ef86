/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Error objects: a message a person can act on, with the place it was made.
 *
 * A function that can fail takes a last parameter `Error **errp` and also says so in its
 * return value. Callers pass NULL (not interested), &error_abort (a failure is a bug here),
 * &error_fatal (a failure ends the program), or the address of a local `Error *` set to
 * NULL. All functions: any thread; an Error belongs to whoever holds it.
 */
#ifndef MINIBLK_ERROR_H
#define MINIBLK_ERROR_H

#include <stdarg.h>
#include "compiler.h"

typedef struct Error Error;

/* The QMP error class that a command's failure is reported with. */
typedef enum ErrorClass {
    ERROR_CLASS_GENERIC_ERROR,
    ERROR_CLASS_COMMAND_NOT_FOUND,
    ERROR_CLASS_DEVICE_NOT_ACTIVE,
    ERROR_CLASS_DEVICE_NOT_FOUND,
    ERROR_CLASS_KVM_MISSING_CAP,
} ErrorClass;

extern Error *error_abort;
extern Error *error_fatal;

/* Create an error at ERRP from a printf-style message (no final period, no newline). */
#define error_setg(errp, fmt, ...)                                              \
        error_setg_internal((errp), __FILE__, __LINE__, __func__, (fmt), ##__VA_ARGS__)
/* The same with ": " and strerror(OS_ERRNO) after the message. */
#define error_setg_errno(errp, os_errno, fmt, ...)                              \
        error_setg_errno_internal((errp), __FILE__, __LINE__, __func__,         \
                                  (os_errno), (fmt), ##__VA_ARGS__)
/* The same with a QMP class other than GenericError. */
#define error_set(errp, err_class, fmt, ...)                                    \
        error_set_internal((errp), __FILE__, __LINE__, __func__,                \
                           (err_class), (fmt), ##__VA_ARGS__)

void error_setg_internal(Error **errp, const char *src, int line, const char *func,
                         const char *fmt, ...) G_GNUC_PRINTF(5, 6);
void error_setg_errno_internal(Error **errp, const char *src, int line, const char *func,
                               int os_errno, const char *fmt, ...) G_GNUC_PRINTF(6, 7);
void error_set_internal(Error **errp, const char *src, int line, const char *func,
                        ErrorClass err_class, const char *fmt, ...) G_GNUC_PRINTF(6, 7);

/* The same with "Could not open 'FILENAME'" for the message. */
#define error_setg_file_open(errp, os_errno, filename)                          \
        error_setg_errno((errp), (os_errno), "Could not open '%s'", (filename))

/* Put a text before *ERRP's message. No effect when ERRP or *ERRP is NULL. */
void error_prepend(Error *const *errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Add a hint line (with its newline), shown to people after the message, not sent over QMP. */
void error_append_hint(Error *const *errp, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Hand LOCAL_ERR (may be NULL) over to DST_ERRP; it is freed when nobody wants it. */
void error_propagate(Error **dst_errp, Error *local_err);
void error_propagate_prepend(Error **dst_errp, Error *local_err, const char *fmt, ...)
    G_GNUC_PRINTF(3, 4);

const char *error_get_pretty(const Error *err);
ErrorClass error_get_class(const Error *err);
Error *error_copy(const Error *err);
/* NULL is fine. */
void error_free(Error *err);
/* Abort unless *ERRP is set; free it and make it NULL. */
void error_free_or_abort(Error **errp);

/* Print ERR as "PROG: message\nhints" on stderr and free it. */
void error_report_err(Error *err);
void warn_report_err(Error *err);
/* The same with a text before the message. */
void error_reportf_err(Error *err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void warn_reportf_err(Error *err, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
/* Print "PROG: message", with "warning: " or "info: " before the message. */
void error_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void warn_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void info_report(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
void error_vreport(const char *fmt, va_list ap) G_GNUC_PRINTF(1, 0);
void warn_vreport(const char *fmt, va_list ap) G_GNUC_PRINTF(1, 0);
/* Print on stderr as it is. The number of bytes, or negative. */
int error_printf(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
/* Name printed before messages; kept by reference. The default is argv[0]'s last part. */
void error_set_progname(const char *progname);
const char *error_get_progname(void);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Error, error_free)

/*
 * Lets a function look at *errp even when its caller passed NULL or &error_fatal: the
 * local stand-in is propagated when the function returns.
 */
typedef struct ErrorPropagator { Error *local_err; Error **errp; } ErrorPropagator;
void error_propagator_cleanup(ErrorPropagator *prop);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ErrorPropagator, error_propagator_cleanup)
#define ERRP_GUARD()                                                            \
        g_auto(ErrorPropagator) errp_guard_ = { .local_err = NULL, .errp = errp }; \
        errp = (errp == NULL || errp == &error_fatal) ? &errp_guard_.local_err : errp

#endif
