"""Fields without a meaning here: those that would change the answer, and those that would not."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# The closed list of options that change the answer, and the values that ask for nothing. A route
# that obeys one of them has a field of that name; the others refuse it.
UNSUPPORTED: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "add_generation_prompt": (None, True),
        "allowed_token_ids": (None, []),
        "audio": (None,),
        "bad_words": (None, []),
        "cache_prompt": (None, True),
        "chat_template": (None, ""),
        "chat_template_kwargs": (None, {}),
        "choice": (None, []),
        "continue_final_message": (None, False),
        "documents": (None, []),
        "dynatemp_range": (None, 0),
        "early_stopping": (None, False),
        "echo": (None, False),
        "enable_thinking": (None,),
        "function_call": (None, "none", "auto"),
        "functions": (None, []),
        "grammar": (None, ""),
        "guided_choice": (None, []),
        "guided_grammar": (None, ""),
        "guided_json": (None, ""),
        "guided_regex": (None, ""),
        "id_slot": (None, -1),
        "json_schema": (None, ""),
        "length_penalty": (None, 1),
        "logit_processors": (None, []),
        "logits_processors": (None, []),
        "lora": (None, []),
        "mirostat": (None, 0),
        "modalities": (None, ["text"]),
        "prediction": (None,),
        "prompt_logprobs": (None,),
        "reasoning_effort": (None, "none"),
        "regex": (None, ""),
        "response_format": (None, {"type": "text"}),
        "samplers": (None, []),
        "structural_tag": (None,),
        "structured_outputs": (None, {}),
        "suffix": (None, ""),
        "thinking_budget": (None,),
        "tool_calls": (None, []),
        "tool_choice": (None, "none", "auto"),
        "tools": (None, []),
        "truncate_prompt_tokens": (None,),
        "use_beam_search": (None, False),
        "web_search_options": (None,),
        "whitespace_pattern": (None, ""),
    }
)
# Fields for a provider's books, and those that clients send back from earlier replies.
NO_EFFECT = frozenset(
    {
        "annotations",
        "include_obfuscation",
        "metadata",
        "parallel_tool_calls",
        "parsed",
        "prompt_cache_key",
        "prompt_cache_retention",
        "refusal",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
