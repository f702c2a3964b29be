"""JSON schemas: every answer that a model draws at random is valid by jsonschema, or the schema
was refused before, by name."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from random_json import RandomModel, check

from edge_llm.errors import RequestError
from edge_llm.runner.evaluation.tasks.bfcl import json_schema_of
from edge_llm.runner.guidance.grammar import Grammar
from edge_llm.runner.guidance.guide import Guide
from edge_llm.runner.guidance.vocabulary import Vocabulary
from edge_llm.tokenizers.readers.convert import from_directory
from edge_llm.tokenizers.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def guide(qwen3_tokenizer_dir: Path) -> Guide:
    document = from_directory(qwen3_tokenizer_dir)
    tokenizer = Tokenizer(document.json, document.facts)
    return Guide(lambda: Vocabulary.of(tokenizer, size=151936, end_ids=[151643, 151645]))


@pytest.fixture(scope="module")
def model(guide: Guide) -> RandomModel:
    return RandomModel(guide.vocabulary)


def obj(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names}


def text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": obj(
            ["value"],
            value={"type": "integer"},
            left={"$ref": "#/$defs/node"},
            right={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        )
    },
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "types": obj(a=text(), b={"type": "integer"}, c={"type": "number"}, d={"type": "boolean"},
                 e={"type": "null"}, f={"type": "array"}, g={"type": "object"}),
    "several types": obj(a={"type": ["string", "null"]}, b={"type": ["integer", "boolean"]}),
    "no type": {"minimum": 3, "maxLength": 2, "maxItems": 1},
    "anything": {},
    "enum": obj(a={"enum": ["x", 1, None, True, {"k": [1]}, 'é"\\']}),
    "const": obj(a={"const": {"z": 1, "a": [1.5, "s"]}}, b={"const": "c"}),
    "$ref": obj(a={"$ref": "#/properties/b"}, b=text(maxLength=3)),
    "$defs recursion": TREE,
    "definitions": {"definitions": {"x": {"enum": [1, 2]}}, **obj(a={"$ref": "#/definitions/x"})},
    "anchor": {"$defs": {"x": {"$anchor": "there", "enum": [1, 2]}}, **obj(a={"$ref": "#there"})},
    "anyOf": obj(a={"anyOf": [text(minLength=2), {"type": "array", "items": {"const": 1}}]}),
    "anyOf of objects": {"anyOf": [obj(kind={"const": "a"}, x=text()), obj(kind={"const": "b"})]},
    "anyOf beside properties": {**obj([], a=text(), b=text()),
                                "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "oneOf": {"oneOf": [obj(kind={"const": "a"}), obj(kind={"const": "b"}, y={"type": "null"})]},
    "oneOf types": {"oneOf": [text(), {"type": "integer"}, {"type": "null"}]},
    "allOf": {"allOf": [obj(a=text()), obj(b={"type": "integer"})]},
    "allOf of bounds": {"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 9}]},
    "pattern": obj(a=text(pattern="^[a-f0-9]{4}-[A-Z]+$")),
    "pattern anywhere": obj(a=text(pattern="[0-9]{2}", maxLength=9)),
    "pattern of classes": obj(a=text(pattern=r"^\d{3}\s\w+(\.\w+)*$")),
    "pattern and length": obj(a=text(pattern="^a+b*$", minLength=3, maxLength=6)),
    "length": obj(a=text(minLength=3, maxLength=5), b=text(maxLength=0), c=text(minLength=9)),
    "minimum": obj(a={"type": "integer", "minimum": -5}, b={"type": "number", "minimum": 0.25}),
    "maximum": obj(a={"type": "integer", "maximum": 12}, b={"type": "number", "maximum": -3.5}),
    "both bounds": obj(a={"type": "integer", "minimum": 95, "maximum": 1234},
                       b={"type": "number", "minimum": -0.5, "maximum": 0.125}),
    "exclusive bounds": obj(a={"type": "integer", "exclusiveMinimum": 2, "exclusiveMaximum": 4},
                            b={"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}),
    "small bounds": obj(a={"type": "number", "minimum": 1e-7, "maximum": 2e-7}),
    "large bounds": obj(a={"type": "number", "minimum": 1e15, "maximum": 3e15}),
    "multipleOf": obj(a={"type": "integer", "multipleOf": 7},
                      b={"type": "number", "multipleOf": 0.05}),
    "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    "no items": {"type": "array", "items": False},
    "prefixItems": {"type": "array", "prefixItems": [text(), {"type": "integer"}], "items": False,
                    "minItems": 2},
    "prefixItems and items": {"type": "array", "prefixItems": [{"const": 1}],
                              "items": {"const": 2}, "minItems": 1, "maxItems": 5},
    "items of draft 7": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array",
                         "items": [text(), {"type": "null"}], "additionalItems": {"const": 3}},
    "additionalProperties": {"type": "object", "additionalProperties": {"type": "integer"}},
    "additionalProperties beside": {**obj(a=text()), "additionalProperties": {"type": "null"}},
    "no additionalProperties": {**obj([], a=text(), b=text()), "additionalProperties": False},
    "patternProperties": {"type": "object", "patternProperties": {"^x_[a-z]+$": {"const": 1}},
                          "additionalProperties": False},
    "required without properties": {"type": "object", "required": ["b", "a"]},
    "required beyond properties": obj(["z", "a"], a=text()),
    "minProperties": {"type": "object", "minProperties": 1, "additionalProperties": {"const": 1}},
    "maxProperties": {"type": "object", "maxProperties": 1, "additionalProperties": {"const": 1}},
    "nested nullables": obj(a={"anyOf": [{"type": "null"}, obj(b={"type": ["array", "null"],
                                                                  "items": {"type": ["null"]}})]}),
    "odd names": obj(**{'q"\\\n': text(), "é🦙": text(), "": text(), "a/b~c": {"type": "null"}}),
    "annotations": {**obj(a=text(title="t", description="d", default="x", examples=["y"],
                                 deprecated=True)),
                    "$comment": "c", "readOnly": True, "x-order": 3, "example": {}, "optional": 1},
    "hints of a form": obj(a=text(format="password"), b={"type": "integer", "format": "int32"}),
    "draft 4 bounds": {"$schema": "http://json-schema.org/draft-04/schema#", "type": "integer",
                       "minimum": 3, "exclusiveMinimum": True, "maximum": 9},
}  # fmt: skip
FORMATS = ["date", "time", "date-time", "duration", "uuid", "email", "hostname", "ipv4", "ipv6"]
FORMATS += ["uri"]
SCHEMAS["format and pattern"] = obj(a=text(format="date", pattern="^20"))
SCHEMAS["format of several types"] = obj(a={"type": ["string", "null"], "format": "date-time"})
SCHEMAS["format of no type"] = {"format": "time"}
SCHEMAS |= {f"format {name}": obj(a=text(format=name)) for name in FORMATS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_is_valid(guide: Guide, model: RandomModel, name: str) -> None:
    schema = SCHEMAS[name]
    grammar = Grammar.json_schema(schema)
    guide.check(grammar, "response_format")
    whole = 0
    for seed in range(12):
        answer = model.answer(guide.constraint(grammar), seed)
        if answer is not None:
            check(schema, answer)
            whole += 1
    assert whole >= 8


@pytest.mark.parametrize("year", ["1900", "2000", "2023", "2024", "0004", "0000"])
def test_days_are_those_of_the_calendar(guide: Guide, year: str) -> None:
    grammar = Grammar.json_schema({"type": "string", "format": "date"})
    for month in range(14):
        for day in range(33):
            said = f'"{year}-{month:02}-{day:02}"'.encode()
            try:
                date.fromisoformat(said.decode().strip('"'))
                real = True
            except ValueError:
                real = False
            assert guide.constraint(grammar).allows(said) == real, said


ORDERED = obj(zeta=text(maxLength=1), alpha={"type": "null"}, mid={"type": "boolean"})


def test_keys_come_in_the_order_of_the_schema(guide: Guide, model: RandomModel) -> None:
    held = guide.constraint(Grammar.json_schema(ORDERED))
    answer = model.answer(held, 1)
    assert answer is not None
    assert list(json.loads(answer)) == ["zeta", "alpha", "mid"]


def test_blanks_are_bounded(guide: Guide) -> None:
    grammar = Grammar.json_schema(ORDERED)
    held = guide.constraint(grammar)
    assert held.allows(b'{"zeta": "", "alpha": null, "mid": true}')
    assert not held.allows(b'{ "zeta"')
    assert not held.allows(b'{"zeta":""')
    assert not held.allows(b'{"zeta":  ""')
    assert not held.allows(b'{"zeta":"",\n')


def test_separators_may_be_chosen(guide: Guide) -> None:
    compact = {"item_separator": ",", "key_separator": ":", "whitespace_flexible": True}
    held = guide.constraint(Grammar.json_schema({**ORDERED, "x-guidance": compact}))
    assert held.allows(b'{"zeta":"","alpha":null,"mid":true}')
    assert not held.allows(b'{"zeta": ')
    endless = {"key_separator": ": *", "whitespace_flexible": True}
    held = guide.constraint(Grammar.json_schema({**ORDERED, "x-guidance": endless}))
    assert not held.allows(b'{"zeta":  ')


def test_integers_have_an_end(guide: Guide) -> None:
    for kinds in ("integer", ["integer", "null"]):
        held = guide.constraint(Grammar.json_schema({"type": kinds}))
        assert held.allows(b"-9000000000000000000")
        assert not held.allows(b"12345678901234567890")


def test_objects_that_name_their_properties_have_no_others(guide: Guide) -> None:
    def open_ended(schema: Any) -> bool:
        held = guide.constraint(Grammar.json_schema(schema))
        return held.allows(b'{"a": "", "more": ')

    assert not open_ended(obj(a=text()))
    assert open_ended({**obj(a=text()), "additionalProperties": True})
    assert open_ended({"allOf": [obj(a=text()), {"properties": {"more": {"type": "null"}}}]})
    assert open_ended({"type": "object"})


REFUSED: dict[str, tuple[Any, str]] = {
    "not": (obj(a={"not": {"type": "null"}}), "'not' at /properties/a"),
    "if": ({"if": obj(a=text()), "then": False}, "'if'"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "'uniqueItems'"),
    "contains": ({"contains": {"const": 1}}, "'contains'"),
    "propertyNames": ({"propertyNames": {"maxLength": 3}}, "'propertyNames'"),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, "'dependentRequired'"),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, "'unevaluatedProperties'"),
    "oneOf that may overlap": ({"oneOf": [text(), text(minLength=3)]}, "oneOf"),
    "lookahead": (text(pattern="(?=a)b"), "look-around"),
    "unknown format": (text(format="shoe-size"), "Unknown format"),
    "$ref elsewhere": ({"$ref": "https://example.com/schema.json"}, "'\\$ref'"),
    "$ref to a file": ({"$ref": "other.json"}, "'\\$ref'"),
    "$ref to nothing": ({"$ref": "#/$defs/none"}, "does not exist"),
    "$dynamicRef": ({"$dynamicRef": "#x"}, "'\\$dynamicRef'"),
    "$id within": (obj(a={"$id": "http://x/y"}), "'\\$id'"),
    "unknown version": ({"$schema": "http://example.com/mine"}, "'\\$schema'"),
    "two of one key": ({"type": "object", "minProperties": 2}, "'minProperties'"),
    "inexact": ({"const": 2**60}, "'const'"),
    "inexact bound": ({"type": "integer", "minimum": 1e20}, "'minimum'"),
    "nothing is valid": ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
    "no value": ({"enum": []}, "empty|Unsatisfiable"),
    "false": (False, "expected an object"),
    "no schema": ([1], "expected an object"),
    "no schema inside": (obj(a=3), "expected an object"),
    "unknown type": ({"type": "dict"}, "expected one of: string"),
    "properties": ({"properties": [1]}, "'properties'"),
    "anyOf": ({"anyOf": {}}, "'anyOf'"),
    "not JSON": ({"const": {1, 2}}, "not JSON"),
    "NaN": ({"const": float("nan")}, "not JSON"),
    "endless": ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "go on"),
    "wide": (obj(**{f"p{i}": text() for i in range(3000)}), "too many"),
    "large": ({"enum": ["x" * 100] * 9000}, "bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_enforced_is_refused_by_name(guide: Guide, name: str) -> None:
    schema, said = REFUSED[name]
    with pytest.raises(RequestError, match=said) as caught:
        guide.check(Grammar.json_schema(schema, param="response_format"), "response_format")
    assert caught.value.param == "response_format"


def test_deep_and_long_schemas_are_refused_without_a_crash(guide: Guide) -> None:
    deep: dict[str, Any] = text()
    for _ in range(5000):
        deep = obj(a=deep)
    with pytest.raises(RequestError, match="nested"):
        Grammar.json_schema(deep)
    chain = {f"d{i}": obj(a={"$ref": f"#/$defs/d{i + 1}"}) for i in range(4000)}
    guide.check(Grammar.json_schema({"$ref": "#/$defs/d0", "$defs": {**chain, "d4000": {}}}), None)
    chain = {f"d{i}": obj(a={"$ref": f"#/$defs/d{i + 1}"}) for i in range(5200)}
    with pytest.raises(RequestError, match="10000 schemas"):
        Grammar.json_schema({"$ref": "#/$defs/d0", "$defs": chain})


# ---- the schemas of the Berkeley Function Calling Leaderboard ----


@pytest.mark.parametrize("share", [60, pytest.param(1, marks=pytest.mark.slow)])
def test_every_call_of_bfcl_is_valid(
    guide: Guide, model: RandomModel, bfcl_parameters: list[dict[str, Any]], share: int
) -> None:
    from llguidance import LLMatcher

    refused: list[str] = []
    theirs = cut = 0
    for number, parameters in enumerate(bfcl_parameters[::share]):
        schema = json_schema_of(parameters)
        said, _ = LLMatcher.validate_grammar_with_warnings(
            LLMatcher.grammar_from_json_schema(schema)
        )
        theirs += said
        try:
            grammar = Grammar.json_schema(schema, param="tools")
            guide.check(grammar, "tools")
        except RequestError as error:
            refused.append(str(error))
            continue
        answer = model.answer(guide.constraint(grammar), number)
        if answer is None:
            cut += 1
        else:
            check(schema, answer)
    count = len(bfcl_parameters[::share])
    print(f"\n{count} schemas, refused {len(refused)} (llguidance: {theirs}), cut {cut}")
    print("\n".join(refused[:20]))
    assert len(refused) <= theirs + 0.01 * count
    assert cut < 0.02 * count
