"""Processes decode as the library does, within their memory and time, and outlive what they are sent."""

import asyncio
import io
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unispector.errors import DataError
from unispector.ops.memory import PEAK_BYTES
from unispector.serving.decoding import decoders as module
from unispector.serving.decoding.decoders import Decoders
from unispector.serving.decoding.uploads import TooLargeError, decode_image, decode_mask
from unispector.serving.limits import Limits
from unispector.serving.refusal import RefusedError, Room, Share

RNG = np.random.default_rng(8)
RGB = np.kron(RNG.integers(0, 256, (40, 60, 3)), np.ones((20, 20, 1))).astype(np.uint8)
LIMITS = Limits(megapixels=20, memory_mib=1024)


def stored(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(RGB)).save(stream, kind, **options)
    return stream.getvalue()


PNG = stored("PNG")


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    own = Decoders(LIMITS)
    yield own
    own.close()


def asked(ask: Callable[[Share], Coroutine[Any, Any, np.ndarray]], room: Room | None = None) -> np.ndarray:
    async def run() -> np.ndarray:
        with (room or Room(2**30, "bytes")).share() as memory:
            pixels = await ask(memory)
            assert memory.amount == pixels.nbytes
            return pixels

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_images_and_masks_are_those_of_the_library(kind, decoders):
    data = stored(kind)
    assert np.array_equal(asked(lambda m: decoders.image(data, "a", m)), decode_image(data, "a", 10**9))
    assert np.array_equal(asked(lambda m: decoders.mask(data, "a", m)), decode_mask(data, "a", 10**9))


def test_errors_are_those_of_the_library(decoders):
    large = stored("PNG", Image.new("L", (5000, 4001)))
    for data, error in ((b"no image", DataError), (PNG[:-900], DataError), (large, TooLargeError)):
        with pytest.raises(error) as expected:
            decode_image(data, "p.png", LIMITS.pixels)
        with pytest.raises(error, match=r"^p\.png: ") as got:
            asked(lambda m, data=data: decoders.image(data, "p.png", m))
        assert (str(got.value), type(got.value)) == (str(expected.value), type(expected.value))


def test_the_peak_is_charged_before_a_pixel_is_decoded(decoders):
    peak = RGB.shape[0] * RGB.shape[1] * PEAK_BYTES
    assert asked(lambda m: decoders.image(PNG, "a", m), Room(peak, "bytes")).shape == RGB.shape
    room = Room(peak - 1, "bytes")
    with pytest.raises(RefusedError, match="more than"):
        asked(lambda m: decoders.image(PNG, "a", m), room)
    assert room.used == 0


def test_what_takes_too_long_ends_and_the_next_is_decoded(decoders, monkeypatch):
    slow = stored("JPEG", Image.fromarray(RNG.integers(0, 256, (4000, 5000, 3), np.uint8)), progressive=True)
    monkeypatch.setattr(module, "MEGAPIXEL_SECONDS", 0.0)
    monkeypatch.setattr(module, "HEADER_SECONDS", 0.1)
    with pytest.raises(DataError, match=r"^slow: takes too long"):
        asked(lambda m: decoders.image(slow, "slow", m))
    assert np.array_equal(asked(lambda m: decoders.image(PNG, "a", m)), RGB)


def test_what_needs_too_much_memory_is_refused_and_the_next_is_decoded(monkeypatch):
    monkeypatch.setattr(module, "SPARE_BYTES", -module.WEBP_BYTES * LIMITS.pixels)
    own = Decoders(LIMITS)
    try:
        with pytest.raises(DataError, match=r"^a: "):
            asked(lambda m: own.image(stored("PNG", Image.new("RGB", (4000, 4000))), "a", m))
        assert np.array_equal(asked(lambda m: own.image(PNG, "a", m)), RGB)
    finally:
        own.close()


def test_processes_that_are_killed_come_back(decoders):
    for _ in range(3):
        asked(lambda m: decoders.image(PNG, "a", m))
        for process in decoders._all:
            if process._running is not None:
                os.kill(process._running.pid, signal.SIGKILL)
                process._running.wait()
    assert np.array_equal(asked(lambda m: decoders.image(PNG, "a", m)), RGB)


def test_an_image_is_not_blamed_for_a_process_that_others_end(decoders, monkeypatch):
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.5)
    asked(lambda m: decoders.image(PNG, "a", m))
    for process in decoders._all:
        if process._running is not None:
            os.kill(process._running.pid, signal.SIGSTOP)
    assert np.array_equal(asked(lambda m: decoders.image(PNG, "a", m)), RGB)  # in another process
    exchanged, ended = module._exchanged, []

    def killed(running, *given):
        running.kill()
        ended.append(running)
        return exchanged(running, *given)

    monkeypatch.setattr(module, "_exchanged", killed)
    with pytest.raises(RefusedError, match="too busy to read an image") as refused:
        asked(lambda m: decoders.image(PNG, "a", m))
    assert (refused.value.status, len(ended)) == (503, module.TRIES)


def test_a_process_is_replaced_after_a_large_image(decoders):
    large = stored("PNG", Image.new("RGB", (4000, 3000)))
    asked(lambda m: decoders.image(large, "a", m))
    running = [process._running for process in decoders._all if process._running is not None]
    end = time.monotonic() + 10
    while all(each.poll() is None for each in running):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_requests_share_the_processes(decoders):
    async def run() -> list[np.ndarray]:
        room = Room(2**30, "bytes")
        with room.share() as memory:
            return await asyncio.gather(*(decoders.image(PNG, str(n), memory) for n in range(12)))

    assert all(np.array_equal(pixels, RGB) for pixels in asyncio.run(run()))


def test_no_process_is_left_when_they_are_closed(decoders):
    asked(lambda m: decoders.image(PNG, "a", m))
    running = [process._running for process in decoders._all if process._running is not None]
    decoders.close()
    assert running
    assert all(each.wait(10) for each in running)
