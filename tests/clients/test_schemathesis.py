"""Every operation of the server's own OpenAPI document, with generated requests: no error of the
server, no reply but those that the document names, none lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import Server

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
EXAMPLES = 25  # of each operation


def test_generated_requests(real: Server) -> None:
    folder = Path(__file__).parent
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"{real.url}/openapi.json", "--checks", ",".join(CHECKS)),
            *("--phases", "fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"),
            *("--request-timeout", "60", "--continue-on-failure", "--no-color"),
        ],
        env=os.environ | {"PYTHONPATH": str(folder), "SCHEMATHESIS_HOOKS": "schemathesis_hooks"},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
