"""Jobs run to their answers, whole or in pieces, for readers that block and for event loops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable

from edge_llm.runner.generation.answer import Completion, Piece
from edge_llm.runner.generation.loop import AsyncInbox, Generation, Job, Stream, Submit

Jobs = Callable[[], list[Job]]


def whole(submit: Submit, jobs: Iterable[Job]) -> list[Completion]:
    """Return the answers. Raises as `Stream`."""
    with Stream(submit, jobs) as stream:
        return stream.completions()


async def awhole(submit: Submit, jobs: Jobs) -> list[Completion]:
    """Return the answers. Raises as ``jobs``, and as `Generation`."""
    generation = await _begun(submit, jobs)
    try:
        return await generation.completions()
    finally:
        generation.close()


async def apieces(submit: Submit, jobs: Jobs) -> AsyncGenerator[Piece]:
    """Yield the pieces of the answers. Raises as ``jobs``, and as `Generation`."""
    generation = await _begun(submit, jobs)
    try:
        while (piece := await generation.next()) is not None:
            yield piece
    finally:
        generation.close()


async def _begun(submit: Submit, jobs: Jobs) -> Generation:
    import asyncio  # here: a program that only blocks starts faster without

    # Texts are encoded in a thread: a long one would hold up the loop.
    return Generation(submit, await asyncio.to_thread(jobs), AsyncInbox())
