"""Pages of figures: each benchmark writes its own section, and leaves the rest as it is."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "performance.md"


def replace_section(name: str, text: str, page: Path = DOCUMENT) -> None:
    """Put ``text`` between the marks of section ``name``; a page without them gets them at its
    end."""
    begin, end = (f"<!-- {name}: {what} -->\n" for what in ("made by the benchmark", "end"))
    document = page.read_text(encoding="utf-8") if page.exists() else f"# {page.stem.title()}\n"
    if begin not in document:
        document += f"\n{begin}{end}"
    before, rest = document.split(begin)
    after = rest.split(end)[1]
    page.write_text(f"{before}{begin}{text.strip()}\n{end}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def where(extra: str = "") -> str:
    """Return one line: date, machine, versions."""
    today = datetime.date.today().isoformat()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT
    ).stdout.strip()
    ours = f"edge-llm {version('edge-llm')}" + (f" ({commit})" if commit else "")
    parts = [today, machine(), f"Linux {platform.release().split('-')[0]}", ours, extra]
    return "; ".join(part for part in parts if part) + "."


def machine() -> str:
    """Return the processor, its vector extensions that matter here, cores and memory."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        facts.setdefault(key.strip(), value.strip())
    flags = facts.get("flags", "").split()
    wanted = {"avx2": "AVX2", "avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI"}
    vectors = ", ".join(title for flag, title in wanted.items() if flag in flags)
    total = Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]
    cores = sum("processor" in line for line in Path("/proc/cpuinfo").read_text().splitlines())
    name = facts.get("model name", platform.machine())
    family = f"family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"
    return f"{name} ({family}; {vectors}), {cores} cores, {int(total) / 2**20:.0f} GiB"
