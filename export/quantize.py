"""Stage quantize: float rows -> the numbers that eager PyTorch, the report and the file share.

The formulas are torchao's (``choose_qparams_affine`` symmetric, ``quantize_affine``), with four
differences, the first for quality, the others so that what is packed is what was measured:

- an int4 scale follows the recipe's rule (scales.py), of which "affine" is torchao's;
- int4 scales are rounded to float16 before ``q`` is chosen (torchao keeps the checkpoint's dtype);
- int4 scales are at least 2**-24, the smallest float16 above zero, where torchao takes the smallest
  normal float32, which float16 cannot hold;
- int8 scales are ``max|w| / 127`` with q in [-127, 127], since exact 8-bit kernels cannot take the
  -128 that torchao's ``max|w| / 127.5`` yields.
"""

from __future__ import annotations

import torch

from edge_llm.errors import ExportError
from edge_llm.export.scales import INT4_RANGE, int4_scales
from edge_llm.export.weights import FloatWeight, PreparedWeight, QuantizedWeight
from edge_llm.program.pack import format_group

INT8_RANGE = (-127, 127)
FLOAT_DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def quantize(
    rows: torch.Tensor, weight_format: str, *, scale_rule: str = "hqq", name: str = "weight"
) -> PreparedWeight:
    """Quantizes (or rounds) ``rows`` [N, K] of any float dtype to ``weight_format``, a key of
    PANEL_FORMATS; ``scale_rule`` is for int4 (see `Recipe`). Rows are independent of each other, so
    a matrix may come in chunks of rows.

    Raises:
        ExportError: values that are not finite, or that the format cannot hold; names ``name``.
    """
    values = rows.to(torch.float32)
    low, high = values.aminmax()  # both are NaN if any value is
    if not bool(low.isfinite() & high.isfinite()):
        raise ExportError(f"{name} holds values that are not finite")
    if weight_format in FLOAT_DTYPES:
        rounded = values.to(FLOAT_DTYPES[weight_format]).to(torch.float32)
        if bool(rounded.abs().amax().isinf()):
            raise ExportError(f"{name} holds values that overflow {weight_format}")
        return FloatWeight(weight_format, rounded)
    if weight_format == "i8":
        return _int8(values)
    return _int4(values, weight_format, scale_rule, name)


def group_of(weight_format: str, k: int) -> int:
    """Columns that share one scale: the group of an int4 format, else the whole row of ``k``."""
    return format_group(weight_format) or k


def _int8(values: torch.Tensor) -> QuantizedWeight:
    largest = values.abs().amax(dim=1, keepdim=True)  # (N, 1)
    scales = (largest / 127.0).clamp(min=torch.finfo(torch.float32).smallest_normal)
    q = torch.round(values * (1.0 / scales)).clamp(*INT8_RANGE).to(torch.int8)
    return QuantizedWeight("i8", q, scales, values.shape[1])


def _int4(values: torch.Tensor, weight_format: str, scale_rule: str, name: str) -> QuantizedWeight:
    n, k = values.shape
    group = group_of(weight_format, k)
    grouped = values.view(n, k // group, group)
    scales = int4_scales(grouped, scale_rule, name)
    q = torch.round(grouped * (1.0 / scales).unsqueeze(-1)).clamp_(*INT4_RANGE)
    return QuantizedWeight(weight_format, q.to(torch.int8).view(n, k), scales, group)
