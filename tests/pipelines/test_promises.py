"""What must hold when a run goes wrong before, between and after its units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import check_whole, copy, digests, embedded, snapshot, write_jsonl

from lcm_data.corpus import open_corpus
from lcm_data.errors import CheckpointError, PlanMismatchError, RejectRateError, UsageError
from lcm_data.quantize.storage import load_codebook
from lcm_data.sonar.random_model import write_random_checkpoint
from lcm_data.store.files import absolute
from lcm_data.workers.output import check_identity
from pipelines import encode, normalize, quantize, segment
from pipelines.encode import EncodeConfig
from pipelines.look import verify_corpus
from pipelines.normalize import NormalizeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.segment import SegmentConfig


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus with a model of its own. Read only."""
    folder = tmp_path_factory.mktemp("original")
    rows = embedded(["eng_Latn", "deu_Latn"])
    write_jsonl(folder / "in.jsonl", rows)
    write_random_checkpoint(folder / "model", [row["text"] for row in rows], model_dim=16, num_layers=1, num_heads=2)
    segment.run(SegmentConfig(inputs=[str(folder / "in.jsonl")], corpus=str(folder / "corpus"), unit_bytes=20_000))
    make(folder)
    return folder


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return copy(original, tmp_path / "made")


def make(folder: Path, **settings: Any) -> None:
    encode.run(EncodeConfig(corpus=str(folder / "corpus"), **{"model": str(folder / "model"), **settings}))


def code(folder: Path, **settings: Any) -> Any:
    return quantize.run(
        QuantizeConfig(corpus=str(folder / "corpus"), **{"levels": 2, "units": 8, "iterations": 2, **settings})
    )


WRONG = ({"device": "cuda"}, {"gpus_per_worker": 1}, {"executor": "ray", "ray_address": "127.0.0.1:1"})


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_overwrite_deletes_nothing_before_a_worker_is_ready(
    made: Path, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before, files = digests(made / "corpus"), snapshot(made / "corpus" / "embeddings" / "data")
    with pytest.raises((UsageError, CheckpointError)):
        make(made, overwrite=True, **wrong)
    assert digests(made / "corpus") == before
    assert snapshot(made / "corpus" / "embeddings" / "data") == files
    assert len(open_corpus(made / "corpus").embeddings) == len(open_corpus(made / "corpus").segments)
    make(made, overwrite=True, store_dtype="float32")
    check_whole(made / "corpus", ["segments", "embeddings"])
    assert str(open_corpus(made / "corpus").embeddings.schema.field("emb").type.value_type) == "float"


def test_weights_replaced_after_planning_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = encode.make_stage(EncodeConfig(corpus=str(made / "corpus"), model=str(made / "model"), dtype="bfloat16"))
    worker = stage.make_worker(stage.make_plan())
    texts = [row["text"] for row in embedded(["eng_Latn"])]
    write_random_checkpoint(made / "model", texts, model_dim=16, num_layers=1, num_heads=2, seed=9)
    with pytest.raises(PlanMismatchError, match=r"loaded another encoder than the run was planned with \(encoder_rev"):
        worker.setup()


def test_identity_is_only_checked_where_it_is_planned() -> None:
    check_identity("codebook", {"codebook": "a"}, {"codebook": "a"}, ("codebook",))
    check_identity("codebook", {}, {"codebook": "a"}, ("codebook",))
    with pytest.raises(PlanMismatchError, match=r"another codebook .* Put the planned one back on every node"):
        check_identity("codebook", {"codebook": "a"}, {"codebook": "b"}, ("codebook",))


def test_the_codebook_beside_a_corpus_is_that_of_its_codes(made: Path) -> None:
    code(made)
    other = load_codebook(str(made / "corpus" / "codebook"))
    other.save(made / "other")
    code(made, seed=7, overwrite=True)
    assert load_codebook(str(made / "corpus" / "codebook")).fingerprint != other.fingerprint
    code(made, codebook=str(made / "other"), overwrite=True)
    assert load_codebook(str(made / "corpus" / "codebook")).fingerprint == other.fingerprint
    assert open_corpus(made / "corpus").codes.metadata["codebook"] == other.fingerprint
    codes = np.concatenate([batch.vectors("codes") for batch in open_corpus(made / "corpus").codes.batches()])
    emb = np.concatenate([batch.vectors("emb") for batch in open_corpus(made / "corpus").embeddings.batches()])
    np.testing.assert_array_equal(codes, other.encode(emb.astype(np.float32))[0])


def test_too_many_rejects_stay_too_many(tmp_path: Path) -> None:
    rows = [{"id": n, "lang": "eng_Latn", "text": "A sentence." if n % 2 else ""} for n in range(2000)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    given = {"inputs": [str(tmp_path / "in.jsonl")], "corpus": str(tmp_path / "corpus")}
    for _ in range(3):
        with pytest.raises(RejectRateError, match=r"1000 of 2000 rows were rejected"):
            segment.run(SegmentConfig(**given))
    assert segment.run(SegmentConfig(**given, max_reject_rate=0.5)).manifest.rows == 1000


def test_local_paths_are_made_absolute_for_workers(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    assert absolute("model") == str(made / "model")
    assert EncodeConfig(corpus="corpus", model="model").encoder.model == str(made / "model")
    for name in ("text_sonar_basic_encoder", "hf:owner/repo", "s3://bucket/codebook"):
        assert absolute(name) == name


def test_damage_beside_the_shards_is_found(made: Path) -> None:
    code(made)
    normalize.run(NormalizeConfig(corpus=str(made / "corpus")))
    assert verify_corpus(str(made / "corpus"), "hash")["problems"] == 0
    book = made / "corpus" / "codebook" / "codebooks.safetensors"
    content = bytearray(book.read_bytes())
    content[-3] ^= 1
    book.write_bytes(content)
    (made / "corpus" / "normalizer.safetensors").write_bytes(b"no")
    manifest = made / "corpus" / "segments" / "_lcm" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"digest": "', '"digest": "0'))
    (made / "corpus" / "codes" / "_lcm" / "manifest.json").write_text("garbage")
    found = verify_corpus(str(made / "corpus"), "hash")
    assert [problem["path"] for problem in found["beside"]] == ["codebook/", "normalizer.safetensors"]
    assert [len(stage["problems"]) for stage in found["stages"]] == [1, 0, 1]
    assert verify_corpus(str(made / "corpus"), "size")["beside"] == []
