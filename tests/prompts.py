"""Prompts of random ids for engines over toy vocabularies."""

from __future__ import annotations

import random

VOCAB = 97


def prompt(seed: int, length: int) -> list[int]:
    """``length`` token ids below VOCAB; equal arguments give equal ids."""
    return random.Random(seed).choices(range(VOCAB), k=length)
