"""Answers under a grammar by a model that knows nothing: every token is drawn at random."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import jsonschema
import numpy as np

from edge_llm.runner.engine.constraints import Constraint, Mask, mask_of
from edge_llm.runner.guidance.vocabulary import Vocabulary


class RandomModel:
    """Draws tokens of a vocabulary. Without some bias towards what ends a value, strings and
    lists drawn at random are long; from half of ``most`` tokens on it ends what it can."""

    def __init__(self, vocabulary: Vocabulary, most: int = 600) -> None:
        self.vocabulary = vocabulary
        self.most = most
        ends = [b'"', b'",', b'"}', b"]", b"}", b",", b"0", b"]}", b"}}", b'"]', b"null", b"true"]
        ends += [b"@"]
        closing = [i for i, data in enumerate(vocabulary.tokens) if data in ends]
        self._closing = mask_of(closing, 32 * len(vocabulary.everything)) | vocabulary.ends

    def answer(self, constraint: Constraint, seed: int) -> bytes | None:
        """Return a whole answer, None if ``most`` tokens were too few."""
        source = np.random.default_rng(seed)
        said: list[bytes] = []
        while not constraint.finished:
            if len(said) == self.most:
                return None
            mask = constraint.masks([])[0]
            chance = 0.2 if len(said) < self.most / 2 else 1.0
            closing = mask & self._closing
            if source.random() < chance and closing.any():
                mask = closing
            token = self._draw(mask, source)
            if token in self.vocabulary.end_ids:
                break
            constraint.accept([token])
            said.append(self.vocabulary.tokens[token])
        return b"".join(said)

    def _draw(self, mask: Mask, source: np.random.Generator) -> int:
        words = np.flatnonzero(mask)
        if len(words) > 64:  # of very many, one of a random part is random enough
            words = source.choice(words, 64, replace=False)
        bits = np.unpackbits(mask[words].view(np.uint8), bitorder="little")
        place = int(source.choice(np.flatnonzero(bits)))
        return int(words[place // 32]) * 32 + place % 32


def check(schema: Any, answer: bytes) -> None:
    """Check an answer by jsonschema, in exact arithmetic.

    Raises:
        jsonschema.ValidationError: the schema does not allow it.
    """
    exact = json.loads(json.dumps(schema), parse_float=Decimal)
    value = json.loads(answer.decode(), parse_float=_number)
    kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
    kind(exact, format_checker=kind.FORMAT_CHECKER).validate(value)


def _number(text: str) -> Decimal | float:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return float(text)
