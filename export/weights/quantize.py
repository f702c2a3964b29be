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
from edge_llm.export.weights.prepared import FloatWeight, PreparedWeight
from edge_llm.export.weights.scales import INT4_RANGE, int4_scales
from edge_llm.program.formats import WeightFormat
from edge_llm.program.integers import Integers

INT8_RANGE = (-127, 127)
_FLOATS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def quantize(
    rows: torch.Tensor, form: WeightFormat, *, scale_rule: str = "hqq", name: str = "weight"
) -> PreparedWeight:
    """Quantize (or round) ``rows`` [N, K] of any float dtype.

    ``form`` is a panel format without minima; ``scale_rule`` is for int4 (see `Recipe`). Rows are
    independent of each other, so a matrix may come in chunks of rows.

    Raises:
        ExportError: values that are not finite, or that the format cannot hold; names ``name``.
    """
    values = rows.to(torch.float32)
    low, high = values.aminmax()  # both are NaN if any value is
    if not bool(low.isfinite() & high.isfinite()):
        raise ExportError(f"{name} holds values that are not finite")
    if form.is_float:
        rounded = values.to(_FLOATS[form.code]).to(torch.float32)
        if bool(rounded.abs().amax().isinf()):
            raise ExportError(f"{name} holds values that overflow {form.name}")
        return FloatWeight(form, rounded.numpy())
    if form.code == "i8":
        return _int8(values, form)
    if form.code == "i4":
        return _int4(values, form, scale_rule, name)
    raise ExportError(f"{name}: {form.name} is taken over from checkpoints, never made of floats")


def _int8(values: torch.Tensor, form: WeightFormat) -> Integers:
    largest = values.abs().amax(dim=1, keepdim=True)  # (N, 1)
    scales = (largest / 127.0).clamp(min=torch.finfo(torch.float32).smallest_normal)
    q = torch.round(values * (1.0 / scales)).clamp(*INT8_RANGE).to(torch.int8)
    return Integers(form, q.numpy(), scales.numpy())


def _int4(values: torch.Tensor, form: WeightFormat, scale_rule: str, name: str) -> Integers:
    n, k = values.shape
    grouped = values.view(n, k // form.group, form.group)
    scales = int4_scales(grouped, scale_rule, name)  # float16's values
    q = torch.round(grouped * (1.0 / scales).unsqueeze(-1)).clamp_(*INT4_RANGE)
    codes = q.to(torch.int8).view(n, k).numpy()
    return Integers(form, codes, scales.to(torch.float16).numpy())
