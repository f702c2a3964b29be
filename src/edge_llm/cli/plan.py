"""``edge-llm plan``: how large and how fast a model will be, before it is exported or fetched."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.cli.console import human_bytes, print_json, table
from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.catalogue.devices import Device
    from edge_llm.export.recipe import Recipe
    from edge_llm.program.plan import Plan
    from edge_llm.program.predict import Rates
    from edge_llm.program.sketch import Shape

HERE = "here"
PROMPT = 512  # tokens of the prompt that prefill is predicted for
DEPTH = 1024
# Of the process beside the file's pages and the KV cache: at most this.
OVERHEAD_BYTES = 60_000_000


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "plan",
        help="predict size, memory and speed of a model on this or another machine",
        description="Predict file size, memory and speed from the bytes that a model reads and the "
        "operations it does, and a machine's bandwidth and int8 rate. Models of the catalogue need "
        "not be fetched; a checkpoint of your own needs the export extra, not its weights.",
    )
    parser.add_argument(
        "--model",
        "-m",
        required=True,
        metavar="NAME|PATH",
        help="a catalogue name (edge-llm ls), a checkpoint, or a program file or its name",
    )
    parser.add_argument(
        "--quant",
        "-q",
        choices=("8da4w", "8da8w", "fp16", "bf16", "fp32"),
        help="scheme of the weights (default: the recipe's, 8da4w)",
    )
    parser.add_argument(
        "--group-size", type=int, choices=(32, 64, 128), help="of 8da4w (default: 32)"
    )
    parser.add_argument("--kv-dtype", choices=("f32", "f16", "i8"), help="of keys and values")
    parser.add_argument(
        "--context", type=int, metavar="N", help="tokens (default: the model's, at most 8192)"
    )
    parser.add_argument(
        "--device",
        action="append",
        metavar="NAME",
        help="here (measured, the default), one of configs/devices, or all; may be repeated",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="of this machine (default: physical cores)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Planned:
    """A model to predict: its plan, or what has the same costs; ``exact``: the size is that of a
    file that exists."""

    name: str
    recipe: str
    plan: Plan
    file_bytes: int
    exact: bool


def run(arguments: argparse.Namespace) -> int:
    planned = plan_model(arguments)
    devices = [_document(planned, *entry) for entry in _machines(arguments)]
    document = {"model": _model_document(planned), "devices": devices}
    if arguments.json:
        print_json(document)
    else:
        print(describe(document))
    return 0


def plan_model(arguments: argparse.Namespace) -> Planned:
    """The model that ``--model`` and the recipe's options mean.

    Raises:
        SourceError: no such model.
        MissingDependencyError: a checkpoint, and no export extra.
        ConfigError, CheckpointError: it cannot be exported like that.
        RequestError: options that a program file has settled.
    """
    from edge_llm import catalogue
    from edge_llm.export.recipe import DEFAULT_CONTEXT_LIMIT, load_recipe
    from edge_llm.program.sketch import file_bytes, sketch

    program = _program_named(arguments.model)
    if program is not None:
        return _of_program(program, arguments)
    model = catalogue.identify(arguments.model)
    entry = model if isinstance(model, catalogue.Entry) else getattr(model, "entry", None)
    name, shape, trained = _shape(arguments.model, entry)
    asked = {
        "model": arguments.model,
        "scheme": arguments.quant,
        "group_size": arguments.group_size,
        "context": arguments.context,
        "kv_dtype": arguments.kv_dtype,
    }
    usual = "8da4w" if entry is None else entry.recipe
    recipe = load_recipe(
        arguments.quant or usual, **{k: value for k, value in asked.items() if value is not None}
    )
    context = recipe.context or min(trained, DEFAULT_CONTEXT_LIMIT)
    if context > trained:
        raise RequestError(f"--context is {context}, the model's own is {trained}")
    plan = sketch(shape, recipe.format_for, kv_dtype=recipe.kv_format(), context=context)
    return Planned(name, _recipe_words(recipe), plan, file_bytes(plan), exact=False)


def _recipe_words(recipe: Recipe) -> str:
    group = f", groups of {recipe.group_size}" if recipe.group_size else ""
    return f"{recipe.scheme}{group}, KV {recipe.kv_format()}"


def _program_named(name: str) -> Path | None:
    from edge_llm import catalogue

    stored = {program.name for program in catalogue.list_programs()}
    if Path(name).suffix == ".edge" or name in stored:
        return catalogue.find_program(name)
    return None


def _of_program(path: Path, arguments: argparse.Namespace) -> Planned:
    from dataclasses import replace

    from edge_llm.program.file import Program

    for option in ("quant", "group_size", "kv_dtype"):
        if getattr(arguments, option) is not None:
            flag = "--" + option.replace("_", "-")
            raise RequestError(f"{flag}: {path.name} is a program, which has its formats")
    with Program.open(path) as program:
        plan = program.plan
        if arguments.context is not None:
            if not 0 < arguments.context <= plan.context:
                raise RequestError(
                    f"--context is {arguments.context}, expected 1 to the program's {plan.context}"
                )
            plan = replace(plan, context=arguments.context)
        name, recipe = program.documents.model.name, program.documents.recipe
        words = f"{recipe.get('scheme', 'unknown recipe')}, KV {plan.states[0].dtype}"
        return Planned(name, words, plan, program.file_bytes, exact=True)


def _shape(model: str, entry: Any) -> tuple[str, Shape, int]:
    """Name, sizes and trained context."""
    from edge_llm.program.sketch import shape_of_published

    if entry is not None and entry.config:
        return entry.name, shape_of_published(entry.config, entry.parameters), entry.context
    from edge_llm.cli.programs import require_export_extra

    require_export_extra()
    from edge_llm import catalogue
    from edge_llm.llm.checkpoints.huggingface.weightless import is_weightless, open_weightless
    from edge_llm.llm.checkpoints.open import open_checkpoint
    from edge_llm.llm.sizes import shape_of

    path = catalogue.resolve(model)
    without = path.is_dir() and is_weightless(path)
    checkpoint = open_weightless(path) if without else open_checkpoint(path)
    return checkpoint.name, shape_of(checkpoint.config), checkpoint.config.context


def _machines(arguments: argparse.Namespace) -> list[tuple[str, Rates, Device | None, int]]:
    """Name, rates, the device's facts and threads of every machine asked for."""
    from edge_llm import native
    from edge_llm.catalogue.devices import find_device, list_devices
    from edge_llm.program.predict import Rates, measured_rates

    names = arguments.device or [HERE]
    if "all" in names:
        names = [HERE, *(device.name for device in list_devices())]
    machines: list[tuple[str, Rates, Device | None, int]] = []
    for name in names:
        if name == HERE:
            found = native.ceilings(arguments.threads)
            rates = measured_rates(found.isa, found.bytes_per_second, found.operations_per_second)
            machines.append((HERE, rates, None, found.threads))
            continue
        device = find_device(name)
        rates = Rates(
            device.isa, device.bytes_per_second, device.int8_per_second, device.float_per_second
        )
        machines.append((name, rates, device, device.threads))
    return machines


def _model_document(planned: Planned) -> dict[str, Any]:
    from edge_llm.program.cost import kv_bytes, stored_bytes, weight_bytes

    plan = planned.plan
    kv = kv_bytes(plan, plan.context - 1)
    return {
        "name": planned.name,
        "recipe": planned.recipe,
        "context": plan.context,
        "file_bytes": planned.file_bytes,
        "file_exact": planned.exact,
        "weight_bytes": stored_bytes(plan),
        "read_per_token": weight_bytes(plan),
        "kv_bytes_per_token": kv_bytes(plan, 0),
        "kv_bytes": kv,
        "memory_bytes": planned.file_bytes + kv + OVERHEAD_BYTES,
    }


def _document(
    planned: Planned, name: str, rates: Rates, device: Device | None, threads: int
) -> dict[str, Any]:
    from edge_llm.program.predict import decode_seconds, prefill_seconds
    from edge_llm.runner.config import DEFAULT_STEP_TOKENS

    plan = planned.plan
    prompt = min(PROMPT, plan.context)
    seconds = prefill_seconds(plan, rates, prompt, step_tokens=DEFAULT_STEP_TOKENS)
    depths = sorted({0, *(d for d in (DEPTH, plan.context - 1) if d < plan.context)})
    document: dict[str, Any] = {
        "name": name,
        "title": "this machine, measured" if device is None else device.title,
        "threads": threads,
        "rates": asdict(rates),
        "efficiency": asdict(rates.efficiency),
        "prefill": {"tokens": prompt, "per_second": prompt / seconds},
        "decode": {str(depth): 1 / decode_seconds(plan, rates, depth) for depth in depths},
    }
    if device is not None:
        document["theoretical"] = {
            "bytes_per_second": device.peak_bytes_per_second,
            "int8_per_second": device.peak_int8_per_second,
            "read_share": device.read_share,
            "clock_share": device.clock_share,
        }
        document["sources"] = list(device.sources)
        published = device.published
        if published is not None and planned.name in published.prefill:
            document["published"] = {
                "prefill_per_second": published.prefill[planned.name],
                "source": published.source,
            }
    return document


def describe(document: dict[str, Any]) -> str:
    """The whole prediction as text."""
    model = document["model"]
    about = "" if model["file_exact"] else "about "
    lines = [
        f"{model['name']}: {model['recipe']}, context {model['context']}",
        f"file         {about}{human_bytes(model['file_bytes'])}, of which weights "
        f"{human_bytes(model['weight_bytes'])}",
        f"memory       at most {human_bytes(model['memory_bytes'])}: the file, "
        f"{human_bytes(model['kv_bytes'])} of keys and values for a whole context, "
        f"{human_bytes(OVERHEAD_BYTES)} beside",
        f"each token   reads {human_bytes(model['read_per_token'])} of weights, and "
        f"{human_bytes(model['kv_bytes_per_token'])} for every token before it",
        "",
    ]
    devices = document["devices"]
    beside = any("published" in device for device in devices)
    head = [
        *("DEVICE", "THREADS", "GB/S", "GOP/S", f"PREFILL {devices[0]['prefill']['tokens']}"),
        *(["PUBLISHED"] if beside else []),
        *(f"DECODE @{depth}" for depth in devices[0]["decode"]),
    ]
    rows = [
        (
            device["name"],
            device["threads"],
            device["rates"]["bytes_per_second"] / 1e9,
            round(device["rates"]["int8_per_second"] / 1e9),
            device["prefill"]["per_second"],
            *([device.get("published", {}).get("prefill_per_second")] if beside else []),
            *device["decode"].values(),
        )
        for device in devices
    ]
    lines += [table(head, rows), "", "Tokens a second, predicted:"]
    return "\n".join([*lines, *(line for d in document["devices"] for line in _how(d))])


def _how(device: dict[str, Any]) -> list[str]:
    use, rates = device["efficiency"], device["rates"]
    lines = [
        f"- {device['name']}: {device['title']}. With {rates['isa']} kernels decode is taken to "
        f"reach {use['read']:.0%} of the bandwidth, prefill {use['multiply']:.0%} of the int8 rate,"
        f" attention {use['attend']:.0%} of {rates['float_per_second'] / 1e9:.0f} GFLOP/s, a layer "
        f"{1e6 * use['layer']:.0f} us beside."
    ]
    if (peak := device.get("theoretical")) is not None:
        read, rate = peak["bytes_per_second"] / 1e9, peak["int8_per_second"] / 1e9
        lines.append(
            f"  Of {read:.1f} GB/s in theory {peak['read_share']:.0%}, "
            f"of {rate:.0f} GOP/s in theory {peak['clock_share']:.0%}."
        )
    if (published := device.get("published")) is not None:
        lines.append(f"  Published prefill, of another engine: {published['source']}.")
    return lines
