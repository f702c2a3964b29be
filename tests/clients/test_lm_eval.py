"""lm-evaluation-harness with tasks of local files: against the server, and with the program itself
as its model, which find the same."""

from __future__ import annotations

import os
import site
from pathlib import Path
from typing import Any

import pytest
from conftest import Server

TASKS = Path(__file__).parent / "lm_eval_tasks"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(TASKS)  # data files are named from there


def samples(model: str, arguments: str, *tasks: str, chat: bool = False) -> dict[str, list[Any]]:
    """Return what the model has answered, by task."""
    import lm_eval
    import lm_eval.models
    from lm_eval.tasks import TaskManager

    found = lm_eval.simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=list(tasks),
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        apply_chat_template=chat,
        bootstrap_iters=0,
        log_samples=True,
    )
    return {
        task: [each["filtered_resps"] for each in sorted(rows, key=lambda row: row["doc_id"])]
        for task, rows in found["samples"].items()
    }


def test_the_server_and_the_program_agree(real: Server) -> None:
    names = ("edge_choices", "edge_rolling", "edge_generate")
    url = f"base_url={real.openai}/completions,model={real.model},num_concurrent=1"
    served = samples("local-completions", url, *names)
    for folder in os.environ["EDGE_LLM_SITES"].split(os.pathsep):
        site.addsitedir(folder)
    import edge_llm.harness  # noqa: F401

    own = samples("edge-llm", f"program={os.environ['EDGE_LLM_PROGRAM']}", *names)
    assert served["edge_generate"] == own["edge_generate"]
    assert len(own["edge_choices"]) == 4
    for ours, theirs in zip(own["edge_choices"], served["edge_choices"], strict=True):
        assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
        scores = [score for score, _ in ours]
        assert scores == pytest.approx([score for score, _ in theirs], rel=1e-5)
    assert [row[0] for row in own["edge_rolling"]] == pytest.approx(
        [row[0] for row in served["edge_rolling"]], rel=1e-5
    )


def test_chats(real: Server) -> None:
    url = f"base_url={real.openai}/chat/completions,model={real.model}"
    found = samples("local-chat-completions", url, "edge_generate", chat=True)
    assert all(row[0] for row in found["edge_generate"])
