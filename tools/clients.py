"""Runs the tests of real clients against our server: ``make test-clients``.

    python tools/clients.py [CLIENT ...]

Each client has an environment of its own under build/clients, made from a file of pinned packages
(tests/clients/requirements), without edge-llm in it. Servers run meanwhile: ``edge-llm serve`` on
SmolLM2-135M-Instruct, and the same server on a model that follows a script
(tests/clients/scripted), without and with a key. Ends with a table; fails if a test did.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "clients"
WORK = ROOT / "build" / "clients"
PROGRAMS = WORK / "programs"
PASSED = ("PATH", "LANG", "TMPDIR", "WRITE_CAPTURES")
KEY = "sésame"  # of one of the servers; headers have bytes


@dataclass(frozen=True)
class Outcome:
    """The tests of one client; ``note`` says why there is no number."""

    client: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    clients = sorted(file.stem for file in (TESTS / "requirements").glob("*.txt"))
    parser.add_argument("client", nargs="*", help=f"some of: {', '.join([*clients, 'npm'])}")
    chosen = parser.parse_args().client or [*clients, "npm"]
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        urls = {
            "EDGE_LLM_REAL": stack.enter_context(serving(real_server(), "real")),
            "EDGE_LLM_SCRIPTED": stack.enter_context(serving(scripted_server(), "scripted")),
            "EDGE_LLM_KEYED": stack.enter_context(serving([*scripted_server(), KEY], "keyed")),
            "EDGE_LLM_KEY": KEY,
            # For a client that loads programs itself.
            "EDGE_LLM_PROGRAM": str(program("real")),
            "EDGE_LLM_SITES": os.pathsep.join(p for p in sys.path if p.endswith("site-packages")),
        }
        outcomes = [
            test_npm(urls) if client == "npm" else test_python(client, urls) for client in chosen
        ]
    print(table(outcomes))
    sys.exit(any(outcome.failed or outcome.note.startswith("!") for outcome in outcomes))


def real_server() -> list[str]:
    """Return the command of a server on the small model."""
    serve = [sys.executable, "-m", "edge_llm.cli.main", "serve"]
    return [*serve, "--model", str(program("real")), "--port", "0"]


def scripted_server() -> list[str]:
    """Return the command of a server on the scripted model."""
    return [sys.executable, str(TESTS / "scripted" / "serve.py"), str(program("scripted"))]


def program(name: str) -> Path:
    """Return one of the programs; they are exported once."""
    path = PROGRAMS / f"{name}.edge"
    if not path.is_file():
        run([sys.executable, str(TESTS / "programs.py"), name, str(path)])
    return path


def run(command: list[str]) -> None:
    subprocess.run(command, check=True)


@contextmanager
def serving(command: list[str], name: str) -> Iterator[str]:
    """Run a server while the block runs; its log is in build/clients. Yields its address."""
    with (WORK / f"{name}.log").open("w", encoding="utf-8") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            if not line:
                raise SystemExit(f"the {name} server did not start: see {log.name}")
            yield str(json.loads(line)["url"])
        finally:
            server.terminate()
            server.wait()


def test_python(client: str, urls: dict[str, str]) -> Outcome:
    pinned = TESTS / "requirements" / f"{client}.txt"
    files = tests_of(client)
    if not files:
        return Outcome(client, note="no tests yet")
    python = environment(client, pinned)
    report = WORK / f"{client}.xml"
    report.unlink(missing_ok=True)
    print(f"== {client}", flush=True)
    options = ["-q", "-c", str(TESTS / "pytest.ini"), "--rootdir", str(TESTS)]
    subprocess.run(
        [str(python), "-m", "pytest", *options, f"--junit-xml={report}", *map(str, files)],
        cwd=WORK,
        env=surroundings(urls),
        check=False,
    )
    return outcome_of(client, report)


def tests_of(client: str) -> list[Path]:
    """Return a client's test files: those whose names its requirements begin with a list of."""
    first = (TESTS / "requirements" / f"{client}.txt").read_text(encoding="utf-8").splitlines()[0]
    return [TESTS / name for name in first.lstrip("# ").split() if (TESTS / name).is_file()]


def environment(client: str, pinned: Path) -> Path:
    """Return the Python of a client's environment, made again where the pins have changed."""
    folder = WORK / client
    python = folder / "bin" / "python"
    stamp, digest = folder / "pins", hashlib.sha256(pinned.read_bytes()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == digest):
        shutil.rmtree(folder, ignore_errors=True)
        run([sys.executable, "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pinned)])
        stamp.write_text(digest)
    return python


def surroundings(urls: dict[str, str]) -> dict[str, str]:
    """Return the environment variables of a client's tests: none of ours, no keys, no telemetry."""
    kept = {name: os.environ[name] for name in PASSED if name in os.environ}
    home = WORK / "home"
    home.mkdir(exist_ok=True)
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    return kept | quiet | urls | {"HOME": str(home), "OPENAI_API_KEY": "unused"}


def outcome_of(client: str, report: Path) -> Outcome:
    if not report.is_file():
        return Outcome(client, note="! pytest did not run")
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = counts["failures"] + counts["errors"]
    return Outcome(
        client,
        counts["tests"] - failed - counts["skipped"],
        failed,
        counts["skipped"],
        float(suite.get("time", 0)),
    )


def test_npm(urls: dict[str, str]) -> Outcome:
    """Run the tests of the official JavaScript client by Node's own test runner."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return Outcome("npm", note="skipped: there is no Node here")
    folder = WORK / "npm"
    shutil.copytree(TESTS / "npm", folder, dirs_exist_ok=True)
    run([npm, "ci", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)])
    print("== npm", flush=True)
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", "openai.test.mjs"],
        cwd=folder,
        env=surroundings(urls),
        capture_output=True,
        text=True,
        check=False,
    )
    counts = {
        words[1]: words[2]
        for line in done.stdout.splitlines()
        if line.startswith("# ") and len(words := line.split()) == 3
    }
    if done.returncode:
        print(done.stdout, done.stderr)
    if "pass" not in counts:
        return Outcome("npm", note="! node did not run the tests")
    return Outcome(
        "npm",
        int(counts["pass"]),
        int(counts["fail"]),
        int(counts["skipped"]),
        float(counts["duration_ms"]) / 1000,
    )


def table(outcomes: list[Outcome]) -> str:
    lines = [f"{'client':<16}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}"]
    for outcome in outcomes:
        if outcome.note:
            lines.append(f"{outcome.client:<16}  {outcome.note}")
            continue
        counts = f"{outcome.passed:>8}{outcome.failed:>8}{outcome.skipped:>9}"
        lines.append(f"{outcome.client:<16}{counts}{outcome.seconds:>9.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
