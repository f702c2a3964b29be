"""The harness's command line, which then knows the model ``edge-llm``."""

# The harness looks for its own models only where none is registered.
import lm_eval.models  # noqa: F401
from lm_eval.__main__ import cli_evaluate

if __name__ == "__main__":
    cli_evaluate()
