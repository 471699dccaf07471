"""A CPython service in a day and a night: load records, query them, drop three quarters, idle, the same again.

    python-day.py RECORDS SECONDS NIGHT

Prints its phases and the operations it did. SECONDS is the length of a busy phase, NIGHT of the idle one.
"""

import random
import sys
import time


class Record:
    __slots__ = ("fields", "payload", "history")

    def __init__(self, draw, number):
        self.fields = {"name": f"record {number}", "owner": f"user{number % 977}", "state": "open"}
        self.payload = draw.randbytes(draw.randint(200, 12000))
        self.history = list(range(number + 1000, number + 1000 + number % 13))


def phase(name):
    print("phase", name, flush=True)


def main():
    count, seconds, night = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    draw = random.Random(2)
    store = {}
    operations = 0

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
            for _ in range(500):
                number = draw.randrange(count)
                record = store[number]
                digest = record.fields["name"].upper() + record.payload[:64].hex()
                record.history.append(len(digest))
            for _ in range(50):
                number = draw.randrange(count)
                store[number] = Record(draw, number)
            done += 550
        return done

    operations += load(range(count))
    operations += busy()
    phase("drop")
    victims = draw.sample(range(count), count * 3 // 4)
    for number in victims:
        del store[number]
    phase("idle")
    time.sleep(night)
    operations += load(victims)
    operations += busy()
    print("operations", operations, flush=True)
    phase("end")


main()
