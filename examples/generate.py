"""The Python API in a page: stream, chat, many prompts at once, logits.

Run it with a program, a GGUF file or a model's name; with none it takes the small default model.
"""

from __future__ import annotations

import sys

import edge_llm

PROMPTS = (
    "Once upon a time, there was a",
    "The opposite of hot is",
    "Two plus two makes",
    "The sun rises in the",
)


def main() -> None:
    with edge_llm.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m") as llm:
        print(f"# {llm.name}, piece by piece")
        stats = None
        for piece in llm.stream("Once upon a time,", temperature=0.7, seed=1, max_tokens=60):
            print(piece.text, end="", flush=True)
            stats = piece.stats  # of the last piece
        if stats is not None:
            print(f"\n[{stats.summary()}]")

        if llm.chat_template is not None:
            print("\n# a conversation")
            question = {"role": "user", "content": "Name three colours."}
            print(llm.chat([question], temperature=0, max_tokens=60).text)

        print("\n# several prompts, which share the steps")
        answers = llm.generate(PROMPTS, temperature=0, max_tokens=12)
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
