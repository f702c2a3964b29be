"""How fast a plan should run on a machine: bytes by bandwidth, operations by int8 rate.

A token of decode waits for memory: weights and KV entries pass through once. A prompt waits for
arithmetic. Neither limit is reached in full; how much of it is, is `Efficiency`, which every
prediction states. With its r, m, a, o, bandwidth B, int8 rate I and float rate F:

    decode   = weights / (r B) + max(kv / (r B), attention / (a F)) + o layers
    prefill  = max(linear / (m I), steps weights / (r B)) + attention / (a F) + steps o layers
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_llm.program.cost import (
    attention_operations,
    kv_bytes,
    prefill_operations,
    weight_bytes,
)
from edge_llm.program.plan import Plan


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Shares of what the machine can do: ``read`` of its bandwidth, by decode; ``multiply`` of its
    int8 rate, by linears of many rows; ``attend`` of its float rate, by attention. ``layer``:
    seconds that a layer takes beside (barriers, norms, rotation)."""

    read: float
    multiply: float
    attend: float
    layer: float


# By instruction set. Those of avx2 and avx512vnni were measured (docs/profiling.md; ``multiply``
# bears norms, rotation and gates of a prompt as well), the others are assumed.
EFFICIENCIES: Mapping[str, Efficiency] = {
    "scalar": Efficiency(read=0.4, multiply=0.5, attend=0.4, layer=50e-6),
    "avx2": Efficiency(read=0.95, multiply=0.66, attend=0.5, layer=5e-6),
    "avxvnni": Efficiency(read=0.95, multiply=0.66, attend=0.5, layer=5e-6),
    "avx512vnni": Efficiency(read=0.97, multiply=0.78, attend=0.48, layer=5e-6),
    "neon": Efficiency(read=0.85, multiply=0.5, attend=0.4, layer=10e-6),
    "neon_dotprod": Efficiency(read=0.85, multiply=0.5, attend=0.4, layer=10e-6),
    "neon_i8mm": Efficiency(read=0.85, multiply=0.5, attend=0.4, layer=10e-6),
}
# Float32 operations in the time of one int8 operation, at best, where only the latter is measured.
FLOAT_SHARES: Mapping[str, float] = {
    "scalar": 0.5,
    "avx2": 0.29,
    "avxvnni": 0.25,
    "avx512vnni": 0.25,
    "neon": 0.4,
    "neon_dotprod": 0.25,
    "neon_i8mm": 0.125,
}
_OTHER = "avx2"  # for instruction sets that the tables lack


@dataclass(frozen=True, slots=True)
class Rates:
    """A machine, all its threads together: bytes read, int8 and float32 operations a second, and
    its instruction set."""

    isa: str
    bytes_per_second: float
    int8_per_second: float
    float_per_second: float

    @property
    def efficiency(self) -> Efficiency:
        return EFFICIENCIES.get(self.isa, EFFICIENCIES[_OTHER])


def measured_rates(isa: str, bytes_per_second: float, int8_per_second: float) -> Rates:
    """Return the rates of a machine whose float rate was not measured."""
    share = FLOAT_SHARES.get(isa, FLOAT_SHARES[_OTHER])
    return Rates(isa, bytes_per_second, int8_per_second, share * int8_per_second)


def decode_seconds(plan: Plan, rates: Rates, depth: int, kv_dtype: str) -> float:
    """Return the seconds of one token after ``depth`` ones cached as ``kv_dtype``."""
    use = rates.efficiency
    bandwidth = use.read * rates.bytes_per_second
    attention = max(
        kv_bytes(plan, depth, kv_dtype) / bandwidth,
        attention_operations(plan, 1, depth) / (use.attend * rates.float_per_second),
    )
    return weight_bytes(plan) / bandwidth + attention + use.layer * len(plan.states)


def prefill_seconds(
    plan: Plan, rates: Rates, tokens: int, *, step_tokens: int, depth: int = 0
) -> float:
    """Return the seconds of a prompt of ``tokens`` after ``depth`` cached ones, at most
    ``step_tokens`` in a step."""
    use = rates.efficiency
    steps = -(-tokens // step_tokens)
    attention = attention_operations(plan, tokens, depth)
    linear = prefill_operations(plan, tokens, depth) - attention
    return (
        max(
            linear / (use.multiply * rates.int8_per_second),
            steps * weight_bytes(plan) / (use.read * rates.bytes_per_second),
        )
        + attention / (use.attend * rates.float_per_second)
        + steps * use.layer * len(plan.states)
    )
