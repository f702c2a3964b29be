"""The Python API in a page: stream, chat, many prompts at once, logits.

Run it with a program file, or a name in the store; with neither it takes the newest program.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import edge_llm
from edge_llm.catalogue import find_program, newest_program

PROMPTS = (
    "Once upon a time, there was a",
    "The opposite of hot is",
    "Two plus two makes",
    "The sun rises in the",
)


def main() -> None:
    path = find_program(sys.argv[1]) if len(sys.argv) > 1 else newest_program()
    if path is None:
        sys.exit("no program yet: run `make demo`, or `edge-llm export --model PATH|NAME`")
    with edge_llm.load(path) as llm:
        greedy = llm.default_params(temperature=0.0, max_tokens=12)

        print(f"# {llm.name}, piece by piece")
        stats = None
        params = llm.default_params(temperature=0.7, seed=1, max_tokens=60)
        for piece in llm.stream("Once upon a time,", params):
            print(piece.text, end="", flush=True)
            stats = piece.stats  # of the last piece
        if stats is not None:
            print(f"\n[{stats.summary()}]")

        if llm.chat_template is not None:
            print("\n# a conversation")
            question = {"role": "user", "content": "Name three colours."}
            print(llm.chat([question], llm.default_params(temperature=0.0, max_tokens=60)).text)

        print("\n# several prompts; whoever asks at the same time shares the steps")
        with ThreadPoolExecutor(len(PROMPTS)) as pool:
            answers = pool.map(lambda prompt: llm.generate(prompt, greedy), PROMPTS)
            for prompt, answer in zip(PROMPTS, answers, strict=True):
                print(f"{prompt}|{answer.text!r}")

        print("\n# what comes next: logits [n, vocab], row i about the token after ids[i]")
        ids = llm.tokenizer.encode(PROMPTS[0])
        logits = llm.logits(ids)
        for token in logits[-1].argsort()[::-1][:5]:
            print(f"{logits[-1, token]:8.3f}  {llm.tokenizer.decode([int(token)])!r}")


if __name__ == "__main__":
    try:
        main()
    except edge_llm.EdgeLLMError as error:
        sys.exit(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
