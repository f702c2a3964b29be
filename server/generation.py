"""A generating request on the server: counted in, watched for a client that hangs up, counted out.

The generation itself is `edge_llm.runner.generation.loop`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from starlette.types import Receive

from edge_llm.runner.generation.answer import Piece
from edge_llm.runner.generation.loop import AsyncInbox, Generation, Job
from edge_llm.server.errors import unavailable
from edge_llm.server.service import Model, Service


class ClientGoneError(Exception):
    """The client hung up: nobody will read a reply."""


class ServedGeneration:
    """The answers of one HTTP request. Read `pieces`, and `close` in any case."""

    def __init__(
        self, service: Service, model: Model, jobs: Sequence[Job], receive: Receive
    ) -> None:
        """Submit all jobs. From now on ``receive`` is watched for the client's hanging up, in every
        phase, reply begun or not.

        Raises:
            ApiError: 429 if too many requests run or wait.
            EdgeLLMError: the engine refused a job; none runs then.
        """
        self._service = service
        service.enter(self)
        try:
            self._generation = Generation(model.submit, jobs, AsyncInbox())
        except BaseException:
            service.leave(self)
            raise
        self._watcher = asyncio.get_running_loop().create_task(self._watch(receive))

    async def pieces(self) -> AsyncGenerator[Piece]:
        """Yield the pieces of all answers, in the order in which they come.

        Raises:
            EdgeLLMError: an answer failed.
            ApiError: the server is stopping.
            ClientGoneError: the client hung up.
        """
        while (piece := await self._generation.next()) is not None:
            yield piece

    def abort(self) -> None:
        """End it with an error."""
        self._generation.fail(unavailable("The server is stopping."))

    def close(self) -> None:
        """Cancel what still runs and let go of everything; more than once is fine."""
        self._generation.close()
        self._service.leave(self)
        self._watcher.cancel()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        # Here and not in the reader alone: a stream may be dropped before it is read at all.
        self._generation.fail(ClientGoneError())
        self._service.leave(self)
