"""Two nodes of Ray on this machine, a replica on each: ``make test-cluster``.

They run in an environment of their own, with Ray in it; in others they are skipped.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
import waiting

ray = pytest.importorskip("ray", reason="Ray is not installed here: run `make test-cluster`")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402
from ray import serve  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.state import list_actors  # noqa: E402

import edge_llm  # noqa: E402
from edge_llm.errors import ConfigError  # noqa: E402
from edge_llm.runner.sampling import SamplingParams  # noqa: E402
from edge_llm.server.cluster.application import ClusterOptions, build  # noqa: E402

PORT = 8731
KEY = "sésame"
DEADLINE = 60.0  # seconds for what has to happen at some time


@pytest.fixture(scope="session")
def program() -> Path:
    path = os.environ.get("EDGE_LLM_PROGRAM")
    if not path:
        pytest.fail("EDGE_LLM_PROGRAM is not set: run `make test-cluster`")
    return Path(path)


@pytest.fixture(scope="session")
def url(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(f"{KEY}\n", encoding="utf-8")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    application = build(ClusterOptions(programs=[str(program)], api_key_file=key, context=2048))
    replicas = application._bound_deployment.init_args[1]
    replicas._bound_deployment = replicas._bound_deployment.options(
        num_replicas=2, ray_actor_options={"num_cpus": 1}
    )
    application._bound_deployment = application._bound_deployment.options(
        ray_actor_options={"num_cpus": 0}
    )
    serve.run(application)
    yield f"http://127.0.0.1:{PORT}"
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {KEY}".encode()}
    with httpx.Client(base_url=url, headers=headers, timeout=120) as client:
        yield client


def chat(client: httpx.Client, *messages: str, **fields: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    body = {
        "messages": [
            {"role": roles[place % 2], "content": text} for place, text in enumerate(messages)
        ],
        "temperature": 0,
        "max_tokens": 16,
        **fields,
    }
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def figures(client: httpx.Client, name: str) -> dict[str, float]:
    """Return the sum of a figure's samples, by replica."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name:
                replica = sample.labels["replica"]
                found[replica] = found.get(replica, 0.0) + sample.value
    return found


def replicas() -> list[Any]:
    """Return what Ray tells of the replicas: their nodes and processes."""
    found = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    return [actor for actor in found if "#Replica#" in (actor.name or "")]


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_both_nodes_have_a_replica(client: httpx.Client) -> None:
    assert len(figures(client, "edge_llm_model_loaded")) == 2
    assert len({replica.node_id for replica in replicas()}) == 2


def test_answers_are_those_of_the_program(client: httpx.Client, program: Path) -> None:
    with edge_llm.load(program, context=2048) as llm:
        messages = [{"role": "user", "content": "Name three rivers."}]
        expected = llm.chat(messages, SamplingParams(temperature=0, max_tokens=16))
    for _ in range(3):
        answer = chat(client, "Name three rivers.")
        assert answer["choices"][0]["message"]["content"] == expected.text


def test_a_stream_comes_in_parts_and_ends(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "Count."}], "stream": True, "max_tokens": 12}
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    parts = [json.loads(line[6:]) for line in lines[:-1]]
    assert sum(bool(part["choices"][0]["delta"].get("content")) for part in parts) > 3


def test_turns_of_a_conversation_go_where_the_earlier_ones_were_computed(
    client: httpx.Client,
) -> None:
    before = figures(client, "edge_llm_requests_total")
    for number in range(6):
        texts = [f"Conversation {number}. " + f"Some words about {number}. " * 40]
        for turn in range(3):
            answer = chat(client, *texts)
            usage = answer["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            if turn:
                # all but the new message and what a block is short of
                assert cached >= usage["prompt_tokens"] - 128
            texts += [answer["choices"][0]["message"]["content"], "Go on."]
    after = figures(client, "edge_llm_requests_total")
    assert all(after[replica] > before.get(replica, 0) for replica in after)


def test_a_stored_response_is_found(client: httpx.Client) -> None:
    made = [
        client.post("/v1/responses", json={"input": f"Hello {n}", "max_output_tokens": 16}).json()
        for n in range(4)
    ]
    for response in made:
        assert client.get(f"/v1/responses/{response['id']}").json()["id"] == response["id"]
        body = {"input": "Again", "previous_response_id": response["id"], "max_output_tokens": 16}
        assert client.post("/v1/responses", json=body).status_code == 200
    assert client.get("/v1/responses/resp_" + "0" * 48).status_code == 404


def test_errors_are_those_of_one_server(client: httpx.Client, url: str) -> None:
    assert waiting.get(f"{url}/v1/models").status_code == 401
    assert waiting.get(f"{url}/health").status_code == 200
    wrong = client.post("/v1/chat/completions", json={"messages": 3})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "messages")
    assert client.post("/v1/messages", json={}).json()["type"] == "error"
    assert client.get("/v1/nothing").status_code == 404
    long = client.post(
        "/v1/completions", content=b" " * 9_000_000, headers={"content-type": "application/json"}
    )
    assert long.status_code == 413


def test_a_client_that_leaves_frees_its_replica(client: httpx.Client) -> None:
    body = {
        "messages": [{"role": "user", "content": "Tell a long story."}],
        "stream": True,
        "max_tokens": 1500,
        "ignore_eos": True,
    }
    with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        next(reply.iter_lines())
    wait_until(lambda: not sum(figures(client, "edge_llm_requests_active").values()))


def test_many_at_once_use_both_nodes(client: httpx.Client, url: str) -> None:
    before = figures(client, "edge_llm_requests_total")

    async def work() -> list[int]:
        headers = {"authorization": f"Bearer {KEY}".encode()}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as many:
            replies = await asyncio.gather(
                *(
                    many.post("/v1/completions", json={"prompt": f"{n} is", "max_tokens": 20})
                    for n in range(24)
                )
            )
        return [reply.status_code for reply in replies]

    assert asyncio.run(work()) == [200] * 24
    after = figures(client, "edge_llm_requests_total")
    assert all(after[replica] - before[replica] >= 6 for replica in after)


def test_a_replica_that_dies_is_replaced(client: httpx.Client) -> None:
    before = set(figures(client, "edge_llm_model_loaded"))
    os.kill(replicas()[0].pid, 9)

    def answers() -> bool:
        reply = client.post("/v1/completions", json={"prompt": "One", "max_tokens": 2})
        assert reply.status_code in (200, 503)
        return reply.status_code == 200

    wait_until(answers)
    wait_until(lambda: len(figures(client, "edge_llm_model_loaded")) == 2)
    assert set(figures(client, "edge_llm_model_loaded")) != before


def test_the_file_that_ships_is_one_of_ray_serve() -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    text = files("edge_llm.configs").joinpath("cluster.yaml").read_text(encoding="utf-8")
    document = ServeDeploySchema.model_validate(yaml.safe_load(text))
    [application] = document.applications
    ClusterOptions.model_validate(application.args)
    assert {deployment.name for deployment in application.deployments} == {"Entrance", "Replica"}


def test_an_open_cluster_has_to_be_said() -> None:
    with pytest.raises(ConfigError, match="no API key"):
        build(ClusterOptions(programs="x"))
