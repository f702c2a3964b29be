"""Jobs run to their answers, whole or in pieces, for readers that block and for event loops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager

from edge_llm.runner.generation.answer import Completion, Piece
from edge_llm.runner.generation.loop import AsyncInbox, Generation, Job, Stream, Submit

Jobs = Callable[[], list[Job]]


def whole(submit: Submit, jobs: list[Job], *, progress: bool = False) -> list[Completion]:
    """Return the answers; ``progress`` shows how many have ended. Raises as `Stream`."""
    with Stream(submit, jobs) as stream, _counted(len(jobs), progress) as ended:
        return stream.completions(ended)


async def awhole(submit: Submit, jobs: Jobs, *, progress: bool = False) -> list[Completion]:
    """Return the answers; ``progress`` shows how many have ended. Raises as ``jobs``, and as
    `Generation`."""
    generation, count = await _begun(submit, jobs)
    try:
        with _counted(count, progress) as ended:
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
    generation, _ = await _begun(submit, jobs)
    try:
        while (piece := await generation.next()) is not None:
            yield piece
    finally:
        generation.close()


async def _begun(submit: Submit, jobs: Jobs) -> tuple[Generation, int]:
    """Return the generation of what ``jobs`` makes, and how many there are."""
    import asyncio  # here: a program that only blocks starts faster without

    # Texts are encoded in a thread: a long one would hold up the loop.
    made = await asyncio.to_thread(jobs)
    return Generation(submit, made, AsyncInbox()), len(made)
