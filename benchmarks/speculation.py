"""Decode with speculation as it is by default beside none: texts that repeat what was said, and
one that does not, alone and beside three others.

    python benchmarks/speculation.py [--model FILE|NAME] [--draft FILE|NAME] [--tokens 192]
                                     [--rounds 5] [--threads 0]

Both ways take turns on one loaded program; the medians of the rounds' ratios count: of the tokens a
second that the answer itself got, from its first token to its last, and of those of all answers
together, in all the time that they took. The others write free text. The tokens are the same both
ways, or the script fails.
"""

from __future__ import annotations

import argparse
import statistics
import time

import edge_llm
from edge_llm.catalogue import find_program
from edge_llm.runner.sampling import SamplingParams

PASSAGE = (
    "The lighthouse keeper of Gull Rock wrote every evening into a blue notebook: the wind, the "
    "height of the waves, and the names of the ships that passed. On the ninth of March he wrote "
    "that the fog had come in early, that the bell had been rung two hundred and six times, and "
    "that a small boat with a red sail had turned back towards the harbour before dark. "
)
PROGRAM = """def read_table(path):
    rows = []
    with open(path) as file:
        for line in file:
            cells = line.rstrip("\\n").split(",")
            rows.append([cell.strip() for cell in cells])
    return rows


def write_table(path, rows):
    with open(path, "w") as file:
        for row in rows:
            file.write(",".join(row) + "\\n")
"""
EDITED = PROGRAM.replace("rows", "lines").replace("row ", "line ")
PROMPTS = {
    "quotation": f"Text:\n{PASSAGE}\n\nThe same text again:\n{PASSAGE}\n\nThe same text again:\n",
    "code edit": f"```python\n{PROGRAM}```\n\nWith `lines` in place of `rows`:\n\n```python\n"
    f"{EDITED}```\n\nThe first program again:\n\n```python\n{PROGRAM}```\n\n"
    "With `lines` in place of `rows` again:\n\n```python\n",
    "free text": "Write a short story about a lighthouse keeper who loses his notebook.\n\n",
}
FREE = (1.0, 0.0)  # temperatures: a small model repeats itself when it is greedy
OTHERS = (
    "A list of animals that live in cold water, and what they eat:\n",
    "Dear Sir or Madam, I am writing to you because",
    "The history of bicycles begins",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m", metavar="FILE|NAME")
    parser.add_argument("--draft", metavar="FILE|NAME", help="a program that drafts")
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    draft = find_program(options.draft) if options.draft else False
    with edge_llm.load(
        find_program(options.model), threads=options.threads, max_sequences=4, draft=draft
    ) as llm:
        print(
            "| text | temperature | others | off, tokens/s | auto, tokens/s | ratio "
            "| all together | right |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for name, prompt in PROMPTS.items():
            for temperature in FREE if name == "free text" else (0.0,):
                for others in ((), OTHERS):
                    print(measured(llm, name, [prompt, *others], temperature, options))


def measured(
    llm: edge_llm.LLM,
    name: str,
    prompts: list[str],
    temperature: float,
    options: argparse.Namespace,
) -> str:
    """Return the row of a table."""
    own: dict[str, list[float]] = {"off": [], "auto": []}
    total: dict[str, list[float]] = {"off": [], "auto": []}
    texts = set()
    for _ in range(options.rounds):
        for speculation in own:
            params = SamplingParams(
                temperature=temperature,
                seed=1,
                max_tokens=options.tokens,
                ignore_eos=True,
                speculation=speculation,
            )
            started = time.perf_counter()
            answers = llm.generate(prompts, params)
            seconds = time.perf_counter() - started
            own[speculation].append(answers[0].stats.decode_tokens_per_second)
            total[speculation].append(len(prompts) * options.tokens / seconds)
            texts.add(tuple(answer.token_ids for answer in answers))
    if len(texts) != 1:
        raise SystemExit("speculation changed a token")
    stats = answers[0].stats
    cells = (
        name,
        f"{temperature:g}",
        len(prompts) - 1,
        *(f"{statistics.median(found):.0f}" for found in own.values()),
        *(f"{ratio(found):.2f}" for found in (own, total)),
        f"{stats.accepted_tokens} of {stats.drafted_tokens}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def ratio(found: dict[str, list[float]]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(b / a for a, b in zip(*found.values(), strict=True))


if __name__ == "__main__":
    main()
