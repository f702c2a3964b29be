"""Ready programs from an address: a host on loopback that sends, cuts, lies and redirects."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fixtures_hub import FakeHub

from edge_llm import catalogue
from edge_llm.catalogue import downloads
from edge_llm.errors import SourceError


@dataclass
class Host:
    """The files that are served by their paths, and how: ``cuts`` are the bytes of each answer
    that come before the connection ends, ``length`` is what the host says instead of the truth."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    length: int | None = None
    reason: str | None = None
    ranges: bool = True
    status: int = 200
    sent: list[tuple[str, int]] = field(default_factory=list)


@pytest.fixture
def host() -> Iterator[Host]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    host = Host(f"http://127.0.0.1:{server.server_address[1]}")
    server.RequestHandlerClass = _handler(host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield host
    server.shutdown()
    thread.join()
    server.server_close()


def _handler(host: Host) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            target = host.redirects.get(self.path)
            if target is not None:
                self._head(302, {"Location": target, "Content-Length": "0"})
                return
            data = host.files.get(self.path)
            if data is None or host.status != 200:
                self._head(404 if data is None else host.status, {"Content-Length": "0"})
                return
            tag = f'"{hashlib.sha256(data).hexdigest()[:8]}"'
            start = 0
            span = self.headers.get("Range")
            if span and host.ranges and self.headers.get("If-Range") == tag:
                start = int(span.removeprefix("bytes=").removesuffix("-"))
                if start >= len(data):
                    self._head(416, {"Content-Range": f"bytes */{len(data)}"})
                    return
            host.sent.append((self.path, start))
            rest = data[start:]
            length = len(rest) if host.length is None else host.length
            headers = {"Content-Length": str(length), "ETag": tag}
            kind = host.kinds.get(self.path, "application/octet-stream")
            self._head(206 if start else 200, {**headers, "Content-Type": kind})
            cut = host.cuts.pop(0) if host.cuts and not self.path.endswith(".sha256") else None
            self.wfile.write(rest if cut is None else rest[:cut])
            self.close_connection = True

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status, host.reason)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    return Handler


@pytest.fixture(scope="module")
def data(tiny_program: Callable[..., Path]) -> bytes:
    return tiny_program("8da4w").read_bytes()


def pull(url: str, **options: bool) -> tuple[Path, list[str]]:
    """Return the file, and the stages that were reported and what was told, each once."""
    said: dict[str, None] = {}

    def note(stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        said[stage] = None

    path = catalogue.pull_program(url, note, tell=lambda text: said.setdefault(text), **options)
    return path, list(said)


def leftovers() -> list[str]:
    return [name for name in os.listdir(catalogue.programs_dir()) if ".part" in name]


@pytest.mark.parametrize("where", ["fragment", "beside", "query"])
def test_with_its_digest(host: Host, data: bytes, where: str) -> None:
    digest = hashlib.sha256(data).hexdigest()
    url = f"{host.address}/models/small-8da4w.edge"
    host.files["/models/small-8da4w.edge"] = data
    if where == "fragment":
        url += f"#sha256={digest.upper()}"
    elif where == "beside":
        host.files["/models/small-8da4w.edge.sha256"] = f"{digest}  small-8da4w.edge\n".encode()
    else:
        url += "?download=true"
        host.files["/models/small-8da4w.edge?download=true"] = data
        host.files["/models/small-8da4w.edge.sha256?download=true"] = digest.encode()
    path, said = pull(url)
    assert path == catalogue.programs_dir() / "small-8da4w.edge"
    assert path.read_bytes() == data
    assert said == ["download", "check"]
    assert leftovers() == []
    host.sent.clear()
    assert pull(url) == (path, [])  # it is here
    assert host.sent == []
    assert catalogue.find_program("small-8da4w") == path


def test_without_a_digest_the_files_own_are_checked(host: Host, data: bytes) -> None:
    host.files["/a.edge"] = data
    path, said = pull(f"{host.address}/a.edge")
    assert path.read_bytes() == data
    assert any("no digest is published" in text for text in said)
    damaged = bytearray(data)
    damaged[-100] ^= 1  # in a packed weight, which opening does not look at
    host.files["/b.edge"] = bytes(damaged)
    with pytest.raises(SourceError, match=r"no program that can be used: .*damaged"):
        pull(f"{host.address}/b.edge")
    assert leftovers() == []


def test_another_digest(host: Host, data: bytes) -> None:
    host.files["/a.edge"] = data
    with pytest.raises(SourceError, match=r"not the file that was published: .*expected 00000"):
        pull(f"{host.address}/a.edge#sha256={'0' * 64}")
    assert os.listdir(catalogue.programs_dir()) == []
    for wrong in ("sha256=12", "md5=0", "sha256=" + "g" * 64):
        with pytest.raises(SourceError, match="64 hexadecimal digits"):
            pull(f"{host.address}/a.edge#{wrong}")


def test_a_connection_that_ends_early(host: Host, data: bytes) -> None:
    host.files["/a.edge"] = data
    host.cuts = [10_000, 5_000]
    path, _ = pull(f"{host.address}/a.edge")
    assert path.read_bytes() == data
    assert host.sent == [("/a.edge", 0), ("/a.edge", 10_000), ("/a.edge", 15_000)]


def test_a_host_that_cannot_resume(host: Host, data: bytes) -> None:
    host.files["/a.edge"] = data
    host.ranges = False
    host.cuts = [10_000]
    assert pull(f"{host.address}/a.edge")[0].read_bytes() == data
    host.files["/b.edge"] = data
    host.cuts = [10_000] * 50
    with pytest.raises(SourceError, match=f"ended after 10000 of {len(data)} bytes"):
        pull(f"{host.address}/b.edge")
    assert len(host.cuts) > 40


def test_the_next_pull_goes_on(host: Host, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    host.files["/a.edge"] = data
    host.cuts = [10_000, 0, 0, 0]
    with pytest.raises(SourceError, match="ended after 10000") as caught:
        pull(f"{host.address}/a.edge")
    assert "goes on from there" in (caught.value.hint or "")
    host.sent.clear()
    assert pull(f"{host.address}/a.edge")[0].read_bytes() == data
    assert host.sent == [("/a.edge", 10_000)]
    assert leftovers() == []

    # interrupted once it was there and not yet checked: nothing is sent again
    host.files["/b.edge"] = data

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edge_llm.catalogue.ready._check", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pull(f"{host.address}/b.edge")
    host.sent.clear()
    assert pull(f"{host.address}/b.edge")[0].read_bytes() == data
    assert host.sent == []


def test_a_file_that_changed_in_between_begins_again(
    host: Host, data: bytes, tiny_program: Callable[..., Path]
) -> None:
    host.files["/a.edge"] = data
    host.cuts = [10_000, 0, 0, 0]
    with pytest.raises(SourceError):
        pull(f"{host.address}/a.edge")
    host.files["/a.edge"] = other = tiny_program("fp32").read_bytes()
    assert pull(f"{host.address}/a.edge")[0].read_bytes() == other


def test_lies_about_the_length(host: Host, data: bytes) -> None:
    host.files["/a.edge"] = data
    host.length = len(data) - 100
    with pytest.raises(SourceError, match="no program"):
        pull(f"{host.address}/a.edge")
    host.length = 10**15
    with pytest.raises(SourceError, match=r"needs 1000000\.00 GB, .* free"):
        pull(f"{host.address}/a.edge")
    assert not list(catalogue.programs_dir().glob("*.edge"))


def test_what_is_no_program(host: Host) -> None:
    page = b"<!doctype html><title>Sign in</title>" * 100
    host.files["/a.edge"] = page
    host.kinds["/a.edge"] = "text/html; charset=utf-8"
    with pytest.raises(SourceError, match="is a web page, not a program"):
        pull(f"{host.address}/a.edge")
    host.files["/b.edge"] = page  # without saying so
    with pytest.raises(SourceError, match="what comes from there is no program"):
        pull(f"{host.address}/b.edge")
    host.files["/c.edge"] = b""
    with pytest.raises(SourceError, match="no program that can be used: the file is empty"):
        pull(f"{host.address}/c.edge")
    assert not list(catalogue.programs_dir().glob("*.edge"))


def test_redirects(host: Host, data: bytes) -> None:
    host.files["/real.edge"] = data
    host.redirects["/a.edge"] = f"{host.address}/real.edge"
    assert pull(f"{host.address}/a.edge")[0].name == "a.edge"
    for target, said in (
        ("http://example.invalid/a.edge", r"refused: expected .* https://"),
        ("ftp://example.invalid/a", r"refused: expected .* https://"),
        ("file:///etc/hosts", "is not allowed"),
    ):
        host.redirects["/b.edge"] = target
        with pytest.raises(SourceError, match=said):
            pull(f"{host.address}/b.edge")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.invalid/a.edge", "refused: expected an address that begins with https://"),
        ("https:///a.edge", "refused"),
        ("https://example.invalid/%2e%2e%2fa%00.edge", "cannot be the name of a program"),
        ("https://example.invalid/.edge", "cannot be the name of a program"),
        ("https://example.invalid/.hidden.edge", "cannot be the name of a program"),
    ],
)
def test_addresses_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        pull(url)


def test_refusals_of_the_host(host: Host, data: bytes) -> None:
    with pytest.raises(SourceError, match=r"there is no http.*/a\.edge \(404\)"):
        pull(f"{host.address}/a.edge")
    host.files["/a.edge"] = data
    digest = hashlib.sha256(data).hexdigest()
    for status, said in ((403, "not given to everybody"), (503, "answers 503")):
        host.status = status
        with pytest.raises(SourceError, match=said):
            pull(f"{host.address}/a.edge#sha256={digest}")
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        pull("http://127.0.0.1:9/a.edge")
    assert "Without network" in (caught.value.hint or "")


def test_a_full_disk(host: Host, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    host.files["/a.edge"] = data
    real = Path.open

    class Full:
        """A file on a disk without room."""

        def __init__(self, path: Path) -> None:
            self._file = real(path, "wb")

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def seek(self, offset: int) -> None:
            pass

        def truncate(self) -> None:
            pass

        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    def opened(path: Path, *arguments: str, **named: str) -> object:
        return Full(path) if path.suffix == ".part" else real(path, *arguments, **named)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        with pytest.raises(SourceError, match="no space left on the disk") as caught:
            pull(f"{host.address}/a.edge")
    assert "EDGE_LLM_HOME" in (caught.value.hint or "")


def test_programs_of_others_stay(
    host: Host, data: bytes, tiny_program: Callable[..., Path]
) -> None:
    mine = catalogue.programs_dir() / "a.edge"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(tiny_program("fp32").read_bytes())
    host.files["/a.edge"] = data
    for url in ("/a.edge", f"/a.edge#sha256={hashlib.sha256(data).hexdigest()}"):
        with pytest.raises(SourceError, match="a program a is here already") as caught:
            pull(host.address + url)
        assert caught.value.hint == "`edge-llm rm a` removes it."
    mine.unlink()
    pull(f"{host.address}/a.edge")
    mine.write_bytes(tiny_program("fp32").read_bytes())  # exported over it
    with pytest.raises(SourceError, match="a program a is here already"):
        pull(f"{host.address}/a.edge")
    mine.write_bytes(data[: len(data) // 2])  # while this is nobody's
    path, said = pull(f"{host.address}/a.edge")
    assert path.read_bytes() == data
    assert any("is damaged: fetching it again" in text for text in said)


def test_the_same_one_is_taken_for_it(host: Host, data: bytes) -> None:
    mine = catalogue.programs_dir() / "a.edge"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(data)
    host.files["/a.edge"] = data
    host.files["/a.edge.sha256"] = hashlib.sha256(data).hexdigest().encode()
    for _ in range(2):
        assert pull(f"{host.address}/a.edge")[0] == mine
    assert "/a.edge" not in dict(host.sent)


def test_a_newer_one_at_the_same_address(
    host: Host, data: bytes, tiny_program: Callable[..., Path]
) -> None:
    host.files["/a.edge"] = data
    pull(f"{host.address}/a.edge")
    host.files["/a.edge"] = newer = tiny_program("fp32").read_bytes()
    assert pull(f"{host.address}/a.edge")[0].read_bytes() == data  # nobody asked for another
    url = f"{host.address}/a.edge#sha256={hashlib.sha256(newer).hexdigest()}"
    assert pull(url)[0].read_bytes() == newer


def test_leftovers(host: Host, data: bytes) -> None:
    folder = catalogue.programs_dir()
    folder.mkdir(parents=True)
    host.files["/a.edge"] = data
    for name in (".a.edge.0123456789abcdef.part", ".old.edge.0123456789abcdef.part"):
        for suffix in ("", ".tag", ".lock"):
            (folder / f"{name}{suffix}").write_bytes(b"half")
    os.utime(folder / ".old.edge.0123456789abcdef.part", (0, 0))
    recent = folder / ".new.edge.0123456789abcdef.part"
    recent.write_bytes(b"half")
    pull(f"{host.address}/a.edge")
    assert leftovers() == [recent.name]


def test_from_the_hub(hub: FakeHub, data: bytes) -> None:
    repository = hub.add("Org/ready")
    repository.files = {"small.edge": data, "README.md": b"# small"}
    name = "hf:Org/ready/small.edge"
    path, said = pull(name)
    assert path == catalogue.programs_dir() / "small.edge"
    assert said == ["download", "check"]
    assert pull(name) == (path, [])
    assert catalogue.find_program(name) == path
    with pytest.raises(SourceError, match=r"Org/ready has no file big\.edge") as caught:
        pull("hf:Org/ready/big.edge")
    assert caught.value.hint == "Its programs: small.edge."
    with pytest.raises(SourceError, match=r"has no Org/none"):
        pull("hf:Org/none/other.edge")
    with pytest.raises(SourceError, match="is not on this machine yet") as caught:
        catalogue.find_program("hf:Org/ready/other.edge")
    assert caught.value.hint == "`edge-llm pull hf:Org/ready/other.edge` fetches it."
    with pytest.raises(SourceError, match="is a program, where a checkpoint is expected"):
        catalogue.resolve(name)


def test_a_token_is_not_shown_to_others(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str | None]] = []
    other = f"http://localhost:{host.address.rpartition(':')[2]}"
    host.files["/real.edge"] = b"x"
    host.redirects["/a.edge"] = f"{other}/real.edge"
    real = downloads._Redirects.redirect_request

    def watch(self: downloads._Redirects, req: object, *rest: object) -> object:
        new = real(self, req, *rest)  # type: ignore[arg-type]
        assert new is not None
        seen.append((new.full_url, new.get_header("Authorization")))
        return new

    monkeypatch.setattr(downloads._Redirects, "redirect_request", watch)
    downloads.read_small(downloads.Address(f"{host.address}/a.edge", "secret"), 10)
    assert seen == [(f"{other}/real.edge", None)]


def test_two_at_once(host: Host, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    host.files["/a.2026.edge"] = data
    refused: list[str] = []

    def meanwhile(*arguments: object) -> None:
        with monkeypatch.context() as patch:
            patch.undo()
            with pytest.raises(SourceError) as caught:
                pull(f"{host.address}/a.2026.edge")
        refused.append(str(caught.value))

    monkeypatch.setattr("edge_llm.catalogue.ready._check_start", meanwhile)
    assert pull(f"{host.address}/a.2026.edge")[0].read_bytes() == data
    assert refused == ["another process is fetching a.2026 right now"]


def test_names_program() -> None:
    for text in ("https://h/a.edge", "https://h/a.edge?x=1#sha256=0", "hf:o/n/a.edge@main"):
        assert catalogue.names_program(text), text
    for text in ("https://h/a.gguf", "hf:o/n", "hf:o/n/a.gguf", "a.edge", "ftp://h/a.edge"):
        assert not catalogue.names_program(text), text


def test_a_length_that_is_none(host: Host, data: bytes) -> None:
    host.files["/x.edge"] = data
    host.length = 10**4299
    path, _ = pull(f"{host.address}/x.edge")
    assert path.read_bytes() == data


def test_characters_beyond_ascii(host: Host, data: bytes) -> None:
    host.files["/%C3%A9/x.edge"] = data
    path, _ = pull(f"{host.address}/é/x.edge")
    assert path.read_bytes() == data
    with pytest.raises(SourceError, match="cannot be reached"):
        pull("https://é.invalid/y.edge")


def test_what_a_host_says_does_not_steer_a_terminal(host: Host, data: bytes) -> None:
    host.files["/x.edge"] = data
    host.status, host.reason = 500, "bad\x1b[31m"
    with pytest.raises(SourceError, match="its host answers 500 bad") as caught:
        pull(f"{host.address}/x.edge")
    assert "\x1b" not in str(caught.value)
