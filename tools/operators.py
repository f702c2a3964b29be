"""Write what follows from the table of operators (src/edge_llm/program/ops.py):

    python tools/operators.py [--check]

the sizes of the ABI's arrays and the operators' numbers (runner/native/include/edge_ops.h), the
rules that the core checks plans by (runner/native/core/generated/ops.h), and the table in
docs/program-format.md. With --check, only say whether they are current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from edge_llm.program import ops
from edge_llm.program.ops import OPS, Operand, OpSpec
from edge_llm.program.plan import INPUT_NAMES

ROOT = Path(__file__).parents[1]
NOTE = "Generated from src/edge_llm/program/ops.py by tools/operators.py: change it there."
BEGIN, END = "<!-- operators: generated -->", "<!-- end of operators -->"
# Where the core finds the number behind a name: sizes of the state, these facts, variables.
_FACTS = ("state.window", "context")
_FIRST_SIZE = ops.MAX_INTS
_FIRST_FACT = _FIRST_SIZE + ops.MAX_STATE_SIZES
_FIRST_VARIABLE = _FIRST_FACT + len(_FACTS)


def abi_header() -> str:
    """Return the C header of array sizes and operator numbers."""
    sizes = ("INPUTS", "OUTPUTS", "WEIGHTS", "STATES", "INTS", "FLOATS", "STATE_SIZES", "TAPS")
    lines = [f"// {NOTE}", "#pragma once", ""]
    lines += [f"#define EDGE_MAX_{name} {getattr(ops, f'MAX_{name}')}" for name in sizes]
    lines += ["", "typedef enum edge_state_kind {"]
    lines += [f"  EDGE_STATE_{kind.upper()} = {i}," for i, kind in enumerate(ops.STATE_KINDS)]
    lines += ["} edge_state_kind;"]
    lines += ["", "typedef enum edge_op {"]
    lines += [f"  EDGE_OP_{name.upper()} = {spec.code}," for name, spec in OPS.items()]
    return "\n".join([*lines, "} edge_op;", ""])


def core_header() -> str:
    """Return the C++ header of the operators' rules."""
    lines = [
        f"// {NOTE}",
        "#pragma once",
        "",
        '#include "core/rules.h"',
        "",
        "namespace edge {",
        "",
        "enum class OpCode : int32_t {",
        *(f"  {name}," for name in OPS),
        "  // what fusion makes of them:",
        "  silu_mul,",
        "  gelu_mul,",
        "};",
        f"constexpr int32_t kOpCount = {len(OPS)};  // of a program file",
        "",
        "// X(name) for each operator that works element by element.",
        "#define EDGE_ELEMENTWISE(X) "
        + " ".join(f"X({name})" for name, spec in OPS.items() if spec.elementwise),
        "",
        "// Places of sizes in a state of each kind.",
    ]
    for kind, sizes in ops.STATE_SIZES.items():
        lines += [f"constexpr size_t k_{kind}_{item} = {i};" for i, item in enumerate(sizes)]
    lines += ["", "// Places of attributes among an instruction's ints or floats."]
    for name, spec in OPS.items():
        for kind in ("int", "float"):
            names = [a.name for a in spec.attributes if a.kind == kind]
            lines += [f"constexpr size_t k_{name}_{item} = {i};" for i, item in enumerate(names)]
    lines += [
        "",
        "// clang-format off",
        "// By kind; of kinds that cannot be run without sizes.",
        f"constexpr StateRules kStateRules[{len(ops.STATE_KINDS)}] = {{",
    ]
    for kind in ops.STATE_KINDS:
        most = ops.STATE_SIZES.get(kind, {}).values()
        lines.append(f'    {{"{kind}", {len(most)}, {{{", ".join(map(str, most))}}}}},')
    lines += ["};", "constexpr OpRules kRules[kOpCount] = {"]
    lines += [_rules(name, spec) for name, spec in OPS.items()]
    return "\n".join([*lines, "};", "// clang-format on", "", "}  // namespace edge", ""])


def docs_table() -> str:
    """Return the table of operators for docs/program-format.md."""
    lines = ["| operator | inputs | weights | attributes | meaning |", "|---|---|---|---|---|"]
    for name, spec in OPS.items():
        attributes = ", ".join(f"{a.name} {a.kind}" for a in spec.attributes)
        meaning = spec.meaning
        if spec.where:
            meaning += "; " + ", ".join(f"{a} {relation} {b}" for a, relation, b in spec.where)
        output = "" if spec.output is None else f" → [{', '.join(spec.output)}]"
        inputs = ", ".join(map(_shown, spec.inputs)) + output
        weights = ", ".join(map(_shown, spec.weights))
        lines.append(
            f"| `{name}` | {inputs} | {weights} | {attributes} | {meaning} |".replace("*", "·")
        )
    return "\n".join(lines)


def _shown(operand: Operand) -> str:
    dims = f" [{', '.join(operand.dims)}]" if operand.dims else ""
    return f"{operand.name}{'?' if operand.optional else ''}{dims}"


def _matrix(item: Operand) -> tuple[str, str]:
    """Return the rows and columns of a weight as the core sees it: a stack of matrices in panels
    is one below the other, and a vector a column."""
    if item.kind == "panel":
        *rows, columns = item.dims
        return "*".join(rows), columns
    return (*item.dims, "1")[0], (*item.dims, "1")[1]


def _rules(name: str, spec: OpSpec) -> str:
    variables: dict[str, int] = {}
    ints = [a for a in spec.attributes if a.kind == "int"]
    state_sizes = [f"state.{size}" for size in ops.STATE_SIZES[spec.state]] if spec.state else []

    def product(text: str) -> str:
        constant, sources = 1, []
        for factor in text.split("*"):
            if factor.isdecimal():
                constant *= int(factor)
            elif factor in (names := [a.name for a in ints]):
                sources.append(names.index(factor))
            elif factor in state_sizes:
                sources.append(_FIRST_SIZE + state_sizes.index(factor))
            elif factor in _FACTS:
                sources.append(_FIRST_FACT + _FACTS.index(factor))
            else:
                sources.append(_FIRST_VARIABLE + variables.setdefault(factor, len(variables)))
        if len(sources) > 2:
            raise ValueError(f"{name}: {text} has more names than the core multiplies")
        first, second = (*sources, -1, -1)[:2]
        return f"{{{constant}, {first}, {second}}}"

    def operand(item: Operand) -> str:
        kind = f"OperandKind::{item.kind}"
        if item.kind == "index":
            return f"{{{kind}, false, {INPUT_NAMES.index(item.name)}, {{}}, {{}}}}"
        if item.kind == "value":
            return f"{{{kind}, false, {'TRr'.index(item.dims[0])}, {{}}, {product(item.dims[1])}}}"
        n, k = map(product, _matrix(item))
        return f"{{{kind}, {str(item.optional).lower()}, 0, {n}, {k}}}"

    def listed(items: list[str]) -> str:
        return f"{len(items)}, {{{', '.join(items)}}}"

    relations = {"==": "equal", "<=": "at_most", "<": "less", "divides": "divides"}
    output = Operand("y", "value", spec.output or ("r", "w"))
    inputs = listed([operand(item) for item in spec.inputs])
    weights = listed([operand(item) for item in spec.weights])
    made = operand(output)
    where = listed(
        [
            f"{{{product(a)}, Relation::{relations[r]}, {product(b)}}}"
            for a, r, b in spec.where
            if a != "vocab"  # the core compares the ids of each batch with the table's rows
        ]
    )
    ranges = listed([f"{{{int(a.low)}, {int(a.high)}}}" for a in ints])
    flags = [spec.output is None, spec.elementwise, spec.in_place]
    state = -1 if spec.state is None else ops.STATE_KINDS.index(spec.state)
    return (
        f'    {{"{name}", {", ".join(str(flag).lower() for flag in flags)}, {state}, '
        f"{str(spec.writes).lower()},\n"
        f"     {inputs},\n"
        f"     {weights},\n     {made},\n     {ranges},\n     {where}}},"
    )


def _in_docs(text: str) -> str:
    pattern = re.compile(f"{BEGIN}.*{END}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{docs_table()}\n{END}", text)


# What is written: the path from the root, and its text made of what is there now.
FILES: dict[str, Callable[[str], str]] = {
    "runner/native/include/edge_ops.h": lambda _: abi_header(),
    "runner/native/core/generated/ops.h": lambda _: core_header(),
    "docs/program-format.md": _in_docs,
}


def outdated(root: Path = ROOT) -> list[str]:
    """Return the paths of the files that do not say what the table says."""
    stale = []
    for name, made in FILES.items():
        path = root / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if made(text) != text:
            stale.append(name)
    return stale


def main() -> int:
    stale = outdated()
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"{name} is not current: run `make operators`")
        return int(bool(stale))
    for name in stale:
        path = ROOT / name
        path.parent.mkdir(exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(FILES[name](text), encoding="utf-8")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
