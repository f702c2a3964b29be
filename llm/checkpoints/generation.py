"""Stop ids and sampling defaults from the values that checkpoints carry."""

from __future__ import annotations

from collections.abc import Mapping

from edge_llm.errors import CheckpointError
from edge_llm.llm.config import is_integer, is_number, shorten
from edge_llm.program.documents import GenerationDefaults

# name -> (low, high), both included; the ranges that SamplingParams accepts
_NUMBERS = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-6, 10.0),
}
# What transformers would follow and nothing here does -> the value that asks for nothing.
_NOT_FOLLOWED: Mapping[str, object] = {
    "bad_words_ids": [],
    "begin_suppress_tokens": [],
    "diversity_penalty": 0.0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "exponential_decay_length_penalty": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "guidance_scale": 1.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "penalty_alpha": 0.0,
    "sequence_bias": {},
    "stop_strings": [],
    "suppress_tokens": [],
    "top_h": None,
    "typical_p": 1.0,
}


def token_ids(value: object, vocab: int, where: str) -> tuple[int, ...]:
    """Return the ids of an ``eos_token_id``: null, one integer, or a list of them.

    Raises:
        CheckpointError: anything else, or an id outside the vocabulary.
    """
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    for id_ in ids:
        if not is_integer(id_) or not 0 <= id_ < vocab:
            raise CheckpointError(
                f"{where}: got {shorten(value)}, expected ids from 0 to {vocab - 1}"
            )
    return tuple(dict.fromkeys(ids))


def generation_defaults(
    values: Mapping[str, object], stop_ids: tuple[int, ...], where: str
) -> tuple[GenerationDefaults, tuple[str, ...]]:
    """Return sampling defaults by the names of transformers' generation_config, null counting as
    absent; and a note for each recommendation that nothing here can follow and that is left out.

    ``do_sample: false`` asks for greedy decoding, which is temperature 0.
    """
    numbers: dict[str, float] = {}
    notes = []
    for name, (low, high) in _NUMBERS.items():
        value = values.get(name)
        if value is None:
            continue
        if is_number(value) and low <= value <= high:  # not true for NaN
            numbers[name] = float(value)
        else:
            expected = f"a number from {low} to {high}"
            notes.append(_left_out(where, name, value, expected))
    if values.get("do_sample") is False:
        numbers["temperature"] = 0.0
    top_k = values.get("top_k")
    if top_k is None or top_k == -1:
        top_k = 0
    if not is_integer(top_k) or not 0 <= top_k < 2**31:
        notes.append(_left_out(where, "top_k", top_k, "0 or more"))
        top_k = 0
    notes += [
        f"{where}: {name} {shorten(values[name])} is left out, which nothing here follows"
        for name, neutral in _NOT_FOLLOWED.items()
        if values.get(name) not in (None, False, neutral)
    ]
    return GenerationDefaults(stop_ids=stop_ids, top_k=top_k, **numbers), tuple(notes)


def _left_out(where: str, name: str, value: object, expected: str) -> str:
    return f"{where}: {name} {shorten(value)} is left out, expected {expected}"
