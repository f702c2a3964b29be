"""Vectors and reranking: from what a checkpoint says to what the program recommends."""

from __future__ import annotations

from edge_llm.llm.checkpoints.source import Checkpoint
from edge_llm.program.documents import EmbeddingFacts, RerankFacts
from edge_llm.tokenizers.readers.convert import TokenizerDocument
from edge_llm.tokenizers.tokenizer import Tokenizer

# By family: how its rerankers were trained to be asked, and what for unless they are told.
TEMPLATES = {
    "qwen3": (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "Given a web search query, retrieve relevant passages that answer the query",
    )
}
_ANSWERS = ("yes", "no")


def embedding_facts(checkpoint: Checkpoint, tokenizer: TokenizerDocument) -> EmbeddingFacts | None:
    """Return how the program makes vectors; None where the checkpoint says nothing."""
    said = checkpoint.retrieval
    if said is None or said.pooling is None:
        return None
    return EmbeddingFacts(said.pooling, tokenizer.end_id, said.query, said.document)


def rerank_facts(
    checkpoint: Checkpoint, document: TokenizerDocument
) -> tuple[RerankFacts | None, tuple[str, ...]]:
    """Return how the program judges documents, None where the checkpoint is no reranker; and what
    is to be said about it."""
    said = checkpoint.retrieval
    if said is None or not said.judges:
        return None, ()
    family = checkpoint.config.model_type
    if family not in TEMPLATES:
        return None, (f"a reranker, but how those of {family} are asked is not known",)
    ids = said.yes_no
    if ids is None:
        tokenizer = Tokenizer(document.json, document.facts)
        found = [tokenizer.encode(answer, add_bos=False) for answer in _ANSWERS]
        if any(len(answer) != 1 for answer in found):
            return None, ("a reranker, but its tokenizer has no tokens for yes and no",)
        ids = found[0][0], found[1][0]
    template, instruction = TEMPLATES[family]
    if not all(0 <= token < checkpoint.config.vocab_size for token in ids):
        return None, ("a reranker, but its tokens for yes and no are not in the vocabulary",)
    return RerankFacts(template, instruction, *ids), ()
