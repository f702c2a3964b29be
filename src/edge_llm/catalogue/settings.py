"""The settings for every command: from the environment, else from ``config.toml``.

The command line comes before both; what nobody sets is the program's own, or the command's default.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_llm.catalogue.store import expand
from edge_llm.errors import ConfigError

Value = str | int
_VARIABLE = "EDGE_LLM_"


@dataclass(frozen=True, slots=True)
class Setting:
    """A thing that can be set. ``read`` makes its value of a text, and raises ValueError with what
    it expects; ``meaning`` is for people; a ``secret`` is never shown."""

    read: Callable[[str], Value]
    meaning: str
    secret: bool = False

    def parse(self, value: object, where: str) -> Value:
        """Return a value that was found at ``where``.

        Raises:
            ConfigError: it is none for this setting.
        """
        if isinstance(value, int) and value.bit_length() > 64:  # which may be too long to print
            raise ConfigError(f"{where}: got a number of more than 64 bits")
        shown = "a value" if self.secret else repr(value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ConfigError(f"{where}: got {shown}, expected a text or a whole number")
        try:
            return self.read(str(value))
        except ValueError as exc:
            raise ConfigError(f"{where}: got {shown}, expected {exc}") from exc


def _text(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("a text")
    return value


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"\d{1,18}", value) or not low <= int(value) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(value)

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return read


def _threads(value: str) -> int:
    return 0 if value == "auto" else _integer(0, 1024)(value)


SETTINGS: Mapping[str, Setting] = {
    "default": Setting(_text, "the program or model that answers where none is named"),
    "threads": Setting(_threads, "threads of the native core; auto: the physical cores"),
    "context": Setting(_integer(1, 2**24), "most tokens of a prompt and its answer together"),
    "kv_dtype": Setting(_one_of("f32", "f16", "i8"), "how keys and values are stored"),
    "huge_pages": Setting(_one_of("auto", "copy", "off"), "how the file lies in memory"),
    "host": Setting(_text, "address that `serve` listens at"),
    "port": Setting(_integer(0, 65535), "port that `serve` listens at"),
    "api_key": Setting(_text, "key that clients of `serve` must send", secret=True),
}


@dataclass(frozen=True, slots=True)
class Found:
    """A setting as it was found: its value, and where, for people."""

    value: Value
    origin: str


def config_path() -> Path:
    """Return where ``config.toml`` is, or would be: in ``EDGE_LLM_HOME`` where that is set, else in
    the user's folder for configuration."""
    chosen = os.environ.get("EDGE_LLM_HOME")
    if chosen:
        return expand(chosen) / "config.toml"
    if sys.platform == "darwin":
        folder = Path.home() / "Library" / "Application Support"
    elif sys.platform == "win32":
        folder = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    else:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return folder / "edge-llm" / "config.toml"


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return _VARIABLE + name.upper()


def read_settings() -> dict[str, Found]:
    """Return what is set, by name.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key or a wrong value; a variable of
            the environment has a wrong value.
    """
    path = config_path()
    found = {name: Found(value, str(path)) for name, value in _of_file(path).items()}
    for name, setting in SETTINGS.items():
        text = os.environ.get(variable(name))
        if text:
            found[name] = Found(setting.parse(text, variable(name)), variable(name))
    return found


def setting(name: str) -> Value | None:
    """Return the value of a setting; None where nobody has set it. Raises as `read_settings`."""
    found = read_settings().get(name)
    return None if found is None else found.value


def check_setting(name: str, value: object, where: str) -> Value:
    """Return the value of a setting that was found at ``where``, checked.

    Raises:
        ConfigError: no such setting, or a wrong value.
    """
    if name not in SETTINGS:
        raise ConfigError(
            f"{where}: unknown setting {name!r}, expected one of: {', '.join(SETTINGS)}"
        )
    return SETTINGS[name].parse(value, f"{where}: {name}")


def change(name: str, value: str | None) -> Path:
    """Set a setting in ``config.toml``, or with None remove it there, and return the file. The rest
    of the file stays as it is, a link to it too. Others cannot read the file, since it may hold a
    key.

    Raises:
        ConfigError: no such setting, a wrong value, or the file cannot be read or written.
    """
    checked = None if value is None and name in SETTINGS else check_setting(name, value, "config")
    path = config_path()
    wanted = {key: item for key, item in _of_file(path).items() if key != name}
    assignment = re.compile(rf"""\s*(["']?){re.escape(name)}\1\s*=""")
    kept = [line for line in _text_of(path).split("\n") if not assignment.match(line)]
    kept = kept if kept[-1] else kept[:-1]
    if checked is not None:
        wanted[name] = checked
        # TOML writes texts as JSON does, but for characters beyond 16 bits, which need no escape
        kept.append(f"{name} = {json.dumps(checked, ensure_ascii=False)}")
    text = "\n".join([*kept, ""])
    try:
        understood = _parse(text, path) == wanted
    except ConfigError:
        understood = False
    if not understood:
        raise ConfigError(
            f"{path} sets {name} over several lines", hint="Change it there in an editor."
        )
    _replace(path.resolve(), text)
    return path


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as exc:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ConfigError(f"{path} cannot be written: {exc.strerror}") from exc


def _of_file(path: Path) -> dict[str, Value]:
    return _parse(_text_of(path), path)


def _parse(text: str, path: Path) -> dict[str, Value]:
    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # ValueError: also of numbers that are too long
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    return {name: check_setting(name, value, str(path)) for name, value in found.items()}


def _text_of(path: Path) -> str:
    """Return the file's text; "" where there is none."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait
            raise ConfigError(f"{path} is no file")
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
