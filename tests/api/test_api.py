from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

import edge_llm
from edge_llm.errors import (
    CapacityError,
    ConfigError,
    ContextLengthError,
    GenerationError,
    ProgramError,
    RequestError,
    TemplateError,
)
from edge_llm.runner.sampling import SamplingParams

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


def greedy(max_tokens: int = 24, **options: object) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens, **options)


def test_a_stream_adds_up_to_the_whole_text(llm: edge_llm.LLM) -> None:
    params = SamplingParams(temperature=1.0, seed=5, max_tokens=40, ignore_eos=True)
    whole = llm.generate("Once upon a time", params)
    pieces = list(llm.stream("Once upon a time", params))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert tuple(i for piece in pieces for i in piece.token_ids) == whole.token_ids
    assert whole.text == llm.tokenizer.decode(list(whole.token_ids))
    assert len(whole.token_ids) == whole.stats.completion_tokens == 40
    assert [piece.finish_reason for piece in pieces] == [None] * 40 + ["length"]
    assert pieces[-1].stats is not None
    assert pieces[-1].stats.prompt_tokens == len(llm.tokenizer.encode("Once upon a time"))


def test_text_and_ids_are_the_same_prompt(llm: edge_llm.LLM) -> None:
    ids = llm.tokenizer.encode("Once upon a time")
    expected = llm.generate("Once upon a time", greedy())
    assert llm.generate(ids, greedy()).token_ids == expected.token_ids
    assert llm.generate(np.array(ids), greedy()).token_ids == expected.token_ids


def test_greedy_follows_the_logits(llm: edge_llm.LLM) -> None:
    ids = llm.tokenizer.encode("Once upon a time")
    answer = llm.generate(ids, greedy(8, ignore_eos=True, top_logprobs=3))
    logits = llm.logits([*ids, *answer.token_ids]).astype(np.float64)
    size = llm.tokenizer.size
    assert answer.logprobs is not None
    for row, token, logprobs in zip(
        logits[len(ids) - 1 :], answer.token_ids, answer.logprobs, strict=False
    ):
        assert row[:size].argmax() == token
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert logprobs.logprob == pytest.approx(expected[token], abs=1e-4)
        assert [i for i, _ in logprobs.top] == np.argsort(-row[:size], kind="stable")[:3].tolist()


def test_a_prompt_scores_as_its_tokens_did_when_they_were_sampled(llm: edge_llm.LLM) -> None:
    ids = llm.tokenizer.encode("Once upon a time")
    answer = llm.generate(ids, greedy(120, ignore_eos=True, top_logprobs=3))
    whole = [*ids, *answer.token_ids]
    scores = llm.prompt_logprobs(whole, top=3)
    assert scores[len(ids) :] == answer.logprobs  # bit by bit
    assert scores[0] is None
    logits = llm.logits(whole).astype(np.float64)
    for row, token, score in zip(logits[:-1], whole[1:], scores[1:], strict=True):
        total = row.max() + np.log(np.exp(row - row.max()).sum())
        assert score is not None
        assert score.logprob == pytest.approx(row[token] - total, abs=1e-5)
    continued = llm.generate(ids, greedy(9, prompt_logprobs=3, ignore_eos=True))
    assert continued.prompt_logprobs == scores[: len(ids)]
    assert continued.token_ids == answer.token_ids[:9]
    assert answer.prompt_logprobs is None


def test_a_prompt_scores_the_same_beside_others(tiny_program) -> None:
    ids = np.random.default_rng(0).integers(0, 256, 200).tolist()
    with edge_llm.load(tiny_program("8da4w"), threads=2, step_tokens=32) as llm:
        alone = llm.prompt_logprobs(ids, top=2)
        others = [llm.stream(ids[i:], greedy(100, ignore_eos=True)) for i in (1, 20, 50)]
        assert llm.prompt_logprobs(ids, top=2) == alone
        for other in others:
            other.close()


def test_padding_of_the_vocabulary_cannot_be_scored(llm: edge_llm.LLM) -> None:
    padding = llm.tokenizer.size
    assert padding < llm.program.plan.vocab
    assert llm.generate([1, padding], greedy(2, ignore_eos=True)).token_ids
    with pytest.raises(RequestError, match="at position 1 of the prompt is padding"):
        llm.prompt_logprobs([1, padding])
    with pytest.raises(RequestError, match="prompt_logprobs"):
        llm.prompt_logprobs([1, 2], top=21)


def test_a_stop_string_ends_the_text_before_it(llm: edge_llm.LLM) -> None:
    params = greedy(40, ignore_eos=True)
    whole = llm.generate("Once upon a time", params)
    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 3]
    expected = whole.text[: whole.text.index(stop)]
    stopped = llm.generate("Once upon a time", params, stop=["never to be seen", stop])
    assert stopped.text == expected
    assert stopped.finish_reason == "stop"
    # The tokens are those whose text begins before the stop string, the figures count all.
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]
    assert llm.tokenizer.decode(stopped.token_ids).startswith(expected)
    assert len(stopped.token_ids) < stopped.stats.completion_tokens < 40
    assert llm.generate("Once upon a time", params, stop=stop).text == expected


def test_a_chat_is_its_template_and_a_stream(llm: edge_llm.LLM) -> None:
    ids = llm.encode_chat(MESSAGES)
    assert ids == llm.tokenizer.encode(
        "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n", specials=True
    )
    expected = llm.generate(ids, greedy())
    whole = llm.chat(MESSAGES, greedy())
    pieces = list(llm.chat(MESSAGES, greedy(), stream=True))
    assert whole.text == expected.text == "".join(piece.text for piece in pieces)


def test_an_answer_begins_anew_and_a_continuation_does_not(
    llm: edge_llm.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = llm.encode_chat(MESSAGES)
    text = llm.generate(ids, greedy()).text
    monkeypatch.setattr(llm.tokenizer, "first_bytes", lambda token: b"")  # whatever it spells
    assert llm.generate(ids, greedy()).text == text
    answer = llm.chat(MESSAGES, greedy()).text
    assert text.endswith(answer)
    assert len(answer) < len(text)


def test_variables_of_the_template(llm: edge_llm.LLM) -> None:
    # add_generation_prompt is a variable like the others; names of arguments are no trap.
    open_end = llm.encode_chat(MESSAGES, add_generation_prompt=False, self=1, tokenizer=2)
    assert open_end == llm.tokenizer.encode(
        "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n", specials=True
    )
    assert (
        llm.chat(MESSAGES, greedy(), chat_template_kwargs={"enable_thinking": False}).text
        == llm.chat(MESSAGES, greedy()).text
    )


def test_a_program_without_a_template_says_so(tiny_checkpoint, tmp_path) -> None:
    import shutil

    source = shutil.copytree(tiny_checkpoint("llama"), tmp_path / "source")
    settings = source / "tokenizer_config.json"
    settings.write_text('{"eos_token": "<|im_end|>"}', encoding="utf-8")
    recipe = edge_llm.Recipe(model=str(source), scheme="fp32", gate=None, verify=False)
    path = edge_llm.export(recipe, output=tmp_path / "plain.edge")
    with edge_llm.load(path) as plain:
        assert plain.chat_template is None
        with pytest.raises(TemplateError, match="no chat template"):
            plain.chat(MESSAGES)
        assert plain.generate("Once", greedy(2)).token_ids


def test_defaults_are_the_programs(llm: edge_llm.LLM) -> None:
    defaults = llm.default_params()
    assert (defaults.temperature, defaults.top_p) == (0.7, 0.9)
    assert llm.default_params(temperature=0.0, seed=1).temperature == 0.0
    with pytest.raises(RequestError, match="temperature"):
        llm.default_params(temperature=3.0)
    assert llm.context == 256
    assert llm.engine.facts.stop_ids == {256, 258}


def test_stop_ids_of_the_program_end_an_answer(llm: edge_llm.LLM) -> None:
    certain = greedy(8, logit_bias={258: 100.0})
    answer = llm.generate("Once", certain)
    assert (answer.text, answer.token_ids, answer.finish_reason) == ("", (), "stop")
    past = llm.generate("Once", greedy(8, logit_bias={258: 100.0}, ignore_eos=True))
    assert past.token_ids == (258,) * 8
    assert past.text == ""  # special tokens have no text


def test_the_same_seed_is_the_same_text_whatever_else_runs(llm: edge_llm.LLM) -> None:
    params = SamplingParams(temperature=1.2, seed=11, max_tokens=30, ignore_eos=True)
    alone = llm.generate("Once upon a time", params).token_ids
    answers: dict[int, tuple[int, ...]] = {}

    def call(seed: int) -> None:
        options = SamplingParams(temperature=1.2, seed=seed, max_tokens=30, ignore_eos=True)
        answers[seed] = llm.generate("Once upon a time", options).token_ids

    threads = [threading.Thread(target=call, args=(seed,)) for seed in (11, 12, 13, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[11] == alone
    assert len(set(answers.values())) == 4


def test_errors_come_from_the_call_itself(llm: edge_llm.LLM) -> None:
    with pytest.raises(ContextLengthError, match="256"):
        llm.stream([1] * 256)
    with pytest.raises(RequestError, match="no tokens"):
        llm.stream("")
    with pytest.raises(RequestError, match="stop"):
        llm.stream("Once", stop=["a", ""])
    with pytest.raises(RequestError, match="chunk"):
        llm.logits([1, 2], chunk=0)
    with pytest.raises(RequestError, match="of type str, expected token ids") as told:
        llm.logits("abc")  # type: ignore[arg-type]
    assert told.value.hint == "llm.tokenizer.encode(text) gives them"
    with pytest.raises(ContextLengthError):
        llm.logits([1] * 257)


def test_an_answer_is_clipped_to_the_context(llm: edge_llm.LLM) -> None:
    answer = llm.generate([1] * 250, greedy(1000, ignore_eos=True))
    assert len(answer.token_ids) == 6
    assert answer.finish_reason == "length"


def test_a_closed_stream_gives_its_blocks_back(llm: edge_llm.LLM) -> None:
    params = greedy(200, ignore_eos=True)
    started = llm.stream("Once upon a time", params)
    next(started)
    unread = llm.stream("Once upon a time", params)
    started.close()
    unread.close()
    llm.logits([1])  # a step later, both are gone
    stats = llm.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.blocks_free == stats.blocks


def test_close_ends_what_runs_and_refuses_more(tiny_program) -> None:
    llm = edge_llm.load(tiny_program())
    # more choices than this machine could finish before the next line
    running = llm.stream("Once", greedy(200, ignore_eos=True), n=64)
    next(running)
    llm.close()
    llm.close()
    with pytest.raises(GenerationError, match="this LLM is closed"):
        list(running)
    with pytest.raises(GenerationError, match="this LLM is closed"):
        llm.generate("Once")


def test_a_forgotten_llm_stops_its_engine(tiny_program) -> None:
    llm = edge_llm.load(tiny_program())
    thread = next(item for item in threading.enumerate() if item.name == "edge-llm-engine")
    llm.generate("Once", greedy(2))
    gone = weakref.ref(llm)
    del llm
    gc.collect()
    assert gone() is None
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_options_that_cannot_be_honoured(tiny_program, tmp_path) -> None:
    path = tiny_program()
    with pytest.raises(ConfigError, match=r"'cuda'.*native.*torch"):
        edge_llm.load(path, backend="cuda")
    with pytest.raises(ConfigError, match="threads"):
        edge_llm.load(path, threads=-1)
    for wrong in (None, 5, [path]):
        with pytest.raises(ConfigError, match="path"):
            edge_llm.load(wrong)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="backend"):
            edge_llm.load(path, backend=wrong)  # type: ignore[arg-type]
    with pytest.raises(CapacityError, match="block"):
        edge_llm.load(path, kv_budget=1)
    with pytest.raises(ProgramError):
        edge_llm.load(tmp_path / "missing.edge")


def test_a_small_budget_refuses_what_can_never_fit(tiny_program) -> None:
    page = 2 * 2 * 64 * 2 * 16 * 4  # layers, k and v, tokens, heads, head_dim, float32
    with edge_llm.load(tiny_program(), kv_budget=2 * page) as llm:
        assert llm.stats().blocks == 2
        with pytest.raises(CapacityError, match="KV blocks"):
            llm.stream([1] * 129, greedy(1))
        answer = llm.generate([1] * 100, greedy(100), ignore_eos=True)
        assert answer.stats.max_tokens_clipped == len(answer.token_ids) == 29


def test_running_a_program_imports_no_torch(tiny_program) -> None:
    code = (
        "import sys, edge_llm\n"
        "with edge_llm.load(sys.argv[1]) as llm:\n"
        "    llm.chat([{'role': 'user', 'content': 'hi'}], llm.default_params(max_tokens=3))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_program())], check=False)
    assert done.returncode == 0


def test_context_and_cache_are_limits_of_loading(tiny_program) -> None:
    ids = np.random.default_rng(3).integers(0, 256, 100).tolist()
    logits = {}
    for kv_dtype in (None, "f32", "f16", "i8"):
        with edge_llm.load(tiny_program(), context=128, kv_dtype=kv_dtype) as llm:
            logits[kv_dtype] = llm.logits(ids)
            assert llm.context == 128
            assert len(llm.generate(ids, greedy(999, ignore_eos=True)).token_ids) == 28
            with pytest.raises(ContextLengthError, match="128"):
                llm.generate([1] * 128)
    recommended = llm.program.documents.model.kv_dtype
    with edge_llm.load(tiny_program()) as whole:
        assert whole.context == 256
        assert np.array_equal(whole.logits(ids), logits[None])
    assert np.array_equal(logits[None], logits[recommended])
    assert not np.array_equal(logits["f32"], logits["f16"])
    for narrower in ("f16", "i8"):
        assert np.allclose(logits["f32"], logits[narrower], atol=0.2)
    with edge_llm.load(tiny_program(), kv_budget=100_000, kv_dtype="f32") as wide:
        few = wide.stats().blocks
    with edge_llm.load(tiny_program(), kv_budget=100_000, kv_dtype="i8") as narrow:
        assert narrow.stats().blocks > 2 * few


def test_limits_beyond_the_program_are_refused(tiny_program) -> None:
    with pytest.raises(ConfigError, match="context is 257, the program allows at most 256"):
        edge_llm.load(tiny_program(), context=257)
    for options in (
        {"context": 0},
        {"context": 10**30},
        {"context": "8"},
        {"kv_dtype": "f8"},
        {"kv_dtype": ["f16"]},
    ):
        with pytest.raises(ConfigError, match=next(iter(options))):
            edge_llm.load(tiny_program(), **options)
