"""The table of operators is the one place: what is generated from it is current."""

from __future__ import annotations

import runpy
from pathlib import Path

from edge_llm.program import ops
from edge_llm.program.ops import OPS
from edge_llm.program.plan import INPUT_NAMES

TOOL = Path(__file__).parents[2] / "tools" / "operators.py"


def test_what_is_generated_is_current() -> None:
    outdated = runpy.run_path(str(TOOL))["outdated"]
    assert outdated() == [], "run `make operators`"


def test_codes_are_places_in_the_table() -> None:
    assert [spec.code for spec in OPS.values()] == list(range(len(OPS)))


def test_operators_fit_the_instruction() -> None:
    for spec in OPS.values():
        kinds = [attribute.kind for attribute in spec.attributes]
        assert len(spec.inputs) <= ops.MAX_INPUTS
        assert len(spec.weights) <= ops.MAX_WEIGHTS
        assert kinds.count("int") <= ops.MAX_INTS
        assert kinds.count("float") <= ops.MAX_FLOATS


def test_index_inputs_are_inputs_of_the_method() -> None:
    for spec in OPS.values():
        for operand in spec.inputs:
            assert operand.kind in ("value", "index")
            assert (operand.kind == "index") == (operand.name in INPUT_NAMES)
