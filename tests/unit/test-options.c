/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options: getters, sizes, nesting of dotted keys, key=value parsing. */
#include "miniblk/osdep.h"
#include "miniblk/error.h"
#include "miniblk/qdict.h"

/* The object as one line, keys sorted. */
static char *line(json_t *obj)
{
    return json_dumps(obj, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
}

static json_t *load(const char *text)
{
    json_error_t err;
    json_t *obj = json_loads(text, 0, &err);

    if (!obj) {
        g_error("bad test data '%s': %s", text, err.text);
    }
    return obj;
}

/* What came out must be EXPECTED, or, when EXPECTED begins with "!", the error after it. */
static void check_outcome(const char *what, const char *expected, const char *result,
                          Error *err)
{
    if (expected[0] == '!') {
        if (!err) {
            g_error("%s: no error but %s", what, result);
        }
        g_assert_cmpstr(error_get_pretty(err), ==, expected + 1);
        error_free(err);
        return;
    }
    if (err) {
        g_error("%s: %s", what, error_get_pretty(err));
    }
    g_assert_cmpstr(result, ==, expected);
}

/* ---- sizes ------------------------------------------------------------------------ */

static void test_size(void)
{
#define BAD "!Parameter 'size' expects a non-negative number below 2^64"
#define RANGE(v) "!Value '" v "' is out of range for parameter 'size'"
    static const char *const cases[][2] = {
        { "0", "0" },
        { "512", "512" },
        { "1b", "1" },
        { "1k", "1024" },
        { "1K", "1024" },
        { "1m", "1048576" },
        { "3G", "3221225472" },
        { "1T", "1099511627776" },
        { "1P", "1125899906842624" },
        { "1E", "1152921504606846976" },
        { "15E", "17293822569102704640" },
        { "18446744073709551615", "18446744073709551615" },
        { "1.5M", "1572864" },
        { "0.5k", "512" },
        { "1.0", "1" },
        { "0x10", "16" },
        { "0X1f", "31" },
        { "0x10k", "16384" },
        { "010", "10" },
        { "16E", RANGE("16E") },
        { "18446744073709551616", RANGE("18446744073709551616") },
        { "99999999999999999999", RANGE("99999999999999999999") },
        { "15.9999999999999999999E", RANGE("15.9999999999999999999E") },
        { "", BAD },
        { "-1", BAD },
        { "+1", "1" },
        { " 1", "1" },
        { "1 ", BAD },
        { "x", BAD },
        { "1x", BAD },
        { "1kk", BAD },
        { "1MB", BAD },
        { "1e3", BAD },
        { "1.5", BAD },
        { "0.5b", BAD },
        { "1.", "1" },
        { "1.k", "1024" },
        { ".5k", BAD },
        { "0x", BAD },
        { "0xg", BAD },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;
        uint64_t size = 12345;
        bool ok = parse_option_size("size", cases[i][0], &size, &err);
        g_autofree char *result = g_strdup_printf("%" PRIu64, size);

        g_assert_cmpint(ok, ==, !err);
        if (!ok) {
            g_assert_cmpuint(size, ==, 12345);
        }
        check_outcome(cases[i][0], cases[i][1], result, err);
        g_assert_cmpint(parse_option_size("size", cases[i][0], &size, NULL), ==, ok);
    }
#undef RANGE
}

/* ---- getters ---------------------------------------------------------------------- */

typedef enum Getter { GET_STR, GET_BOOL, GET_SIZE, GET_ENUM } Getter;

static bool get(Getter getter, json_t *obj, const char *key, char **result, Error **errp)
{
    static const char *const names[] = { "zero", "one", NULL };
    g_autofree char *str = g_strdup("unset");
    bool b = false;
    uint64_t size = 77;
    int index = 7;
    bool ok;

    switch (getter) {
    case GET_STR:
        ok = bdrv_opt_str(obj, key, &str, errp);
        *result = g_strdup(str);
        return ok;
    case GET_BOOL:
        ok = bdrv_opt_bool(obj, key, &b, errp);
        *result = g_strdup(b ? "true" : "false");
        return ok;
    case GET_SIZE:
        ok = bdrv_opt_size(obj, key, &size, errp);
        *result = g_strdup_printf("%" PRIu64, size);
        return ok;
    default:
        ok = bdrv_opt_enum(obj, key, names, &index, errp);
        *result = g_strdup_printf("%d", index);
        return ok;
    }
}

static void test_getters(void)
{
    static const struct {
        Getter getter;
        const char *before, *expected, *after;
    } cases[] = {
        { GET_STR, "{\"k\":\"v\",\"x\":1}", "v", "{\"x\":1}" },
        { GET_STR, "{\"x\":1}", "unset", "{\"x\":1}" },
        { GET_STR, "{\"k\":5}", "!Invalid parameter type for 'k', expected: string" },
        { GET_STR, "{\"k\":null}", "!Invalid parameter type for 'k', expected: string" },
        { GET_BOOL, "{\"k\":true}", "true", "{}" },
        { GET_BOOL, "{\"k\":false}", "false", "{}" },
        { GET_BOOL, "{\"k\":\"on\"}", "true", "{}" },
        { GET_BOOL, "{\"k\":\"yes\"}", "true", "{}" },
        { GET_BOOL, "{\"k\":\"y\"}", "true", "{}" },
        { GET_BOOL, "{\"k\":\"true\"}", "true", "{}" },
        { GET_BOOL, "{\"k\":\"off\"}", "false", "{}" },
        { GET_BOOL, "{\"k\":\"n\"}", "false", "{}" },
        { GET_BOOL, "{\"k\":\"ON\"}", "!Parameter 'k' expects 'on' or 'off'" },
        { GET_BOOL, "{\"k\":1}", "!Parameter 'k' expects 'on' or 'off'" },
        { GET_SIZE, "{\"k\":4096}", "4096", "{}" },
        { GET_SIZE, "{\"k\":\"4k\"}", "4096", "{}" },
        { GET_SIZE, "{}", "77", "{}" },
        { GET_SIZE, "{\"k\":-5}",
          "!Parameter 'k' expects a non-negative number below 2^64" },
        { GET_SIZE, "{\"k\":1.5}",
          "!Parameter 'k' expects a non-negative number below 2^64" },
        { GET_SIZE, "{\"k\":true}",
          "!Parameter 'k' expects a non-negative number below 2^64" },
        { GET_ENUM, "{\"k\":\"one\"}", "1", "{}" },
        { GET_ENUM, "{\"k\":\"two\"}", "!Parameter 'k' does not accept value 'two'" },
        { GET_ENUM, "{\"k\":1}", "!Invalid parameter type for 'k', expected: string" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(json_t) obj = load(cases[i].before);
        g_autofree char *result = NULL;
        Error *err = NULL;
        bool ok = get(cases[i].getter, obj, "k", &result, &err);

        g_assert_cmpint(ok, ==, !err);
        check_outcome(cases[i].before, cases[i].expected, result, err);
        if (cases[i].after) {
            g_autofree char *after = line(obj);
            g_assert_cmpstr(after, ==, cases[i].after);
        }
    }
}

static void test_dotted_getter(void)
{
    g_autoptr(json_t) obj = load("{\"cache\":{\"direct\":true,\"x\":1},\"a.b\":\"on\","
                                 "\"c\":{\"d\":{\"e\":false}},\"s\":1}");
    bool val = false;
    g_autofree char *after = NULL;

    g_assert_true(bdrv_opt_bool(obj, "cache.direct", &val, &error_abort));
    g_assert_true(val);
    val = false;
    g_assert_true(bdrv_opt_bool(obj, "a.b", &val, &error_abort));
    g_assert_true(val);
    g_assert_true(bdrv_opt_bool(obj, "c.d.e", &val, &error_abort));
    g_assert_false(val);
    val = true;
    g_assert_true(bdrv_opt_bool(obj, "s.t", &val, &error_abort));
    g_assert_true(bdrv_opt_bool(obj, "no.such", &val, &error_abort));
    g_assert_true(val);
    after = line(obj);
    g_assert_cmpstr(after, ==, "{\"cache\":{\"x\":1},\"s\":1}");
}

/* Values that are not UTF-8 (file names) keep their bytes. */
static void test_bytes(void)
{
    QDict *dict = qdict_new();
    char *val = NULL;

    qdict_put_str(dict, "filename", "caf\xe9.img");
    qdict_put_int(dict, "n", INT64_MIN);
    qdict_put_bool(dict, "b", true);
    g_assert_cmpstr(qdict_get_try_str(dict, "filename"), ==, "caf\xe9.img");
    g_assert_null(qdict_get_try_str(dict, "n"));
    g_assert_null(qdict_get_try_str(dict, "none"));
    g_assert_true(qdict_haskey(dict, "b"));
    qdict_del(dict, "b");
    qdict_del(dict, "b");
    g_assert_false(qdict_haskey(dict, "b"));
    g_assert_true(bdrv_opt_str(dict, "filename", &val, &error_abort));
    g_assert_cmpstr(val, ==, "caf\xe9.img");
    g_assert_cmpint(json_integer_value(json_object_get(dict, "n")), ==, INT64_MIN);
    g_free(val);
    qobject_unref(dict);
}

/* ---- nesting ---------------------------------------------------------------------- */

static void test_nest(void)
{
#define MIX "!Cannot mix scalar and non-scalar keys"
#define LIST_MIX "!Cannot mix list and non-list keys"
    static const char *const cases[][2] = {
        { "{}", "{}" },
        { "{\"a\":1,\"b\":{\"c\":2}}", "{\"a\":1,\"b\":{\"c\":2}}" },
        { "{\"file.driver\":\"x\",\"file.a.b\":1}",
          "{\"file\":{\"a\":{\"b\":1},\"driver\":\"x\"}}" },
        { "{\"file\":{\"driver\":\"x\"},\"file.size\":1}",
          "{\"file\":{\"driver\":\"x\",\"size\":1}}" },
        { "{\"a\":{\"b.c\":1}}", "{\"a\":{\"b\":{\"c\":1}}}" },
        { "{\"c.0\":1,\"c.1\":2,\"c.2\":3}", "{\"c\":[1,2,3]}" },
        { "{\"c.1.x\":2,\"c.0.x\":1}", "{\"c\":[{\"x\":1},{\"x\":2}]}" },
        { "{\"c\":{\"0\":\"z\"}}", "{\"c\":[\"z\"]}" },
        { "{\"c\":[{\"a.b\":1}]}", "{\"c\":[{\"a\":{\"b\":1}}]}" },
        { "{\"c\":{}}", "{\"c\":{}}" },
        { "{\"a\":1,\"a.b\":2}", MIX },
        { "{\"a.b\":1,\"a.b.c\":2}", MIX },
        { "{\"a.b.c\":1,\"a.b\":2}", MIX },
        { "{\"a\":[1],\"a.1\":2}", MIX },
        { "{\"a.b\":1,\"a\":{\"b\":2}}", MIX },
        { "{\"c.0\":1,\"c.x\":2}", LIST_MIX },
        { "{\"c.0\":1,\"c.2\":2}", LIST_MIX },
        { "{\"c.1\":1}", LIST_MIX },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(json_t) obj = load(cases[i][0]);
        Error *err = NULL;
        bool ok = bdrv_options_nest(obj, &err);
        g_autofree char *result = line(obj);

        g_assert_cmpint(ok, ==, !err);
        check_outcome(cases[i][0], cases[i][1], result, err);
    }
}

static void test_nest_too_deep(void)
{
    g_autoptr(GString) key = g_string_new("a");
    QDict *dict = qdict_new();
    Error *err = NULL;

    for (int i = 0; i < 100000; i++) {
        g_string_append(key, ".a");
    }
    qdict_put_int(dict, key->str, 1);
    g_assert_false(bdrv_options_nest(dict, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Option keys are nested too deeply");
    error_free(err);
    qobject_unref(dict);
}

/* ---- key=value -------------------------------------------------------------------- */

static void test_keyval(void)
{
    static const char *const cases[][2] = {
        { "", "{}" },
        { "null-co", "{\"driver\":\"null-co\"}" },
        { "driver=null-co", "{\"driver\":\"null-co\"}" },
        { "raw,node-name=n0", "{\"driver\":\"raw\",\"node-name\":\"n0\"}" },
        { "raw,", "{\"driver\":\"raw\"}" },
        { "a=", "{\"a\":\"\"}" },
        { "a=b=c", "{\"a\":\"b=c\"}" },
        { "a=x,,y,b=,,", "{\"a\":\"x,y\",\"b\":\",\"}" },
        { "a=1,a=2", "{\"a\":\"2\"}" },
        { "raw,driver=qcow2", "{\"driver\":\"qcow2\"}" },
        { "file.driver=file,file.filename=/a b", "{\"file\":{\"driver\":\"file\","
          "\"filename\":\"/a b\"}}" },
        { "a.b.c=1,a.b.d=2", "{\"a\":{\"b\":{\"c\":\"1\",\"d\":\"2\"}}}" },
        { "c.0=x,c.1=y", "{\"c\":[\"x\",\"y\"]}" },
        { "c.1.m=y,c.0.m=x", "{\"c\":[{\"m\":\"x\"},{\"m\":\"y\"}]}" },
        { "a_b=1,c-d=2", "{\"a_b\":\"1\",\"c-d\":\"2\"}" },
        { "raw,node-name", "!Expected '=' after parameter 'node-name'" },
        { "a=1,b,c=2", "!Expected '=' after parameter 'b'" },
        { "a.b=c,a=d", "!Parameters 'a.*' used inconsistently" },
        { "a=d,a.b=c", "!Parameters 'a.*' used inconsistently" },
        { "x.a=d,x.a.b=c", "!Parameters 'x.a.*' used inconsistently" },
        { "a..b=c", "!Invalid parameter 'a..b'" },
        { "a.=c", "!Invalid parameter 'a.'" },
        { "=c", "!Invalid parameter ''" },
        { "raw,,a=1", "!Invalid parameter ''" },
        { ",a=1", "!Invalid parameter ''" },
        { "1a=3", "!Invalid parameter '1a'" },
        { "a.1b=3", "!Invalid parameter 'a.1b'" },
        { "a.01=3", "!Invalid parameter 'a.01'" },
        { "0=3", "!Invalid parameter '0'" },
        { "a b=3", "!Invalid parameter 'a b'" },
        { "rules.0.m=a,rules.2.m=b", "!Parameter 'rules.1' missing" },
        { "rules.0=a,rules.x=b", "!Parameters 'rules.*' used inconsistently" },
        { "x.rules.1=a", "!Parameter 'x.rules.0' missing" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Error *err = NULL;
        g_autoptr(json_t) obj = keyval_parse(cases[i][0], "driver", &err);
        g_autofree char *result = obj ? line(obj) : NULL;

        g_assert_cmpint(!obj, ==, !!err);
        check_outcome(cases[i][0], cases[i][1], result, err);
    }
}

static void test_keyval_no_implied_key(void)
{
    Error *err = NULL;

    g_assert_null(keyval_parse("foo", NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Expected '=' after parameter 'foo'");
    error_free(err);
}

static void test_keyval_limits(void)
{
    g_autofree char *ok = g_strnfill(127, 'a');
    g_autofree char *ok_param = g_strdup_printf("%s=1", ok);
    g_autofree char *long_param = g_strdup_printf("b%s=1", ok);
    g_autofree char *expected = g_strdup_printf("Parameter 'b%s' is too long", ok);
    g_autoptr(GString) deep = g_string_new("a");
    Error *err = NULL;

    json_decref(keyval_parse(ok_param, NULL, &error_abort));
    g_assert_null(keyval_parse(long_param, NULL, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, expected);
    error_free(err);

    err = NULL;
    for (int i = 0; i < 50000; i++) {
        g_string_append(deep, ".a");
    }
    g_string_append(deep, "=1");
    g_assert_null(keyval_parse(deep->str, NULL, &err));
    error_free(err);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/size", test_size);
    g_test_add_func("/options/getters", test_getters);
    g_test_add_func("/options/dotted-getter", test_dotted_getter);
    g_test_add_func("/options/bytes", test_bytes);
    g_test_add_func("/options/nest", test_nest);
    g_test_add_func("/options/nest-too-deep", test_nest_too_deep);
    g_test_add_func("/options/keyval", test_keyval);
    g_test_add_func("/options/keyval-no-implied-key", test_keyval_no_implied_key);
    g_test_add_func("/options/keyval-limits", test_keyval_limits);
    return g_test_run();
}
