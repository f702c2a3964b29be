"""A chat template that the recipe brings, for a source that has none or another."""

from __future__ import annotations

from pathlib import Path

from edge_llm.errors import ConfigError, TemplateError, TokenizerError
from edge_llm.program.serialize import MAX_TEMPLATE
from edge_llm.tokenizers.chat.template import ChatTemplate
from edge_llm.tokenizers.readers.convert import TokenizerDocument
from edge_llm.tokenizers.tokenizer import Tokenizer

_PROBE = "What is the capital of France?"


def read_chat_template(path: Path, tokenizer: TokenizerDocument) -> str:
    """The Jinja source in ``path``, checked by rendering a question with it.

    Raises:
        ConfigError: the file cannot be read, is too large, does not compile or render, or leaves
            the question out.
    """
    try:
        size = path.stat().st_size
        if size > 4 * MAX_TEMPLATE:  # a character takes at most four bytes
            raise ConfigError(f"chat template {path}: {size} bytes are too many")
        source = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"chat template {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"chat template {path} is not UTF-8 text") from exc
    if len(source) > MAX_TEMPLATE:
        raise ConfigError(
            f"chat template {path}: {len(source)} characters, at most {MAX_TEMPLATE} are allowed"
        )
    facts = tokenizer.facts
    try:
        reader = Tokenizer(tokenizer.json, facts)
        template = ChatTemplate(
            source, bos=reader.token_text(facts.bos_id), eos=reader.token_text(facts.eos_id)
        )
        prompt = template.render([{"role": "user", "content": _PROBE}])
    except (TemplateError, TokenizerError) as exc:
        raise ConfigError(f"chat template {path}: {exc}") from exc
    if _PROBE not in prompt:
        raise ConfigError(f"chat template {path}: a user's message is not in the prompt it makes")
    return source
