/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Named types, in the notation of schema.h. Names and members are the peer's. */
#include "miniblk/osdep.h"
#include "qmp/schema.h"

const char *const schema_type_lines[] = {
    "StrOrNull = (str / null)",
    "OnOffUnmap = {off|on|unmap}",

    /* ---- nodes ---- */
    "BlockdevRef = (str / BlockdevOptions)",
    "BlockdevRefOrNull = (str / BlockdevOptions / null)",
    "BlockdevCacheOptions = {direct?:bool, no-flush?:bool}",
    "BlockdevOptions = {driver:driver, node-name?:str, discard?:{ignore|unmap},"
    "  cache?:BlockdevCacheOptions, read-only?:bool, auto-read-only?:bool,"
    "  force-share?:bool, detect-zeroes?:OnOffUnmap <driver>}",
    "BlockdevOptionsFile = {filename:str, locking?:{auto|on|off},"
    "  aio?:{threads|native|io_uring}, aio-max-batch?:int, drop-cache?:bool}",
    "BlockdevOptions.file = BlockdevOptionsFile",
    "BlockdevOptions.host_device = BlockdevOptionsFile",
    "BlockdevOptionsNull = {size?:int, latency-ns?:uint, read-zeroes?:bool}",
    "BlockdevOptions.null-co = BlockdevOptionsNull",
    "BlockdevOptions.null-aio = BlockdevOptionsNull",
    "BlockdevOptions.raw = {file:BlockdevRef, offset?:int, size?:int}",
    "Qcow2OverlapChecks = ({template?:{none|constant|cached|all}, main-header?:bool,"
    "  active-l1?:bool, active-l2?:bool, refcount-table?:bool, refcount-block?:bool,"
    "  snapshot-table?:bool, inactive-l1?:bool, inactive-l2?:bool,"
    "  bitmap-directory?:bool} / {none|constant|cached|all})",
    "BlockdevOptions.qcow2 = {file:BlockdevRef, backing?:BlockdevRefOrNull,"
    "  lazy-refcounts?:bool, pass-discard-request?:bool, pass-discard-snapshot?:bool,"
    "  pass-discard-other?:bool, discard-no-unref?:bool, overlap-check?:Qcow2OverlapChecks,"
    "  cache-size?:int, l2-cache-size?:int, l2-cache-entry-size?:int,"
    "  refcount-cache-size?:int, cache-clean-interval?:int, data-file?:BlockdevRef}",

    /* ---- exports ---- */
    "BlockExportOptions = {type:{nbd}, id:str, fixed-iothread?:bool, iothread?:str,"
    "  node-name:str, writable?:bool, writethrough?:bool <type>}",
    "BlockExportOptions.nbd = {name?:str, description?:str, allocation-depth?:bool}",
    "SocketAddress = {type:{inet|unix} <type>}",
    "SocketAddress.inet = {host:str, port:str}",
    "SocketAddress.unix = {path:str}",
    /* The address is checked by the command: it has two forms. */
    "NbdServerOptions = {addr:any, max-connections?:uint32, handshake-max-seconds?:uint32}",

    /* ---- objects ---- */
    "ObjectOptions = {qom-type:{iothread}, id:str <qom-type>}",
    "ObjectOptions.iothread = {aio-max-batch?:int, thread-pool-min?:int,"
    "  thread-pool-max?:int, poll-max-ns?:int, poll-grow?:int, poll-shrink?:int,"
    "  cpu-affinity?:CpuList}",
    /* numbers, or a text like 0-3,8 */
    "CpuList = ([int] / str)",

    NULL
};
