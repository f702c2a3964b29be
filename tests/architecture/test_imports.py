"""Who may import whom: the table of docs/architecture.md, checked on the syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "edge_llm"

BASE = {"errors", "extras", "near", "parsed", "program", "native", "abi"}

# part -> our parts it may import anywhere, and third-party packages it may import anywhere
ALLOWED: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "extras": (BASE, set()),
    "near": (set(), set()),
    "parsed": (set(), set()),
    "program": (BASE, {"numpy"}),
    "abi": (BASE, set()),
    "native": (BASE, set()),
    "catalogue": ({"errors", "extras", "catalogue"}, set()),
    "llm": (BASE | {"llm"}, {"safetensors", "numpy"}),
    "tokenizers": (BASE | {"tokenizers"}, {"tokenizers", "jinja2", "numpy"}),
    "runner": (BASE | {"runner"}, {"numpy"}),
    "export": (
        BASE | {"catalogue", "llm", "tokenizers", "export"},
        {"yaml", "numpy"},
    ),
    "api": (BASE | {"tokenizers", "runner", "api"}, set()),
    "server": (
        {"errors", "parsed", "tokenizers", "runner", "api", "server"},
        {
            "fastapi",
            "h11",
            "prometheus_client",
            "pydantic",
            "pydantic_core",
            "starlette",
            "uvicorn",
        },
    ),
    "charts": ({"extras", "charts"}, set()),
    "harness": (BASE | {"api", "runner", "harness"}, {"lm_eval"}),
    "cli": ({"errors", "extras", "near", "cli"}, set()),
}
# Exceptions by file: the oracle, and the stage that runs what was exported.
EXTRA: dict[str, tuple[set[str], set[str]]] = {
    "runner/backends/torch.py": (set(), {"torch"}),
    "runner/backends/torch_operators.py": (set(), {"torch"}),
    "export/verification/answers.py": ({"runner"}, set()),
    "export/weights/reading.py": ({"runner"}, set()),
    # Imported by Ray, on the nodes of a cluster.
    "server/cluster/application.py": ({"catalogue"}, {"ray"}),
    "server/cluster/router.py": (set(), {"ray"}),
    # Imported by the chat alone, once it is at a terminal.
    "cli/chat/completion.py": (set(), {"prompt_toolkit"}),
    "cli/chat/editor.py": (set(), {"prompt_toolkit"}),
    "cli/chat/history.py": (set(), {"prompt_toolkit"}),
    "cli/chat/reflow.py": (set(), {"prompt_toolkit"}),
}
# Folders that may also use what the rest of their part does not: PyTorch is where models are
# written, traced and compared with, so that programs of known families are made without it.
WITH: dict[str, set[str]] = {
    "llm/models/": {"torch"},
    "export/lowering/": {"torch"},
    "export/verification/": {"torch", "torchao"},
    "runner/guidance/": {"llguidance"},
}
# What a part may import inside functions only (paid for when it is used).
LAZY: dict[str, tuple[set[str], set[str]]] = {
    "charts": (set(), {"matplotlib"}),
    "harness": (set(), {"tqdm"}),
    "api": ({"export", "llm"}, {"pydantic", "tqdm"}),
    "catalogue": ({"program"}, {"yaml", "huggingface_hub"}),
    "cli": (
        BASE | {"catalogue", "llm", "tokenizers", "runner", "export", "api", "server", "charts"},
        {"argcomplete", "markdown_it", "numpy", "rich", "tqdm"},
    ),
}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(
        path
        for folder in [PACKAGE, *(link for link in PACKAGE.iterdir() if link.is_symlink())]
        for path in folder.rglob("*.py")
        if part_of(path) not in ("__init__", "configs")
    )


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """(dotted module, is at module level). Imports under TYPE_CHECKING never run: left out."""

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, "imports are absolute"
                assert child.module is not None
                if child.module == "edge_llm":
                    yield from ((f"edge_llm.{alias.name}", top) for alias in child.names)
                else:
                    yield child.module, top
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            else:
                nested = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                yield from walk(child, top and not nested)

    yield from walk(tree, True)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_table(path: Path) -> None:
    name = str(path.relative_to(PACKAGE))
    part = part_of(path)
    ours, theirs = (set(names) for names in ALLOWED[part])
    for folder, packages in WITH.items():
        if name.startswith(folder):
            theirs |= packages
    lazy_ours, lazy_theirs = LAZY.get(part, (set(), set()))
    extra_ours, extra_theirs = EXTRA.get(name, (set(), set()))
    standard = __import__("sys").stdlib_module_names
    wrong = []
    for module, top in imports(ast.parse(path.read_text())):
        head, _, rest = module.partition(".")
        if head == "edge_llm":
            target = rest.partition(".")[0]
            allowed = ours | extra_ours | (set() if top else lazy_ours)
            if target and target not in allowed | {"__version__"}:
                wrong.append(module)
        elif head not in standard and head not in theirs | extra_theirs | (
            set() if top else lazy_theirs
        ):
            wrong.append(module)
    assert not wrong, f"{name} may not import {wrong}"


def test_the_check_sees_a_forbidden_import() -> None:
    tree = ast.parse("def f():\n    import torch\nfrom edge_llm.server import app\n")
    assert list(imports(tree)) == [("torch", False), ("edge_llm.server", True)]
