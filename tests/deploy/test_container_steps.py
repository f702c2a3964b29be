"""The steps of deploy/Dockerfile, one by one, in folders of their own: no daemon is needed.

What stands for the image's root is a temporary folder: the paths in the steps are moved there. The
system's packages and its user are left out (`apt-get`, `useradd`): this machine has the compiler,
and the last stage runs as the image's user where the tests run as root.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the image is one of Linux"),
]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNREACHABLE = ("No matching distribution found", "Could not find a version", "Max retries exceeded")
KEY = "a key for this test"


class Image:
    """A folder that stands for the root of an image, and what a Dockerfile says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        self.steps = [tuple(line.split(maxsplit=1)) for line in lines]
        variables = " ".join(rest for word, rest in self.steps if word == "ENV")
        self.variables = dict(re.findall(r"(\w+)=(\S+)", self.moved(variables)))

    def moved(self, text: str) -> str:
        """Return the text with the image's paths in this folder."""
        paths = r"(?<![\w.])/(source|wheels|opt/edge-llm|var/lib/edge-llm)\b"
        return re.sub(paths, rf"{self.root}/\1", text)

    def of(self, word: str) -> list[str]:
        """Return the arguments of the last instruction of this name, written as JSON."""
        last = [rest for name, rest in self.steps if name == word][-1]
        words: list[str] = json.loads(last[last.index("[") :])
        return words

    def environment(self) -> dict[str, str]:
        path = self.variables["PATH"].replace("$PATH", "/usr/bin:/bin")
        return {**self.variables, "PATH": path, "EDGE_LLM_API_KEY": KEY, "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Return what the build stage leaves, where every user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        yield _built(root)


def _built(root: Path) -> Image:
    image = Image(root)
    _copy_context(root / "source")
    dropped = ("EDGE_LLM", "PYTHON", "VIRTUAL_ENV")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    environment = {**kept, "PATH": f"{_python(root)}{os.pathsep}{os.environ['PATH']}"}
    for word, rest in image.steps:
        if word == "RUN" and not rest.startswith(("apt-get", "useradd")):
            done = subprocess.run(
                ["sh", "-ec", image.moved(rest)],
                cwd=root / "source",
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if any(sign in done.stderr for sign in UNREACHABLE):
                pytest.skip("the package registry cannot be reached")
            assert done.returncode == 0, f"{rest}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return image


def test_no_pytorch_and_no_pip(image: Image) -> None:
    names = {path.name for path in (image.root / "opt/edge-llm").rglob("site-packages/*")}
    assert "edge_llm" in names
    assert not names & {"torch", "pip"}


def test_it_serves_and_is_healthy(image: Image, tiny_program: Callable[..., Path]) -> None:
    home = Path(image.variables["EDGE_LLM_HOME"])
    (home / "programs").mkdir(parents=True)
    shutil.copyfile(tiny_program("8da4w"), home / "programs" / "tiny.edge")
    user = int(next(rest for word, rest in image.steps if word == "USER"))
    if _user(image, user) is not None:
        for path in (home, *home.rglob("*")):
            os.chown(path, user, user)
    port = _free_port()
    check = [word.replace("8017", str(port)) for word in image.of("HEALTHCHECK")]
    with _running(image, [*image.of("ENTRYPOINT"), *image.of("CMD")], user, port) as server:
        for _ in range(600):
            if _run_in(image, check, user).returncode == 0:
                break
            assert server.poll() is None
            time.sleep(0.1)
        else:
            pytest.fail("never healthy")
    assert server.returncode == 0
    assert _run_in(image, check, user).returncode != 0  # it has ended


@contextmanager
def _running(
    image: Image, command: list[str], user: int, port: int
) -> Iterator[subprocess.Popen[bytes]]:
    server = subprocess.Popen(
        command,
        executable=str(image.root / "opt/edge-llm/bin" / command[0]),
        env={**image.environment(), "EDGE_LLM_PORT": str(port)},
        cwd="/",
        user=_user(image, user),
        stderr=subprocess.DEVNULL,
    )
    try:
        yield server
    finally:
        server.terminate()
        server.communicate(timeout=60)


def _run_in(image: Image, command: list[str], user: int) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        executable=str(image.root / "opt/edge-llm/bin" / command[0]),
        env=image.environment(),
        cwd="/",
        user=_user(image, user),
        capture_output=True,
        check=False,
    )


def _user(image: Image, wanted: int) -> int | None:
    """Return the user to run as: None, for this one, where another may not be taken, or could not
    read the Python that is under root's own folder."""
    interpreter = (image.root / "opt/edge-llm/bin/python").resolve()
    readable = all(folder.stat().st_mode & 0o001 for folder in interpreter.parents)
    return wanted if os.geteuid() == 0 and readable else None


def _copy_context(folder: Path) -> None:
    """Copy what the ignore file lets into the build."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    ignored = shutil.ignore_patterns("__pycache__")
    folder.mkdir()
    for name in (line[1:] for line in lines if line.startswith("!")):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copyfile(source, folder / name)


def _python(root: Path) -> Path:
    """Return a folder with `python`, which an image has and a system may not: the system's where it
    will do, since every user can run it, else the one that these tests run with."""
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    suits = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"
    system = Path("/usr/bin/python3")
    found = system.exists() and subprocess.run([system, "-c", suits], check=False).returncode == 0
    folder = root / "python"
    folder.mkdir()
    (folder / "python").symlink_to(system if found else own)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
