"""Programs as models of lm-evaluation-harness: importing this package registers ``edge-llm`` there.

    python -m edge_llm.harness run --model edge-llm --model_args program=my-model --tasks hellaswag

is the harness's own command with that model. It needs the extra ``eval``.
"""

from edge_llm.extras import require_extra

require_extra("eval", "edge_llm.harness")

from edge_llm.harness.model import EdgeLLM  # noqa: E402

__all__ = ["EdgeLLM"]
