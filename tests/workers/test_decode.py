"""One unit of decoding: which rows come out, which become rejects, and what the decoder is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odddecoder import DIM, LOST, NO_SCORE, RAISES, SILENT, OddDecoder, vector_of

from lcm_data import schema
from lcm_data.decode import Decoded, DecoderOptions
from lcm_data.errors import LcmDataError, PlanMismatchError, UnknownNameError, UsageError
from lcm_data.store.plan import Unit
from lcm_data.store.shard import document_groups, shard_path, write_shard
from lcm_data.workers.base import Task
from lcm_data.workers.decode import DecodeWorker, _distinct, _in_order, decoder_metadata
from lcm_data.workers.output import UnitOutput

SHARD = shard_path("validation", "deu_Latn", 7)


def vectors(num: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((num, DIM)).astype(np.float16)


def write(folder: Path, emb: Any, doc_rows: int = 5) -> pa.Table:
    """A shard of embeddings as another maker may have left it."""
    target = schema.embeddings_schema(DIM)
    num = len(emb)
    values: dict[str, Any] = {
        "sid": np.arange(num) * 7919 - 5000,
        "doc_id": [f"doc-{row // doc_rows}" for row in range(num)],
        "sent_idx": [row % doc_rows for row in range(num)],
        "text": [f"Satz {row}" for row in range(num)],
        "n_tokens": np.random.default_rng(1).integers(3, 60, num),
        "emb": schema.vector_array(emb, target.field("emb").type),
    }
    arrays = []
    for each in target:
        value = values.get(each.name, np.zeros(num, each.type.to_pandas_dtype()) if each.name not in values else None)
        arrays.append(value if isinstance(value, pa.Array) else pa.array(value, each.type))
    table = pa.Table.from_arrays(arrays, schema=target)
    file = folder / "in" / SHARD
    file.parent.mkdir(parents=True, exist_ok=True)
    write_shard(file, table, {})
    return table


def worker_on(folder: Path, **options: Any) -> DecodeWorker:
    decoder = DecoderOptions(model="one", backend="odddecoder:OddDecoder", **options)
    facts = decoder_metadata(OddDecoder.describe(decoder))
    worker = DecodeWorker(str(folder / "in"), str(folder / "out"), decoder, "fra_Latn", "0" * 64, facts)
    worker.setup()
    return worker


def do(worker: DecodeWorker, num: int, **task: Any) -> UnitOutput:
    return worker.work(worker.read(Task(Unit(3, num, {"shard": SHARD}), **task)))


def rows_of(output: UnitOutput) -> pa.Table:
    ((path, table),) = output.tables.items()
    assert path == shard_path("validation", "fra_Latn", 3)
    assert table.schema == schema.DECODED
    assert output.rows_in == output.rows_done + len(output.rejects)
    assert output.rows_done == table.num_rows
    return table


def test_rows_keep_their_ids_and_order(tmp_path: Path) -> None:
    given = write(tmp_path, vectors(40))
    worker = worker_on(tmp_path)
    output = do(worker, 40)
    table = rows_of(output)
    for name in schema.ID_COLUMNS:
        assert table[name].equals(given[name])
    alone = OddDecoder(worker.decoder).decode(schema.vectors(given["emb"]), "fra_Latn", np.arange(40))
    assert table["text"].to_pylist() == alone.texts
    np.testing.assert_array_equal(table["score"].to_numpy(), alone.scores)
    np.testing.assert_array_equal(table["n_tokens"].to_numpy(), alone.num_tokens)
    np.testing.assert_array_equal(table["truncated"].to_numpy(), alone.truncated)
    assert table["n_chars"].to_pylist() == [len(text) for text in alone.texts]
    assert set(table["source_lang"].to_pylist()) == {"deu_Latn"}
    assert set(table["source"].to_pylist()) == {SHARD}
    assert output.stats["tokens"] == alone.num_tokens.sum()
    assert output.stats["truncated"] == alone.truncated.sum() > 0
    assert output.stats["score_sum"] == pytest.approx(alone.scores.sum())
    commit = worker.write(output)
    assert (commit.rows_in, commit.rows_done, commit.shards[0].rows) == (40, 40, 40)


def test_what_cannot_be_decoded_is_rejected_and_takes_nothing_with_it(tmp_path: Path) -> None:
    emb = vectors(30)
    emb[3, 2], emb[8, 0] = np.nan, np.inf
    emb[11], emb[12], emb[20], emb[21] = map(vector_of, (RAISES, NO_SCORE, SILENT, RAISES))
    emb[25] = 0  # unusual, but a vector like others
    write(tmp_path, emb)
    output = do(worker_on(tmp_path), 30, skip=(5,))
    table = rows_of(output)
    reasons = {"invalid_embedding": [3, 8], "invalid_score": [12], "decoder_error": [11, 21], "crashed_worker": [5]}
    assert {reject.row: reject.reason for reject in output.rejects} == {
        row: reason for reason, rows in reasons.items() for row in rows
    }
    assert all(reject.doc_id == f"doc-{reject.row // 5}" for reject in output.rejects)
    assert all(reject.sid == reject.row * 7919 - 5000 for reject in output.rejects)
    assert (
        next(reject.error for reject in output.rejects if reject.row == 11) == "ValueError: this vector cannot be said"
    )
    said = dict(zip(table["sid"].to_pylist(), table["text"].to_pylist(), strict=True))
    assert len(said) == 24
    assert [sid for sid, text in said.items() if not text] == [20 * 7919 - 5000]  # it does say nothing: that is kept
    assert output.stats["empty"] == 1


@pytest.mark.parametrize("said", [None, b"bytes", "half a character \ud800"])
def test_what_is_no_text_is_an_error_of_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    emb = vectors(30)
    emb[7] = vector_of(SILENT)
    write(tmp_path, emb)
    worker = worker_on(tmp_path)
    say = OddDecoder._say
    silent = vector_of(SILENT).tobytes()

    def odd(self: OddDecoder, vector: Any, lang: str, key: int) -> tuple[Any, float]:
        text, score = say(self, vector, lang, key)
        return (said, score) if vector.astype(np.float16).tobytes() == silent else (text, score)

    monkeypatch.setattr(OddDecoder, "decode", _told(odd))
    output = do(worker, 30)
    assert rows_of(output).num_rows == 29
    ((reject),) = output.rejects
    assert (reject.row, reject.reason) == (7, "decoder_error")
    assert "instead of a text" in reject.error or "surrogates" in reject.error


def test_a_decoder_that_says_no_texts_at_all_fails_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, vectors(10))
    monkeypatch.setattr(OddDecoder, "decode", _told(lambda self, vector, lang, key: (None, -1.0)))
    with pytest.raises(LcmDataError, match=r"the decoder fails on all 10 vectors of the unit: TypeError: .* gave None"):
        do(worker_on(tmp_path), 10)


def _told(say: Any) -> Any:
    """A ``decode`` that says what ``say`` gives for each vector."""

    def decode(self: OddDecoder, emb: Any, lang: str, keys: Any = None) -> Decoded:
        pairs = [say(self, vector, lang, int(key)) for vector, key in zip(emb, keys if len(emb) else [], strict=True)]
        scores = np.array([score for _, score in pairs], np.float32)
        num_tokens = np.full(len(emb), 3, np.int32)
        return Decoded([text for text, _ in pairs], scores, num_tokens, np.zeros(len(emb), np.bool_))

    return decode


def test_equal_vectors_are_decoded_once(tmp_path: Path) -> None:
    emb = vectors(50)[np.random.default_rng(2).integers(0, 50, 200)]
    emb[100] = emb[101] = vector_of(RAISES)
    num_distinct = len({row.tobytes() for row in emb}) - 1
    write(tmp_path, emb)
    worker = worker_on(tmp_path)
    output = do(worker, 200)
    table = rows_of(output)
    assert [reject.row for reject in output.rejects] == [100, 101]
    assert output.stats["distinct"] == num_distinct < 55
    alone = OddDecoder(worker.decoder).decode(np.delete(emb, [100, 101], 0), "fra_Latn", np.arange(198))
    assert table["text"].to_pylist() == alone.texts
    worker = worker_on(tmp_path)
    part = do(worker, 200, rows=(0, 100))
    assert part.stats["sentences"] == 100 > part.stats["distinct"]
    assert isinstance(worker._decoder, OddDecoder)
    assert len(worker._decoder.decoded) == part.stats["distinct"]


def test_chance_belongs_to_the_row(tmp_path: Path) -> None:
    """Equal vectors are drawn for each row anew, by its id, whatever else is in the unit."""
    given = write(tmp_path, np.repeat(vectors(1), 12, axis=0))
    worker = worker_on(tmp_path, mode="sample", seed=5)
    texts = rows_of(do(worker, 12))["text"].to_pylist()
    assert len(set(texts)) > 6
    alone = OddDecoder(worker.decoder).decode(vectors(1), "fra_Latn", given["sid"].to_numpy()[4:5])
    assert texts[4] == alone.texts[0]


def test_a_decoder_that_fails_on_everything_fails_the_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emb = vectors(20)
    emb[:] = [vector_of(RAISES)] * 20
    write(tmp_path, emb)
    # One distinct vector: it is to blame.
    assert [reject.reason for reject in do(worker_on(tmp_path), 20).rejects] == ["decoder_error"] * 20
    monkeypatch.setenv("ODD_FLAGS", str(tmp_path))
    emb = vectors(20)
    emb[[np.argsort(write(tmp_path, emb)["n_tokens"].to_numpy())[0]]] = vector_of(LOST)
    write(tmp_path, emb)
    with pytest.raises(LcmDataError, match=r"the decoder fails on all 20 vectors.*the device is gone"):
        do(worker_on(tmp_path), 20)


def test_a_device_lost_half_way_blames_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODD_FLAGS", str(tmp_path))
    emb = vectors(20)
    order = np.argsort(write(tmp_path, emb)["n_tokens"].to_numpy(), kind="stable")
    emb[order[5]] = vector_of(LOST)
    write(tmp_path, emb)
    with pytest.raises((RuntimeError, LcmDataError), match="the device is gone"):
        do(worker_on(tmp_path), 20)


@pytest.mark.parametrize("name", ["texts", "scores", "num_tokens", "truncated"])
def test_answers_of_another_number_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One score, say, is not that of all rows."""
    write(tmp_path, vectors(20))
    worker = worker_on(tmp_path)
    whole = OddDecoder.decode

    def short(*given: Any) -> Decoded:
        said = whole(*given)
        return replace(said, **{name: getattr(said, name)[:1]})

    monkeypatch.setattr(OddDecoder, "decode", short)
    with pytest.raises(UsageError, match=rf"the backend gave {name} of shape \[1\], expected \[20\]"):
        do(worker, 20)


def test_no_row_left_is_no_error(tmp_path: Path) -> None:
    write(tmp_path, np.full((4, DIM), np.nan, np.float16))
    output = do(worker_on(tmp_path), 4)
    assert rows_of(output).num_rows == 0
    assert len(output.rejects) == 4


def test_setup_refuses_what_was_not_planned(tmp_path: Path) -> None:
    worker = worker_on(tmp_path)
    worker.metadata["decoder_revision"] = "f" * 64
    with pytest.raises(PlanMismatchError, match="another decoder than the run was planned with"):
        worker.setup()
    worker = worker_on(tmp_path)
    worker.lang = "spa_Latn"
    with pytest.raises(UnknownNameError, match="'spa_Latn'"):
        worker.setup()


def test_a_unit_may_be_some_row_groups(tmp_path: Path) -> None:
    emb = vectors(6000)
    given = write(tmp_path, emb, doc_rows=100)
    from lcm_data.store.files import open_files

    runs = document_groups(open_files(tmp_path / "in"), SHARD)
    assert len(runs) > 3
    assert sum(rows for _, rows in runs) == 6000
    worker = worker_on(tmp_path)
    done = []
    for number, (groups, rows) in enumerate(runs):
        unit = Unit(number, rows, {"shard": SHARD, "groups": [groups.start, groups.stop]})
        ((path, table),) = worker.work(worker.read(Task(unit))).tables.items()
        assert path.endswith(f"part-{number:06d}.parquet")
        assert table.num_rows == rows
        assert table["sent_idx"][0].as_py() == 0  # documents stay whole
        done.append(table)
    assert pa.concat_tables(done)["sid"].equals(given["sid"])


@given(st.lists(st.integers(0, 6), max_size=60), st.sampled_from([np.float16, np.float32]))
def test_distinct_vectors_and_back(numbers: list[int], dtype: type) -> None:
    emb = vectors(7).astype(dtype)[numbers]
    first, inverse = _distinct(emb)
    assert len(first) == len(set(numbers))
    np.testing.assert_array_equal(emb[first][inverse], emb)


@given(st.permutations(range(9)), st.integers(0, 9), st.integers(0, 9))
def test_parts_come_back_in_order(order: list[int], start: int, stop: int) -> None:
    def decoded(some: list[int]) -> Decoded:
        array = np.array(some, np.int32)
        return Decoded([str(i) for i in some], array.astype(np.float32), array, array % 2 == 0)

    parts = [(part, decoded(part)) for part in (order[:start], order[stop:])]
    done = {index for part, _ in parts for index in part}
    said = _in_order(parts, 9)
    assert said.texts == [str(i) if i in done else "" for i in range(9)]
    assert [int(score) if np.isfinite(score) else None for score in said.scores] == [
        i if i in done else None for i in range(9)
    ]
    assert said.num_tokens.tolist() == [i if i in done else 0 for i in range(9)]
