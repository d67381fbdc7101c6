"""The limits of the service."""

from dataclasses import dataclass

from unispector.errors import ServiceError
from unispector.ops.memory import PEAK_BYTES


@dataclass(frozen=True)
class Limits:
    """The limits of one request, and of all together."""

    body_mib: int = 64
    megapixels: int = 50
    pictures: int = 16
    marks: int = 100  # boxes of a request that adds prompts
    memory_mib: int = 1024  # MiB of bodies and images of all requests together
    queue: int = 64  # images of all requests together that wait or are looked at
    batch: int = 8  # images that are looked at in one turn
    batch_wait: float = 0.005  # seconds that a turn waits for more images after its first
    body_seconds: float = 30.0  # for the body of a request
    request_seconds: float = 120.0  # for a whole request, its answer received
    shutdown_seconds: float = 60.0  # for the requests in flight when the service is told to stop

    def __post_init__(self) -> None:
        if self.pictures > self.queue:
            raise ServiceError(
                f"a queue of {self.queue} images never holds a request of {self.pictures}; raise --queue"
            )
        if self.body_mib + self.pixels * PEAK_BYTES / 2**20 > self.memory_mib:
            raise ServiceError(
                f"{self.memory_mib} MiB do not hold a body of {self.body_mib} MiB and its image of "
                f"{self.megapixels} megapixels; raise --memory-mib"
            )

    @property
    def body_bytes(self) -> int:
        """Bytes of a request's body."""
        return self.body_mib * 2**20

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.megapixels * 1_000_000
