"""The runs of Benchmarks/Pressure/run: groups, processes, swap, and what came of them."""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time

LIVE, SPARE, TAKEN = 100, 400, 500  # MiB


class Unavailable(Exception):
    """There is no memory group, or no zram, to be had here."""


def read(path):
    with open(path) as file:
        return file.read()


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


class Group:
    """A memory group below this process' own, of either version."""

    def __init__(self, number, limit):
        version, path = 2, None
        for line in read("/proc/self/cgroup").splitlines():
            _, controllers, group = line.split(":", 2)
            if "memory" in controllers.split(","):
                version, path = 1, group
                break
            if controllers == "":
                path = group
        mount = "/sys/fs/cgroup/memory" if version == 1 else "/sys/fs/cgroup"
        parent = mount + path if os.path.isdir(mount + path) else mount
        self.version = version
        self.path = f"{parent}/hugespan-{os.getpid()}-{number}"
        try:
            os.mkdir(self.path)
            write(self.path + ("/memory.limit_in_bytes" if version == 1 else "/memory.max"), str(limit))
        except OSError as error:
            raise Unavailable(f"no memory group with a limit can be made: {error}") from error

    def enter(self):
        write(self.path + "/cgroup.procs", str(os.getpid()))

    def kills(self):
        name = "/memory.oom_control" if self.version == 1 else "/memory.events"
        for line in read(self.path + name).splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
        return 0

    def remove(self):
        for _ in range(100):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.02)


class Zram:
    """A zram device of one's own, in use as swap of the lowest priority."""

    def __init__(self, size):
        try:
            self.number = int(read("/sys/class/zram-control/hot_add"))
            self.device = f"/dev/zram{self.number}"
            write(f"/sys/block/zram{self.number}/disksize", str(size))
            self.made = not os.path.exists(self.device)
            if self.made:
                major, minor = map(int, read(f"/sys/block/zram{self.number}/dev").split(":"))
                os.mknod(self.device, 0o600 | 0o060000, os.makedev(major, minor))
            subprocess.run(["mkswap", self.device], check=True, capture_output=True)
            subprocess.run(["swapon", "-p", "0", self.device], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unavailable(f"no zram as swap is to be had: {error}") from error

    def remove(self):
        subprocess.run(["swapoff", self.device], check=True)
        write(f"/sys/block/zram{self.number}/reset", "1")
        write("/sys/class/zram-control/hot_remove", str(self.number))
        if self.made:
            os.unlink(self.device)


def one_run(program, settings, number, arguments):
    """One program and one neighbour; a row of what came of them."""
    group = Group(number, arguments.limit << 20)
    processes = []
    try:
        heap = subprocess.Popen(
            [program, "heap", settings, str(LIVE), str(SPARE), "120"],
            stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
        processes.append(heap)
        if heap.stdout.readline() != "ready\n":
            raise Unavailable("the program did not get as far as being ready")
        time.sleep(0.2)
        taker = subprocess.Popen(
            [program, "take", str(TAKEN), str(arguments.rate)],
            stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
        processes.append(taker)
        took = taker.stdout.readline().split()
        if took:
            time.sleep(0.1)
        has_lived = bool(took) and heap.poll() is None and group.kills() == 0
        row = {"settings": settings, "lived": has_lived, "tookSeconds": float(took[3]) if took else None}
        if heap.poll() is None:
            heap.send_signal(signal.SIGTERM)
            text = heap.stdout.read()
            if text:
                row.update(json.loads(text))
        return row
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        group.remove()


def rest(program, arguments):
    """What watching costs while nothing happens."""
    group = Group(0, arguments.limit << 20)
    try:
        heap = subprocess.Popen(
            [program, "heap", "strategy:deferred,free-whole:off,policy:never", str(LIVE), str(SPARE), "20"],
            stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
        lines = heap.communicate()[0].splitlines()
        row = json.loads(lines[1])
    finally:
        group.remove()
    headroom = row["leastHeadroomBytes"] / 2**20
    print(f"at rest, {headroom:.0f} MiB of headroom: {row['looks'] / 20:.0f} looks a second,"
          f" {row['lookCPUShare']:.4%} of a processor for looking, {row['cpuShare']:.4%} for the whole process")
    return row


def main():
    parser = argparse.ArgumentParser(prog="Benchmarks/Pressure/run")
    parser.add_argument("program")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--limit", type=int, default=700)
    parser.add_argument("--zram", action="store_true")
    parser.add_argument("--rest", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    document = {"schema": "hugespan.pressure/1", "machine": {"kernel": platform.release()}, "zram": arguments.zram}
    zram = None
    try:
        if arguments.rest:
            row = rest(arguments.program, arguments)
            document["rest"] = row
            status = 0 if row["cpuShare"] < 0.001 else 1
        else:
            zram = Zram(2 << 30) if arguments.zram else None
            status = compare(arguments, document)
    except Unavailable as error:
        print(f"skipped: {error}", file=sys.stderr)
        return 69
    finally:
        if zram:
            zram.remove()
    if arguments.json:
        text = json.dumps(document, indent=2)
        print(text) if arguments.json == "-" else write(arguments.json, text + "\n")
    return status


def compare(arguments, document):
    rows = []
    kept = max(arguments.runs // 4, 1)
    for number in range(arguments.runs + kept):
        settings = "strategy:deferred,free-whole:off,policy:never" if number < arguments.runs else "strategy:keep"
        rows.append(one_run(arguments.program, settings, number, arguments))
    document["runs"] = rows
    print("strategy   lived    reaction (ms, most)   headroom left (MiB, least)   given back (MiB)   swapped (MiB, most)")
    good = True
    for name in ["deferred", "keep"]:
        mine = [row for row in rows if f"strategy:{name}" in row["settings"]]
        lived = [row for row in mine if row["lived"]]
        told = [row for row in mine if "drains" in row]
        line = f"{name:9} {len(lived):3} / {len(mine):<3}"
        if told:
            swapped = max(row["swappedBytes"] for row in told) / 2**20
            if name == "deferred":
                line += (f"  {max(row['reactionSeconds'] for row in told) * 1e3:12.1f}"
                         f"            {min(row['leastHeadroomBytes'] for row in told) / 2**20:15.1f}"
                         f"            {statistics.median(row['drainedBytes'] for row in told) / 2**20:15.0f}")
                # Pages in use may be swapped where the kernel balances; free ones are gone before.
                good = good and swapped < 1
            else:
                line += " " * 66
            line += f"   {swapped:17.1f}"
        print(line)
        if name == "deferred":
            good = good and len(lived) == len(mine)
        elif not arguments.zram:
            good = good and not lived
    return 0 if good else 1


sys.exit(main())
