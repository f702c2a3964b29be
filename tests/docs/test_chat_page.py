"""docs/chat.md beside the commands and settings that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge_llm.cli.chat import settings
from edge_llm.cli.chat.commands import COMMANDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "chat.md").read_text()


def test_each_command_is_described() -> None:
    described = re.findall(r"^\| `(/\w+)", PAGE, re.MULTILINE)
    assert sorted(described) == sorted(command.names[0] for command in COMMANDS)
    names = {name for command in COMMANDS for name in command.names}
    assert set(re.findall(r"`(/[a-z]\w+)", PAGE)) <= names


@pytest.mark.parametrize("line", re.findall(r"^    /set (.+)$", PAGE, re.MULTILINE))
def test_each_example_of_a_setting_is_accepted(line: str) -> None:
    name, _, value = line.partition(" ")
    assert settings.name_of(name) == name
    if value not in settings.UNSET:
        settings.value_of(name, value)
