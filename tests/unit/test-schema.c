/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checking and converting arguments: the peer's words for every kind of mistake. */
#include "miniblk/osdep.h"
#include "miniblk/block.h"
#include "miniblk/main-loop.h"
#include "qmp/json.h"
#include "qmp/schema.h"

typedef struct Case {
    const char *type, *input, *expected;
} Case;

static const Case typed_cases[] = {
    { "{a:str, b?:int}", "{'b':1,'a':'x'}", "{\"a\": \"x\", \"b\": 1}" },
    { "{a:str, b?:int}", "{'a':'x'}", "{\"a\": \"x\"}" },
    { "{a:str, b?:int}", "{'b':1}", "!Parameter 'a' is missing" },
    { "{a:str, b?:int}", "{'a':1}", "!Invalid parameter type for 'a', expected: string" },
    { "{a:str, b?:int}", "{'a':'','b':'1'}",
      "!Invalid parameter type for 'b', expected: integer" },
    { "{a:str, b?:int}", "{'a':'','b':1.5}",
      "!Invalid parameter type for 'b', expected: integer" },
    { "{a:str, b?:int}", "{'a':'','b':18446744073709551615}",
      "!Invalid parameter type for 'b', expected: integer" },
    { "{a:str, b?:int}", "{'a':'','b':null}",
      "!Invalid parameter type for 'b', expected: integer" },
    { "{a:str, b?:int}", "{'a':'','c':1}", "!Parameter 'c' is unexpected" },
    { "{a:str}", "{'x':1}", "!Parameter 'a' is missing" },
    { "{}", "{}", "{}" },
    { "{}", "{'x':1}", "!Parameter 'x' is unexpected" },
    { "{}", "[]", "!Invalid parameter type for 'arguments', expected: object" },
    { "{a:bool}", "{'a':true}", "{\"a\": true}" },
    { "{a:bool}", "{'a':'on'}", "!Invalid parameter type for 'a', expected: boolean" },
    { "{a:uint}", "{'a':-1}", "!Parameter 'a' expects a non-negative number" },
    { "{a:uint32}", "{'a':4294967295}", "{\"a\": 4294967295}" },
    { "{a:uint32}", "{'a':4294967296}", "!Parameter 'a' expects uint32_t" },
    { "{a:int}", "{'a':-9223372036854775808}", "{\"a\": -9223372036854775808}" },
    { "{a:{x|y}}", "{'a':'y'}", "{\"a\": \"y\"}" },
    { "{a:{x|y}}", "{'a':'z'}", "!Parameter 'a' does not accept value 'z'" },
    { "{a:{x|y}}", "{'a':1}", "!Invalid parameter type for 'a', expected: string" },
    { "{o:{a:{x|y}}}", "{'o':{'a':'z'}}", "!Parameter 'a' does not accept value 'z'" },
    { "{o:{a:str, b:{c:int}}}", "{'o':{'a':''}}", "!Parameter 'o.b' is missing" },
    { "{o:{a:str, b:{c:int}}}", "{'o':{'a':'','b':{'c':''}}}",
      "!Invalid parameter type for 'o.b.c', expected: integer" },
    { "{o:{a:str}}", "{'o':{'a':'','z':1}}", "!Parameter 'o.z' is unexpected" },
    { "{o:{a:str}}", "{'o':5}", "!Invalid parameter type for 'o', expected: object" },
    { "{l:[int]}", "{'l':[1,2]}", "{\"l\": [1, 2]}" },
    { "{l:[int]}", "{'l':[]}", "{\"l\": []}" },
    { "{l:[int]}", "{'l':{}}", "!Invalid parameter type for 'l', expected: array" },
    { "{l:[int]}", "{'l':[1,'2']}", "!Invalid parameter type for 'l[1]', expected: integer" },
    { "{l:[{a:str}]}", "{'l':[{'a':''},{}]}", "!Parameter 'l[1].a' is missing" },
    { "{l:[{x|y}]}", "{'l':['z']}", "!Parameter 'l[0]' does not accept value 'z'" },
    { "{i:StrOrNull}", "{'i':null}", "{\"i\": null}" },
    { "{i:StrOrNull}", "{'i':'x'}", "{\"i\": \"x\"}" },
    { "{i:StrOrNull}", "{'i':5}", "!Invalid parameter type for 'i', expected: StrOrNull" },
    { "{i:any}", "{'i':[1,{'x':null}]}", "{\"i\": [1, {\"x\": null}]}" },
    /* ---- unions ---- */
    { "ObjectOptions", "{'qom-type':'iothread','id':'a','poll-max-ns':5}",
      "{\"qom-type\": \"iothread\", \"id\": \"a\", \"poll-max-ns\": 5}" },
    { "ObjectOptions", "{'qom-type':'iothread','id':'a','bogus':1}",
      "!Parameter 'bogus' is unexpected" },
    { "ObjectOptions", "{'qom-type':'nosuch','id':'a'}",
      "!Parameter 'qom-type' does not accept value 'nosuch'" },
    { "ObjectOptions", "{'id':'a'}", "!Parameter 'qom-type' is missing" },
    { "SocketAddress", "{'type':'unix','path':'/x'}",
      "{\"type\": \"unix\", \"path\": \"/x\"}" },
    { "SocketAddress", "{'type':'unix','host':'/x'}", "!Parameter 'path' is missing" },
    { "SocketAddress", "{'type':'inet','host':'','port':5}",
      "!Invalid parameter type for 'port', expected: string" },
    /* ---- nodes ---- */
    { "BlockdevOptions", "{'driver':'raw','file':'f','node-name':'n'}",
      "{\"driver\": \"raw\", \"node-name\": \"n\", \"file\": \"f\"}" },
    { "BlockdevOptions", "{'driver':'foo'}",
      "!Parameter 'driver' does not accept value 'foo'" },
    { "BlockdevOptions", "{'driver':'raw'}", "!Parameter 'file' is missing" },
    { "BlockdevOptions", "{'driver':'raw','file':5}",
      "!Invalid parameter type for 'file', expected: BlockdevRef" },
    { "BlockdevOptions", "{'driver':'raw','file':{'driver':'file'}}",
      "!Parameter 'file.filename' is missing" },
    { "BlockdevOptions", "{'driver':'raw','file':{'driver':'foo'}}",
      "!Parameter 'driver' does not accept value 'foo'" },
    { "BlockdevOptions", "{'driver':'qcow2','file':'f','backing':null}",
      "{\"driver\": \"qcow2\", \"file\": \"f\", \"backing\": null}" },
    { "BlockdevOptions", "{'driver':'qcow2','file':'f','backing':1}",
      "!Invalid parameter type for 'backing', expected: BlockdevRefOrNull" },
    { "BlockdevOptions", "{'driver':'null-co','cache':{'direct':'yes'}}",
      "!Invalid parameter type for 'cache.direct', expected: boolean" },
    { "BlockdevOptions", "{'driver':'null-co','size':'12'}",
      "!Invalid parameter type for 'size', expected: integer" },
    { "BlockdevOptions", "{'driver':'null-co','filename':'x'}",
      "!Parameter 'filename' is unexpected" },
};

static const Case keyval_cases[] = {
    { "ObjectOptions", "qom-type=iothread,id=x,poll-max-ns=16",
      "{\"qom-type\": \"iothread\", \"id\": \"x\", \"poll-max-ns\": 16}" },
    { "{n:int}", "n=0x10", "{\"n\": 16}" },
    { "{n:int}", "n=-1", "{\"n\": -1}" },
    { "{n:int}", "n=abc", "!Parameter 'n' expects integer" },
    { "{n:int}", "n=", "!Parameter 'n' expects integer" },
    { "{n:int}", "n= 1", "!Parameter 'n' expects integer" },
    { "{n:int}", "n=1M", "!Parameter 'n' expects integer" },
    { "{n:int}", "n=99999999999999999999", "!Parameter 'n' expects integer" },
    { "{n:int}", "n.a=1", "!Parameters 'n.*' are unexpected" },
    { "{n:size}", "n=1M", "{\"n\": 1048576}" },
    { "{n:size}", "n=-1", "!Parameter 'n' expects a non-negative number below 2^64" },
    { "{b:bool}", "b=on", "{\"b\": true}" },
    { "{b:bool}", "b=no", "{\"b\": false}" },
    { "{b:bool}", "b=maybe", "!Parameter 'b' expects 'on' or 'off'" },
    { "{o:{n?:int}}", "o=a", "!Invalid parameter type for 'o', expected: object" },
    { "{o:{n?:int}}", "o.n=a", "!Parameter 'o.n' expects integer" },
    { "{o:{n?:int}}", "o.foo=1", "!Parameter 'o.foo' is unexpected" },
    { "{l:[{m:str}]}", "l.0=a", "!Invalid parameter type for 'l.0', expected: object" },
    { "{l:[{m:str}]}", "l.a=a", "!Invalid parameter type for 'l', expected: array" },
    { "{l:[{m:str}]}", "l.0.m=a", "{\"l\": [{\"m\": \"a\"}]}" },
    { "{s:str}", "t=1", "!Parameter 's' is missing" },
    { "BlockdevOptions", "driver=raw,file.driver=file,file.filename=/x,read-only=on",
      "{\"driver\": \"raw\", \"read-only\": true, \"file\": {\"driver\": \"file\", "
      "\"filename\": \"/x\"}}" },
    { "BlockdevOptions", "driver=raw,file=other",
      "{\"driver\": \"raw\", \"file\": \"other\"}" },
    { "BlockdevOptions", "driver=null-co,size=1M", "!Parameter 'size' expects integer" },
    { "BlockdevOptions", "driver=foo", "!Parameter 'driver' does not accept value 'foo'" },
};

static void check(const Case *c, json_t *input, SchemaInput kind)
{
    Error *err = NULL;
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *value = schema_convert(schema_type(c->type), input, "", kind, &err);

    if (value) {
        g_assert_null(err);
        json_write(out, value, false, 0);
        json_decref(value);
    } else {
        g_assert_nonnull(err);
        g_string_append_printf(out, "!%s", error_get_pretty(err));
        error_free(err);
    }
    if (strcmp(out->str, c->expected)) {
        g_error("'%s' as %s:\nexpected: %s\ngot:      %s", c->input, c->type, c->expected,
                out->str);
    }
}

static void test_typed(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(typed_cases); i++) {
        json_t *input = json_parse_text(typed_cases[i].input, &error_abort);

        check(&typed_cases[i], input, SCHEMA_TYPED);
        json_decref(input);
    }
}

static void test_keyval(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(keyval_cases); i++) {
        json_t *input = keyval_parse(keyval_cases[i].input, NULL, &error_abort);

        check(&keyval_cases[i], input, SCHEMA_KEYVAL);
        json_decref(input);
    }
}

/* A value inside others is named from the outside. */
static void test_path(void)
{
    json_t *input = json_parse_text("{'type':'unix'}", &error_abort);
    Error *err = NULL;

    g_assert_null(schema_convert(schema_type("SocketAddress"), input, "addr.data",
                                 SCHEMA_TYPED, &err));
    g_assert_cmpstr(error_get_pretty(err), ==, "Parameter 'addr.data.path' is missing");
    error_free(err);
    json_decref(input);
}

/* Nesting as deep as the parser lets through is checked without harm. */
static void test_deep(void)
{
    g_autoptr(GString) text = g_string_new(NULL);
    json_t *input, *value;

    for (int i = 0; i < JSON_NESTING_MAX - 1; i++) {
        g_string_append(text, "{'driver':'raw','file':");
    }
    g_string_append(text, "'x'");
    for (int i = 0; i < JSON_NESTING_MAX - 1; i++) {
        g_string_append_c(text, '}');
    }
    input = json_parse_text(text->str, &error_abort);
    value = schema_convert(schema_type("BlockdevOptions"), input, "", SCHEMA_TYPED,
                           &error_abort);
    g_assert_nonnull(value);
    json_decref(value);
    json_decref(input);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qemu_init_main_loop(&error_abort);
    bdrv_init();
    g_test_add_func("/schema/typed", test_typed);
    g_test_add_func("/schema/keyval", test_keyval);
    g_test_add_func("/schema/path", test_path);
    g_test_add_func("/schema/deep", test_deep);
    return g_test_run();
}
