"""Jobs run to their answers, whole or in pieces, for readers that block and for event loops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from edge_llm.runner.generation.answer import Completion, Piece
from edge_llm.runner.generation.loop import Generation, Job, Stream, Submit

Jobs = Callable[[], list[Job]]
_T = TypeVar("_T")


def whole(submit: Submit, jobs: list[Job], *, progress: bool = False) -> list[Completion]:
    """Return the answers; ``progress`` shows how many have ended. Raises as `Stream`."""
    with Stream(submit, jobs) as stream, _counted(len(jobs), progress) as ended:
        return stream.completions(ended)


async def awhole(submit: Submit, jobs: Jobs, *, progress: bool = False) -> list[Completion]:
    """Return the answers; ``progress`` shows how many have ended. Raises as ``jobs``, and as
    `Generation`."""
    made = await prepared(jobs)
    generation = _begun(submit, made)
    try:
        with _counted(len(made), progress) as ended:
            return await generation.completions(ended)
    finally:
        generation.close()


@contextmanager
def _counted(count: int, shown: bool) -> Iterator[Callable[[], None] | None]:
    """Give what is to be called as each of ``count`` answers ends: a bar in a terminal or a
    notebook, if it is to be shown."""
    if not shown:
        yield None
        return
    from tqdm.auto import tqdm

    with tqdm(total=count, unit="answer") as bar:

        def ended() -> None:
            bar.update()

        yield ended


async def apieces(submit: Submit, jobs: Jobs) -> AsyncGenerator[Piece]:
    """Yield the pieces of the answers. Raises as ``jobs``, and as `Generation`."""
    generation = _begun(submit, await prepared(jobs))
    try:
        while (piece := await generation.next()) is not None:
            yield piece
    finally:
        generation.close()


async def prepared(make: Callable[[], _T]) -> _T:
    """Return what ``make`` makes of texts, without holding up the event loop meanwhile: they may be
    long."""
    import asyncio  # here: a program that only blocks starts faster without

    return await asyncio.to_thread(make)


def _begun(submit: Submit, jobs: list[Job]) -> Generation:
    """Return the generation of some jobs, for a reader on the event loop."""
    from edge_llm.runner.generation.async_inbox import AsyncInbox  # here: it needs asyncio

    return Generation(submit, jobs, AsyncInbox())
