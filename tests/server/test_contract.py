"""The rows of the HTTP contract, and which tests hold each of them: a row without one shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# A row -> the tests that hold it, in files of this folder without "test_" and ".py".
ROWS: dict[str, str] = {
    "routes with and without /v1": "documentation::every_route_is_in_it",
    "keys of each dialect": "access::the_key_as_anthropics_clients_send_it access::api_key",
    "errors in each dialect's shape": "access::errors_are_in_the_dialect_of_the_route",
    "health is open, the rest behind the key": "access::every_route_but_health_is_behind_the_key",
    "HEAD wherever GET": "access::head_is_get_without_its_body",
    "port 0 prints the address": "real_program::the_process",
    "the document is true and complete": (
        "documentation::the_document_is_valid "
        "documentation::what_a_field_takes_is_what_its_schema_says"
    ),
    "not JSON, or not an object": "http_errors::bodies_that_are_no_json_objects",
    "missing field": (
        "http_errors::missing_fields_of_chat http_errors::missing_fields_of_completions"
    ),
    "wrong type, NaN, out of range": (
        "http_errors::fields_of_chat http_errors::fields_of_completions "
        "http_errors::every_number_has_the_range_of_the_table"
    ),
    "unknown parameter": (
        "http_errors::unknown_parameters_are_ignored_and_named "
        "http_errors::strict_refuses_unknown_parameters "
        "hostile_bodies::names_that_are_ignored_lose_no_reply"
    ),
    "option that is obeyed": "sampling_fields::what_is_accepted chat_route::options_of_the_text",
    "option that is refused": "unsupported::an_option_that_is_refused",
    "unknown model": "http_errors::unknown_model",
    "prompt too long": "http_errors::prompt_too_long real_program::the_context_limit",
    "schema or grammar that cannot be enforced": (
        "chat_tools::a_form_that_the_model_refuses_is_named "
        "chat_tools::what_the_model_cannot_honour_is_named"
    ),
    "no key or a wrong one": "access::api_key",
    "Host and Origin": "access::host access::origin",
    "unknown route, wrong method": "http_errors::unknown_route_and_wrong_method",
    "body over the limit, content type": (
        "http_errors::body_over_the_limit http_errors::content_type"
    ),
    "malformed HTTP": "connections::malformed_requests",
    "headers or body too slow": (
        "connections::headers_that_do_not_come connections::headers_one_byte_at_a_time "
        "connections::a_body_that_does_not_come"
    ),
    "queue, choices, connections at their bound": (
        "http_errors::queue_full admission::the_limit_counts_choices "
        "connections::more_connections_than_there_may_be"
    ),
    "loading, draining": (
        "http_errors::loading_and_draining live::health_is_503_while_the_model_loads "
        "several_models::a_request_waits_while_its_model_loads"
    ),
    "our own bug": "http_errors::our_own_bug http_errors::a_bug_in_a_route",
    "failure after the stream began": (
        "chat_route::a_failure_after_the_stream_began anthropic_messages::a_failure_in_a_stream "
        "ollama_routes::a_failure_in_a_stream"
    ),
    "request id on every reply": "access::request_ids_differ",
    "nothing is echoed": (
        "http_errors::nothing_of_a_prompt_is_echoed_or_logged real_program::an_id_that_is_no_token"
    ),
    "chat: choice, message, chunks": (
        "chat_route::the_whole_reply chat_route::the_streamed_reply "
        "chat_route::usage_comes_in_a_chunk_of_its_own"
    ),
    "timings": "completions_route::the_timings_say_what_the_cache_had",
    "fingerprint": "chat_tools::the_fingerprint_names_the_program",
    "legacy completions": (
        "completions_route::the_legacy_shape completions_route::prompts completions_route::echo "
        "completions_route::legacy_logprobs completions_route::a_text_may_have_control_tokens"
    ),
    "streamed and whole agree": (
        "chat_route::streamed_and_whole_text_agree "
        "completions_route::streamed_and_whole_text_agree "
        "anthropic_messages::streamed_and_whole_replies_agree "
        "ollama_routes::streamed_and_whole_replies_agree"
    ),
    "the seed decides": "real_program::the_seed_decides",
    "max_tokens is clipped, and said": "chat_route::timings_say_that_max_tokens_was_clipped",
    "structured output": "real_program::answers_have_the_form_that_was_asked_for",
    "tools": "real_program::calls_are_made_where_they_must_be chat_tools::no_tools",
    "thinking": "chat_tools::how_to_think anthropic_messages::how_to_think",
    "continued messages": (
        "chat_tools::an_answer_that_has_begun "
        "anthropic_messages::a_last_message_of_the_assistant_is_continued "
        "ollama_routes::a_last_message_of_the_assistant_is_continued"
    ),
    "length before encoding": (
        "admission::a_full_server_encodes_nothing "
        "admission::a_text_of_the_longest_body_is_refused_for_what_it_is "
        "admission::health_answers_while_texts_are_encoded"
    ),
    "neighbours": "real_program::concurrent_greedy_streams_equal_solo_ones",
    "hang-ups": (
        "admission::a_hang_up_while_a_text_is_encoded live::a_hang_up_cancels_in_every_dialect "
        "live::a_hang_up_before_the_first_token_cancels real_program::a_hang_up_frees_the_engine"
    ),
    "readers who stop": (
        "connections::a_reader_who_stops_gives_its_place_back "
        "connections::a_reader_who_stops_is_cut_off"
    ),
    "half-closed connections": "connections::a_client_that_closes_its_half_gets_its_answer",
    "SIGTERM": (
        "live::stopping_lets_an_answer_end live::stopping_ends_streams_with_an_error_event "
        "admission::stopping_while_a_text_is_encoded"
    ),
    "clients that left are 499": "connections::a_client_that_leaves_while_it_sends",
    "out of file descriptors": "connections::out_of_file_descriptors",
    "an open address needs a key": "access::other_addresses_need_a_key",
    "preflight and CORS": (
        "access::preflight_needs_no_key access::errors_can_be_read_by_pages_that_may_ask"
    ),
    "metrics": "metrics::what_is_counted",
    "vectors": "embeddings_route::the_shape",
    "token ids": "tokens::errors",
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_held(row: str) -> None:
    for held in ROWS[row].split():
        file, name = held.split("::")
        source = Path(__file__).with_name(f"test_{file}.py").read_text()
        assert re.search(rf"^(async )?def test_{name}\(", source, re.MULTILINE), held
