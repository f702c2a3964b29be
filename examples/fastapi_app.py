"""A web application around a model: an answer at once, a stream, and an answer in a form.

    pip install uvicorn
    MODEL=smollm2-135m uvicorn --app-dir examples fastapi_app:app
    curl 'localhost:8000/ask?question=Why+is+the+sky+blue'

`edge-llm serve` has whole APIs; this is for an application that has routes of its own.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

import edge_llm


class Review(BaseModel):
    """The facts that are taken out of a text; the bounds are enforced while it is written."""

    product: str = Field(max_length=30)
    stars: int = Field(ge=1, le=5)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the model once, for all requests, without holding up the event loop."""
    app.state.llm = await edge_llm.aload(os.environ.get("MODEL", "smollm2-135m"))
    try:
        yield
    finally:
        app.state.llm.close()


app = FastAPI(lifespan=lifespan)


def chat_of(question: str) -> list[dict[str, Any]]:
    """Return a conversation that asks one question."""
    return [{"role": "user", "content": question}]


@app.get("/ask")
async def ask(request: Request, question: str) -> dict[str, str]:
    """Return the whole answer."""
    llm: edge_llm.LLM = request.app.state.llm
    answer = await llm.achat(chat_of(question), max_tokens=200)
    return {"answer": answer.text}


@app.get("/stream")
async def stream(request: Request, question: str) -> StreamingResponse:
    """Return the answer as it is made. Where the client hangs up, the model stops."""
    llm: edge_llm.LLM = request.app.state.llm

    async def pieces() -> AsyncIterator[str]:
        async for piece in llm.achat(chat_of(question), stream=True, max_tokens=200):
            yield piece.text

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")


@app.get("/review")
async def review(request: Request, text: str) -> Review:
    """Return what a text says, in the form of `Review`, which every answer has."""
    llm: edge_llm.LLM = request.app.state.llm
    answer = await llm.achat(
        chat_of(f"Extract the product and the stars (1 to 5): {text}"),
        response_format=Review,
        max_tokens=200,
    )
    return Review.model_validate_json(answer.text)
