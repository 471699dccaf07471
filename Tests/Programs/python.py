"""Threads and processes of CPython; prints a digest that is the same on every allocator."""

import concurrent.futures
import hashlib
import json
import multiprocessing
import random
import threading
import zlib


def shuffle(seed):
    generator = random.Random(seed)
    table = {}
    for step in range(30000):
        key = generator.randrange(4000)
        if key in table and generator.random() < 0.4:
            del table[key]
        else:
            table[key] = [str(step)] * generator.randrange(30)
    text = json.dumps(table, sort_keys=True)
    return hashlib.sha256(zlib.compress(text.encode())).hexdigest()


def grow(results, index):
    data = bytearray()
    for step in range(3000):
        data += bytes([step % 256]) * (step * 7 % 1500)
        if len(data) > 1500000:
            del data[:1000000]
    results[index] = hashlib.sha256(data).hexdigest()


def main():
    results = {}
    threads = [threading.Thread(target=grow, args=(results, index)) for index in range(6)]
    kept = [str(number) * 10 for number in range(200000)]
    for thread in threads:
        thread.start()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        digests = pool.map(shuffle, range(8))
    for thread in threads:
        thread.join()
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        digests += executor.map(shuffle, range(8, 12))
    digests += [results[index] for index in sorted(results)]
    digests.append(str(sum(map(len, kept))))
    print(hashlib.sha256("".join(digests).encode()).hexdigest())


if __name__ == "__main__":
    main()
