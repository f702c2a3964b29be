"""The harness's command line, which then knows the model ``edge-llm``."""

from lm_eval.__main__ import cli_evaluate

if __name__ == "__main__":
    cli_evaluate()
