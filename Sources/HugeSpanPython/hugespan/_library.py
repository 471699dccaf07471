"""The C library, through ctypes: where it is, and the part of hugespan.h that is used here.

Structures whose layout may grow are handed over as zeroed bytes that are larger than any version of them (the library
takes that as a newer caller's), so that only what is read here is declared here.
"""

import ctypes
import os

#: Must equal HS_VERSION_MAJOR and HS_VERSION_MINOR of hugespan.h.
VERSION = (0, 1)

#: Room for a structure of options, of this version or a later one.
_ROOM = 4096

_OK = 0


class HugeSpanError(Exception):
    """Why there is no heap. `status` is the exit status that belongs to it."""

    status = 69


class SettingsError(HugeSpanError, ValueError):
    """A setting that is not understood, or cannot be."""

    status = 64


class Functions(ctypes.Structure):
    """hs_arena_functions, and CPython's PyObjectArenaAllocator."""

    _fields_ = [("context", ctypes.c_void_p), ("allocate", ctypes.c_void_p), ("free", ctypes.c_void_p)]


class _ProcessOptions(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t),
        ("scavenger", ctypes.c_bool),
        ("statistics_path", ctypes.c_void_p),
        ("statistics_path_length", ctypes.c_size_t),
        ("page", ctypes.c_bool),
        ("bare", ctypes.c_bool),
    ]


class _OptionsError(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_size_t), ("length", ctypes.c_size_t), ("message", ctypes.c_char * 512)]


def _counters(name, words):
    fields = [("size", ctypes.c_size_t)] + [(word, ctypes.c_uint64) for word in words.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


#: hs_statistics, hs_residency and hs_arena_statistics, in the order of the header.
Statistics = _counters(
    "Statistics",
    """used_pages free_resident_pages lazy_pages released_pages phantom_pages donated_pages
    blocks full_blocks partial_intact_blocks partial_broken_blocks free_resident_blocks absent_blocks
    used_on_huge_pages used_on_split_pages used_on_unknown_pages
    allocations frees pages_released pages_refaulted pages_refaulted_whole lazy_pages_reused
    splits cures rebuilt_blocks release_calls release_ranges release_failures
    release_nanoseconds longest_release_nanoseconds ticks
    effects_checked effects_missing reinflated_blocks lost_blocks residency_passes metadata_bytes
    collapses decommitted_blocks drains pages_drained
    discarded_pages discards discard_splits undone_intact undone_lost undone_partly discarded_pages_lost
    blocks_moved moves_refused move_nanoseconds displaced_blocks""",
)
Residency = _counters(
    "Residency",
    """blocks huge_blocks split_blocks absent_blocks reinflated_blocks lost_blocks
    resident_bytes huge_bytes used_pages_on_huge used_pages""",
)
ArenaStatistics = _counters(
    "ArenaStatistics", "allocations frees used_bytes peak_used_bytes refused_allocations foreign_frees"
)


def _places():
    """Where the library may be: beside this file, in the prefix that this file is installed in, in a build."""
    here = os.path.dirname(os.path.realpath(__file__))
    yield os.path.join(here, "libhugespan.so")
    # PREFIX/share/hugespan/python/hugespan
    yield os.path.normpath(os.path.join(here, "../../../../lib/libhugespan.so.0"))
    # Sources/HugeSpanPython/hugespan
    build = os.path.normpath(os.path.join(here, "../../../.build"))
    yield os.path.join(build, "c-library/lib/libhugespan.so.0")
    yield os.path.join(build, "release/libhugespan-shared.so")
    yield os.path.join(build, "debug/libhugespan-shared.so")


def _load():
    named = os.environ.get("HUGESPAN_LIBRARY")
    # The last is for the dynamic linker to look up.
    candidates = [named] if named else [place for place in _places() if os.path.exists(place)] + ["libhugespan.so.0"]
    for path in candidates:
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            reason = str(error)
    if named:
        raise HugeSpanError("HUGESPAN_LIBRARY: " + reason)
    if len(candidates) > 1:
        raise HugeSpanError(reason)
    raise HugeSpanError(
        "libhugespan.so is not here; build it with 'swift package --allow-writing-to-package-directory"
        " build-c-library' in HugeSpan's sources, or name it in HUGESPAN_LIBRARY"
    )


class Library:
    """The library that was found, checked to be of the version that this file is for."""

    def __init__(self):
        self._c = _load()
        try:
            self._declare()
        except AttributeError as error:
            raise HugeSpanError("%s: is another version's library (%s)" % (self.path, error)) from None
        if not self._c.hs_version_matches(*VERSION):
            found = self._c.hs_version()
            raise HugeSpanError(
                "%s: is version %d.%d, and %d.%d is needed" % ((self.path, found >> 16, found & 0xFFFF) + VERSION)
            )

    @property
    def path(self):
        return self._c._name

    def _declare(self):
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in [
            ("hs_version", ctypes.c_uint32, []),
            ("hs_version_matches", ctypes.c_bool, [ctypes.c_uint32, ctypes.c_uint32]),
            ("hs_status_name", text, [ctypes.c_int]),
            ("hs_options_init", None, [pointer, ctypes.c_size_t]),
            ("hs_process_options_init", None, [pointer, ctypes.c_size_t]),
            ("hs_options_parse", ctypes.c_int, [text, pointer, pointer, pointer]),
            ("hs_heap_create", ctypes.c_int, [pointer, pointer]),
            ("hs_scavenger_start", ctypes.c_bool, [pointer]),
            ("hs_scavenger_start_bare", ctypes.c_bool, [pointer]),
            ("hs_scavenger_stop", None, [pointer]),
            ("hs_release_now", ctypes.c_uint64, [pointer, ctypes.c_uint64]),
            ("hs_page_open", ctypes.c_int, [pointer]),
            ("hs_heap_statistics", ctypes.c_int, [pointer, pointer]),
            ("hs_residency_pass", ctypes.c_int, [pointer, pointer]),
            ("hs_arena_source", ctypes.c_int, [pointer, pointer, pointer]),
            ("hs_arena_counts", ctypes.c_int, [pointer, pointer]),
        ]:
            function = getattr(self._c, name)
            function.restype = result
            function.argtypes = arguments

    def create(self, texts):
        """A heap with the settings of `texts`, pairs of where a text is from and the text; later ones win.

        Returns the heap, its scavenger ("on", "bare", or None for none), and the file for statistics (None for none).
        """
        options = (ctypes.c_char * _ROOM)()
        self._c.hs_options_init(options, _ROOM)
        process = _ProcessOptions()
        self._c.hs_process_options_init(ctypes.byref(process), ctypes.sizeof(process))
        statistics = None
        for source, text in texts:
            error = _OptionsError()
            given = os.fsencode(text)
            if self._c.hs_options_parse(given, options, ctypes.byref(process), ctypes.byref(error)) != _OK:
                raise SettingsError("%s: %s" % (source, os.fsdecode(error.message)))
            if process.statistics_path:
                statistics = os.fsdecode(ctypes.string_at(process.statistics_path, process.statistics_path_length))
                process.statistics_path = None
        heap = ctypes.c_void_p()
        status = self._c.hs_heap_create(options, ctypes.byref(heap))
        if status != _OK:
            name = self._c.hs_status_name(status).decode()
            why = {
                "HS_INVALID": "these settings make no sense together",
                "HS_UNSUPPORTED_PAGES": "pages are not 4 KiB, or hugepages not 2 MiB, on this machine",
                "HS_UNSUPPORTED_STRATEGY": "this kernel lacks what the strategy needs; choose another",
            }.get(name, "the kernel gives no memory for the heap's tables (%s)" % name)
            raise SettingsError(why) if name == "HS_INVALID" else HugeSpanError(why)
        # For people only: the program runs without.
        if process.page:
            self._c.hs_page_open(heap)
        scavenger = ("bare" if process.bare else "on") if process.scavenger else None
        return heap, scavenger, statistics

    def arena_functions(self, heap, previous):
        """Functions that take arenas from `heap`."""
        functions = Functions()
        status = self._c.hs_arena_source(heap, ctypes.byref(previous), ctypes.byref(functions))
        if status != _OK:
            raise HugeSpanError("the arenas are on a heap already")
        return functions

    def start_scavenger(self, heap, is_bare):
        start = self._c.hs_scavenger_start_bare if is_bare else self._c.hs_scavenger_start
        return start(heap)

    def stop_scavenger(self, heap):
        self._c.hs_scavenger_stop(heap)

    def release_now(self, heap, count):
        return self._c.hs_release_now(heap, count)

    def statistics(self, heap):
        return self._fill(Statistics, self._c.hs_heap_statistics, heap)

    def arena_statistics(self, heap):
        return self._fill(ArenaStatistics, self._c.hs_arena_counts, heap)

    def residency(self, heap):
        """What the kernel has under the heap; None if it does not tell."""
        return self._fill(Residency, self._c.hs_residency_pass, heap)

    @staticmethod
    def _fill(kind, function, heap):
        result = kind(size=ctypes.sizeof(kind))
        if function(heap, ctypes.byref(result)) != _OK:
            return None
        return {name: getattr(result, name) for name, _ in kind._fields_[1:]}
