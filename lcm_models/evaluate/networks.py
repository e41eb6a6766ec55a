"""Networks and tokenizers of the package transformers, loaded quietly, with errors that say what to give instead."""

from __future__ import annotations

from typing import Any

import torch

from lcm_data.errors import CheckpointError, MissingExtraError


def load_network(kind: str, path: str, what: str, device: torch.device | None) -> tuple[Any, Any]:
    """Tokenizer and network, in evaluation mode; ``kind`` is an ``AutoModel`` class, ``what`` names it for people.

    Raises:
        MissingExtraError: transformers is not installed.
        CheckpointError: it cannot be loaded.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtraError(what, "transformers", "evaluate") from error
    logging = transformers.utils.logging
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        network = getattr(transformers, kind).from_pretrained(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load {what} from {path!r}: {str(error).splitlines()[0]} Give a folder of one in the Hugging Face "
            "format."
        ) from error
    finally:
        if had_bars:
            logging.enable_progress_bar()
    return tokenizer, network.to(device or "cpu").eval()
