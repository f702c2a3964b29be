"""The real small model: what its exports recorded about themselves."""

from __future__ import annotations

from pathlib import Path

from edge_llm.program.file import Program


def test_fp32_is_the_checkpoint(smollm2_fp32: Path) -> None:
    with Program.open(smollm2_fp32) as program:
        golden, verify = program.golden, program.documents.report["verify"]
    assert verify["same_numbers"]["max_error"] < 1e-3
    assert verify["unquantized"]["top1"] == 1.0
    assert golden is not None
    # "The capital of France is" -> " Paris.\n\n"
    assert golden.next[0][:4].tolist() == [7042, 30, 198, 198]


def test_8da4w_loses_what_eager_torchao_loses(smollm2_8da4w: Path) -> None:
    with Program.open(smollm2_8da4w) as program:
        report = program.documents.report
    verify = report["verify"]
    assert verify["same_numbers"]["positions"] == 5 * 64
    # Thirty layers of int8 activations amplify a difference of one bit to a KL of about 0.02
    # between two runs of eager PyTorch itself.
    assert verify["same_numbers"]["kl"] < 0.06
    assert verify["same_numbers"]["top1_near"] > 0.95
    assert abs(verify["unquantized"]["kl"] - verify["eager_unquantized"]["kl"]) < 0.02
    assert 5.2 < report["bits_per_weight"] < 5.4
    assert report["tied"] == {"lm_head.weight": "model.embed_tokens.weight"}
