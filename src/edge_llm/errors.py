"""Every error that edge-llm raises on purpose.

    EdgeLLMError
    ├── ConfigError              a model config, recipe or run-time option that cannot be honoured
    ├── CheckpointError          a checkpoint that is missing, damaged, or does not fit its family
    ├── SourceError              a model name or package that cannot be found or fetched
    │   └── AmbiguousNameError
    ├── MissingDependencyError   an optional package is not installed
    ├── ExportError              a stage of the export failed
    │   ├── UnsupportedOperatorError
    │   └── QualityGateError
    ├── ProgramError             a program file that is truncated, damaged, hostile or too new
    ├── TokenizerError
    │   └── TemplateError
    ├── RequestError             a request that can never succeed as asked
    │   └── ContextLengthError
    ├── CapacityError            the KV budget or another limit of this process is too small
    ├── GenerationError          a sequence that failed while it ran (non-finite logits)
    └── NativeError              the native core is missing, or reported a failure

Messages name what was got and what was expected. The command line prints them after
``error:``, the server turns them into an OpenAI error body.
"""

from __future__ import annotations


class EdgeLLMError(Exception):
    """Base class. ``hint`` is an optional second line that says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(EdgeLLMError):
    """A model config, recipe or run-time option that cannot be honoured."""


class CheckpointError(EdgeLLMError):
    """A checkpoint that is missing, damaged, or does not fit its family."""


class SourceError(EdgeLLMError):
    """A model name or package that cannot be found or fetched."""


class AmbiguousNameError(SourceError):
    """A name that several programs have; the message lists them."""


class MissingDependencyError(EdgeLLMError):
    """An optional package is not installed; ``hint`` says which extra brings it."""


class ExportError(EdgeLLMError):
    """A stage of the export failed."""


class UnsupportedOperatorError(ExportError):
    """The traced graph holds a node that the plan cannot express."""


class QualityGateError(ExportError):
    """The exported program differs from eager PyTorch by more than the recipe allows."""


class ProgramError(EdgeLLMError):
    """A program file that is truncated, damaged, hostile, or of an unknown version."""


class TokenizerError(EdgeLLMError):
    """A tokenizer that cannot be built, or text that it cannot encode."""


class TemplateError(TokenizerError):
    """A chat template that is missing, does not compile, or rejects the messages."""


class RequestError(EdgeLLMError):
    """A request that can never succeed as asked; ``param`` names the field at fault."""

    def __init__(self, message: str, *, param: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ContextLengthError(RequestError):
    """The prompt does not fit the program's context of ``context`` tokens; it has
    ``prompt_tokens``, or more where ``at_least`` says that they were not counted to the end.
    ``what`` is the part of a request that they are of."""

    def __init__(
        self,
        context: int,
        prompt_tokens: int,
        *,
        param: str | None = None,
        at_least: bool = False,
        what: str = "messages",
    ) -> None:
        super().__init__(
            f"This model's maximum context length is {context} tokens. However, your {what} "
            f"resulted in {'at least ' if at_least else ''}{prompt_tokens} tokens"
            f"{', and an answer needs at least one more' if prompt_tokens <= context else ''}. "
            f"Please reduce the length of the {what}.",
            param=param,
        )
        self.context = context
        self.prompt_tokens = prompt_tokens
        self.at_least = at_least


class CapacityError(EdgeLLMError):
    """The KV budget or another limit of this process is too small for the request."""


class GenerationError(EdgeLLMError):
    """A sequence failed while it ran; its neighbours go on."""


class NativeError(EdgeLLMError):
    """The native core is missing, or reported a failure."""
