/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "miniblk/osdep.h"
#include "miniblk/error.h"

struct Error {
    char *msg;
    GString *hint;
    ErrorClass err_class;
    const char *src, *func;
    int line;
};

Error *error_abort;
Error *error_fatal;

static const char *progname;

void error_set_progname(const char *name)
{
    progname = name;
}

const char *error_get_progname(void)
{
    return progname ? progname : program_invocation_short_name;
}

/* Deliver ERR, freshly made or handed on, to ERRP. */
static void deliver(Error **errp, Error *err)
{
    if (errp == &error_abort) {
        fprintf(stderr, "Unexpected error in %s() at %s:%d:\n", err->func, err->src,
                err->line);
        error_report("%s", err->msg);
        abort();
    }
    if (errp == &error_fatal) {
        error_report_err(err);
        exit(1);
    }
    if (errp && !*errp) {
        *errp = err;
    } else {
        error_free(err);
    }
}

static void make(Error **errp, const char *src, int line, const char *func,
                 ErrorClass err_class, int os_errno, const char *fmt, va_list ap)
{
    if (!errp) {
        return;
    }
    g_assert(errp == &error_abort || errp == &error_fatal || !*errp);
    int saved_errno = errno;
    Error *err = g_new0(Error, 1);
    err->msg = g_strdup_vprintf(fmt, ap);
    if (os_errno) {
        char *msg = err->msg;
        err->msg = g_strdup_printf("%s: %s", msg, strerror(os_errno));
        g_free(msg);
    }
    err->err_class = err_class;
    err->src = src;
    err->line = line;
    err->func = func;
    deliver(errp, err);
    errno = saved_errno;
}

void error_setg_internal(Error **errp, const char *src, int line, const char *func,
                         const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    make(errp, src, line, func, ERROR_CLASS_GENERIC_ERROR, 0, fmt, ap);
    va_end(ap);
}

void error_setg_errno_internal(Error **errp, const char *src, int line, const char *func,
                               int os_errno, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    make(errp, src, line, func, ERROR_CLASS_GENERIC_ERROR, os_errno, fmt, ap);
    va_end(ap);
}

void error_set_internal(Error **errp, const char *src, int line, const char *func,
                        ErrorClass err_class, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    make(errp, src, line, func, err_class, 0, fmt, ap);
    va_end(ap);
}

static void prepend(Error *err, const char *fmt, va_list ap)
{
    g_autofree char *head = g_strdup_vprintf(fmt, ap);
    char *tail = err->msg;
    err->msg = g_strconcat(head, tail, NULL);
    g_free(tail);
}

void error_prepend(Error *const *errp, const char *fmt, ...)
{
    if (!errp || !*errp) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    prepend(*errp, fmt, ap);
    va_end(ap);
}

void error_append_hint(Error *const *errp, const char *fmt, ...)
{
    if (!errp || !*errp) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    if (!(*errp)->hint) {
        (*errp)->hint = g_string_new(NULL);
    }
    g_string_append_vprintf((*errp)->hint, fmt, ap);
    va_end(ap);
}

void error_propagate(Error **dst_errp, Error *local_err)
{
    if (local_err) {
        deliver(dst_errp, local_err);
    }
}

void error_propagate_prepend(Error **dst_errp, Error *local_err, const char *fmt, ...)
{
    if (!local_err) {
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    prepend(local_err, fmt, ap);
    va_end(ap);
    deliver(dst_errp, local_err);
}

const char *error_get_pretty(const Error *err)
{
    return err->msg;
}

ErrorClass error_get_class(const Error *err)
{
    return err->err_class;
}

Error *error_copy(const Error *err)
{
    Error *copy = g_new(Error, 1);
    *copy = *err;
    copy->msg = g_strdup(err->msg);
    copy->hint = err->hint ? g_string_new(err->hint->str) : NULL;
    return copy;
}

void error_free(Error *err)
{
    if (err) {
        g_free(err->msg);
        if (err->hint) {
            g_string_free(err->hint, true);
        }
        g_free(err);
    }
}

void error_free_or_abort(Error **errp)
{
    g_assert(errp && *errp);
    error_free(*errp);
    *errp = NULL;
}

static void report(const char *kind, const char *fmt, va_list ap)
{
    g_autofree char *msg = g_strdup_vprintf(fmt, ap);
    fprintf(stderr, "%s: %s%s\n", error_get_progname(), kind, msg);
}

void error_vreport(const char *fmt, va_list ap)
{
    report("", fmt, ap);
}

void warn_vreport(const char *fmt, va_list ap)
{
    report("warning: ", fmt, ap);
}

void error_report(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    error_vreport(fmt, ap);
    va_end(ap);
}

void warn_report(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    warn_vreport(fmt, ap);
    va_end(ap);
}

void info_report(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    report("info: ", fmt, ap);
    va_end(ap);
}

int error_printf(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vfprintf(stderr, fmt, ap);
    va_end(ap);
    return n;
}

static void report_err(Error *err, void (*how)(const char *fmt, ...))
{
    how("%s", err->msg);
    if (err->hint) {
        fputs(err->hint->str, stderr);
    }
    error_free(err);
}

void error_report_err(Error *err)
{
    report_err(err, error_report);
}

void warn_report_err(Error *err)
{
    report_err(err, warn_report);
}

void error_reportf_err(Error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    prepend(err, fmt, ap);
    va_end(ap);
    error_report_err(err);
}

void warn_reportf_err(Error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    prepend(err, fmt, ap);
    va_end(ap);
    warn_report_err(err);
}

void error_propagator_cleanup(ErrorPropagator *prop)
{
    error_propagate(prop->errp, prop->local_err);
}
