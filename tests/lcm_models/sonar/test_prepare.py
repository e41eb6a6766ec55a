"""Texts to token arrays: nothing doubled, nothing leaked from held-out pairs, nothing silently other than asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toylanguages import LANGS, sentences

from lcm_data.errors import InputError, UsageError
from lcm_data.sonar.tokenizer import SonarTokenizer
from lcm_models.sonar.config import PrepareConfig
from lcm_models.sonar.prepare import prepare
from lcm_models.sonar.prepared import TEST, TOKENIZER, Prepared, open_prepared
from pipelines import segment


def texts_of(data: Prepared) -> list[tuple[str, str]]:
    """Language and text of every stored sentence."""
    tokenizer = SonarTokenizer(data.folder / TOKENIZER, languages=data.languages)
    langs = {tokenizer.lang_id(lang): lang for lang in data.languages}
    rows = [np.asarray(data.tokens[a:b]) for a, b in zip(data.starts(), data.ends_S, strict=True)]
    return [(langs[int(row[0])], tokenizer.decode(row)) for row in rows]


def test_every_sentence_once_and_every_pair(prepared: Prepared, pairs: Path) -> None:
    stored = texts_of(prepared)
    assert len(stored) == len(set(stored))
    rows = [json.loads(line) for line in pairs.read_text("utf-8").splitlines()]
    expected = {(row["en"], row["lang"], row["text"]) for row in rows}
    found = {(stored[a][1], *stored[b]) for split in (prepared.train_N2, prepared.valid_N2) for a, b in split.tolist()}
    tests = [json.loads(line) for line in (prepared.folder / TEST).read_text("utf-8").splitlines()]
    found |= {(row["eng_Latn"], lang, row[lang]) for row in tests for lang in LANGS[1:] if lang in row}
    assert found == expected
    counts = prepared.about["counts"]
    assert counts["train_pairs"] + counts["valid_pairs"] + counts["test_pairs"] == len(expected)
    assert counts["sentences"] == len(stored)
    assert min(counts["train_pairs"], counts["valid_pairs"], counts["test_pairs"]) > 0


def test_what_is_held_out_is_in_no_pair_to_learn(prepared: Prepared) -> None:
    stored = texts_of(prepared)
    learned = {stored[a] for a, _ in prepared.train_N2.tolist()}
    tests = [json.loads(line) for line in (prepared.folder / TEST).read_text("utf-8").splitlines()]
    assert not learned & {("eng_Latn", row["eng_Latn"]) for row in tests}
    assert not learned & {stored[a] for a, _ in prepared.valid_N2.tolist()}


def test_near_copies_are_held_out_together(tmp_path: Path) -> None:
    kinds = ("Version {} is HERE.", "version {}, is here!", "«Version» {}: is here")
    rows = [
        {"lang": "deu_Latn", "en": f"{row['eng_Latn']} {kind.format(number)}", "text": f"{number} {row['deu_Latn']}"}
        for row in sentences(40)
        for number, kind in enumerate(kinds)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    config = PrepareConfig(pairs=(str(file),), vocab_size=600, test_share=0.3, max_tokens=200)
    data = prepare(config, tmp_path / "data")
    tests = [json.loads(line)["eng_Latn"] for line in (data.folder / TEST).read_text("utf-8").splitlines()]
    first_words = [" ".join(text.split()[:4]) for text in tests]
    assert tests
    assert all(first_words.count(words) % len(kinds) == 0 for words in set(first_words))


def test_long_sentences_are_left_out_and_counted(pairs: Path, tmp_path: Path) -> None:
    config = PrepareConfig(pairs=(str(pairs),), vocab_size=600, max_tokens=15)
    data = prepare(config, tmp_path / "data")
    lengths = data.ends_S - data.starts()
    assert lengths.max() <= 15
    assert data.about["counts"]["too_long"] > 0
    assert data.train_N2.max() < len(lengths)


def test_a_folder_is_used_again_and_never_mixed(pairs: Path, tmp_path: Path) -> None:
    config = PrepareConfig(pairs=(str(pairs),), vocab_size=600)
    first = prepare(config, tmp_path / "data")
    assert prepare(config, tmp_path / "data").fingerprint == first.fingerprint
    with pytest.raises(UsageError, match="prepared from other texts or settings"):
        prepare(config.model_copy(update={"max_tokens": 9}), tmp_path / "data")
    other = prepare(config, tmp_path / "other")
    assert (other.folder / TOKENIZER).read_bytes() == (first.folder / TOKENIZER).read_bytes()
    assert np.array_equal(other.tokens, first.tokens)


def test_plain_sentences_of_a_corpus(pairs: Path, tmp_path: Path) -> None:
    document = tmp_path / "docs.jsonl"
    lines = [{"id": "a", "lang": "fra_Latn", "text": "Un oiseau chante. Un autre dort. La maison est vieille."}]
    document.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    segment.run(segment.SegmentConfig(inputs=[str(document)], corpus=str(tmp_path / "corpus"), validation=0, test=0))
    config = PrepareConfig(pairs=(str(pairs),), text=(str(tmp_path / "corpus"),), vocab_size=600)
    data = prepare(config, tmp_path / "data")
    stored = texts_of(data)
    assert len(data.alone_N) == 3
    assert {stored[row] for row in data.alone_N} == {
        ("fra_Latn", text) for text in ("Un oiseau chante.", "Un autre dort.", "La maison est vieille.")
    }


def test_languages_can_be_chosen(pairs: Path, tmp_path: Path) -> None:
    langs = ("eng_Latn", "fra_Latn")
    data = prepare(PrepareConfig(pairs=(str(pairs),), langs=langs, vocab_size=600), tmp_path / "data")
    assert data.languages == langs
    with pytest.raises(UsageError, match=r"no text in jpn_Jpan. There is: eng_Latn, fra_Latn\."):
        prepare(PrepareConfig(pairs=(str(pairs),), langs=(*langs, "jpn_Jpan"), vocab_size=600), tmp_path / "b")


def test_nothing_to_train_on(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"lang": "deu_Latn", "en": " ", "text": "ja"}\n')
    with pytest.raises(InputError, match="nothing to train on"):
        prepare(PrepareConfig(pairs=(str(file),)), tmp_path / "data")
    with pytest.raises(UsageError, match="holds no prepared texts"):
        open_prepared(tmp_path)
