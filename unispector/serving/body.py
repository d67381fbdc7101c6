"""Bodies of requests: counted and timed while they arrive, before anything of them is decoded."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unispector.serving.refusal import RefusedError
from unispector.serving.service import Service

END_BYTES = 2**14
"""So much of the end of a body is kept: as long as the headers, one of which names what a form ends with."""


class BodyLimit:
    """Refuses a body that is too large, too slow, or more than there is room for, as soon as that shows.

    What a request holds of the room is `memory` in its state, and is given back when its answer begins; the
    end of what has come of its body is `body_end` there.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whoever reads a refused body gets a RefusedError: 400, 408, 413 or 503."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._service.limits
        state, size, more = scope["state"], 0, True
        announced = int(Headers(scope=scope).get("content-length", 0))
        end = asyncio.get_running_loop().time() + limits.body_seconds
        with self._service.memory.share() as memory:
            state |= {"memory": memory, "body_end": b""}

            async def counted() -> Message:
                nonlocal size, more
                if not more:
                    return await receive()
                if max(size, announced) <= limits.body_bytes:
                    message = await _before(end, receive, limits.body_seconds)
                    piece = message.get("body", b"")
                    memory.take(len(piece))
                    size += len(piece)
                    state["body_end"] = (state["body_end"] + piece)[-END_BYTES:]
                    more = message.get("more_body", False)
                if max(size, announced) > limits.body_bytes:
                    raise RefusedError(413, f"a body of more than {limits.body_mib} MiB; send less at a time")
                return message

            async def answering(message: Message) -> None:
                if message["type"] == "http.response.start":
                    memory.give_back()
                await send(message)

            await self._app(scope, counted, answering)


async def _before(end: float, receive: Receive, seconds: float) -> Message:
    try:
        async with asyncio.timeout_at(end):
            message = await receive()
    except TimeoutError as error:
        raise RefusedError(408, f"the body took more than {seconds:g} s") from error
    if message["type"] == "http.disconnect":
        raise RefusedError(400, "the body ended early")
    return message
