"""The command line of `python3 -m hugespan`: options of ours, then a program as the interpreter takes it."""

import os
import sys

from . import _children, _library, _program, _report
import hugespan

HELP = """\
Usage: python3 -m hugespan [OPTIONS] SCRIPT [ARGUMENTS...]
       python3 -m hugespan [OPTIONS] -m MODULE [ARGUMENTS...]
       python3 -m hugespan [OPTIONS] -c CODE [ARGUMENTS...]
       python3 -m hugespan [OPTIONS] - [ARGUMENTS...]

Runs a Python program as the interpreter would, with the memory of its small objects (at most 512 bytes each) on
HugeSpan: on transparent hugepages, and given back to the kernel when it is free. Prints nothing unless asked.

Options:
      --conf SETTINGS  settings, KEY:VALUE,KEY:VALUE; they come after those of HUGESPAN_CONF
      --report         print a table of what the heap saw at exit, on standard error
      --json FILE      write what the heap saw at exit as JSON to FILE (as the setting statistics:FILE)
  -h, --help           print this
      --version        print the version of the library, and where it is

Settings (more in the manual, Docs/Running.md):
  policy:rent-or-buy   what to release and when: never, immediate, gperftools, seed, demand-window, decay, paced,
                       rent-or-buy
  strategy:dontneed    how: keep, dontneed, free, free-then-dontneed, split-dontneed, cold, pageout,
                        decommit, deferred
  memory-price:400     what memory is worth to policy rent-or-buy, in CPU-seconds per GiB-hour
  soft-limit:SIZE, hard-limit:SIZE
  scavenger:off        no thread that releases memory while the program is idle

Examples:
  python3 -m hugespan script.py input.json
  python3 -m hugespan --report --conf policy:immediate -m pytest -q
  HUGESPAN_CONF=policy:rent-or-buy python3 -m hugespan server.py

Processes that the program forks, and those of multiprocessing whatever their start method, are on heaps of their
own. Other interpreters that it starts are not.

Environment: HUGESPAN_CONF holds settings, HUGESPAN_LIBRARY the path of libhugespan.so where it is not found.
Exit status: the program's; 64 for a wrong command line or setting, 69 if there can be no heap here.
"""


class _UsageError(Exception):
    pass


def _options(arguments):
    """Our options, and the rest."""
    options = {"--conf": [], "--json": [], "--report": False}
    position = 0
    while position < len(arguments):
        word = arguments[position]
        name, equals, value = word.partition("=")
        if word in ("-h", "--help"):
            sys.stdout.write(HELP)
            raise SystemExit(0)
        if word == "--version":
            library = _library.Library()
            sys.stdout.write("HugeSpan %d.%d (%s)\n" % (_library.VERSION + (library.path,)))
            raise SystemExit(0)
        if word == "--report":
            options["--report"] = True
        elif name in ("--conf", "--json"):
            if not equals:
                position += 1
                if position == len(arguments):
                    raise _UsageError("%s needs a value" % name)
                value = arguments[position]
            options[name].append(value)
        elif word == "--":
            return options, arguments[position + 1 :]
        elif word.startswith("--"):
            raise _UsageError("unknown option '%s'" % word)
        else:
            return options, arguments[position:]
        position += 1
    return options, []


def main(as_directory):
    try:
        options, command = _options(sys.argv[1:])
        program = _program.parse(command)
        if program is None:
            raise _UsageError("no program to run is named")
    except (_UsageError, _program.CommandError) as error:
        sys.stderr.write("hugespan: %s\nTry 'python3 -m hugespan --help'\n" % error)
        raise SystemExit(64) from None
    except hugespan.HugeSpanError as error:
        sys.stderr.write("hugespan: %s\n" % error)
        raise SystemExit(error.status) from None
    own = os.environ.get("HUGESPAN_CONF", "")
    texts = [("HUGESPAN_CONF", own)] + [("--conf", text) for text in options["--conf"]]
    texts += [("--json", "statistics:" + path.replace("%", "%%")) for path in options["--json"]]
    try:
        if any("," in path for path in options["--json"]):
            raise hugespan.SettingsError("--json: settings are separated by commas, so FILE may not have one")
        hugespan._install(texts, reports_itself=not _children.is_server(program))
    except hugespan.HugeSpanError as error:
        sys.stderr.write("hugespan: %s\n" % error)
        raise SystemExit(error.status) from None
    if options["--report"]:
        _report.print_at_exit(hugespan._heap)
    if options["--conf"]:
        # For children, which read them there.
        os.environ["HUGESPAN_CONF"] = ",".join(text for text in [own] + options["--conf"] if text)
    _children.bring_along()
    _program.run(program, as_directory)
