"""Processes that decode what was sent: what is hostile ends one of them, never the service."""

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from unispector.errors import DataError
from unispector.ops.json_text import parse_json
from unispector.ops.memory import WEBP_BYTES
from unispector.ops.rle import BoolArray
from unispector.serving.decoding.uploads import Cost, TooLargeError
from unispector.serving.limits import Limits
from unispector.serving.refusal import RefusedError, Share

PROCESSES = 2
HEADER_SECONDS = 1.0
"""Of processor time, to read a header."""
MEGAPIXEL_SECONDS = 0.25
"""Of processor time, to decode a million pixels; a mask of the slowest format takes a fifth of it."""
WAIT_SECONDS = 30.0
"""For an answer, however little processor time there is."""
TRIES = 2
"""Of an image whose process was ended from outside."""
LARGE_BYTES = 30_000_000
"""Of pixels, after which a process is replaced."""
SPARE_BYTES = 2**28
"""Memory of a process besides an image and its file."""


class Decoders:
    """Decodes images and masks, some at a time; whoever comes later waits."""

    def __init__(self, limits: Limits) -> None:
        """Start nothing yet."""
        self._pixels = limits.pixels
        most = limits.body_bytes + WEBP_BYTES * limits.pixels + SPARE_BYTES
        self._threads = ThreadPoolExecutor(PROCESSES, thread_name_prefix="decoding")
        self._all = [_Process(most) for _ in range(PROCESSES)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in self._all:
            self._idle.put(process)

    async def image(self, data: bytes, name: str, memory: Share) -> npt.NDArray[np.uint8]:
        """Decode an image to uint8 RGB [h, w, 3], upright.

        `memory` holds the peak while it is decoded, and its pixels after.

        Raises:
            DataError: no image of a known format, broken, or it takes too long.
            TooLargeError: more pixels or more memory than are taken.
            RefusedError: 413 or 503, there is not so much room.
        """
        return await self._decoded("image", data, name, memory)

    async def mask(self, data: bytes, name: str, memory: Share) -> BoolArray:
        """Decode a mask to bool [h, w], like `image`."""
        pixels = await self._decoded("mask", data, name, memory)
        return pixels.view(np.bool_)

    def close(self) -> None:
        """End the processes, whatever they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._all:
            process.end()

    async def _decoded(self, task: str, data: bytes, name: str, memory: Share) -> npt.NDArray[np.uint8]:
        answer, _ = await self._asked("cost", data, name, HEADER_SECONDS)
        cost = Cost(**answer["cost"])
        memory.take(cost.peak_bytes)
        seconds = HEADER_SECONDS + MEGAPIXEL_SECONDS * cost.pixels / 1e6
        answer, pixels = await self._asked(task, data, name, seconds)
        memory.give_back(cost.peak_bytes - pixels.nbytes)
        return pixels.reshape(answer["shape"])

    async def _asked(
        self, task: str, data: bytes, name: str, seconds: float
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        request = {
            "task": task,
            "name": name,
            "bytes": len(data),
            "max_pixels": self._pixels,
            "seconds": seconds,
        }
        loop = asyncio.get_running_loop()
        answer, pixels = await loop.run_in_executor(self._threads, self._on_an_idle_one, request, data)
        if "error" in answer:
            raise (TooLargeError if answer["too_large"] else DataError)(answer["error"])
        return answer, pixels

    def _on_an_idle_one(
        self, request: dict[str, Any], data: bytes
    ) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        process = self._idle.get()
        try:
            return process.ask(request, data)
        finally:
            self._idle.put(process)


class _Process:
    """One process, started when it is needed; asked by one thread at a time."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._running: subprocess.Popen[bytes] | None = None
        self._ended = False

    def ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
        """The answer and its pixels, flat.

        Raises:
            DataError: the process did not survive the image.
            OSError: it cannot be started.
            RefusedError: 503, it was ended from outside.
            RuntimeError: it ended by itself.
        """
        for _ in range(TRIES):
            running = self._started()
            late = threading.Timer(WAIT_SECONDS, running.kill)
            late.start()
            try:
                answer = _exchanged(running, request, data)
            finally:
                late.cancel()
            if answer:
                if answer[1].nbytes > LARGE_BYTES:  # its memory does not come back otherwise
                    running.kill()
                return answer
            code = running.wait()
            self._running = None
            if self._ended:
                raise RefusedError(503, "the service is ending")
            if code >= 0:
                raise RuntimeError(f"the decoder ended with code {code}")
            if code != -signal.SIGKILL:
                why = "takes too long to read, or cannot be read"
                raise DataError(f"{request['name']}: {why}; save the image again")
            # Else the system or a person ended it, or there was no processor time: not the image's fault.
        raise RefusedError(503, "too busy to read an image; try again in a moment")

    def end(self) -> None:
        """End the process for good."""
        self._ended = True
        if running := self._running:
            running.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        running = self._running
        if running is None or running.poll() is not None:
            running = subprocess.Popen(  # noqa: S603 - our own module, -P: not one of the working directory
                [sys.executable, "-P", "-m", f"{__package__}.process", str(self._most_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,
            )
            self._running = running
        return running


def _exchanged(
    running: subprocess.Popen[bytes], request: dict[str, Any], data: bytes
) -> tuple[dict[str, Any], npt.NDArray[np.uint8]] | None:
    """What a process answers; None where it ended before."""
    into, out = running.stdin, running.stdout
    if into is None or out is None:
        return None
    with suppress(BrokenPipeError):
        for part in (json.dumps(request).encode() + b"\n", data):
            into.write(part)
    line = out.readline()
    if not line.endswith(b"\n"):
        return None
    answer: dict[str, Any] = parse_json(line)
    pixels = np.empty(math.prod(answer.get("shape", [0])), np.uint8)
    left = memoryview(pixels.data)
    while left and (count := out.readinto(left)):  # type: ignore[attr-defined]
        left = left[count:]
    return None if left else (answer, pixels)
