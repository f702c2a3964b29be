"""A blueprint: the plan of a family's models, with sizes and number of layers left open.

It is drawn from plans that PyTorch has traced (`draw`), ships as data, and makes the plan of any
config of the same structure (`Blueprint.plan`), the very one that tracing it would give.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from edge_llm.errors import ExportError
from edge_llm.llm.blueprints.quantities import LAYER, Quantities, attending, layer_kind, quantities
from edge_llm.llm.decoder import DecoderConfig
from edge_llm.program.builder import PlanBuilder
from edge_llm.program.formats import RAW_F32, WEIGHT_FORMATS
from edge_llm.program.ops import OPS, STATE_SIZES, Attribute
from edge_llm.program.plan import (
    INPUT_NAMES,
    Instruction,
    Method,
    Plan,
    Rows,
    Signature,
    State,
    Weight,
    layer_of,
)

# What a number in a blueprint is: itself, or the name of one of `quantities`.
Number = int | float | str
Step = dict[str, Any]

_MATRIX = WEIGHT_FORMATS["f32"]
_LAYER = re.compile(r"\blayers\.\d+\b")
_PLACE = "layers.{}"
_BEFORE, _WANTED, _AFTER, _DRAFT = "before", "wanted", "after", "draft"
_INPUTS = (*INPUT_NAMES, "hidden")  # the last is a draft's


@dataclass(frozen=True, slots=True)
class Blueprint:
    """``steps`` are the instructions of each section, JSON values: "before" and "after" the layers,
    of each kind of layer, "wanted", what picks the wanted rows, before the first layer that
    computes those alone, and of the "draft" where there is one. ``tied`` maps a parameter to the
    one whose values it shares."""

    steps: Mapping[str, Sequence[Step]]
    tied: Mapping[str, str]

    def fits(self, config: DecoderConfig) -> bool:
        """Tell whether every layer of ``config`` is of a kind that is drawn here."""
        return all(
            layer_kind(config, layer) in self.steps for layer in range(config.num_hidden_layers)
        )

    def plan(self, config: DecoderConfig, context: int) -> Plan:
        """Return the plan of ``config``, whose matrices are all float32; ``fits`` must hold."""
        building = _Building(config, context)
        building.add(self.steps[_BEFORE], None)
        first = _first_of_rows(config)
        for layer in range(config.num_hidden_layers):
            if layer == first:
                building.add(self.steps[_WANTED], None)
            building.add(self.steps[layer_kind(config, layer)], layer)
        if first == config.num_hidden_layers:
            building.add(self.steps[_WANTED], None)
        building.add(self.steps[_AFTER], None)
        building.close("causal_lm")
        if _DRAFT in self.steps:
            building.begin_draft()
            building.add(self.steps[_DRAFT], None, attending(config))
            building.close("draft")
        return building.finish()


class _Building:
    """A plan while the sections of a blueprint are added to it."""

    def __init__(self, config: DecoderConfig, context: int) -> None:
        self._config, self._context = config, context
        self._builder = PlanBuilder()

    def add(self, steps: Sequence[Step], layer: int | None, like: int | None = None) -> None:
        """Add a section; of what stands outside of layers, ``like`` one of which it computes."""
        known = quantities(self._config, self._context, like if layer is None else layer)
        for step in steps:
            self._emit(step, layer, known)

    def begin_draft(self) -> None:
        self._builder.begin(self._config.hidden_size)

    def close(self, signature: Signature) -> None:
        """End a method. Logits are the last value, and a draft gives what they are chosen of."""
        outputs = [len(self._builder.values) - 1]
        if signature == "draft":
            outputs += [op.inputs[0] for op in self._builder.instructions if op.op == "select_rows"]
        self._builder.close(signature, *outputs)

    def finish(self) -> Plan:
        return self._builder.finish(context=self._context, vocab=self._config.vocab_size)

    def _emit(self, step: Step, layer: int | None, known: Quantities) -> None:
        following = len(self._builder.values)
        state = -1
        if "state" in step:
            kind, name, *numbers = step["state"]
            *sizes, window = _ints(numbers, known)
            named = dict(zip(STATE_SIZES[kind], sizes, strict=True))
            owner = layer if OPS[step["op"]].writes else _source(self._config, layer)
            state = self._builder.state(State(_placed(name, owner), kind, named, window))
        self._builder.emit(
            step["op"],
            [self._number_of(value, following) for value in step["inputs"]],
            _ints(step["widths"], known),
            rows=cast(Rows, step["rows"]),
            weights=[self._weight(weight, layer, known) for weight in step.get("weights", ())],
            state=state,
            attributes=_attributes(step, known),
            source=_placed(step["source"], layer),
        )

    def _number_of(self, value: Any, following: int) -> int:
        """Return the number of an input: by name one of the plan's, in a list one made before the
        layers, or so many before the ``following`` value."""
        if isinstance(value, str):
            return _INPUTS.index(value)
        return int(value[0]) if isinstance(value, list) else following + int(value)

    def _weight(self, weight: Any, layer: int | None, known: Quantities) -> int:
        if weight is None:
            return -1
        kind, name, *sizes = weight
        name = _placed(name, layer)
        form = _MATRIX if kind == "matrix" else RAW_F32
        return self._builder.weight(Weight(name, name, form, tuple(_ints(sizes, known))))


def draw(config: DecoderConfig, context: int, plan: Plan, tied: Mapping[str, str]) -> Blueprint:
    """Return the blueprint of ``plan``, the traced one of ``config`` with ``context`` tokens, whose
    matrices are all float32. The sizes of ``config`` must all be different.

    Raises:
        ExportError: a number that `quantities` does not explain, a layer unlike another one of its
            kind, or instructions of a layer that do not stand together.
    """
    steps: dict[str, list[Step]] = {}
    seen: set[int | None] = set()
    stream = 0  # what the first layer goes on with: the last value before the layers
    for (layer, wanted), group in groupby(
        plan.instructions,
        lambda step: (layer_of(plan, step), _picks(plan, step)),
    ):
        section = _AFTER if seen and layer is None else _BEFORE
        section = section if layer is None else layer_kind(config, layer)
        section = _WANTED if wanted else section
        known = quantities(config, context, layer)
        drawing = _Drawing(plan, plan.language_model, config, layer, known, stream)
        drawn = [drawing.step(instruction) for instruction in group]
        if (layer in seen and layer is not None) or steps.setdefault(section, drawn) != drawn:
            raise ExportError(f"layer {layer} is unlike the other layers of its kind ({section})")
        seen.add(layer)
        if section == _BEFORE:
            stream = plan.instructions[len(drawn) - 1].outputs[-1]
    if plan.draft is not None:
        known = quantities(config, context, attending(config))
        drawing = _Drawing(plan, plan.draft, config, None, known, stream)
        steps[_DRAFT] = [drawing.step(instruction) for instruction in plan.draft.instructions]
    return Blueprint(steps, dict(tied))


class _Drawing:
    """One section of a plan, whose numbers become names."""

    def __init__(
        self,
        plan: Plan,
        method: Method,
        config: DecoderConfig,
        layer: int | None,
        known: Quantities,
        stream: int,
    ) -> None:
        self._plan, self._config, self._layer, self._stream = plan, config, layer, stream
        self._values, self._given = method.values, _INPUTS[: len(method.inputs)]
        self._names: dict[int | float, str] = {}
        for name, value in known.items():
            # A state's window is 0 where there is none, and a layer's number says no size.
            if name not in ("window", LAYER):
                self._names.setdefault(value, name)

    def step(self, instruction: Instruction) -> Step:
        plan, first = self._plan, instruction.outputs[0]
        values = [self._values[number] for number in instruction.outputs]
        step: Step = {
            "op": instruction.op,
            "inputs": [self._input(number, first) for number in instruction.inputs],
            "widths": [self._name(value.width) for value in values],
            "rows": values[0].rows,
            "source": self._open(instruction.source),
        }
        if instruction.weights:
            step["weights"] = [self._weight(index) for index in instruction.weights]
        if instruction.state >= 0:
            state = plan.states[instruction.state]
            sizes = map(self._name, state.sizes.values())
            # The window of an attention is 0 where there is none, which is no name; that of a fold
            # is always the same, and so is that of what looks one position back.
            window: Number = "window"
            if state.kind != "kv":
                fixed = state.kind == "fold" or instruction.op == "previous"
                window = state.window if fixed else self._name(state.window)
            step["state"] = [state.kind, self._state_name(instruction), *sizes, window]
        if instruction.attributes:
            attributes = {item.name: item for item in OPS[instruction.op].attributes}
            step["attributes"] = {
                name: self._attribute(attributes.get(name), value)
                for name, value in instruction.attributes.items()
            }
        return step

    def _attribute(self, attribute: Attribute | None, value: int | float) -> Number:
        if attribute is not None and attribute.choice:
            return value
        if attribute is None or not attribute.place:
            return self._name(value)
        if value != self._layer:
            raise ExportError(f"{attribute.name} {value} in layer {self._layer} is not its own")
        return LAYER

    def _input(self, number: int, first: int) -> str | int | list[int]:
        """Return what stands for an input of the instruction whose outputs begin with ``first``:
        see `_Building._number_of`."""
        if number < len(self._given):
            return self._given[number]
        inside = self._layer is not None and number < self._stream
        return [number] if inside else number - first

    def _state_name(self, instruction: Instruction) -> str:
        name = self._plan.states[instruction.state].name
        owner = self._layer
        if not OPS[instruction.op].writes:
            owner = _source(self._config, self._layer)
        if owner is not None and f"layers.{owner}." not in name:
            raise ExportError(f"layer {self._layer} has the state {name}, expected one of {owner}")
        return self._open(name)

    def _weight(self, index: int) -> list[Number] | None:
        if index < 0:
            return None
        weight = self._plan.weights[index]
        kind = "vector" if weight.format == RAW_F32 else "matrix"
        return [kind, self._open(weight.name), *map(self._name, weight.shape)]

    def _name(self, value: int | float) -> Number:
        name = self._names.get(value)
        if name is None and isinstance(value, int) and value != 1:  # one number a row
            raise ExportError(f"{value} in layer {self._layer} follows from no size of the config")
        return value if name is None else name

    def _open(self, text: str) -> str:
        """Return ``text`` with the layer's number left open."""
        return text if self._layer is None else _LAYER.sub(_PLACE, text, count=1)


def _first_of_rows(config: DecoderConfig) -> int:
    """Return the first layer that computes the wanted rows alone: those behind the last one that
    writes a state; the number of layers where there are none."""
    first = config.num_hidden_layers
    while first > 0 and _source(config, first - 1) is not None:
        first -= 1
    return first


def _source(config: DecoderConfig, layer: int | None) -> int | None:
    """Return the layer whose state another one reads; None where that has its own, or none."""
    shape = None if layer is None else config.attention(layer)
    return None if shape is None else shape.source


def _picks(plan: Plan, step: Instruction) -> bool:
    """Tell whether an instruction picks the wanted rows of the stream."""
    return step.op == "select_rows" and layer_of(plan, step) is None


def _placed(text: str, layer: int | None) -> str:
    return text if layer is None else text.replace(_PLACE, f"layers.{layer}", 1)


def _attributes(step: Step, known: Quantities) -> dict[str, int | float]:
    """Return the attributes of a step, each of its own type: 1 and 1.0 may have one name."""
    types = {"int": int, "float": float}
    kinds = {item.name: types[item.kind] for item in OPS[step["op"]].attributes}
    given = step.get("attributes", {})
    return {name: kinds[name](_number(value, known)) for name, value in given.items()}


def _ints(values: Sequence[Number], known: Quantities) -> list[int]:
    return [int(_number(value, known)) for value in values]


def _number(value: Number, known: Quantities) -> int | float:
    return known[value] if isinstance(value, str) else value
