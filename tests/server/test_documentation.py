"""The OpenAPI document is true and complete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from edge_llm.server.documentation.document import openapi_document
from edge_llm.server.documentation.operation import LINES, documented


@pytest.fixture
def document(client: Any) -> dict[str, Any]:
    return whole(client)


def whole(client: Any) -> dict[str, Any]:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    value: dict[str, Any] = response.json()
    return value


def routes(app: FastAPI) -> Iterator[tuple[str, str]]:
    """The path and the method of every route."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        assert isinstance(route, APIRoute), route
        for method in route.methods:
            yield context.path_format, method.lower()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    used = set(references(document))
    assert used <= schemas
    assert schemas == used  # nothing is left over either


def test_every_route_is_in_it(client: Any, document: dict[str, Any]) -> None:
    described = {
        (path, method) for path, operations in document["paths"].items() for method in operations
    }
    gate = client.app
    assert described == set(routes(gate._app))
    for path, method in described:
        operation = document["paths"][path][method]
        assert operation["summary"], path
        assert operation["tags"], path
        if method == "post":
            assert "application/json" in operation["requestBody"]["content"], path


def test_the_key_is_asked_for_where_there_is_one(make_client: Any) -> None:
    without = whole(make_client())["paths"]
    assert without["/v1/chat/completions"]["post"]["security"] == []
    headers = {"authorization": "Bearer k"}
    asked = make_client(api_key="k").get("/openapi.json", headers=headers).json()["paths"]
    assert asked["/v1/chat/completions"]["post"]["security"] == [{"bearer": []}]
    assert "401" in asked["/v1/chat/completions"]["post"]["responses"]
    assert asked["/health"]["get"]["security"] == []


def test_the_page_names_every_route(client: Any, document: dict[str, Any]) -> None:
    response = client.get("/docs")
    assert response.headers["content-type"].startswith("text/html")
    for path in document["paths"]:
        assert path in response.text
    assert "<script" not in response.text


ODD: list[Any] = [
    None, True, 0, -1, 3.0, 1.5, 2**70, float("nan"), "", "a", "auto", "{", "\ud800", '{"a": NaN}',
    [], [[]], [None], {}, {"": 1}, {"type": None}, {"type": 7}, {"type": "x"}, [{}],
    [{"type": "function"}], [{"type": "function", "function": {"name": 7}}], {"name": "f"},
    [1, 2], [[1, 2]], [["a", 2]], [[1, "x"]], ["a", "b"], {"json": "{}"},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}},
]  # fmt: skip
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [1]},
}


@pytest.mark.slow
@pytest.mark.parametrize("path", BODIES)
def test_what_a_field_takes_is_what_its_schema_says(
    client: Any, model: Any, document: dict[str, Any], path: str
) -> None:
    """The client itself holds what was answered with 200 to the document (`conftest.py`)."""
    model.answer = "x"
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    fields = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
    for field in fields:
        for value in ODD:
            body = json.dumps(BODIES[path] | {field: value})
            response = client.post(path, content=body, headers={"content-type": "application/json"})
            assert response.status_code in (200, 400, 404), (field, value, response.text)


def test_two_objects_of_one_name_keep_apart() -> None:
    class Outer(BaseModel):
        class Part(BaseModel):
            a: int

        part: Part

    class Other(BaseModel):
        class Part(BaseModel):
            b: str

        parts: list[Part]

    class Tree(BaseModel):
        below: list[Tree] = []

    app, router = FastAPI(), APIRouter()

    @router.post("/x", **documented("X", "x", body=Outer, reply=Other, stream=Tree))
    def x() -> None: ...

    @router.post("/y", **documented("Y", "x", body=Outer, stream=Tree, stream_media=LINES))
    def y() -> None:
        """More about it."""

    app.include_router(router)
    document = openapi_document(app, key=False)
    OpenAPIV31SpecValidator(document).validate()
    schemas = document["components"]["schemas"]
    assert schemas["Outer"]["properties"]["part"]["$ref"].endswith("/Part")
    assert schemas["Other"]["properties"]["parts"]["items"]["$ref"].endswith("/OtherPart")
    assert {"Outer", "Part", "Other", "OtherPart", "Tree"} <= schemas.keys()
    post = document["paths"]["/y"]["post"]
    assert post["description"] == "More about it."
    assert post["responses"]["200"]["content"][LINES]["schema"]["contentSchema"] == {
        "$ref": "#/components/schemas/Tree"
    }
