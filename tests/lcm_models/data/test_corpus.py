"""Corpora as the commands write them: concepts, codes, the end of text, prompts and answers."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from jobs import copy, write_jsonl

from lcm_data import schema
from lcm_data.corpus import Corpus, StageData, open_corpus
from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.end_of_text import Concept, ConceptInfo
from lcm_data.errors import CheckpointError, InputError, LcmDataError, SpaceError, UsageError
from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_data.quantize.storage import load_codebook
from lcm_data.splits import SplitRule
from lcm_data.store.files import open_files
from lcm_data.store.manifest import Manifest, load_manifest, save_manifest
from lcm_data.store.shard import ShardInfo, read_shard, shard_path, write_shard
from lcm_models.data import ConceptLoader, DataConfig
from lcm_models.data.artefacts import codes_of
from lcm_models.model import Batch
from pipelines import encode, normalize, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.normalize import NormalizeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig

LANGS = ("eng_Latn", "fra_Latn")


def make(folder: Path, rows: Iterable[dict[str, Any]], model: str = "one@odd", codes: bool = True) -> Path:
    write_jsonl(folder / "in.jsonl", rows)
    corpus, how = folder / "corpus", {"executor": "local"}
    options = {"validation": 0.2, "test": 0, "unit_bytes": 2000, **how}
    segment.run(SegmentConfig(inputs=[str(folder / "in.jsonl")], corpus=str(corpus), **options))
    encode.run(EncodeConfig(corpus=str(corpus), backend="oddencoder:OddEncoder", model=model, **how))
    if codes:
        quantize.run(QuantizeConfig(corpus=str(corpus), levels=2, units=8, iterations=2, threads=1, **how))
        normalize.run(NormalizeConfig(corpus=str(corpus)))
    return corpus


def text(prefix: str, lang: str, number: int) -> str:
    return " ".join(f"{prefix}Sentence {i} of {lang} {number}." for i in range(number % 9 + 1))


def rows(num: int = 60, prefix: str = "", langs: Sequence[str] = LANGS) -> list[dict[str, Any]]:
    """Parallel documents of 1 to 9 sentences."""
    return [
        {
            "id": f"d{n}",
            "lang": lang,
            "text": " ".join(f"{prefix}Sentence {i} of {lang} {n}." for i in range(n % 9 + 1)),
        }
        for n in range(num)
        for lang in langs
    ]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("prompts"), rows())


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Answers to the documents of ``corpus``, in the other order, without codes."""
    return make(tmp_path_factory.mktemp("answers"), rows(prefix="Answer. ")[::-1], codes=False)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of another space, with a normaliser and a codebook that nothing fits."""
    own = make(tmp_path_factory.mktemp("other"), rows(12, langs=["eng_Latn"]), model="two@other", codes=False)
    x_ND = np.random.default_rng(0).standard_normal((20, 16)).astype(np.float32)
    Normalizer.fit(x_ND, space="other").save(own / "normalizer.safetensors")
    Codebook.build(x_ND[None, :8], Provenance(encoder="two", encoder_space="other")).save(own / "codebook")
    Concept(x_ND[0], ConceptInfo(space="other")).save(str(own))
    return own


def data(*paths: Path | str, **settings: Any) -> DataConfig:
    of_source = {name: settings.pop(name) for name in ("langs", "splits", "answers", "unmatched") if name in settings}
    of_source |= {name: settings.pop(name) for name in ("answer_langs",) if name in settings}
    sources = [{"path": str(path), **of_source} for path in paths]
    given = {"max_len": 32, "batch_rows": 2, "endless": False, **settings}
    return DataConfig.model_validate({"sources": sources, **given})


def windows(batches: Iterable[Batch]) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Concepts, targets and codes of each document."""
    for batch in batches:
        for row, doc_S in enumerate(batch.doc_BS.numpy()):
            for number in range(doc_S.max() + 1):
                columns = doc_S == number
                codes = None if batch.codes_BSL is None else batch.codes_BSL[row].numpy()[columns]
                yield batch.x_BSD[row].numpy()[columns], batch.targets()[row].numpy()[columns], codes


def on_disk(corpus: Path, **where: Any) -> dict[tuple[str, str], np.ndarray]:
    return {(doc.lang, doc.doc_id): doc.vectors() for doc in open_corpus(corpus).embeddings.documents(**where)}


def test_documents_come_as_they_are_with_their_end(corpus: Path) -> None:
    loader = ConceptLoader(data(corpus))
    assert (loader.dim, loader.space, loader.provenance["encoder"]) == (16, "odd", "one@odd")
    end = Concept.load(f"{corpus}/end_of_text.safetensors")
    assert end.info.text == "End of text."
    expected = sorted(x.tobytes() for x in on_disk(corpus, splits=["train"]).values())
    found = []
    for x_SD, targets_S, codes in windows(loader):
        assert targets_S.all()
        assert codes is None
        assert (x_SD[-1] == end.vector.astype(np.float16)).all()
        found.append(x_SD[:-1].tobytes())
    assert sorted(found) == expected


def test_languages_and_splits(corpus: Path) -> None:
    settings = data(corpus, langs=["fra_Latn"], splits=["validation"], end_of_text=None, min_len=1, dtype="float32")
    found = sorted(x.astype(np.float16).tobytes() for x, _, _ in windows(ConceptLoader(settings)))
    expected = on_disk(corpus, splits=["validation"], langs=["fra_Latn"]).values()
    assert found == sorted(x.tobytes() for x in expected)
    held_out = data(corpus, langs=["fra_Latn"], endless=True).held_out()
    assert held_out.sources[0].splits == ("validation",)
    assert sum(len(x) - 1 for x, _, _ in windows(ConceptLoader(held_out))) == sum(map(len, expected))


def test_held_out_documents_are_mixed_the_same_every_time(corpus: Path) -> None:
    """The first batches, which may be all that is validated on, are of all languages."""
    settings = data(corpus, end_of_text=None, min_len=1, batch_rows=1)
    orders = [
        [x.tobytes() for x, _, _ in windows(ConceptLoader(each.held_out("train")))]
        for each in (settings, settings, settings.model_copy(update={"seed": 7, "shuffle": False}))
    ]
    assert orders[0] == orders[1] == orders[2]
    english = {x.tobytes() for x in on_disk(corpus, splits=["train"], langs=["eng_Latn"]).values()}
    assert len({x in english for x in orders[0][: len(english)]}) == 2


def test_documents_longer_than_a_row_group(tmp_path: Path) -> None:
    """A shard of its own making: documents of up to 5,000 sentences, so that some lie in several row groups."""
    lengths = [5000, 3, 800, 2048, 1500, 2500, 1, 900]
    x_ND = np.arange(sum(lengths) * 2, dtype=np.float32).reshape(-1, 2)
    spec = schema.embeddings_schema(2, "float32", with_text=False)
    columns = {name: pa.array(np.zeros(len(x_ND))).cast(spec.field(name).type) for name in spec.names[2:-1]}
    columns |= {"sid": pa.array(range(len(x_ND))), "emb": schema.vector_array(x_ND, spec.field("emb").type)}
    columns["doc_id"] = pa.array(np.repeat([f"d{number}" for number in range(len(lengths))], lengths))
    files, path = open_files(tmp_path / "embeddings"), shard_path("train", "eng_Latn", 0)
    files.write("_lcm/plan.json", b"{}")
    Path(files.root, path).parent.mkdir(parents=True)
    write_shard(Path(files.root, path), pa.table([columns[name] for name in spec.names], schema=spec), {})
    shard, num = ShardInfo(path, len(x_ND), 0, ""), len(x_ND)
    save_manifest(files, Manifest("embeddings", "", "", num, num, num, {}, {"train/eng_Latn": num}, {}, {}, (shard,)))
    loader = ConceptLoader(data(tmp_path, max_len=5000, min_len=1, end_of_text=None, shuffle_blocks=1))
    found = sorted((x for x, _, _ in windows(loader)), key=lambda x_SD: x_SD[0, 0])
    assert [len(x_SD) for x_SD in found] == lengths
    assert (np.concatenate(found) == x_ND).all()


def test_a_corpus_behind_a_url(corpus: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(corpus), "/remote/corpus", recursive=True)
    local, remote = (ConceptLoader(data(path, with_codes=True)) for path in (corpus, "memory://remote/corpus"))
    for one, two in zip(local, remote, strict=True):
        assert (one.x_BSD == two.x_BSD).all()
        assert one.codes_BSL is not None
        assert two.codes_BSL is not None
        assert (one.codes_BSL == two.codes_BSL).all()
    assert remote.normalizer().fingerprint == local.normalizer().fingerprint
    remote.load_state_dict(local.state_dict())  # another place, the same data
    fs.rm("/remote", recursive=True)


def test_codes_are_those_of_the_concepts(corpus: Path) -> None:
    loader = ConceptLoader(data(corpus, with_codes=True))
    book = loader.codebook()
    num = 0
    for x_SD, _, codes_SL in windows(loader):
        assert codes_SL is not None
        assert (codes_SL[:-1] == book.encode(x_SD[:-1])[0]).all()
        num += len(codes_SL) - 1
    assert num == sum(map(len, on_disk(corpus, splits=["train"]).values()))
    end = Concept.load(f"{corpus}/end_of_text.safetensors")
    assert (codes_SL[-1] == codes_of(end, book)).all()
    assert (codes_of(end, book) == book.encode(end.vector[None])[0][0]).all()


def copied(corpus: Path, target: Path) -> Path:
    return Path(shutil.copytree(corpus, target))


def test_sentences_without_codes_are_left_out(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = copied(corpus, tmp_path / "own")
    files = open_files(own).child("codes")
    manifest = load_manifest(files)
    shard = next(each for each in manifest.shards if "split=train" in each.path and each.rows > 9)
    table = read_shard(files, shard.path)
    kept = table.filter([number not in (2, 5) for number in range(len(table))])
    write_shard(Path(files.root, shard.path), kept, {"codebook": load_codebook(f"{own}/codebook").fingerprint})
    shards = tuple(replace(each, rows=each.rows - 2) if each is shard else each for each in manifest.shards)
    save_manifest(files, replace(manifest, shards=shards))
    loader = ConceptLoader(data(own, with_codes=True, end_of_text=None, min_len=1))
    assert "2 of" in caplog.text
    assert "have no codes and are left out" in caplog.text
    book, num = loader.codebook(), 0
    for x_SD, _, codes_SL in windows(loader):
        assert codes_SL is not None
        assert (codes_SL == book.encode(x_SD)[0]).all()
        num += len(x_SD)
    assert num == sum(map(len, on_disk(corpus, splits=["train"]).values())) - 2 == loader.num_concepts


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_only_answers_count(corpus: Path, answers: Path) -> None:
    prompts_, answers_ = on_disk(corpus, splits=["train"]), on_disk(answers, splits=["train"])
    expected = {np.concatenate([prompts_[key], answers_[key]]).tobytes(): len(prompts_[key]) for key in prompts_}
    found = set()
    for x_SD, targets_S, _ in windows(ConceptLoader(data(corpus, answers=str(answers)))):
        key = x_SD[:-1].tobytes()
        assert targets_S.tolist() == [False] * expected[key] + [True] * (len(x_SD) - expected[key])
        found.add(key)
    assert found == set(expected)


def test_answers_in_another_language(corpus: Path, answers: Path) -> None:
    settings = data(corpus, answers=str(answers), langs=["fra_Latn"], answer_langs=["eng_Latn"])
    prompts_, answers_ = on_disk(corpus, splits=["train"]), on_disk(answers, splits=["train"])
    expected = {
        np.concatenate([x, answers_["eng_Latn", doc_id]]).tobytes()
        for (lang, doc_id), x in prompts_.items()
        if lang == "fra_Latn"
    }
    assert {x[:-1].tobytes() for x, _, _ in windows(ConceptLoader(settings))} == expected


def test_a_concept_after_the_prompt(corpus: Path, answers: Path, tmp_path: Path) -> None:
    encoder = load_encoder(EncoderOptions(model="one@odd", backend="oddencoder:OddEncoder"))
    marker = Concept.encode(encoder, "[MODEL]:")
    file = marker.save(str(tmp_path / "prompt.safetensors"))
    for x_SD, targets_S, _ in windows(ConceptLoader(data(corpus, answers=str(answers), end_of_prompt=file))):
        assert (x_SD[np.flatnonzero(targets_S)[0] - 1] == marker.vector.astype(np.float16)).all()


def test_codes_of_pairs(corpus: Path) -> None:
    settings = data(corpus, answers=str(corpus), with_codes=True, end_of_prompt=f"{corpus}/end_of_text.safetensors")
    loader = ConceptLoader(settings)
    book, end = loader.codebook(), Concept.load(f"{corpus}/end_of_text.safetensors")
    for x_SD, targets_S, codes_SL in windows(loader):
        assert codes_SL is not None
        half = len(x_SD) // 2
        assert targets_S.tolist() == [False] * half + [True] * half
        assert (x_SD[:half] == x_SD[half:]).all()
        assert (codes_SL[: half - 1] == book.encode(x_SD[: half - 1])[0]).all()
        assert (codes_SL[half - 1] == codes_of(end, book)).all()
        assert (codes_SL[:half] == codes_SL[half:]).all()


def test_prompts_without_an_answer(corpus: Path, answers: Path, tmp_path: Path) -> None:
    few = copied(answers, tmp_path / "few")
    files = open_files(few).child("embeddings")
    manifest = load_manifest(files)
    gone = next(shard.path for shard in manifest.shards if "split=train" in shard.path)
    save_manifest(files, replace(manifest, shards=tuple(each for each in manifest.shards if each.path != gone)))
    pattern = r"\d+ of \d+ prompts of .* have no answer in .* \(the first is 'd\d+'\).*'skip'"
    refused(UsageError, pattern, corpus, answers=str(few))
    skipping = ConceptLoader(data(corpus, answers=str(few), unmatched="skip"))
    assert sum(1 for _ in windows(skipping)) == len(on_disk(few, splits=["train"]))
    refused(UsageError, "several answers with the id .*answer_langs", corpus, answers=str(answers), answer_langs=LANGS)


# -- errors: one line that names the fix -------------------------------------------------------------------------------


def refused(kind: type[LcmDataError], pattern: str, *paths: Path, **settings: Any) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        ConceptLoader(data(*paths, **settings))
    assert "\n" not in str(caught.value)


def test_a_missing_or_foreign_corpus(corpus: Path, other: Path, tmp_path: Path) -> None:
    refused(InputError, "is not a corpus.*lcm-data segment", tmp_path)
    refused(UsageError, "no language 'xyz_Latn' in .*It has: eng_Latn, fra_Latn", corpus, langs=["xyz_Latn"])
    refused(UsageError, "no split 'test' in .*It has: train, validation", corpus, splits=["test"])
    refused(SpaceError, "is of the space odd .* is of the space other .*never mixed.*Encode one of them", corpus, other)
    refused(SpaceError, "Encode one of them", corpus, answers=str(other))
    (tmp_path / "documents.parquet").touch()
    refused(InputError, "is not a corpus, but holds Parquet files.*kind='nested'", tmp_path)


def test_encoders_of_other_weights_in_one_space(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One may be a conversion of the other, so it is said, not refused; and once, however often sources are opened."""
    twin = copied(corpus, tmp_path / "twin")
    manifest = twin / "embeddings" / "_lcm" / "manifest.json"
    said = json.loads(manifest.read_text("utf-8"))
    said["provenance"]["encoder_revision"] += "x"
    manifest.write_text(json.dumps(said))
    for _ in range(2):
        ConceptLoader(data(corpus, twin))
    (message,) = caplog.messages
    assert message.startswith(f"{corpus} and {twin} were encoded with different weights under the name of one space")
    assert message.endswith("encode one of them again with the encoder of the other.")


def test_languages_go_by_any_name(corpus: Path) -> None:
    one, other = (ConceptLoader(data(corpus, langs=[name])) for name in ("fr", "fra_Latn"))
    assert one.num_concepts == other.num_concepts < ConceptLoader(data(corpus)).num_concepts
    assert one.state_dict() == other.state_dict()


def test_an_empty_split(tmp_path: Path) -> None:
    """Both the language and the split are there, but not together."""
    mixed = [{"id": f"d{n}", "lang": LANGS[n % 2], "text": "One. Two."} for n in range(2)]
    write_jsonl(tmp_path / "in.jsonl", mixed)
    own = tmp_path / "corpus"
    rules = (SplitRule(0.5, 0, seed) for seed in itertools.count())
    seed = next(rule.seed for rule in rules if len({rule.split_of("d0"), rule.split_of("d1")}) == 2)
    options = {"validation": 0.5, "test": 0, "split_seed": seed, "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(tmp_path / "in.jsonl")], corpus=str(own), **options))
    encode.run(EncodeConfig(corpus=str(own), backend="oddencoder:OddEncoder", model="one", executor="local"))
    (missing,) = set(LANGS) - {name.split("/")[1] for name in parts(own) if name.startswith("train")}
    pattern = rf"no sentences of the languages {missing} in the splits train; it has .*validation/{missing}"
    refused(InputError, pattern, own, langs=[missing])


def parts(corpus: Path) -> list[str]:
    return list(open_corpus(corpus).embeddings.manifest.partitions)


def test_missing_or_other_codes(corpus: Path, answers: Path, other: Path, tmp_path: Path) -> None:
    refused(UsageError, "has no codes, which this model learns. Run 'lcm-data quantize", answers, with_codes=True)
    refused(UsageError, "has no codes", corpus, answers=str(answers), with_codes=True)
    loader = ConceptLoader(data(corpus, with_codes=True))
    pattern = r"were made with the codebook .*lcm-data quantize --overwrite"
    with pytest.raises(UsageError, match=pattern):
        loader.codebook(f"{other}/codebook")
    with pytest.raises(CheckpointError, match="is not a codebook"):
        loader.codebook(str(tmp_path))


def test_outdated_codes_and_two_codebooks(corpus: Path, tmp_path: Path) -> None:
    twin = copied(corpus, tmp_path / "twin")
    how = {"executor": "local", "overwrite": True}
    quantize.run(QuantizeConfig(corpus=str(twin), levels=2, units=4, iterations=2, threads=1, **how))
    refused(UsageError, "codes of .* are of two codebooks.*--codebook", corpus, twin, with_codes=True)
    options = {"backend": "oddencoder:OddEncoder", "model": "one@odd", "store_dtype": "float32", **how}
    encode.run(EncodeConfig(corpus=str(twin), **options))
    refused(UsageError, "codes of .* are of other embeddings.*--overwrite", twin, with_codes=True)
    both = ConceptLoader(data(twin, corpus))
    assert next(iter(both)).x_BSD.dtype == torch.float32


def test_a_missing_or_foreign_normaliser(corpus: Path, answers: Path, other: Path) -> None:
    assert ConceptLoader(data(corpus)).normalizer().dim == 16
    loader = ConceptLoader(data(answers, end_of_text=None))
    with pytest.raises(UsageError, match=r"no normaliser: .*Run 'lcm-data normalize .*answers.*', or set model\."):
        loader.normalizer()
    assert loader.normalizer(f"{corpus}/normalizer.safetensors").dim == 16
    with pytest.raises(SpaceError, match=r"the normaliser .* is of the space other .*lcm-data normalize"):
        loader.normalizer(f"{other}/normalizer.safetensors")


def test_a_missing_or_foreign_end_of_text(corpus: Path, answers: Path, other: Path, tmp_path: Path) -> None:
    bare = copy(answers, tmp_path / "bare")
    (bare / "end_of_text.safetensors").unlink()
    refused(UsageError, "no end-of-text concept: .*lcm-data encode.*or to null for none", bare)
    foreign = f"{other}/end_of_text.safetensors"
    refused(SpaceError, "end_of_text.safetensors is of the space other.*Encode it with", corpus, end_of_text=foreign)
    np.save(tmp_path / "short.npy", np.zeros(3))
    refused(UsageError, r"has shape \(3,\).*16 dimensions.*encode it", corpus, end_of_text=str(tmp_path / "short.npy"))
    np.save(tmp_path / "nan.npy", np.full(16, np.nan))
    refused(UsageError, "is not finite", corpus, end_of_text=str(tmp_path / "nan.npy"))
    wrong = f"{corpus}/normalizer.safetensors"
    refused(CheckpointError, "holds no special concept", corpus, end_of_text=wrong)
    refused(CheckpointError, "does not exist", corpus, end_of_text=str(tmp_path / "none.safetensors"))
    assert len(ConceptLoader(data(corpus, answers)).config.sources) == 2  # one of them has it


def test_documents_that_are_all_too_short(corpus: Path) -> None:
    loader = ConceptLoader(data(corpus, endless=True, min_len=16))
    with pytest.raises(UsageError, match=r"shorter than min_len \(16 concepts.*lower min_len"):
        next(iter(loader))


def test_a_stage_of_a_corpus_stays_open_elsewhere(corpus: Path) -> None:
    """Two loaders and the plain reader on the same files do not disturb each other."""
    one, two = (iter(ConceptLoader(data(corpus))) for _ in range(2))
    whole: StageData = Corpus(corpus).embeddings
    for left, right, _ in zip(one, two, whole.documents(), strict=False):
        assert (left.x_BSD == right.x_BSD).all()
