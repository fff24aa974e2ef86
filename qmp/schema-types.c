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

    /* ---- filters ---- */
    "BlockPermissions = [{consistent-read|write|write-unchanged|resize}]",
    "BlkdebugEvent = {l1_update|l1_grow_alloc_table|l1_grow_write_table|"
    "  l1_grow_activate_table|l2_load|l2_update|l2_update_compressed|l2_alloc_cow_read|"
    "  l2_alloc_write|read_aio|read_backing_aio|read_compressed|write_aio|write_compressed|"
    "  vmstate_load|vmstate_save|cow_read|cow_write|reftable_load|reftable_grow|"
    "  reftable_update|refblock_load|refblock_update|refblock_update_part|refblock_alloc|"
    "  refblock_alloc_hookup|refblock_alloc_write|refblock_alloc_write_blocks|"
    "  refblock_alloc_write_table|refblock_alloc_switch_table|cluster_alloc|"
    "  cluster_alloc_bytes|cluster_free|flush_to_os|flush_to_disk|pwritev_rmw_head|"
    "  pwritev_rmw_after_head|pwritev_rmw_tail|pwritev_rmw_after_tail|pwritev|pwritev_zero|"
    "  pwritev_done|empty_image_prepare|l1_shrink_write_table|l1_shrink_free_l2_clusters|"
    "  cor_write|cluster_alloc_space|none}",
    "BlockdevOptions.blkdebug = {image:BlockdevRef, config?:str, align?:int,"
    "  max-transfer?:int, opt-write-zero?:int, max-write-zero?:int, opt-discard?:int,"
    "  max-discard?:int, inject-error?:[{event:BlkdebugEvent, state?:int,"
    "  iotype?:{read|write|write-zeroes|discard|flush|block-status}, errno?:int,"
    "  sector?:int, once?:bool, immediately?:bool}],"
    "  set-state?:[{event:BlkdebugEvent, state?:int, new_state:int}],"
    "  take-child-perms?:BlockPermissions, unshare-child-perms?:BlockPermissions}",
    "BlockdevOptions.blklogwrites = {file:BlockdevRef, log:BlockdevRef,"
    "  log-sector-size?:int, log-append?:bool, log-super-update-interval?:uint}",
    "BlockdevOptions.blkverify = {test:BlockdevRef, raw:BlockdevRef}",
    "BlockdevOptions.compress = {file:BlockdevRef}",
    "BlockdevOptions.copy-on-read = {file:BlockdevRef, bottom?:str}",
    "BlockdevOptions.throttle = {throttle-group:str, file:BlockdevRef}",

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
    "ObjectOptions = {qom-type:{iothread|throttle-group}, id:str <qom-type>}",
    "ObjectOptions.iothread = {aio-max-batch?:int, thread-pool-min?:int,"
    "  thread-pool-max?:int, poll-max-ns?:int, poll-grow?:int, poll-shrink?:int,"
    "  cpu-affinity?:CpuList}",
    "ThrottleLimits = {"
    "  iops-total?:int, iops-total-max?:int, iops-total-max-length?:int,"
    "  iops-read?:int, iops-read-max?:int, iops-read-max-length?:int,"
    "  iops-write?:int, iops-write-max?:int, iops-write-max-length?:int,"
    "  bps-total?:int, bps-total-max?:int, bps-total-max-length?:int,"
    "  bps-read?:int, bps-read-max?:int, bps-read-max-length?:int,"
    "  bps-write?:int, bps-write-max?:int, bps-write-max-length?:int,"
    "  iops-size?:int}",
    "ObjectOptions.throttle-group = {limits?:ThrottleLimits,"
    "  x-iops-total?:int, x-iops-total-max?:int, x-iops-total-max-length?:int,"
    "  x-iops-read?:int, x-iops-read-max?:int, x-iops-read-max-length?:int,"
    "  x-iops-write?:int, x-iops-write-max?:int, x-iops-write-max-length?:int,"
    "  x-bps-total?:int, x-bps-total-max?:int, x-bps-total-max-length?:int,"
    "  x-bps-read?:int, x-bps-read-max?:int, x-bps-read-max-length?:int,"
    "  x-bps-write?:int, x-bps-write-max?:int, x-bps-write-max-length?:int,"
    "  x-iops-size?:int}",
    /* numbers, or a text like 0-3,8 */
    "CpuList = ([int] / str)",

    NULL
};
