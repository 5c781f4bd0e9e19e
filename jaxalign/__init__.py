"""jaxalign: align language models to human values, and train them on their own rationales, in JAX.

From Python: `jaxalign.load_model(NAME)` returns a `LanguageModel`, which samples, scores and trains adapters
(jaxalign/api.py). From a shell: `python -m jaxalign.train --help`, and likewise crest, generate, evaluate, report,
study, export and survey.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxalign.api import LanguageModel, load_model
    from jaxalign.models.adapter import Adapter

__version__ = "0.2.0"
__all__ = ["Adapter", "LanguageModel", "__version__", "load_model"]


def __getattr__(name: str) -> Any:
    # jax is imported only when it is first needed, so that --help and error messages about bad input come at once.
    if name in ("Adapter", "LanguageModel", "load_model"):
        from jaxalign import api

        return getattr(api, name)
    raise AttributeError(f"module 'jaxalign' has no attribute {name!r}")
