"""Runs a program as the interpreter's own command line would: script, directory or archive, module, code, standard input.

The program's `__main__` is a module of its own, sys.argv and sys.path begin as they would, and of an exception that nobody
catches the program's frames are shown and not ours. What is left of us: frames below the program's first, for those that walk
the stack, and sys.orig_argv.
"""

import builtins
import os
import sys
import types


class CommandError(Exception):
    """A command line that names nothing to run."""


class Program:
    def __init__(self, kind, text, arguments):
        self.kind = kind
        self.text = text
        self.arguments = arguments


def parse(command):
    """What a command line without options names; None if it is empty."""
    if not command:
        return None
    first = command[0]
    if first == "-":
        return Program("stdin", "-", command[1:])
    for kind in ("c", "m"):
        if first[:2] == "-" + kind:
            rest = [first[2:]] if len(first) > 2 else command[1:2]
            if not rest:
                raise CommandError("-%s needs a value" % kind)
            return Program(kind, rest[0], command[1 if len(first) > 2 else 2 :])
    if first.startswith("-"):
        raise CommandError("'%s' is the interpreter's option; put it before -m hugespan" % first)
    return Program("script", first, command[1:])


def run(program, as_directory):
    """Runs a program; `as_directory`: this package was started by the name of its directory."""
    is_safe = getattr(sys.flags, "safe_path", bool(sys.flags.isolated))
    # What stands there is ours: a directory always, the working directory unless the interpreter was told not to.
    if as_directory or not is_safe:
        del sys.path[0]
    main = types.ModuleType("__main__")
    main.__builtins__ = builtins
    main.__annotations__ = {}
    sys.modules["__main__"] = main
    body = {"script": _script, "m": _module, "c": _code, "stdin": _standard_input}[program.kind]
    try:
        body(program, main, is_safe)
    except SystemExit:
        raise
    except BaseException as error:
        _hide_our_frames(error)
        raise


def _script(program, main, is_safe):
    path = program.text
    sys.argv[:] = [path] + program.arguments
    if sys.version_info >= (3, 9):
        path = os.path.join(os.getcwd(), path)
    if _is_container(path):
        # As the interpreter does it; -I does not keep these out.
        sys.path.insert(0, path)
        _run_module("__main__", alter_argv=False)
        return
    try:
        import io

        with io.open_code(path) as file:
            source = file.read()
    except OSError as error:
        sys.stderr.write(
            "%s: can't open file %r: [Errno %d] %s\n" % (sys.executable, path, error.errno, error.strerror)
        )
        raise SystemExit(2) from None
    if not is_safe:
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    from importlib.machinery import SourceFileLoader, SourcelessFileLoader

    code = _compiled(source)
    main.__file__ = path
    main.__cached__ = None
    main.__loader__ = (SourcelessFileLoader if code else SourceFileLoader)("__main__", path)
    exec(code or compile(source, path, "exec", dont_inherit=True), main.__dict__)


def _is_container(path):
    """A directory or an archive, in which __main__ is looked for."""
    if not os.path.exists(path):
        return False
    for hook in sys.path_hooks:
        try:
            hook(path)
            return True
        except ImportError:
            pass
    return False


def _compiled(data):
    """The code of a .pyc file; None for source."""
    from importlib.util import MAGIC_NUMBER

    if not data.startswith(MAGIC_NUMBER):
        return None
    import marshal

    return marshal.loads(memoryview(data)[16:])


def _module(program, main, is_safe):
    sys.argv[:] = ["-m"] + program.arguments
    if not is_safe:
        sys.path.insert(0, os.getcwd())
    _run_module(program.text, alter_argv=True)


def _run_module(name, alter_argv):
    import runpy

    # What the interpreter itself calls for -m.
    runpy._run_module_as_main(name, alter_argv)


def _code(program, main, is_safe):
    sys.argv[:] = ["-c"] + program.arguments
    _exec_text(program.text, "<string>", main, is_safe)


def _standard_input(program, main, is_safe):
    sys.argv[:] = ["-"] + program.arguments
    main.__file__ = "<stdin>"
    main.__cached__ = None
    _exec_text(sys.stdin.buffer.read(), "<stdin>", main, is_safe)


def _exec_text(text, name, main, is_safe):
    if not is_safe:
        sys.path.insert(0, "")
    from importlib.machinery import BuiltinImporter

    main.__loader__ = BuiltinImporter
    exec(compile(text, name, "exec", dont_inherit=True), main.__dict__)


def _hide_our_frames(error):
    """Has the interpreter show `error` without the frames of this package, by whatever shows exceptions then."""
    shown = getattr(sys, "excepthook", None)
    if not callable(shown):
        return
    here = os.path.dirname(__file__) + os.sep

    def hook(kind, value, trace):
        sys.excepthook = shown
        if value is error:
            # How we were started, then ourselves.
            for are_ours in (False, True):
                while trace is not None and trace.tb_frame.f_code.co_filename.startswith(here) == are_ours:
                    trace = trace.tb_next
            value.__traceback__ = sys.last_traceback = trace
        shown(kind, value, trace)

    sys.excepthook = hook
