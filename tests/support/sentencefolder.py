"""A small random model in the sentence-transformers format, written without that library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WIDTH, MAX_TOKENS = 32, 40
_SIGNS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'-"
_WORDS = ("hello", "paul", "apples", "query", "##ing", "##es")


def write_sentence_folder(
    folder: Path,
    *,
    seed: int = 0,
    pooling: dict[str, Any] | None = None,
    normalize: bool = True,
    dense: int = 0,
    settings: dict[str, Any] | None = None,
) -> Path:
    """A two-layer BERT of width 32 with a WordPiece vocabulary of lower-case Latin letters.

    Args:
        pooling: more of the configuration of the pooling; the mean by default.
        normalize: whether vectors are scaled to length one.
        dense: width of a last linear layer, none if 0.
        settings: content of ``config_sentence_transformers.json``.
    """
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    library = "sentence_transformers.models"
    parts: list[tuple[str, str, dict[str, Any] | None]] = [
        ("Transformer", "", None),
        ("Pooling", "1_Pooling", {"embedding_dimension": WIDTH, "pooling_mode": "mean", **(pooling or {})}),
    ]
    if dense:
        parts.append(("Dense", "2_Dense", {"in_features": WIDTH, "out_features": dense, "bias": True}))
    if normalize:
        parts.append(("Normalize", "9_Normalize", {}))
    for kind, path, values in parts:
        if values is not None:
            write_json(folder / path / "config.json", values)
        if kind == "Dense":
            _write_dense(folder / path, dense)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"{library}.{kind}"} for i, (kind, path, _) in enumerate(parts)
    ]
    write_json(folder / "modules.json", modules)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS})
    write_json(folder / "config_sentence_transformers.json", settings or {})
    return folder


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


def _write_dense(folder: Path, width: int) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {"linear.weight": torch.randn(width, WIDTH), "linear.bias": torch.randn(width)}
    save_file(tensors, folder / "model.safetensors")


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    pieces = [*marks.values(), *_SIGNS, *(f"##{sign}" for sign in _SIGNS), *_WORDS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}  # not trained: that differs from run to run
    core = Tokenizer(models.WordPiece(vocabulary, unk_token=marks["unk"]))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(marks[name], core.token_to_id(marks[name])) for name in ("cls", "sep")]
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=64, **{f"{name}_token": mark for name, mark in marks.items()}
    )
