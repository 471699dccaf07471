"""Feeds an SQLite shell a day and a night of an in-memory database: load, queries, a drop, idle, the same again.

    sqlite-day.py ROWS SECONDS NIGHT | sqlite3 :memory:

Writes SQL to standard output, phases and operations to standard error. Waits for the shell's answer (on standard
input) before it says that a phase is over. SECONDS is about the length of a busy phase, NIGHT of the idle one.
"""

import sys
import time


def phase(name):
    print("phase", name, file=sys.stderr, flush=True)


def run(sql):
    """Sends statements and waits until the shell has done them."""
    print(sql, flush=True)
    print("SELECT 'done';", flush=True)
    while True:
        line = sys.stdin.readline()
        if not line:
            sys.exit("the shell ended early")
        if line.strip() == "done":
            return


def main():
    rows, seconds, night = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    run(
        "PRAGMA page_size = 4096; PRAGMA auto_vacuum = FULL;"
        "CREATE TABLE document (id INTEGER PRIMARY KEY, owner INTEGER, title TEXT, body BLOB);"
        "CREATE INDEX by_owner ON document (owner, title);"
    )
    operations = 0

    def load():
        phase("load")
        for first in range(0, rows, 500):
            run(
                f"BEGIN; WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {first + 499})"
                " INSERT OR IGNORE INTO document SELECT i, i % 997, 'document ' || i, randomblob(2000 + abs(random())"
                " % 22000) FROM n; COMMIT;"
            )
        return rows

    def busy():
        phase("busy")
        done = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            run(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1999)"
                f" SELECT count(length(body)) FROM n JOIN document ON document.id = abs(random()) % {rows};"
            )
            done += 2000
        return done

    operations += load()
    operations += busy()
    phase("drop")
    for part in range(30):
        run(f"DELETE FROM document WHERE id % 40 = {part};")
    phase("idle")
    time.sleep(night)
    operations += load()
    operations += busy()
    print("operations", operations, file=sys.stderr, flush=True)
    phase("end")


main()
