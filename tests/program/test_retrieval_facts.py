"""What a program says about vectors and reranking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_llm.errors import ProgramError
from edge_llm.program.check import check_documents
from edge_llm.program.documents import EmbeddingFacts, RerankFacts
from edge_llm.program.serialize import documents_from_metadata, documents_to_metadata

EMBEDDING = EmbeddingFacts(pooling="last", end_id=2, query="Query: ", document="")
RERANK = RerankFacts("{instruction} {query} {document}", "find", yes_id=3, no_id=4)


def test_facts_are_read_back_and_may_be_absent(parts: Any) -> None:
    documents = replace(parts.documents, embedding=EMBEDDING, rerank=RERANK)
    check_documents(documents, parts.plan)
    assert documents_from_metadata(documents_to_metadata(documents)) == documents
    without = documents_to_metadata(parts.documents)
    assert not {"edge_llm.embedding", "edge_llm.rerank"} & without.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": replace(EMBEDDING, pooling="cls")}, "embedding.pooling"),
        ({"embedding": replace(EMBEDDING, end_id=96)}, "embedding.end_id: is 96|embedding.end_id"),
        ({"rerank": replace(RERANK, yes_id=-1)}, "rerank.yes_id"),
        ({"rerank": replace(RERANK, template="{query} {document}")}, "rerank.template"),
        ({"rerank": replace(RERANK, template=RERANK.template * 2)}, "rerank.template"),
    ],
)
def test_facts_that_cannot_be_are_refused(
    parts: Any, changes: dict[str, Any], message: str
) -> None:
    documents = replace(parts.documents, **changes)
    with pytest.raises(ProgramError, match=message):
        check_documents(documents_from_metadata(documents_to_metadata(documents)), parts.plan)
