"""configs/devices: machines by their public figures."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import yaml

from edge_llm import catalogue
from edge_llm.catalogue.devices import find_device, list_devices, parse_device
from edge_llm.errors import SourceError
from edge_llm.program.predict import EFFICIENCIES


@pytest.mark.parametrize("device", list_devices(), ids=lambda device: device.name)
def test_figures(device: Any) -> None:
    folder = files("edge_llm") / "configs" / "devices"
    assert (folder / f"{device.name}.yaml").is_file()
    assert device.isa in EFFICIENCIES
    assert 0 < device.read_share < 1
    assert 0 < device.clock_share < 1
    assert 0 < device.float_per_cycle < device.int8_per_cycle
    # Every figure has a source, or the word that it is assumed.
    told = " ".join(device.sources)
    for figure in ("threads, ghz", "int8_per_cycle", "transfers, bus_bits", "read_share"):
        assert figure in told
    assert device.bytes_per_second < device.peak_bytes_per_second
    if device.published is not None:
        names = [entry.name for entry in catalogue.list_models()]
        assert set(device.published.prefill) <= set(names)


def test_what_the_paper_reports() -> None:
    names = ("llama3.2-1b", "qwen3-0.6b", "phi-4-mini")
    figures = {"snapdragon-8-elite": (2810, 1540, 1160), "tensor-g4": (530, 591, 120)}
    for device, values in figures.items():
        published = find_device(device).published
        assert published is not None
        assert "2605.08195" in published.source
        assert published.prefill == dict(zip(names, values, strict=True))


def test_theory() -> None:
    device = find_device("raspberry-pi-5")
    assert device.peak_bytes_per_second == pytest.approx(17.068e9)
    assert device.peak_int8_per_second == pytest.approx(614.4e9)
    assert device.float_per_second / device.int8_per_second == pytest.approx(16 / 64)


def test_unknown_device() -> None:
    with pytest.raises(SourceError, match="no device is called 'apple-m3'") as caught:
        find_device("apple-m3")
    assert caught.value.hint is not None
    assert "apple-m1" in caught.value.hint


@pytest.mark.parametrize("change", [{"ghz": None}, {"cores": 4}, {"sources": None}])
def test_malformed_device(change: dict[str, Any]) -> None:
    file = files("edge_llm") / "configs" / "devices" / "apple-m1.yaml"
    fields = yaml.safe_load(file.read_text(encoding="utf-8")) | change
    fields = {key: value for key, value in fields.items() if value is not None}
    with pytest.raises(SourceError, match="device 'apple-m1'"):
        parse_device(fields)
