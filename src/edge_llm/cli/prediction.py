"""The arithmetic of ``edge-llm plan``: what a model costs, and what machines make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_llm.errors import RequestError

if TYPE_CHECKING:
    from edge_llm.catalogue.devices import Device
    from edge_llm.export.recipes.recipe import Recipe
    from edge_llm.llm.checkpoints.source import Checkpoint
    from edge_llm.llm.decoder import DecoderConfig
    from edge_llm.program.plan import Plan
    from edge_llm.program.predict import Rates

HERE = "here"
PROMPT = 512  # tokens of the prompt that prefill is predicted for
DEPTH = 1024
# The process holds at most this much beside the file's pages and the KV cache.
OVERHEAD_BYTES = 60_000_000
# Of the files that exports make: room that headers keep, bytes of it for each layer, and bytes of
# tokenizer for each token.
_HEADER, _HEADER_LAYER, _TOKENIZER_TOKEN = 131_072, 12_750, 66


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model to predict, and options of its recipe; None takes the default."""

    model: str
    quant: str | None = None
    group_size: int | None = None
    kv_dtype: str | None = None
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A model's plan. ``exact`` says that ``file_bytes`` is the size
    of a file that exists."""

    name: str
    recipe: str
    plan: Plan
    kv_dtype: str
    file_bytes: int
    exact: bool


def predict(wanted: Wanted, devices: Sequence[str], threads: int) -> dict[str, Any]:
    """Return ``{"model": ..., "devices": [...]}``: sizes in bytes, speeds in tokens a second.

    ``devices`` are names of `configs/devices`, "here" (measured now, with ``threads``) or "all".

    Raises:
        SourceError: there is no such model or device.
        MissingDependencyError: a checkpoint that must be traced, and PyTorch is not installed.
        ConfigError, CheckpointError: the model cannot be exported like that.
        RequestError: the options do not fit the model, or a program file has settled them.
    """
    planned = plan_model(wanted)
    machines = _machines(devices, threads)
    return {
        "model": _model_document(planned),
        "devices": [_document(planned, *machine) for machine in machines],
    }


def plan_model(wanted: Wanted) -> Planned:
    """Return the plan of the model that is meant; raises as `predict`."""
    from edge_llm import catalogue
    from edge_llm.export.backends.registry import get_backend
    from edge_llm.export.lowering.graph import plan_config
    from edge_llm.export.meter import Meter, silent
    from edge_llm.export.recipes.file import load_recipe
    from edge_llm.export.recipes.recipe import DEFAULT_CONTEXT_LIMIT
    from edge_llm.export.weights.parameters import stored_formats
    from edge_llm.llm.registry import shared_parameters

    program = _program_named(wanted.model)
    if program is not None:
        return _of_program(program, wanted)
    model = catalogue.identify(wanted.model)
    entry = model if isinstance(model, catalogue.Entry) else getattr(model, "entry", None)
    name, config, checkpoint = _model(wanted.model, entry)
    trained = config.max_position_embeddings
    asked: dict[str, Any] = {
        "model": wanted.model,
        "scheme": wanted.quant,
        "group_size": wanted.group_size,
        "context": wanted.context,
        "kv_dtype": wanted.kv_dtype,
    }
    usual = "8da4w" if entry is None else entry.recipe
    recipe = load_recipe(
        wanted.quant or usual, **{k: value for k, value in asked.items() if value is not None}
    )
    context = recipe.context or min(trained, DEFAULT_CONTEXT_LIMIT)
    if context > trained:
        raise RequestError(f"--context is {context}, the model's own is {trained}")
    backend = get_backend(recipe.backend)
    stored = (
        {} if checkpoint is None else stored_formats(checkpoint, recipe, shared_parameters(config))
    )
    plan = plan_config(
        config,
        context,
        recipe,
        backend,
        stored,
        Meter(),
        silent,
        trained=None if checkpoint is None else checkpoint.activations,
    ).lowered.plan
    return Planned(
        name, _recipe_words(recipe), plan, recipe.kv_format(), _file_bytes(plan), exact=False
    )


def _file_bytes(plan: Plan) -> int:
    """Return about the size of the program file: its weights to the byte, header and tokenizer as
    they usually are."""
    from edge_llm.program.cost import stored_bytes

    layers = len(plan.states)
    return stored_bytes(plan) + _HEADER + layers * _HEADER_LAYER + plan.vocab * _TOKENIZER_TOKEN


def _recipe_words(recipe: Recipe) -> str:
    group = f", groups of {recipe.group_size}" if recipe.group_size else ""
    return f"{recipe.scheme}{group}, KV {recipe.kv_format()}"


def _program_named(name: str) -> Path | None:
    from edge_llm import catalogue

    stored = {program.name for program in catalogue.list_programs()}
    if Path(name).suffix == ".edge" or name in stored:
        return catalogue.find_program(name)
    return None


def _of_program(path: Path, wanted: Wanted) -> Planned:
    from edge_llm.program.file import Program

    for option in ("quant", "group_size", "kv_dtype"):
        if getattr(wanted, option) is not None:
            flag = "--" + option.replace("_", "-")
            raise RequestError(f"{flag}: {path.name} is a program, which has its formats")
    with Program.open(path, draft=False) as program:
        plan = program.plan
        if wanted.context is not None:
            if not 0 < wanted.context <= plan.context:
                raise RequestError(
                    f"--context is {wanted.context}, expected 1 to the program's {plan.context}"
                )
            plan = replace(plan, context=wanted.context)
        name, recipe = program.documents.model.name, program.documents.recipe
        kv_dtype = program.documents.model.kv_dtype
        words = f"{recipe.get('scheme', 'unknown recipe')}, KV {kv_dtype}"
        return Planned(name, words, plan, kv_dtype, program.file_bytes, exact=True)


def _model(model: str, entry: Any) -> tuple[str, DecoderConfig, Checkpoint | None]:
    """Return a model's name and facts; and its checkpoint, unless the catalogue tells them."""
    if entry is not None and entry.config:
        from edge_llm.llm.registry import read_config

        facts = {"model_type": entry.family, "max_position_embeddings": entry.context}
        return (
            entry.name,
            read_config({**entry.config, **facts}, f"catalogue: {entry.name}")[0],
            None,
        )
    from edge_llm import catalogue
    from edge_llm.llm.checkpoints.huggingface.weightless import is_weightless, open_weightless
    from edge_llm.llm.checkpoints.open import open_checkpoint

    path = catalogue.resolve(model)
    without = path.is_dir() and is_weightless(path)
    checkpoint = open_weightless(path) if without else open_checkpoint(path)
    return checkpoint.name, checkpoint.config, checkpoint


def _machines(names: Sequence[str], threads: int) -> list[tuple[str, Rates, Device | None, int]]:
    """Return name, rates, the device's facts and threads of every machine."""
    from edge_llm import native
    from edge_llm.catalogue.devices import find_device, list_devices
    from edge_llm.program.predict import Rates, measured_rates

    if "all" in names:
        names = [HERE, *(device.name for device in list_devices())]
    machines: list[tuple[str, Rates, Device | None, int]] = []
    for name in names:
        if name == HERE:
            found = native.ceilings(threads)
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
    from edge_llm.export.outline import activation_bytes
    from edge_llm.program.cost import context_bytes, stored_bytes, token_bytes, weight_bytes

    plan = planned.plan
    kv = context_bytes(plan, planned.kv_dtype, _step_tokens(plan))
    rest = OVERHEAD_BYTES  # with the activations of a step of the usual size
    if plan.bidirectional:
        rest += activation_bytes(plan, tokens=_step_tokens(plan), rows=0)
    return {
        "name": planned.name,
        "recipe": planned.recipe,
        "context": plan.context,
        "file_bytes": planned.file_bytes,
        "file_exact": planned.exact,
        "weight_bytes": stored_bytes(plan),
        "read_per_token": weight_bytes(plan),
        "kv_bytes_per_token": token_bytes(plan, planned.kv_dtype),
        "kv_bytes": kv,
        "rest_bytes": rest,
        "memory_bytes": planned.file_bytes + kv + rest,
    }


def _step_tokens(plan: Plan) -> int:
    """Return the tokens of a step: a whole text's where tokens see those behind them."""
    from edge_llm.runner.config import DEFAULT_STEP_TOKENS

    return plan.context if plan.bidirectional else DEFAULT_STEP_TOKENS


def _document(
    planned: Planned, name: str, rates: Rates, device: Device | None, threads: int
) -> dict[str, Any]:
    from edge_llm.program.predict import decode_seconds, prefill_seconds

    plan = planned.plan
    prompt = min(PROMPT, plan.context)
    seconds = prefill_seconds(plan, rates, prompt, step_tokens=_step_tokens(plan))
    depths = sorted({0, *(d for d in (DEPTH, plan.context - 1) if d < plan.context)})
    if plan.bidirectional:  # which generates nothing
        depths = []
    document: dict[str, Any] = {
        "name": name,
        "title": "this machine, measured" if device is None else device.title,
        "threads": threads,
        "rates": asdict(rates),
        "efficiency": asdict(rates.efficiency),
        "prefill": {"tokens": prompt, "per_second": prompt / seconds},
        "decode": {
            str(depth): 1 / decode_seconds(plan, rates, depth, planned.kv_dtype) for depth in depths
        },
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
