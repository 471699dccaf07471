"""Drives a Redis server through a day and a night: load, look-ups, deletion of 70 % at random, idle, the same again.

    redis-day.py PORT KEYS SECONDS NIGHT [save]

Prints its phases and the commands it sent. SECONDS is the length of a busy phase, NIGHT of the idle one. With
`save` the server then saves in the background under the same load (phase `save`), which goes on for half a minute (`settle`) and
three seconds more (`again`).
"""

import random
import socket
import sys
import time


def command(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


class Server:
    def __init__(self, port):
        for _ in range(200):
            try:
                self.socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        else:
            sys.exit(f"nothing listens on port {port}")
        self.input = self.socket.makefile("rb", buffering=1 << 20)
        self.sent = 0

    def pipeline(self, commands):
        self.socket.sendall(b"".join(commands))
        for _ in commands:
            reply = self.input.readline()
            if reply.startswith(b"$") and reply != b"$-1\r\n":
                self.input.read(int(reply[1:]) + 2)
            elif not reply.startswith((b"+", b":", b"$-1")):
                sys.exit(f"the server answered {reply!r}")
        self.sent += len(commands)


    def ask(self, command):
        """The bulk that a command answers."""
        self.socket.sendall(command)
        return self.input.read(int(self.input.readline()[1:]) + 2)


def phase(name):
    print("phase", name, flush=True)


def chunks(numbers, size):
    for first in range(0, len(numbers), size):
        yield numbers[first : first + size]


def main():
    server = Server(int(sys.argv[1]))
    keys, seconds, night = int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
    draw = random.Random(1)
    pool = draw.randbytes(1 << 20)

    def value():
        size = draw.randint(500, 5000)
        start = draw.randrange(len(pool) - size)
        return pool[start : start + size]

    def key(number):
        return b"user:%07d:profile" % number

    def load(numbers):
        phase("load")
        for part in chunks(numbers, 100):
            server.pipeline([command(b"SET", key(n), value()) for n in part])

    def work():
        server.pipeline([command(b"GET", key(draw.randrange(keys))) for _ in range(200)])
        server.pipeline([command(b"SET", key(draw.randrange(keys)), value()) for _ in range(20)])

    def busy(name="busy", length=seconds):
        phase(name)
        end = time.monotonic() + length
        while time.monotonic() < end:
            work()

    def save():
        phase("save")
        server.pipeline([command(b"BGSAVE")])
        while b"rdb_bgsave_in_progress:1" in server.ask(command(b"INFO", b"persistence")):
            work()

    order = list(range(keys))
    load(order)
    busy()
    phase("drop")
    draw.shuffle(order)
    victims = order[: keys * 7 // 10]
    for part in chunks(victims, 200):
        server.pipeline([command(b"DEL", key(n)) for n in part])
    phase("idle")
    time.sleep(night)
    load(victims)
    busy()
    if "save" in sys.argv[5:]:
        save()
        busy("settle", 30)
        busy("again", 3)
    print("operations", server.sent, flush=True)
    phase("end")
    server.socket.sendall(command(b"SHUTDOWN", b"NOSAVE"))


main()
