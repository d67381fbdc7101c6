"""How much memory is left, and whether an image fits into it."""

from pathlib import Path

from unispector.errors import DataError

PEAK_BYTES = 18
"""A pixel takes while it is decoded, at most: measured on all formats and modes, in turn and as a mask."""
WEBP_BYTES = 24
"""The same of WebP, whose reader keeps two canvases."""
SMALL_PIXELS = 10_000_000
"""Images up to here are read without a look at the memory."""

_MEMINFO = Path("/proc/meminfo")
# Of a container: version 2 of control groups, and version 1.
_GROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def peak_bytes(pixels: int, image_format: str | None) -> int:
    """Bytes that decoding an image of Pillow's format takes."""
    return pixels * (WEBP_BYTES if image_format == "WEBP" else PEAK_BYTES)


def free_bytes() -> int | None:
    """Bytes that this process may still take, of the machine and of its container; None where unknown."""
    known = []
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        known += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError):
        pass
    for limit, used in _GROUPS:
        try:
            known.append(int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such group, or `max`
            continue
    return min(known, default=None)


def check_memory(pixels: int, image_format: str | None, name: str | Path) -> None:
    """Refuse an image that cannot be decoded in the memory that is left.

    Raises:
        DataError: it would need more.
    """
    if pixels <= SMALL_PIXELS:
        return
    needed, free = peak_bytes(pixels, image_format), free_bytes()
    if free is not None and needed > free:
        raise DataError(
            f"{name}: {pixels / 1e6:.0f} million pixels take {needed / 2**20:.0f} MiB to decode, "
            f"{max(free, 0) / 2**20:.0f} are free; cut the image, or start fewer workers"
        )
