"""A CPython program in phases: load records, index them, drop most, wait, load again.

Run with PYTHONMALLOC=malloc, so that each object is an allocation of its own and not hidden in the interpreter's
arenas. The records are what a service keeps: a dictionary, some text, a payload of up to 32 KiB.
"""

import random
import time


class Record:
    __slots__ = ("fields", "payload", "history")

    def __init__(self, draw, number):
        self.fields = {"name": f"record {number}", "owner": f"user{number % 977}", "state": "open"}
        self.payload = draw.randbytes(draw.randint(1000, 33000))
        self.history = list(range(number + 1000, number + 1000 + number % 13))


def paced(count, seconds):
    start = time.monotonic()
    for number in range(count):
        if number % 100 == 0:
            time.sleep(max(0.0, start + seconds * number / count - time.monotonic()))
        yield number


def load(draw, store, numbers, seconds):
    for _, number in zip(paced(len(numbers), seconds), numbers):
        store[number] = Record(draw, number)


def index(store):
    """Text to posting lists, and a sorted copy: a phase of short-lived lists and long-lived small objects."""
    postings = {}
    for number, record in store.items():
        postings.setdefault(record.fields["owner"], []).append(number)
    digests = {number: record.payload[:200].hex() for number, record in store.items()}
    return postings, digests


def main():
    draw = random.Random(2)
    count = 9_000
    store = {}
    print("load", flush=True)
    load(draw, store, range(count), 12)
    print("index", flush=True)
    tables = index(store)
    time.sleep(4)
    print("drop", flush=True)
    victims = draw.sample(range(count), count * 3 // 4)
    for _, number in zip(paced(len(victims), 3), victims):
        del store[number]
    tables = None
    print("wait", flush=True)
    time.sleep(23)
    print("load again", flush=True)
    load(draw, store, victims, 12)
    tables = index(store)
    time.sleep(5)
    print("a second, smaller drop", flush=True)
    tables = None
    for number in list(store)[: count // 3]:
        del store[number]
    time.sleep(3)


main()
