"""A batch of photographs in one process: large buffers that come and go.

NumPy and Pillow on CPython: an album of images is developed (noise, blur, tone, resize, JPEG) and kept as a cache of
decoded pictures and thumbnails, most of the cache is dropped, nothing happens for a while, and a second album follows.
Buffers are 100 KiB to 48 MiB; the small objects of the interpreter lie in its own arenas, which are its own mmaps.
"""

import io
import random
import time

import numpy
from PIL import Image, ImageFilter

BEGIN = time.monotonic()


def phase(name):
    print(f"{time.monotonic() - BEGIN:6.1f} {name}", flush=True)


def photograph(draw, width, height):
    """A picture with gradients, shapes and grain, as floating point."""
    x = numpy.linspace(0, 6.3, width, dtype=numpy.float32)
    y = numpy.linspace(0, 6.3, height, dtype=numpy.float32)
    plane = numpy.sin(x * draw.uniform(0.5, 4))[None, :] + numpy.cos(y * draw.uniform(0.5, 4))[:, None]
    grain = numpy.random.default_rng(draw.randint(0, 10**6)).standard_normal((height, width), dtype=numpy.float32)
    channels = [plane * draw.uniform(20, 60) + 128 + grain * draw.uniform(1, 6) for _ in range(3)]
    return numpy.stack(channels, axis=-1)


def develop(draw, cache, number):
    width = draw.choice([1200, 1600, 2000, 2400])
    pixels = photograph(draw, width, width * 2 // 3)
    pixels = (numpy.clip(pixels / 255, 0, 1) ** 0.9 * 255).astype(numpy.uint8)
    picture = Image.fromarray(pixels)
    picture = picture.filter(ImageFilter.GaussianBlur(1))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=88)
    thumbnails = [picture.resize((side, side * 2 // 3), Image.BICUBIC) for side in (1024, 512, 256, 128)]
    histogram = numpy.histogram(pixels, bins=64)[0].tolist()
    metadata = {"number": number, "size": picture.size, "histogram": histogram, "tags": [f"tag{n}" for n in range(20)]}
    cache[number] = (picture, thumbnails, encoded.getvalue(), metadata)


def album(draw, cache, numbers, seconds):
    start = time.monotonic()
    for done, number in enumerate(numbers):
        develop(draw, cache, number)
        time.sleep(max(0.0, start + seconds * (done + 1) / len(numbers) - time.monotonic()))


def main():
    draw = random.Random(5)
    cache = {}
    count = 26
    phase("first album")
    album(draw, cache, range(count), 16)
    time.sleep(3)
    phase("drop most of the cache")
    for number in draw.sample(range(count), count * 7 // 10):
        del cache[number]
        time.sleep(0.1)
    time.sleep(23)
    phase("second album")
    album(draw, cache, range(count, count + count // 2), 12)
    time.sleep(max(3, 61 - (time.monotonic() - BEGIN)))
    phase("done")


main()
