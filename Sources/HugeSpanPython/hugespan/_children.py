"""Children of multiprocessing that are interpreters of their own (start methods spawn and forkserver) are brought along.

multiprocessing starts them as `python3 OPTIONS -c CODE`; the directory of this package is put before -c. That is done when
the program imports multiprocessing, which most do not.
"""

import importlib.machinery
import os
import sys

_NAME = "multiprocessing.util"
_WORKER = "from multiprocessing.spawn "
_SERVER = "from multiprocessing.forkserver "


def bring_along():
    """Has later children of multiprocessing on heaps of their own."""
    if _NAME in sys.modules:
        _patch(sys.modules[_NAME])
    else:
        sys.meta_path.insert(0, _Finder())


def is_server(program):
    """A server that forks children, runs nothing of the program itself, and may end after it."""
    return program.kind == "c" and program.text.startswith(_SERVER)


def with_heap(arguments):
    """The command line of a child, with us in it where it is one that runs the program's code."""
    if "-c" not in arguments[:-1]:
        return arguments
    place = arguments.index("-c")
    code = os.fsdecode(arguments[place + 1])
    if not code.startswith((_WORKER, _SERVER)):
        return arguments
    return [*arguments[:place], os.path.dirname(os.path.abspath(__file__)), *arguments[place:]]


def _patch(util):
    start = util.spawnv_passfds

    def spawnv_passfds(path, args, passfds):
        return start(path, with_heap(list(args)), passfds)

    util.spawnv_passfds = spawnv_passfds


class _Finder:
    """Finds one module as everybody else does, and changes it when it has been loaded."""

    def find_spec(self, name, path, target=None):
        if name != _NAME:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader:
    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        _patch(module)
