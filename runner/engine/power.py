"""The power that the engine may use: all of it, or half of the threads and no spinning.

Neither changes a bit of a result. What a system says of its supply and its heat is read where Linux
tells it; where nothing does, there is nothing to save for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

PowerChoice = Literal["full", "saver", "auto"]
POWER_CHOICES: tuple[PowerChoice, ...] = ("full", "saver", "auto")

_LOOK_SECONDS = 5.0  # between two looks at the system
_COOL_SECONDS = 60.0  # for which a processor that was throttled is spared

_log = logging.getLogger(__name__)


class Power:
    """Says whether power is to be saved now. ``auto`` saves it on battery, and for a while after
    the processor was throttled for its heat."""

    def __init__(
        self,
        choice: PowerChoice = "full",
        *,
        system: Path = Path("/sys"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read ``system``, where Linux shows its devices, by ``clock``."""
        self._choice = choice
        self._system = system
        self._clock = clock
        self._next_look = -float("inf")
        self._cool_at = -float("inf")
        self._throttled = throttle_count(system) if choice == "auto" else 0
        self._saving = choice == "saver"

    @property
    def saving(self) -> bool:
        """Whether power is to be saved."""
        if self._choice == "auto" and (now := self._clock()) >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._look(now)
        return self._saving

    def _look(self, now: float) -> None:
        count = throttle_count(self._system)
        if count > self._throttled or is_cooled(self._system):
            self._cool_at = now + _COOL_SECONDS
        self._throttled = count
        battery = on_battery(self._system)
        saving = battery or now < self._cool_at
        if saving != self._saving:
            why = "on battery" if battery else "the processor is throttled"
            _log.info("%s", f"saving power: {why}" if saving else "using all power again")
        self._saving = saving


def on_battery(system: Path) -> bool:
    """Return whether the machine runs from a battery: one discharges, and nothing else feeds it."""
    discharging = False
    for supply in _matching(system / "class/power_supply", "*"):
        kind = _text(supply / "type")
        if kind == "Battery":
            own = _text(supply / "scope") != "Device"  # and not a mouse's
            discharging |= own and _text(supply / "status") == "Discharging"
        elif _text(supply / "online") == "1":
            return False
    return discharging


def throttle_count(system: Path) -> int:
    """Return how often the processors have been throttled for their heat."""
    counts = _matching(system / "devices/system/cpu", "cpu*/thermal_throttle/*_throttle_count")
    texts = map(_text, counts)
    return sum(int(text) for text in texts if text.isdecimal())


def is_cooled(system: Path) -> bool:
    """Return whether a processor is slowed down now, so that it cools."""
    for device in _matching(system / "class/thermal", "cooling_device*"):
        cools = _text(device / "type").startswith(("Processor", "cpufreq", "thermal-cpufreq"))
        if cools and _text(device / "cur_state") not in ("", "0"):
            return True
    return False


def _matching(folder: Path, pattern: str) -> Iterator[Path]:
    with suppress(OSError):
        yield from sorted(folder.glob(pattern))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
