"""What the heap saw, at the end of the process: as JSON for `hugespan run` and other programs, as a table for people.

Written by an exit handler that is registered first and so runs last. A process that ends by os._exit or a signal leaves
no report; children of multiprocessing do end so, but run finalizers of their own before.
"""

import atexit
import os
import sys
import time

_PAGE = 4096


def _camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class _Report:
    def __init__(self, heap):
        self.heap = heap
        self.start = time.monotonic()
        self.process = os.getpid()

    def figures(self):
        """An object as HeapReport reads it."""
        now = self.heap.library.statistics(self.heap.handle)
        arenas = self.heap.library.arena_statistics(self.heap.handle)
        known = self.heap.library.residency(self.heap.handle)
        heap = {
            "usedBytes": now["used_pages"] * _PAGE,
            "peakUsedBytes": arenas["peak_used_bytes"],
            "freeResidentBytes": now["free_resident_pages"] * _PAGE,
            "lazyBytes": now["lazy_pages"] * _PAGE,
            "phantomBytes": now["phantom_pages"] * _PAGE,
            "releaseSeconds": now["release_nanoseconds"] / 1e9,
            "longestReleaseSeconds": now["longest_release_nanoseconds"] / 1e9,
        }
        same = """metadata_bytes blocks allocations frees pages_released pages_refaulted lazy_pages_reused splits cures
            collapses blocks_moved displaced_blocks rebuilt_blocks lost_blocks reinflated_blocks
            release_calls release_ranges release_failures ticks"""
        heap.update((_camel(name), now[name]) for name in same.split())
        residency = known and {
            "residentBytes": known["resident_bytes"],
            "hugeBytes": known["huge_bytes"],
            "usedBytes": known["used_pages"] * _PAGE,
            "usedOnHugeBytes": known["used_pages_on_huge"] * _PAGE,
            "hugeBlocks": known["huge_blocks"],
            "splitBlocks": known["split_blocks"],
            "absentBlocks": known["absent_blocks"],
        }
        return {
            "schema": "hugespan.heap/1",
            "process": os.getpid(),
            "seconds": time.monotonic() - self.start,
            "cpuSeconds": time.process_time(),
            "python": {
                "version": "%d.%d.%d" % sys.version_info[:3],
                "arenasAllocated": arenas["allocations"],
                "arenasFreed": arenas["frees"],
                "arenasRefused": arenas["refused_allocations"],
                "foreignArenasFreed": arenas["foreign_frees"],
            },
            "heap": heap,
            "residency": residency,
        }

    def write(self, pattern):
        path = self._path(pattern)
        if path is None:
            return
        import json

        try:
            with open(path, "w") as file:
                file.write(json.dumps(self.figures()) + "\n")
        except OSError as error:
            _say("hugespan: the statistics cannot be written to '%s' (%s)" % (path, error.strerror))

    def _path(self, pattern):
        """The path for this process; None for a forked child that would write over its parent's."""
        path = pattern.replace("%%", "\0").replace("%p", str(os.getpid())).replace("\0", "%")
        names_itself = "%p" in pattern.replace("%%", "")
        return path if names_itself or os.getpid() == self.process else None

    def print(self):
        if os.getpid() != self.process:
            return
        figures = self.figures()
        heap, residency, python = figures["heap"], figures["residency"], figures["python"]

        def size(count):
            return "%.1f MiB" % (count / 2**20)

        used = residency["usedBytes"] if residency else 0
        coverage = "%.1f %%" % (100 * residency["usedOnHugeBytes"] / used) if used else "-"
        rows = [
            ("used, peak", size(heap["peakUsedBytes"])),
            ("used at exit", size(heap["usedBytes"])),
            ("coverage at exit", coverage),
            ("resident in the heap at exit", size(residency["residentBytes"]) if residency else "-"),
            ("released", size(heap["pagesReleased"] * _PAGE)),
            ("refaulted", size(heap["pagesRefaulted"] * _PAGE)),
            ("hugepages split", str(heap["splits"])),
            ("longest release", "%.2f ms" % (1e3 * heap["longestReleaseSeconds"])),
            ("arenas allocated", str(python["arenasAllocated"])),
            ("arenas freed", str(python["arenasFreed"])),
            ("arenas from before, freed", str(python["foreignArenasFreed"])),
        ]
        left, right = (max(len(row[side]) for row in rows) for side in (0, 1))
        lines = ["  %-*s  %*s" % (left, name, right, value) for name, value in rows]
        _say("\n".join(["hugespan: arenas of Python %s on the heap" % python["version"]] + lines))


def _say(text):
    try:
        sys.stderr.write(text + "\n")
    except (AttributeError, OSError, ValueError):
        pass  # There is no standard error any more.


def write_at_exit(heap, pattern, reports_itself):
    """Has a file written by this process, unless only its children are worth one, and by these."""
    report = _Report(heap)
    if reports_itself:
        atexit.register(report.write, pattern)

    def in_child():
        # A child of multiprocessing ends by os._exit, but calls finalizers that are made after its own beginning.
        util = sys.modules.get("multiprocessing.util")
        if util is not None:
            util.register_after_fork(
                report, lambda report: util.Finalize(None, report.write, (pattern,), exitpriority=-1000)
            )

    os.register_at_fork(after_in_child=in_child)


def print_at_exit(heap):
    atexit.register(_Report(heap).print)
