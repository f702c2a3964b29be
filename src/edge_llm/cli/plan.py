"""``edge-llm plan``: how large and how fast a model will be, before it is exported or fetched."""

from __future__ import annotations

import argparse
from typing import Any

from edge_llm.cli.console import fitted, human_bytes, print_json, table
from edge_llm.cli.prediction import HERE, Wanted, predict
from edge_llm.cli.programs import model_of
from edge_llm.errors import RequestError


def add_parser(verbs: Any) -> None:
    parser = verbs.add_parser(
        "plan",
        help="predict size, memory and speed of a model on this or another machine",
        description="Predict file size, memory and speed from the bytes that a model reads and the "
        "operations it does, and a machine's bandwidth and int8 rate. Models of the catalogue need "
        "not be fetched; of a checkpoint of your own, config.json is enough.",
    )
    named = "a catalogue name (edge-llm ls --all), a checkpoint, or a program file or its name"
    parser.add_argument("name", nargs="?", metavar="MODEL", help=named)
    parser.add_argument("--model", "-m", metavar="MODEL", help="the same by name")
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


def run(arguments: argparse.Namespace) -> int:
    model = model_of(arguments)
    if model is None:
        raise RequestError("no model is named, expected `edge-llm plan MODEL`")
    wanted = Wanted(
        model,
        quant=arguments.quant,
        group_size=arguments.group_size,
        kv_dtype=arguments.kv_dtype,
        context=arguments.context,
    )
    document = predict(wanted, arguments.device or [HERE], arguments.threads)
    if arguments.json:
        print_json(document)
    else:
        print(fitted(describe(document)))
    return 0


def describe(document: dict[str, Any]) -> str:
    """Return the whole prediction as text."""
    model = document["model"]
    about = "" if model["file_exact"] else "about "
    lines = [
        f"{model['name']}: {model['recipe']}, context {model['context']}",
        f"file         {about}{human_bytes(model['file_bytes'])}, of which weights "
        f"{human_bytes(model['weight_bytes'])}",
        f"memory       at most {human_bytes(model['memory_bytes'])}: the file, "
        f"{human_bytes(model['kv_bytes'])} of keys and values for a whole context, "
        f"{human_bytes(model['rest_bytes'])} beside",
    ]
    devices = document["devices"]
    if devices[0]["decode"]:
        lines.append(
            f"each token   reads {human_bytes(model['read_per_token'])} of weights, and "
            f"{human_bytes(model['kv_bytes_per_token'])} for every token before it"
        )
    lines.append("")
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
    lines += [table(head, rows, optional=("GOP/S", "GB/S")), "", "Tokens a second, predicted:"]
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
