"""A program of small objects: a table of records that grows, thins out, and is replaced by half. Prints digests.

    python3 arenas.py [RECORDS] [SECONDS]

With RECORDS (120,000) it can be made as large as wished; after it has dropped half of its records it idles for SECONDS (0).
"""

import hashlib
import random
import sys
import time


class Record:
    __slots__ = ("key", "name", "tags")

    def __init__(self, generator, key):
        self.key = key
        self.name = "record %d of %d" % (key, generator.randrange(10**9))
        self.tags = [str(generator.randrange(1000)) for _ in range(generator.randrange(8))]


def digest(table):
    result = hashlib.sha256()
    for key in sorted(table):
        record = table[key]
        result.update(("%d %s %s\n" % (record.key, record.name, ",".join(record.tags))).encode())
    return result.hexdigest()[:16]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 120_000
    idle = float(sys.argv[2]) if len(sys.argv) > 2 else 0
    generator = random.Random(11)
    table = {key: Record(generator, key) for key in range(count)}
    print(digest(table))
    # A server's life: records come and go, in no order.
    for step in range(count):
        key = generator.randrange(count * 2)
        if key in table:
            del table[key]
        else:
            table[key] = Record(generator, key)
    print(len(table), digest(table))
    # The older half goes.
    for key in sorted(table)[: len(table) // 2]:
        del table[key]
    time.sleep(idle)
    print(len(table), digest(table))
    # And is loaded anew.
    for key in range(count, count + count // 2):
        table[key] = Record(generator, key)
    print(len(table), digest(table))


if __name__ == "__main__":
    main()
