"""CPython's arenas on HugeSpan: memory for small objects on transparent hugepages, given back when it is free.

    python3 -m hugespan script.py ARGUMENTS...      # an unchanged program
    python3 -m hugespan --help

or in a program, as early as possible:

    import hugespan
    hugespan.install(policy="rent-or-buy", memory_price=400)
    print(hugespan.statistics()["arenas"]["used_bytes"])

CPython takes memory for objects of at most 512 bytes in arenas (256 KiB each before 3.10, then 1 MiB) and gives an arena back
when nothing in it is in use. Both functions for that can be replaced while it runs; here plain C functions of libhugespan
take their place, so no Python code runs inside the allocator. Larger objects come from malloc, and stay there: `hugespan
run --frontend jemalloc` puts those on the heap.

Arenas that were there before the installation are told by their address and go back where they came from. The heap is
never destroyed, since the interpreter frees arenas to its very end.
"""

import ctypes
import os
import sys

from . import _library, _report
from ._library import HugeSpanError, SettingsError

__all__ = ["HugeSpanError", "SettingsError", "install", "is_installed", "release_now", "residency", "statistics"]


class _Heap:
    """The heap under this process' arenas."""

    def __init__(self, library, handle, scavenger):
        self.library = library
        self.handle = handle
        self.scavenger = scavenger

    def start_scavenger(self):
        if self.scavenger and not self.library.start_scavenger(self.handle, self.scavenger == "bare"):
            sys.stderr.write(
                "hugespan: no thread can be started, so no memory is released while the program idles\n"
            )

    def stop_scavenger(self):
        if self.scavenger:
            self.library.stop_scavenger(self.handle)


_heap = None


def _check_interpreter():
    if sys.implementation.name != "cpython":
        raise HugeSpanError("this is %s, and only CPython takes arenas from outside" % sys.implementation.name)
    if sys.version_info < (3, 8):
        raise HugeSpanError("Python 3.8 or later is needed, and this is %d.%d" % sys.version_info[:2])
    if "t" in sys.abiflags:
        raise HugeSpanError("a free-threaded interpreter takes no arenas from outside; use one with the lock")
    # Of blocks that malloc was asked for the interpreter does not know.
    if sys.getallocatedblocks() == 0:
        raise HugeSpanError(
            "this interpreter takes all its memory from malloc (PYTHONMALLOC, or how it was built), so it has no"
            " arenas; 'hugespan run --frontend jemalloc' puts malloc on the heap"
        )


def _setting(key, value):
    if isinstance(value, bool):
        value = "on" if value else "off"
    return "%s:%s" % (key.replace("_", "-"), value)


def install(conf=None, **settings):
    """Takes this process' arenas from a HugeSpan heap from now on.

    Settings are those of HUGESPAN_CONF: first what that environment variable says, then the text `conf`, then
    keywords, with underscores for hyphens and True and False for on and off: install(policy="immediate",
    soft_limit="2GiB", scavenger=False). Installing again does nothing.

    Raises SettingsError for a setting that is not understood, HugeSpanError if there can be no heap here.
    """
    texts = [("HUGESPAN_CONF", os.environ.get("HUGESPAN_CONF", ""))]
    texts += [("install", conf or "")]
    texts += [("install", _setting(key, value)) for key, value in settings.items()]
    _install(texts)


def _install(texts, reports_itself=True):
    global _heap
    if _heap is not None:
        return
    _check_interpreter()
    library = _library.Library()
    handle, scavenger, statistics_path = library.create([pair for pair in texts if pair[1]])
    previous = _library.Functions()
    ctypes.pythonapi.PyObject_GetArenaAllocator(ctypes.byref(previous))
    functions = library.arena_functions(handle, previous)
    ctypes.pythonapi.PyObject_SetArenaAllocator(ctypes.byref(functions))
    _heap = _Heap(library, handle, scavenger)
    _heap.start_scavenger()
    _handle_forks(_heap)
    if statistics_path is not None:
        _report.write_at_exit(_heap, statistics_path, reports_itself)


def _handle_forks(heap):
    """The library's own handlers keep the heap usable in a child; the scavenger is a thread, and those stay behind."""
    if sys.version_info >= (3, 12):
        # From here on the interpreter warns whoever forks a process that has a second thread. So there is none.
        os.register_at_fork(
            before=heap.stop_scavenger, after_in_parent=heap.start_scavenger, after_in_child=heap.start_scavenger
        )
    else:
        os.register_at_fork(after_in_child=heap.start_scavenger)


def is_installed():
    """Whether this process' arenas are on a heap."""
    return _heap is not None


def _installed():
    if _heap is None:
        raise HugeSpanError("hugespan.install() has not been called")
    return _heap


def statistics():
    """What the heap counts: the fields of hs_statistics, and those of hs_arena_statistics under "arenas"."""
    heap = _installed()
    result = heap.library.statistics(heap.handle)
    result["arenas"] = heap.library.arena_statistics(heap.handle)
    return result


def residency():
    """What the kernel really has under the heap: the fields of hs_residency, or None if it does not tell."""
    heap = _installed()
    return heap.library.residency(heap.handle)


def release_now(count=None):
    """Gives free memory back to the kernel until `count` bytes are uncharged, all of it by default; returns how many are."""
    heap = _installed()
    return heap.library.release_now(heap.handle, 2**62 if count is None else count)
