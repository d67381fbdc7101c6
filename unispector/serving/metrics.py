"""The service's metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The service's figures, in a registry of their own.

    Attributes:
        requests: answered requests by route, method and status.
        seconds: from a request's headers to the end of its answer, by route.
        batches: images of each turn of the detector.
        reloads: attempts to take in another model or other prompts, by outcome.
        trouble: 1 while what should be served cannot be.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.requests = Counter(
            "unispector_requests", "Answered requests.", ("route", "method", "status"), registry=own
        )
        self.seconds = Histogram(
            "unispector_request_seconds", "Time to answer.", ("route",), registry=own, buckets=_SECONDS
        )
        self.pictures = Counter("unispector_pictures", "Images detected on.", registry=own)
        self.batches = Histogram(
            "unispector_batch_pictures", "Images of a detector's turn.", registry=own, buckets=_BATCHES
        )
        self.queue = Gauge("unispector_queue_pictures", "Images waiting or looked at.", registry=own)
        self.reloads = Counter(
            "unispector_reloads", "Models or prompts taken in, or not.", ("outcome",), registry=own
        )
        self.trouble = Gauge(
            "unispector_reload_trouble", "1 while what should be served cannot be.", registry=own
        )
        self.info = Gauge(
            "unispector_model",
            "What is served; always 1.",
            ("reference", "version", "fingerprint", "bank_version"),
            registry=own,
        )
        ProcessCollector(registry=own)

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._registry)
