"""Small language models in the Hugging Face format, made on the spot: random ones, and one that knows what it read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers


def write_tokenizer(folder: Path, texts: Iterable[str], size: int = 300) -> None:
    """A byte-level BPE tokenizer as GPT-2's: it can spell anything."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=["<e>"])
    )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<e>", pad_token="<e>")
    fast.save_pretrained(folder)


def write_causal_lm(folder: Path, texts: list[str], steps: int = 0, max_len: int = 128) -> Path:
    """A GPT-2 of two layers with random weights, or trained on ``texts`` (each a document) for some steps."""
    write_tokenizer(folder, texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_positions=max_len, n_embd=32, n_layer=2, n_head=2, attn_pdrop=0.0, embd_pdrop=0.0,
        resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    rows = [torch.tensor(tokenizer("\n" + text)["input_ids"])[:max_len] for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


def write_classifier(folder: Path, texts: list[str], num_labels: int = 1) -> Path:
    """A sequence classifier with random weights."""
    write_tokenizer(folder, texts)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=300, n_positions=64, n_embd=16, n_layer=1, n_head=2, num_labels=num_labels, pad_token_id=0
    )
    transformers.GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder
