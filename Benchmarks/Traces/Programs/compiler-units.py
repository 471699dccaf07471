"""A compiler at work in one process: translation units are parsed, kept, parsed again, disposed of.

Drives libclang as an editor's language server does. Each unit's syntax tree takes about 55 MiB; a few stay open while
others come and go, then most are closed, nothing happens for a while, and work goes on.
"""

import ctypes
import ctypes.util
import glob
import os
import sys
import tempfile
import time

HEADERS = "algorithm array chrono functional map memory optional string unordered_map vector"

# What generated parsers and protocol code look like: many functions, each a large switch over small expressions.
FUNCTION = """
inline long decode{n}(const unsigned char *bytes, std::size_t count, std::vector<long> &out) {{
  long state = {n};
  for (std::size_t at = 0; at + 4 < count; ++at) {{
    switch (bytes[at] ^ (state & 0xff)) {{
{cases}
    default: state = (state << 1) ^ bytes[at + 1]; break;
    }}
  }}
  return state;
}}
"""

CASE = (
    "    case {n}: state += (bytes[at + 1] * {n} + (bytes[at + 2] << 3)) ^ (state >> {shift}); "
    "if (state > {n}000) {{ out.push_back(state - bytes[at + 3] * {n}); ++at; }} break;\n"
)


FUNCTIONS = int(os.environ.get("FUNCTIONS", "130"))


class UnsavedFile(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("text", ctypes.c_char_p), ("length", ctypes.c_ulong)]


def library():
    found = sorted(glob.glob("/usr/lib/*/libclang-14.so.1") + glob.glob("/usr/lib/llvm-14/lib/libclang-14.so.1"))
    clang = ctypes.CDLL(found[0])
    pointer = ctypes.c_void_p
    clang.clang_createIndex.restype = pointer
    clang.clang_parseTranslationUnit.restype = pointer
    clang.clang_parseTranslationUnit.argtypes = [
        pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int,
        ctypes.POINTER(UnsavedFile), ctypes.c_uint, ctypes.c_uint]
    clang.clang_reparseTranslationUnit.argtypes = [
        pointer, ctypes.c_uint, ctypes.POINTER(UnsavedFile), ctypes.c_uint]
    clang.clang_disposeTranslationUnit.argtypes = [pointer]
    return clang


def source(number, functions):
    text = "#include <cstdint>\n" + "".join(f"#include <{name}>\n" for name in HEADERS.split())
    cases = "".join(CASE.format(n=n, shift=n % 13 + number % 3) for n in range(120))
    return (text + "".join(FUNCTION.format(n=n, cases=cases) for n in range(functions))).encode()


class Compiler:
    def __init__(self):
        self.clang = library()
        self.index = self.clang.clang_createIndex(0, 0)
        options = [b"-std=c++17", b"-x", b"c++"]
        self.options = (ctypes.c_char_p * len(options))(*options)

    def parse(self, number, functions=FUNCTIONS):
        text = source(number, functions)
        name = b"unit%d.cpp" % number
        unsaved = (UnsavedFile * 1)(UnsavedFile(name, text, len(text)))
        unit = self.clang.clang_parseTranslationUnit(
            self.index, name, self.options, len(self.options), unsaved, 1, 0)
        if not unit:
            sys.exit("libclang parsed nothing")
        return unit

    def reparse(self, unit, number, functions):
        text = source(number, functions)
        unsaved = (UnsavedFile * 1)(UnsavedFile(b"unit%d.cpp" % number, text, len(text)))
        if self.clang.clang_reparseTranslationUnit(unit, 1, unsaved, 0) != 0:
            sys.exit("libclang could not parse a unit again")

    def close(self, unit):
        self.clang.clang_disposeTranslationUnit(unit)


def main():
    begin = time.monotonic()

    def phase(name):
        print(f"{time.monotonic() - begin:6.1f} {name}", flush=True)

    compiler = Compiler()
    units = int(os.environ.get("UNITS", "4"))
    phase("open units")
    open_units = []
    for number in range(units):
        open_units.append(compiler.parse(number))
        time.sleep(0.7)
    phase("edit")
    for number in (0,):
        compiler.reparse(open_units[number], number, 50)
        time.sleep(0.8)
    phase("one unit after the other, closed at once")
    for number in range(units, units + 1):
        compiler.close(compiler.parse(number))
        time.sleep(0.5)
    phase("close most")
    for unit in open_units[1:]:
        compiler.close(unit)
        time.sleep(0.2)
    del open_units[1:]
    time.sleep(23)
    phase("open again")
    for number in range(1, units):
        open_units.append(compiler.parse(number))
        time.sleep(0.7)
    time.sleep(max(4, 61 - (time.monotonic() - begin)))
    phase("done")


main()
