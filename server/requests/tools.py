"""Tools in OpenAI's shape, also in the older one (``functions``), and which of them to call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from edge_llm.api.chat import NamedTool, ToolChoice
from edge_llm.parsed import Tool
from edge_llm.server.errors import invalid
from edge_llm.server.requests.kinds import Kinds

MAX_TOOLS = 1024
# Tools that a provider runs itself, and forms of tools that the API knows and this server does not.
OTHER_TOOLS = frozenset({"custom", "web_search", "web_search_preview"})


class Function(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]*$")]
    description: str | None = None
    parameters: Annotated[
        dict[str, Any] | None, Field(description="a JSON schema of the object it takes")
    ] = None
    strict: Annotated[
        bool | None, Field(description="calls are held to the schema in any case")
    ] = None

    def tool(self) -> Tool:
        """Return it as a tool."""
        return Tool(self.name, self.description, self.parameters or {})


class FunctionTool(BaseModel):
    """A tool."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    """The name of a function."""

    model_config = ConfigDict(strict=True, extra="allow")

    name: str


class NamedFunction(BaseModel):
    """One tool by its name."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["function"]
    function: FunctionName


class AllowedTools(BaseModel):
    """Some of the tools, and whether one must be called."""

    model_config = ConfigDict(strict=True, extra="allow")

    mode: Literal["auto", "required"]
    tools: Annotated[
        list[Annotated[NamedFunction, Kinds(OTHER_TOOLS)]], Field(min_length=1, fail_fast=True)
    ]


class AllowedToolsChoice(BaseModel):
    """The choice among some of the tools."""

    model_config = ConfigDict(strict=True, extra="allow")

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Tools = Annotated[
    list[Annotated[FunctionTool, Kinds(OTHER_TOOLS)]], Field(max_length=MAX_TOOLS, fail_fast=True)
]
Functions = Annotated[list[Function], Field(max_length=MAX_TOOLS, fail_fast=True)]
Choice = Annotated[
    Literal["none", "auto", "required"] | NamedFunction | AllowedToolsChoice, Kinds(("custom",))
]


def _mode_or_name(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    if not isinstance(value, str):
        return read(value)
    if value not in ("none", "auto"):
        raise PydanticCustomError("mode", "'none', 'auto' or the name of a function")
    return value


FunctionChoice = Annotated[
    FunctionName,  # or one of the words
    WrapValidator(_mode_or_name, json_schema_input_type=Literal["none", "auto"] | FunctionName),
]


@dataclass(frozen=True, slots=True)
class Calling:
    """What may be called, and what must be. ``places`` says where each tool is in the request,
    ``legacy`` that it came as ``functions`` and the reply has a ``function_call``."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = "auto"
    places: tuple[str, ...] = ()
    legacy: bool = False


def calling(tools: Sequence[FunctionTool] | None, choice: Any) -> Calling:
    """Return what a request's ``tools`` and ``tool_choice`` ask for.

    Raises:
        ApiError: two tools have one name, or the choice is none of them.
    """
    given = [tool.function.tool() for tool in tools or ()]
    places = [f"tools[{index}]" for index in range(len(given))]
    _check_names(given, [f"{place}.function.name" for place in places])
    if choice is not None and not given and choice not in ("none", "auto"):
        raise invalid("'tool_choice' is only allowed when 'tools' are given.", "tool_choice")
    if isinstance(choice, NamedFunction):
        _check_known(choice.function.name, given, "tool_choice.function.name")
        return Calling(tuple(given), NamedTool(choice.function.name), tuple(places))
    if isinstance(choice, AllowedToolsChoice):
        names = [tool.function.name for tool in choice.allowed_tools.tools]
        for index, name in enumerate(names):
            _check_known(name, given, f"tool_choice.allowed_tools.tools[{index}].function.name")
        kept = [
            (tool, place) for tool, place in zip(given, places, strict=True) if tool.name in names
        ]
        return Calling(
            tuple(tool for tool, _ in kept),
            choice.allowed_tools.mode,
            tuple(place for _, place in kept),
        )
    return Calling(tuple(given), choice or "auto", tuple(places))


def calling_functions(functions: Sequence[Function] | None, choice: Any) -> Calling:
    """Return what the older ``functions`` and ``function_call`` ask for.

    Raises:
        ApiError: two functions have one name, or the choice is none of them.
    """
    given = [function.tool() for function in functions or ()]
    places = [f"functions[{index}]" for index in range(len(given))]
    _check_names(given, [f"{place}.name" for place in places])
    if isinstance(choice, FunctionName):
        _check_known(choice.name, given, "function_call.name")
        return Calling(tuple(given), NamedTool(choice.name), tuple(places), legacy=True)
    return Calling(tuple(given), choice or "auto", tuple(places), legacy=True)


def _check_names(tools: Sequence[Tool], params: Sequence[str]) -> None:
    names: set[str] = set()
    for tool, param in zip(tools, params, strict=True):
        if tool.name in names:
            raise invalid(
                f"Invalid '{param}': expected a name that no other tool has.",
                param,
                "invalid_value",
            )
        names.add(tool.name)


def _check_known(name: str, tools: Sequence[Tool], param: str) -> None:
    if all(tool.name != name for tool in tools):
        raise invalid(f"Invalid '{param}': expected the name of a tool.", param, "invalid_value")
