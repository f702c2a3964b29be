"""The program that a verb means: the one that is named, else the default, else the only one here,
else a small one made now."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_llm.cli.console import Progress, human_bytes, say
from edge_llm.errors import RequestError, SourceError

DEFAULT_MODEL = "smollm2-135m"


def add_model_argument(parser: argparse.ArgumentParser, *, positional: bool = True) -> None:
    """Add ``-m/--model`` and, unless the verb has other positional arguments, the same without it;
    `model_of` returns which was given."""
    meaning = (
        "a program (file or name), or what becomes one now: a GGUF file, a checkpoint's folder, "
        "hf:ORG/NAME, a model of the catalogue (default: `edge-llm default`, else the only program "
        "here; with none, a small model is made)"
    )
    if positional:
        completed(parser.add_argument("name", nargs="?", metavar="MODEL", help=meaning))
    again = "the same by name" if positional else meaning
    completed(parser.add_argument("--model", "-m", metavar="MODEL", help=again))


def completed(action: argparse.Action) -> None:
    """Let shells complete names of programs and models here."""

    def names(prefix: str, **context: object) -> list[str]:
        from edge_llm.cli.completion import model_names

        return model_names(prefix)

    action.completer = names  # type: ignore[attr-defined]


def model_of(arguments: argparse.Namespace) -> str | None:
    """Return what the arguments of `add_model_argument` name; None for nothing.

    Raises:
        RequestError: both name something, and not the same.
    """
    first: str | None = getattr(arguments, "name", None)
    second: str | None = arguments.model
    if first is not None and second is not None and first != second:
        raise RequestError(f"two models are named: {first} and --model {second}; expected one")
    return first if second is None else second


def examined_program(arguments: argparse.Namespace) -> Path:
    """Return the program file that a verb looks into or measures: as `resolve_program`, which is
    quiet where the user has named it."""
    model = model_of(arguments)
    return resolve_program(None) if model is None else _named(model)


def resolve_program(model: str | None) -> Path:
    """Return the program file to run, and say on stderr which it is and why: the one that is named;
    else the default of the settings; else the only program of the store; with none there, the small
    default model, made now. What names a checkpoint (a GGUF file, a folder, ``hf:…``, a model of
    the catalogue without a program) becomes a program now, and is kept.

    Raises:
        SourceError: no such program or model, it could not be fetched, or there are several
            programs and none was chosen.
        CheckpointError, ExportError, MissingDependencyError: no program could be made of it.
        ConfigError: settings that cannot be read.
    """
    from edge_llm.program.summary import fault_of, summary_of

    path, reason = _chosen_program(model)
    if fault_of(path) is not None:  # told, in full, by who opens it
        return path
    summary = summary_of(path)
    facts = [summary.scheme or "unknown scheme"]
    if summary.context is not None:
        facts.append(f"{summary.context} tokens")
    say(f"{path.stem} ({', '.join(facts)}): {reason}")
    return path


def _chosen_program(model: str | None) -> tuple[Path, str]:
    """Return the file, and in words why it is that one."""
    from edge_llm import catalogue
    from edge_llm.program.summary import fault_of, summary_of

    if model is not None:
        return _named(model), "as asked"
    default = catalogue.read_settings().get("default")
    if default is not None:
        return _named(str(default.value)), f"the default of {default.origin}"
    programs, reason = [], "no program here yet"
    for item in catalogue.list_programs():
        version = summary_of(item.path).older_format
        if version is None:
            fault = fault_of(item.path)
            if fault is None:
                programs.append(item)
            else:
                say(f"passing over {item.name}, which is damaged: {fault}")
        elif _is_default(item.path):
            reason = "it is of an older format here"
        else:
            say(f"passing over {item.name}, of format {version}: export it again")
    if len(programs) == 1:
        return programs[0].path, "the only program here"
    if programs:
        names = ", ".join(item.name for item in programs)
        raise SourceError(
            f"{len(programs)} programs are here and none was chosen: {names}",
            hint=f"Name one, or choose it for good: `edge-llm default {programs[0].name}`.",
        )
    return _make_default(reason), "made now, since there was none"


def _named(model: str) -> Path:
    from edge_llm import catalogue
    from edge_llm.program.summary import summary_of

    if catalogue.names_program(model):
        from edge_llm.cli.fetch import fetch_program

        return fetch_program(model)
    path = catalogue.program_unless_checkpoint(model)
    if path is None:
        return make_program(model)
    # Others are refused when they are opened, with the command that exports them again.
    if _is_default(path) and summary_of(path).older_format is not None:
        return _make_default("it is of an older format here")
    return path


def make_program(source: str) -> Path:
    """Return the program of a checkpoint (a path, a name of the catalogue or ``hf:…``, fetched if
    need be), made by the usual recipe the first time that it is asked for; that is said then.

    Raises:
        SourceError: no such path or name, or it cannot be fetched.
        CheckpointError, ExportError, MissingDependencyError: no program could be made of it.
    """
    from edge_llm.cli.fetch import fetch
    from edge_llm.cli.terminate import terminate_as_interrupt
    from edge_llm.export.convert import converted

    terminate_as_interrupt()  # so that a killed export leaves no temporary file
    made: list[str] = []
    progress = Progress()
    try:
        fetch(source, progress)
        progress("read", 0, 1)
        path = converted(source, progress, made.append)
    finally:
        progress.close()
    for line in made:
        say(line)
    return path


def _is_default(path: Path) -> bool:
    """Tell whether `_make_default` writes this file."""
    from edge_llm import catalogue

    name = f"{DEFAULT_MODEL}-{catalogue.find(DEFAULT_MODEL).recipe}"
    return path == catalogue.programs_dir() / f"{name}{path.suffix}"


def _make_default(reason: str) -> Path:
    """Make a program of the default model, after saying why."""
    from edge_llm import catalogue

    entry = catalogue.find(DEFAULT_MODEL)
    say(
        f"Making a program of {entry.name}, {reason} ("
        f"{human_bytes(entry.download_bytes)} from {entry.origin}, {entry.licence} licence)"
    )
    return make_program(DEFAULT_MODEL)
