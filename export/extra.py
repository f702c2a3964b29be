"""What tracing and verifying need beyond the base installation: the extra ``export``."""

from __future__ import annotations

from importlib.util import find_spec

from edge_llm.errors import MissingDependencyError

_PACKAGES = ("torch", "torchao")


def has_export_extra() -> bool:
    """Tell whether PyTorch and torchao are installed; imports neither."""
    return all(find_spec(name) for name in _PACKAGES)


def require_export_extra(what: str) -> None:
    """Check that they are.

    Raises:
        MissingDependencyError: they are not; ``what`` says in the message what needs them.
    """
    missing = [name for name in _PACKAGES if not find_spec(name)]
    if missing:
        raise MissingDependencyError(
            f"{what} needs {' and '.join(missing)} (the extra [export]), which this environment "
            "lacks",
            hint="pip install 'torch==2.13.*' 'torchao==0.18.*'; the download is small with "
            "--extra-index-url https://download.pytorch.org/whl/cpu",
        )
