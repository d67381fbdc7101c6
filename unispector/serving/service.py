"""The parts of the running service, and its life from start to stop."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

from unispector.serving.batching import Batcher
from unispector.serving.decoding.decoders import Decoders
from unispector.serving.engine import Reloader
from unispector.serving.label_studio.images import StudioImages
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.refusal import RefusedError, Room
from unispector.workbench.bench import Bench

Given = TypeVarTuple("Given")
Result = TypeVar("Result")
SLOW_SECONDS = 30.0
"""So long nothing takes that loads or writes, on a machine that is well."""
MOST_CHANGES = 4
"""Changes of the prompts that wait for their turn."""
WORKERS = 2  # threads
WAITERS = 16  # threads, one for each window of the page


class Service:
    """Everything that requests share.

    Attributes:
        token: that requests must carry; empty = none.
        memory: bytes of bodies, and of images while they are decoded and after.
        bench: what the page works on; None of a service without the page.
        studio: where images of Label Studio's tasks are; None of a service that is not its backend.
        identity: another one after a restart.
        failure: why the service must end, in one line; empty while it need not.
    """

    def __init__(
        self,
        reloader: Reloader,
        metrics: Metrics,
        limits: Limits,
        token: str = "",
        poll_seconds: float = 5.0,
        bench: Bench | None = None,
        studio: StudioImages | None = None,
        needs_model: bool = False,
    ) -> None:
        """Put the parts together; nothing runs yet.

        Args:
            reloader: asked for another engine every `poll_seconds`.
            token: that requests must carry; empty = none, and only requests meant for loopback are taken.
            poll_seconds: between two looks for another model or other prompts.
            needs_model: a model that cannot be loaded at first is a failure.
        """
        self.limits = limits
        self.reloader = reloader
        self.metrics = metrics
        self.token = token
        self.bench = bench
        self.studio = studio
        self.identity = secrets.token_hex(4)
        self.batcher = Batcher(limits, metrics)
        self.memory = Room(limits.memory_mib * 2**20, "bytes of bodies and images")
        self.decoders = Decoders(limits)
        self.queue = Room(limits.queue, "pictures")
        metrics.queue.set_function(lambda: self.queue.used)
        metrics.trouble.set_function(lambda: bool(self.trouble))
        self.failure = ""
        self._needs_model = needs_model
        self._poll_seconds = poll_seconds
        self._is_loading = False
        self._changes = 0
        self._looked = time.monotonic()
        # Loads, encodes and writes prompts, one thing at a time.
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="worker")
        self._waiters = ThreadPoolExecutor(WAITERS, thread_name_prefix="waiter")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Detect, and look for other models and prompts, while the block runs."""
        tasks = [asyncio.create_task(self.batcher.run()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.batcher.close()
            if self.bench is not None:
                self.bench.close()
            self._waiters.shutdown(wait=False, cancel_futures=True)
            self._loader.shutdown(wait=False, cancel_futures=True)
            self._workers.shutdown(wait=False, cancel_futures=True)
            self.decoders.close()

    async def loading(self, function: Callable[[], Result]) -> Result:
        """Run something on the thread that loads models and handles prompts."""
        return await asyncio.get_running_loop().run_in_executor(self._loader, self._timed, function)

    async def finishing(self, function: Callable[[], object], end: float) -> None:
        """Run something on the loader's thread that is waited for once it has begun.

        Args:
            end: when it is given up if it has not begun, on the loop's clock.

        Raises:
            TimeoutError: it was given up.
            RefusedError: 503, too many wait for their turn.
        """
        if self._changes >= MOST_CHANGES:
            raise RefusedError(503, "other changes of the prompts wait already; try again in a moment")
        self._changes += 1
        try:
            job = self._loader.submit(self._timed, function)
            done = asyncio.wrap_future(job)
            await asyncio.wait([done], timeout=end - asyncio.get_running_loop().time())
            if job.cancel():
                raise TimeoutError
            await done
        finally:
            self._changes -= 1

    async def working(self, function: Callable[[*Given], Result], *args: *Given) -> Result:
        """Run something on the threads that take requests apart and put answers together."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, function, *args)

    async def waiting(self, function: Callable[[*Given], Result], *args: *Given) -> Result:
        """Run something that waits for others more than it works."""
        return await asyncio.get_running_loop().run_in_executor(self._waiters, function, *args)

    @property
    def is_loading(self) -> bool:
        """Whether something is being loaded or written just now."""
        return self._is_loading

    @property
    def trouble(self) -> str:
        """Why what should be in use is not, in one line; empty when all is well."""
        seconds = time.monotonic() - self._looked
        if seconds > SLOW_SECONDS + self._poll_seconds:
            return f"loading a model or prompts, or writing prompts, has taken {seconds:.0f} s so far"
        return self.reloader.trouble

    def _timed(self, function: Callable[[], Result]) -> Result:
        self._is_loading = True
        try:
            return function()
        finally:
            self._is_loading = False

    async def _watch(self) -> None:
        while True:
            await self.loading(self.reloader.refresh)
            self._looked = time.monotonic()
            if self._needs_model and self.reloader.engine is None:
                self.failure = self.reloader.trouble
            self._needs_model = False
            await asyncio.sleep(self._poll_seconds)
