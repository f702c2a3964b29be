"""Machines that `edge-llm plan` knows: one YAML file each in ``configs/devices``."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_llm.errors import SourceError


@dataclass(frozen=True, slots=True)
class Device:
    """A machine by its public figures.

    Attributes:
        threads: cores that share the work; it is split evenly, so each does what the slowest can.
        ghz: clock of the slowest of them.
        int8_per_cycle, float_per_cycle: multiplications plus additions of such a core in a cycle,
            of int8 with the instruction set ``isa``, and of float32.
        transfers: of the memory, in million a second; ``bus_bits``: its width.
        read_share, clock_share: how much of bandwidth and clock can be had for long: assumed,
            unless ``sources`` says who measured it.
        sources: where each figure is from, and which are assumed.
        published: what others report for this device; see `Published`.
    """

    name: str
    title: str
    threads: int
    ghz: float
    int8_per_cycle: int
    float_per_cycle: int
    isa: str
    transfers: float
    bus_bits: int
    read_share: float
    clock_share: float
    sources: tuple[str, ...]
    published: Published | None = None

    @property
    def peak_bytes_per_second(self) -> float:
        """Theoretical bandwidth of the memory."""
        return self.transfers * 1e6 * self.bus_bits / 8

    @property
    def peak_int8_per_second(self) -> float:
        """Theoretical int8 rate of ``threads`` cores."""
        return self.threads * self.ghz * 1e9 * self.int8_per_cycle

    @property
    def bytes_per_second(self) -> float:
        return self.read_share * self.peak_bytes_per_second

    @property
    def int8_per_second(self) -> float:
        return self.clock_share * self.peak_int8_per_second

    @property
    def float_per_second(self) -> float:
        return self.int8_per_second * self.float_per_cycle / self.int8_per_cycle


@dataclass(frozen=True, slots=True)
class Published:
    """Prefill tokens a second that ``source`` reports at least, by names of the catalogue."""

    source: str
    prefill: Mapping[str, float] = field(default_factory=dict)


def list_devices() -> list[Device]:
    """Return all devices, by name."""
    return list(_read_devices())


def find_device(name: str) -> Device:
    """Return the device of this name.

    Raises:
        SourceError: there is none; the hint lists the names.
    """
    devices = {device.name: device for device in list_devices()}
    if name not in devices:
        close = difflib.get_close_matches(name, devices, n=1)
        raise SourceError(
            f"no device is called {name!r}",
            hint=(f"Did you mean {close[0]}? " if close else "")
            + f"Devices: here (measured now), {', '.join(devices)}.",
        )
    return devices[name]


def parse_device(fields: Mapping[str, Any]) -> Device:
    """Make a device of the keys of its YAML file.

    Raises:
        SourceError: keys missing or unknown.
    """
    values = dict(fields)
    try:
        published = values.pop("published", None)
        return Device(
            sources=tuple(values.pop("sources")),
            published=None if published is None else Published(**published),
            **values,
        )
    except (KeyError, TypeError) as exc:
        raise SourceError(f"device {fields.get('name')!r}: {exc}") from exc


@functools.cache
def _read_devices() -> tuple[Device, ...]:
    import yaml

    folder = importlib.resources.files("edge_llm") / "configs" / "devices"
    devices = [
        parse_device(yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    ]
    return tuple(sorted(devices, key=lambda device: device.name))
