"""What an export has multiplied a program's matrices with, so that they are rounded better.

A linear holds ``rows * W * columns`` in place of W [N, K], and what makes its input is divided by
``columns`` (export/weights/scaling.py). What is added to W is to be multiplied in the same way. The
file has both vectors where they are not all one, as tensors beside the weight's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_llm.program.plan import Weight
from edge_llm.program.tensors import factor_name
from edge_llm.runner.adapters.adapter import Float32
from edge_llm.runner.adapters.parameters import Part


@dataclass(frozen=True, slots=True)
class Factors:
    """``read`` gives a tensor of the program by its name, None where it has none."""

    read: Callable[[str], NDArray[np.float32] | None]

    def applied(
        self, weight: Weight, part: Part, down: Float32, up: Float32
    ) -> tuple[Float32, Float32]:
        """Return ``down`` [rank, K] and ``up`` [N, rank] as a part of this weight needs them."""
        if part.table:
            return down, up
        columns = self.read(factor_name(weight.tensor, "columns"))
        rows = self.read(factor_name(weight.tensor, "rows"))
        if columns is not None:
            down = down * columns
        if rows is not None:
            up = up * rows[part.begin : part.begin + part.rows, None]
        return down, up
