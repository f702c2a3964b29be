"""langchain's own standard tests of chat models, over ChatOpenAI, in chat and in responses."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestChatCompletions(ChatModelIntegrationTests):
    responses = False

    @pytest.fixture(autouse=True)
    def _server(self, scripted: Any) -> None:
        type(self).server = scripted
        assert scripted.model  # asked for before recorders of replies stand between

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.server.model,
            "base_url": self.server.openai,
            "api_key": "unused",
            "temperature": 0,
            "max_retries": 0,
            "stream_usage": True,
            "use_responses_api": self.responses,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        name: str = self.server.model
        return name

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    # Images, sound and PDFs are not for text models: the tests for them skip themselves.


class TestResponses(TestChatCompletions):
    responses = True
