"""A CPython service of small objects in a day and a night: load, query and replace, drop, idle, the same again.

    python-arenas-day.py RECORDS SECONDS aged|scattered

Three quarters of the records are dropped: the oldest, which nobody replaced, so that whole arenas become free; or any,
and any were replaced. No object has more than 512
bytes (but for the table itself). Prints its phases and the operations it did; the night lasts five busy phases.
"""

import random
import sys
import time


class Record:
    __slots__ = ("number", "name", "fields", "history")

    def __init__(self, draw, number):
        self.number = number
        self.name = "record %d" % number
        self.fields = ["field %d" % draw.randrange(10**6) for _ in range(draw.randrange(4, 16))]
        self.history = tuple(range(number + 1000, number + 1000 + number % 13))


def phase(name):
    print("phase", name, flush=True)


def main():
    count, seconds, shape = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    draw = random.Random(2)
    store = {}
    operations = 0

    replaced_from = count * 3 // 4 if shape == "aged" else 0

    def load(numbers):
        phase("load")
        for number in numbers:
            store[number] = Record(draw, number)
        return len(numbers)

    def busy():
        phase("busy")
        done = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(1000):
                record = store[draw.randrange(count)]
                done += len(record.fields[0]) > 0 and record.number >= 0
            for _ in range(20):
                number = draw.randrange(replaced_from, count)
                store[number] = Record(draw, number)
            done += 20
        return done

    operations += load(range(count))
    operations += busy()
    phase("drop")
    victims = range(count * 3 // 4) if shape == "aged" else draw.sample(range(count), count * 3 // 4)
    for number in victims:
        del store[number]
    phase("idle")
    time.sleep(5 * seconds)
    operations += load(victims)
    operations += busy()
    print("operations", operations, flush=True)
    phase("end")


main()
