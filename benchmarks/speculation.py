"""Decode with and without n-gram speculation: a text that quotes its prompt, and one that does not.

    python benchmarks/speculation.py [--model smollm2-135m] [--tokens 192] [--rounds 5]

Both ways take turns on one loaded program; the best round of each counts. The tokens are the same
both ways, or the script fails.
"""

from __future__ import annotations

import argparse

import edge_llm
from edge_llm.catalogue import find_program
from edge_llm.runner.sampling import SamplingParams

PASSAGE = (
    "The lighthouse keeper of Gull Rock wrote every evening into a blue notebook: the wind, the "
    "height of the waves, and the names of the ships that passed. On the ninth of March he wrote "
    "that the fog had come in early, that the bell had been rung two hundred and six times, and "
    "that a small boat with a red sail had turned back towards the harbour before dark. "
)
PROMPTS = {
    "quotes its prompt": f"Text:\n{PASSAGE}\n\nThe same text again:\n{PASSAGE}\n\n"
    "The same text again:\n",
    "does not": "Write a short story about a lighthouse keeper who loses his notebook.\n\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", metavar="FILE|NAME")
    parser.add_argument("--tokens", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    with edge_llm.load(
        find_program(arguments.model), threads=arguments.threads, max_sequences=1
    ) as llm:
        for temperature in (0.0, 0.5):
            for name, prompt in PROMPTS.items():
                best: dict[str, float] = {}
                texts = set()
                for _ in range(arguments.rounds):
                    for speculation in ("off", "ngram"):
                        params = SamplingParams(
                            temperature=temperature,
                            seed=1,
                            max_tokens=arguments.tokens,
                            ignore_eos=True,
                            speculation=speculation,
                        )
                        answer = llm.generate(prompt, params)
                        texts.add(answer.token_ids)
                        rate = answer.stats.decode_tokens_per_second
                        best[speculation] = max(best.get(speculation, 0.0), rate)
                if len(texts) != 1:
                    raise SystemExit("speculation changed a token")
                stats = answer.stats
                print(
                    f"temperature {temperature}, a text that {name}: "
                    f"{best['off']:.0f} tokens/s without, {best['ngram']:.0f} with "
                    f"({best['ngram'] / best['off']:.2f} times); "
                    f"{stats.accepted_tokens} of {stats.drafted_tokens} drafted tokens accepted"
                )


if __name__ == "__main__":
    main()
