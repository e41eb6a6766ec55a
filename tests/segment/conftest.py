"""Tiny real models of the segmenters' libraries, built in seconds, and texts that are hard to segment."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from hypothesis import strategies as st

PROSE = (
    "Dr. Smith paid $3.50 for it. She said: “Why not?” He left at 5 p.m. yesterday… Then it rained!\n"
    "Second line, wrapped by hand. 今日は晴れです。明日は？ यह ठीक है। وهل تعلم؟ نعم. ինչպե՞ս ես։ ሰላም። ကောင်းပါတယ်။ បាទ។"
)
_MARKS = list(
    ".!?…。！？।॥؟۔։።။។'\"“”«»()[]:;,-–—*•1a A9。」「\n\r\t\u2028\u0085\f \u00a0\u200b\u0301👍🏽🇺🇳\U0001f468\u200d"
)
_WORDS = [
    "Dr",
    "e.g",
    "U.S",
    "3",
    "Oktober",
    "etc",
    "г",
    "د",
    "एस",
    "கே",
    "니다",
    "ครับ",
    "རེད",
    "said",
    ":)",
    "http://a.b",
]


@pytest.fixture(scope="session")
def prose() -> str:
    """Two lines in several scripts, in which every segmenter finds some sentences."""
    return PROSE


@pytest.fixture(scope="session")
def hard_text() -> st.SearchStrategy[str]:
    """Text of any characters, with those that segmenters look at far more often than chance would have it."""
    piece = st.one_of(
        st.sampled_from(_MARKS), st.sampled_from(_WORDS), st.sampled_from([" ", "\n"]), st.text(max_size=5)
    )
    return st.lists(piece, max_size=40).map("".join)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that opens a connection, whoever does it."""

    def refuse(_socket: socket.socket, address: object) -> None:
        raise AssertionError(f"a test tried to connect to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="session")
def spacy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An English spaCy pipeline with a senter (disabled, as in spaCy's own models), trained for a moment."""
    import spacy
    from spacy.training import Example

    nlp = spacy.blank("en")
    nlp.add_pipe("senter")
    text = "it rains today . we stay in . they went out ."
    example = Example.from_dict(nlp.make_doc(text), {"sent_starts": [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]})
    spacy.util.fix_random_seed(0)
    optimizer = nlp.initialize(lambda: [example])
    for _ in range(15):
        nlp.update([example], sgd=optimizer)
    folder = tmp_path_factory.mktemp("spacy") / "tiny"
    nlp.disable_pipe("senter")
    nlp.to_disk(folder)
    return folder


@pytest.fixture(scope="session")
def sat_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SaT of one layer with random weights and a tokenizer of its own, in the format of the released models."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast
    from wtpsplit.configs import SubwordXLMConfig
    from wtpsplit.models import SubwordXLMForTokenClassification

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([PROSE] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    folder = tmp_path_factory.mktemp("sat") / "tiny-sm"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        cls_token="<s>",
        pad_token="<pad>",
        sep_token="</s>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = SubwordXLMConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=1,
        pad_token_id=1,
        initializer_range=1.0,
    )
    SubwordXLMForTokenClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stanza_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stanza resources folder with an English tokenizer in stanza's own format, with random weights."""
    import torch
    from stanza.models.tokenization.trainer import Trainer
    from stanza.models.tokenization.vocab import Vocab
    from stanza.models.tokenizer import DEFAULT_FEAT_FUNCS, build_argparse

    args = vars(build_argparse().parse_args(["--lang", "en", "--shorthand", "en_tiny", "--hidden_dim", "8"]))
    args |= {"feat_funcs": DEFAULT_FEAT_FUNCS, "feat_dim": len(DEFAULT_FEAT_FUNCS), "use_mwt": False}
    vocab = Vocab([[(char, 0) for char in PROSE]], "en")
    torch.manual_seed(0)
    trainer = Trainer({**args, "vocab_size": len(vocab)}, vocab=vocab, device="cpu")
    with torch.no_grad():  # so that there are tokens, some of which end a sentence
        trainer.model.tok_clf.bias.fill_(1.0)
        trainer.model.sent_clf.bias.fill_(0.0)
    folder = tmp_path_factory.mktemp("stanza")
    (folder / "en" / "tokenize").mkdir(parents=True)
    trainer.save(str(folder / "en" / "tokenize" / "tiny.pt"))
    packages = {"tokenize": {"tiny": {}}, "default_processors": {"tokenize": "tiny"}}
    entry = {"lang_name": "English", **packages, "packages": {"default": {"tokenize": "tiny"}}}
    (folder / "resources.json").write_text(json.dumps({"en": entry}), encoding="utf-8")
    return folder
