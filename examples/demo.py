"""From nothing to a streamed answer over HTTP: fetch, export, serve, ask, stop.

Uses only what a user would: the `edge-llm` command and the OpenAI-style endpoint.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request

MODEL = "smollm2-135m"
QUESTION = "In one short paragraph: why is the sky blue?"
EDGE_LLM = [sys.executable, "-m", "edge_llm.cli.main"]


def main() -> None:
    program = exported_program()
    server = subprocess.Popen(
        [*EDGE_LLM, "serve", "--model", program, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            sys.exit("the server did not start (see above)")
        url = json.loads(line)["url"]
        print(f"serving {MODEL} at {url}\n\n> {QUESTION}\n")
        ask(url)
    finally:
        server.terminate()
        server.wait(timeout=30)
    print("\nThe server is stopped. Next: edge-llm chat, or edge-llm serve")


def exported_program() -> str:
    """Return the 8da4w program of the small model: the one in the store, or made now."""
    for program in json.loads(run("ls", "--json"))["programs"]:
        if program["name"].startswith(f"{MODEL}-8da4w"):
            return str(program["path"])
    return run("export", "--model", MODEL, "--quant", "8da4w").strip()


def run(*arguments: str) -> str:
    """Return what `edge-llm` prints; it has told what went wrong if it fails."""
    done = subprocess.run([*EDGE_LLM, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout


def ask(url: str) -> None:
    """Print the answer as it comes, then what the server measured."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 200,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    timings = None
    start = time.perf_counter()
    with urllib.request.urlopen(request) as reply:
        for raw in reply:
            line = raw.decode().strip()
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line.removeprefix("data: "))
            for choice in chunk["choices"]:
                print(choice["delta"].get("content") or "", end="", flush=True)
            timings = chunk.get("timings") or timings
    print(f"\n\n[{time.perf_counter() - start:.2f} s over HTTP", end="")
    if timings:
        print(
            f"; prompt {timings['prompt_tokens']} tokens, first token after "
            f"{timings['time_to_first_token_ms']:.0f} ms; "
            f"{timings['completion_tokens']} tokens at "
            f"{timings['decode_tokens_per_second']:.0f} tokens/s",
            end="",
        )
    print("]")


if __name__ == "__main__":
    main()
