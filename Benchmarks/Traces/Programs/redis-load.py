"""Drives a Redis server through its day: fill, delete 70 % at random, idle, refill.

Speaks the protocol over a socket, in pipelines, at a pace that leaves the server idle part of the time: a program that
is never idle shows nothing of what a scavenger does. Values are 500 to 5,000 bytes, so that 150 MiB are 56,000 keys and the trace stays small.
"""

import random
import socket
import sys
import time

KEYS = 56_000


def command(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


class Server:
    def __init__(self, port):
        for _ in range(100):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        self.input = self.socket.makefile("rb")

    def pipeline(self, commands):
        self.socket.sendall(b"".join(commands))
        for _ in commands:
            reply = self.input.readline()
            if not reply.startswith((b"+", b":")):
                sys.exit(f"the server answered {reply!r}")


def paced(count, seconds, step):
    """Yields ranges of `step` numbers below `count`, spread evenly over `seconds`."""
    start = time.monotonic()
    for first in range(0, count, step):
        due = start + seconds * first / count
        time.sleep(max(0.0, due - time.monotonic()))
        yield range(first, min(first + step, count))


def main():
    server = Server(int(sys.argv[1]))
    draw = random.Random(1)

    def value():
        return draw.randbytes(draw.randint(500, 5000))

    def key(number):
        return b"user:%06d:profile" % number

    print("fill", flush=True)
    for numbers in paced(KEYS, 14, 20):
        server.pipeline([command(b"SET", key(n), value()) for n in numbers])
    time.sleep(4)
    print("delete 70 %", flush=True)
    order = list(range(KEYS))
    draw.shuffle(order)
    victims = order[: KEYS * 7 // 10]
    for numbers in paced(len(victims), 5, 50):
        server.pipeline([command(b"DEL", *(key(victims[n]) for n in numbers))])
    print("idle", flush=True)
    time.sleep(23)
    print("refill", flush=True)
    draw.shuffle(victims)
    for numbers in paced(len(victims), 12, 20):
        server.pipeline([command(b"SET", key(victims[n]), value()) for n in numbers])
    time.sleep(5)
    server.socket.sendall(command(b"SHUTDOWN", b"NOSAVE"))


main()
