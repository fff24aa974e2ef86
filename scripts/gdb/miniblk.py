# SPDX-License-Identifier: LGPL-2.1-or-later
"""gdb commands for programs that use miniblk. In gdb:

    source scripts/gdb/miniblk.py
    miniblk coroutines          list every coroutine that is not finished
    miniblk bt [CO]             backtrace of one, or of all of them

CO is any expression for a Coroutine *. Works on a live process and on a core file, for the
assembler switch on x86-64 and AArch64 and for the ucontext one on x86-64. The program must
have debug information.
"""

import re

import gdb
import gdb.unwinder

# What the switch leaves on a suspended stack: which word holds which register, and how many
# words it takes off. See aio/coroutine-asm-*.S.
ASM_STACKS = {
    "x86-64": ({"r15": 0, "r14": 1, "r13": 2, "r12": 3, "rbx": 4, "rbp": 5, "rip": 6}, 7),
    "aarch64": ({**{"x%d" % (19 + i): i for i in range(11)}, "pc": 11}, 20),
}
STACK_POINTER = {"x86-64": "rsp", "aarch64": "sp"}
# uc_mcontext.gregs on x86-64, by the REG_* numbers of <sys/ucontext.h>
UCONTEXT_GREGS = {"r12": 4, "r13": 5, "r14": 6, "r15": 7, "rbp": 10, "rbx": 11,
                  "rsp": 15, "rip": 16}


def machine():
    name = gdb.selected_inferior().architecture().name()
    name = "x86-64" if name.startswith("i386:x86-64") else name
    if name not in ASM_STACKS:
        raise gdb.GdbError("no backtraces of coroutines on %s" % name)
    return name


def evaluate(expression):
    """The value of EXPRESSION, or None when it has none here."""
    try:
        return gdb.parse_and_eval(expression)
    except gdb.error:
        return None


def word():
    return gdb.lookup_type("unsigned long")


def saved_registers(co):
    """The registers with which suspended CO will go on, by name."""
    if evaluate("&coroutine__start") is None:
        if machine() != "x86-64":
            raise gdb.GdbError("no backtraces of ucontext coroutines on this machine")
        uc = co["sp"].cast(gdb.lookup_type("ucontext_t").pointer())
        return {name: int(uc["uc_mcontext"]["gregs"][i]) for name, i in UCONTEXT_GREGS.items()}
    registers, n_words = ASM_STACKS[machine()]
    sp = co["sp"].cast(word().pointer())
    saved = {name: int(sp[i]) for name, i in registers.items()}
    saved[STACK_POINTER[machine()]] = int(co["sp"]) + n_words * word().sizeof
    return saved


def is_started(co):
    """Whether CO, suspended, has run before on this stack."""
    start = evaluate("&coroutine__start")
    if start is None:
        return co["sp"] != co["stack"]
    registers, _ = ASM_STACKS[machine()]
    pc = co["sp"].cast(word().pointer())[registers.get("rip", registers.get("pc"))]
    return int(pc) != int(start)


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


def line_with(lines, text, default):
    return next((i for i, line in enumerate(lines) if text in line), default)


class Unwinder(gdb.unwinder.Unwinder):
    """While SAVED is set, makes gdb believe that the thread's innermost function was called
    with these registers: so gdb shows a coroutine without anything being changed in the
    program."""

    def __init__(self):
        super().__init__("miniblk")
        self.saved = None

    def __call__(self, frame):
        if self.saved is None:
            return None
        sp, pc = frame.read_register(STACK_POINTER[machine()]), frame.read_register("pc")
        if (int(sp), int(pc)) != self.innermost:
            return None
        info = frame.create_unwind_info(FrameId(sp, pc))
        for name, value in self.saved.items():
            info.add_saved_register(name, gdb.Value(value).cast(word()))
        return info

    def backtrace(self, co):
        frame = gdb.newest_frame()
        self.innermost = (int(frame.read_register(STACK_POINTER[machine()])), frame.pc())
        # The frames before the coroutine's first: one, and those inlined in it.
        n_borrowed = 1
        while frame.type() == gdb.INLINE_FRAME:
            frame = frame.older()
            n_borrowed += 1
        self.saved = saved_registers(co)
        gdb.invalidate_cached_frames()
        try:
            lines = gdb.execute("bt", to_string=True).splitlines()
        finally:
            self.saved = None
            gdb.invalidate_cached_frames()
        first = line_with(lines, "#%-2d " % n_borrowed, 0)
        last = line_with(lines, " coroutine__main ", len(lines) - 1)
        return [re.sub("^#([0-9]+) *", lambda n: "#%-2d " % (int(n[1]) - n_borrowed), line)
                for line in lines[first:last + 1]]


unwinder = Unwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def running():
    """Coroutines that run just now: {address: the thread}."""
    result = {}
    before = gdb.selected_thread()
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        current = evaluate("coroutine_thread.current")
        if current:
            result[int(current)] = thread
    if before:
        before.switch()
    return result


def coroutines():
    """All that are not in the pool, the oldest first."""
    first = evaluate("coroutine__all")
    if first is None:
        raise gdb.GdbError("this program has no miniblk coroutines, or no debug information")
    finished = int(gdb.parse_and_eval("&coroutine__finished[0]"))
    result = []
    co = first
    while co:
        if co["entry"] and int(co["scheduled"]) != finished:
            result.append(co)
        co = co["next_mapped"]
    return result[::-1]


def state(co, threads):
    if int(co) in threads:
        return "running in thread %d" % threads[int(co)].num
    if co["caller"]:
        return "has entered another"
    if co["scheduled"]:
        return "scheduled in %s" % co["scheduled"].string()
    return "suspended"


def describe(co, threads):
    text = "Coroutine %#x, %s" % (int(co), state(co, threads))
    if co["ctx"]:
        text += ", context %#x" % int(co["ctx"])
    if co["locks_held"]:
        n = int(co["locks_held"])
        text += ", holds %d lock%s" % (n, "" if n == 1 else "s")
    entry = co["entry"].format_string(symbols=True, address=False)
    return "%s, entry %s(%#x)" % (text, entry.strip("<>"), int(co["opaque"]))


def print_backtrace(co, threads):
    if int(co) in threads:
        before = gdb.selected_thread()
        threads[int(co)].switch()
        lines = gdb.execute("bt", to_string=True).splitlines()
        before.switch()
    elif not is_started(co):
        lines = ["(not started)"]
    else:
        lines = unwinder.backtrace(co)
    for line in lines:
        print("    " + line)


class MiniblkCommand(gdb.Command):
    """Look at the inside of miniblk."""

    def __init__(self):
        super().__init__("miniblk", gdb.COMMAND_DATA, prefix=True)


class CoroutinesCommand(gdb.Command):
    """List every coroutine that is not finished.
The context is the event loop that it last ran in."""

    def __init__(self):
        super().__init__("miniblk coroutines", gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        threads = running()
        for co in coroutines():
            print(describe(co, threads))


class BtCommand(gdb.Command):
    """Backtrace of a coroutine: miniblk bt [CO]
Without CO, of every coroutine that is not finished."""

    def __init__(self):
        super().__init__("miniblk bt", gdb.COMMAND_STACK, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument, from_tty):
        threads = running()
        if argument:
            co = gdb.parse_and_eval(argument)
            chosen = [co.cast(gdb.lookup_type("struct Coroutine").pointer())]
        else:
            chosen = coroutines()
        for co in chosen:
            print(describe(co, threads))
            print_backtrace(co, threads)


MiniblkCommand()
CoroutinesCommand()
BtCommand()
