"""The wheel, made from the source distribution and installed where no compiler is, runs and serves.

What needs a package registry skips by name where there is none.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import edge_llm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at manylinux tags"),
]

ROOT = Path(__file__).parents[2]
UNREACHABLE = ("No matching distribution found", "Could not find a version", "Max retries exceeded")


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel and what it depends on alone."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, program: str, *arguments: str) -> str:
        """stdout of a program of the environment, run from its folder."""
        done = subprocess.run(
            [str(self.folder / "bin" / program), *arguments],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        _need_registry(done.stderr)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what ``make wheel`` makes, by a Python without any packages."""
    output = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-S", "-I", str(ROOT / "tools" / "wheel.py"), "--output", str(output)],
        capture_output=True,
        text=True,
        check=False,
    )
    _need_registry(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (output / f"edge_llm-{edge_llm.__version__}.tar.gz").is_file()
    (made,) = output.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a fresh environment, with no compiler on its path."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=True)
    dropped = ("PYTHON", "EDGE_LLM", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    paths = {"PATH": str(folder / "bin"), "CC": "/bin/false", "CXX": "/bin/false"}
    installed = Installed(folder, {**kept, **paths, "EDGE_LLM_HOME": str(folder / "home")})
    installed.run("python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", str(wheel))
    return installed


def test_tag_is_what_the_library_needs(wheel: Path, installed: Installed) -> None:
    tag = rf"edge_llm-.*-py3-none-manylinux_2_(\d+)_{platform.machine()}\.whl"
    found = re.fullmatch(tag, wheel.name)
    assert found is not None, wheel.name
    (library,) = installed.folder.rglob("libedge_llm.so")
    data = library.read_bytes()
    needed = [int(version) for version in re.findall(rb"\0GLIBC_2\.(\d+)", data)]
    assert max(needed) == int(found[1])
    assert b"libstdc++.so" not in data


def test_runs_without_pytorch(installed: Installed) -> None:
    script = (
        "import edge_llm, edge_llm.runner.engine.engine, edge_llm.server.app, importlib.util, sys;"
        "from edge_llm import native;"
        "assert importlib.util.find_spec('torch') is None and 'torch' not in sys.modules;"
        "print(edge_llm.__version__, native.isa())"
    )
    assert installed.run("python", "-c", script).split()[0] == edge_llm.__version__
    for verb in ("run", "serve", "export", "bench"):
        assert verb in installed.run("edge-llm", "--help")
        assert "usage:" in installed.run("edge-llm", verb, "--help")


def test_base_stays_small(wheel: Path) -> None:
    script = str(ROOT / "tools" / "sizes.py")
    done = subprocess.run(
        [sys.executable, script, str(wheel), "--limit", "200"],
        capture_output=True,
        text=True,
        check=False,
    )
    _need_registry(done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| numpy " in done.stdout
    assert "| torch " not in done.stdout


def test_first_commands_run(installed: Installed) -> None:
    """Those that someone types first, with nothing in the store."""
    assert "smollm2-135m" in installed.run("edge-llm", "ls", "--all")
    assert "--allowed-host" in installed.run("edge-llm", "serve", "--help")


def test_runs_a_program(installed: Installed, tiny_program: Callable[..., Path]) -> None:
    program = tiny_program("8da4w")
    arguments = ("--model", str(program), "--temperature", "0", "--max-tokens", "12", "--json")
    got = json.loads(installed.run("edge-llm", "run", *arguments, "Hello"))
    with edge_llm.load(program) as llm:
        params = edge_llm.SamplingParams(temperature=0.0, max_tokens=12)
        expected = llm.chat([{"role": "user", "content": "Hello"}], params)
    assert got["text"] == expected.text


def test_serves_a_program(installed: Installed, tiny_program: Callable[..., Path]) -> None:
    command = [str(installed.folder / "bin" / "edge-llm"), "serve", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--model", str(tiny_program("8da4w"))],
        env=installed.environment,
        cwd=installed.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        body = {"model": "tiny", "prompt": "Once", "max_tokens": 5, "temperature": 0}
        request = urllib.request.Request(
            f"{url}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.load(reply)
        page = urllib.request.Request(f"{url}/", headers={"accept": "text/html"})
        with urllib.request.urlopen(page, timeout=60) as reply:
            files = re.findall(r'"(page/[\w.]+)"', reply.read().decode())
        for file in ("page/api.js", *files):
            with urllib.request.urlopen(f"{url}/{file}", timeout=60) as reply:
                assert reply.read()
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert server.returncode == 0
    assert answer["usage"]["completion_tokens"] > 0
    assert "page/main.js" in files


def _need_registry(text: str) -> None:
    for line in text.splitlines():
        if any(sign in line for sign in UNREACHABLE):
            pytest.skip(f"the package registry cannot be reached: {line}")
