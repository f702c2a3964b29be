"""``edge-llm pack``: a program with its card and its digest, to be given to others."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from pathlib import Path
from typing import Any

from edge_llm.cli.console import Progress, human_bytes, say
from edge_llm.cli.programs import add_model_argument, examined_program
from edge_llm.errors import RequestError, SourceError

_CHUNK = 1 << 20
_CARD = "README.md"


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "pack",
        help="write a program with its card and digest, to be given to others",
        description="Write a program into a folder with a card (README.md, as Hugging Face reads "
        "it) and its digest (FILE.edge.sha256). Upload the folder's files side by side: `edge-llm "
        "pull https://HOST/FILE.edge` or hf:ORG/NAME/FILE.edge fetches the program.",
    )
    add_model_argument(parser)
    parser.add_argument(
        "--output", "-o", required=True, metavar="FOLDER", help="made if it is not there"
    )
    parser.add_argument(
        "--force", action="store_true", help="write over files of an earlier pack in FOLDER"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from edge_llm.catalogue.store import SUFFIX, expand
    from edge_llm.cli.card import card, licence_of
    from edge_llm.program.file import Program

    folder = expand(arguments.output)
    progress = Progress()
    try:
        with Program.open(examined_program(arguments)) as program:
            program.verify_digests()
            # such a name needs no quoting, neither in a shell nor in an address
            stem = re.sub(r"[^\w.+-]", "-", program.path.stem, flags=re.ASCII).lstrip(".+-")
            target = folder / f"{stem or 'program'}{SUFFIX}"
            texts = (target.with_name(f"{target.name}.sha256"), folder / _CARD)
            _check_free(program.path, (target, *texts), force=arguments.force)
            folder.mkdir(parents=True, exist_ok=True)
            digest = _copy(program.path, target, progress)
            _replace(texts[0], f"{digest}  {target.name}\n")
            _replace(texts[1], card(program, target.name, digest))
            if licence_of(program) is None:
                say("the checkpoint states no licence: write it into the card before you upload it")
            say(
                f"packed {target.name} ({human_bytes(program.file_bytes)}), {texts[0].name} and "
                f"{_CARD}"
            )
    except OSError as exc:
        raise SourceError(
            f"cannot write {exc.filename or folder}: {exc.strerror or exc}",
            hint="-o names the folder to write into.",
        ) from exc
    finally:
        progress.close()
    print(target)
    return 0


def _check_free(source: Path, targets: tuple[Path, ...], *, force: bool) -> None:
    """Check that nothing is overwritten that was not asked for.

    Raises:
        RequestError: something is there.
    """
    if targets[0].exists() and targets[0].samefile(source):
        raise RequestError(
            f"{targets[0].parent} is where the program lies; expected another folder"
        )
    taken = [path.name for path in targets if path.exists()]
    if taken and not force:
        raise RequestError(
            f"{targets[0].parent} has {' and '.join(taken)} already",
            hint="--force writes over them.",
        )


def _copy(source: Path, target: Path, progress: Progress) -> str:
    """Copy a file, which gets its name when it is whole, and return its SHA-256 in hex."""
    digest = hashlib.sha256()
    total, done = source.stat().st_size, 0
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with source.open("rb") as reader, part.open("xb") as writer:
            while chunk := reader.read(_CHUNK):
                writer.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                progress("copy", done, total)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return digest.hexdigest()


def _replace(path: Path, text: str) -> None:
    """Put a text in the place of a file, or of a link, whose target stays as it is."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.write_text(text, encoding="utf-8")
    part.replace(path)
