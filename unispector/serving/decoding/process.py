"""The process that decodes: sent images on standard input, pixels on standard output.

A request and an answer are each a line of JSON and the bytes it announces. A request's processor time is
limited by a signal that ends the process, in whatever library it is; the memory of the process by the
system. The process ends with its input.
"""

import json
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unispector.errors import DataError
from unispector.ops.json_text import parse_json
from unispector.serving.decoding.uploads import TooLargeError, decode_image, decode_mask, upload_cost

STATM = Path("/proc/self/statm")

_DECODE: dict[str, Callable[[bytes, str, int], npt.NDArray[Any]]] = {
    "image": decode_image,
    "mask": decode_mask,
}


def main() -> None:
    """Answer until the input ends; the argument is how many bytes of memory may come to those in use."""
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the service, which ends us
        signal.signal(ending, signal.SIG_IGN)
    warnings.filterwarnings("ignore")
    if STATM.exists():  # of Linux
        in_use = int(STATM.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + int(sys.argv[1]),) * 2)
    while line := sys.stdin.buffer.readline():
        request = parse_json(line)
        data = sys.stdin.buffer.read(request["bytes"])
        signal.setitimer(signal.ITIMER_PROF, request["seconds"])
        answer, pixels = _answered(data, request["task"], request["name"], request["max_pixels"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.write(np.ascontiguousarray(pixels).data)
        sys.stdout.buffer.flush()
        del data, pixels


def _answered(
    data: bytes, task: str, name: str, max_pixels: int
) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
    nothing = np.empty(0, np.uint8)
    try:
        if task == "cost":
            return {"cost": vars(upload_cost(data, name, max_pixels))}, nothing
        pixels = _DECODE[task](data, name, max_pixels)
    except TooLargeError as error:
        return {"error": str(error), "too_large": True}, nothing
    except DataError as error:
        return {"error": str(error), "too_large": False}, nothing
    return {"shape": pixels.shape}, pixels.view(np.uint8)


if __name__ == "__main__":
    main()
