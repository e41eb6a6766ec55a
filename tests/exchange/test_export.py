"""Export: every layout and back gives the same rows, bit for bit; others open it; a killed one never looks whole."""

from __future__ import annotations

import builtins
import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml
from exchanged import Content, content_of, export_to, import_here, table_content, vector_column
from hypothesis import given, settings
from hypothesis import strategies as st

from lcm_data import open_corpus, schema
from lcm_data.errors import CorpusBusyError, InputError, StorageError, UsageError
from lcm_data.exchange.layouts import LAYOUTS
from lcm_data.store.files import LocalFiles
from lcm_data.store.lock import stage_lock
from lcm_models.data import DataConfig
from lcm_models.data.loader import ConceptLoader
from pipelines import export as pipeline
from pipelines.export import CardConfig, ExportConfig, write_corpus_card
from pipelines.export import run as run_export

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6)
DOCUMENTS = st.lists(
    st.tuples(
        IDS,
        st.sampled_from(["eng_Latn", "fra_Latn", "ase_Zxxx"]),
        st.sampled_from(["train", "validation", "test"]),
        st.lists(st.tuples(st.integers(1, 3), TEXTS), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda document: document[:2],
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write_documents(path: Path, documents: list[Any], dim: int, seed: int, dtype: str = "float16") -> None:
    """Documents as rows, positions with gaps, vectors of any length that half floats have."""
    rows: dict[str, list[Any]] = defaultdict(list)
    for doc_id, lang, split, sentences in documents:
        place = -1
        for step, text in sentences:
            place += step
            for name, value in zip(
                ("doc_id", "lang", "split", "sent_idx", "text"), (doc_id, lang, split, place, text), strict=True
            ):
                rows[name].append(value)
    rng = np.random.default_rng(seed)
    x_ND = (rng.standard_normal((len(rows["text"]), dim)) * 10.0 ** rng.integers(-4, 4)).astype(dtype)
    x_ND[:, 0] = np.where(x_ND[:, 0] == 0, 1, x_ND[:, 0])
    pq.write_table(pa.table({**rows, "emb": vector_column(x_ND)}), path)


@settings(max_examples=15)
@given(DOCUMENTS, st.integers(1, 9), st.integers(0, 99), st.integers(1, 6), st.sampled_from(sorted(LAYOUTS)))
def test_there_and_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Any], dim: int, seed: int, unit_rows: int, layout: str
) -> None:
    if layout == "lance":
        pytest.importorskip("lance", reason="needs the extra 'lance'")
    folder = tmp_path_factory.mktemp("there")
    write_documents(folder / "x.parquet", documents, dim, seed)
    import_here(folder / "x.parquet", folder / "first", space="s", unit_rows=unit_rows)
    export_to(folder / "first", folder / "out", layout)
    import_here(folder / "out", folder / "second", unit_rows=7 - unit_rows)
    first, second = open_corpus(folder / "first"), open_corpus(folder / "second")
    assert content_of(folder / "second") == content_of(folder / "first")
    assert len(second.embeddings) == sum(len(sentences) for *_, sentences in documents)
    own = {"plan_hash"}
    assert {k: v for k, v in second.embeddings.metadata.items() if k not in own} == {
        k: v for k, v in first.embeddings.metadata.items() if k not in own
    }


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_float32_and_no_text_there_and_back(tmp_path: Path, layout: str) -> None:
    if layout == "lance":
        pytest.importorskip("lance", reason="needs the extra 'lance'")
    x_ND = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    pq.write_table(pa.table({"id": [*"aaabbcccc"], "emb": vector_column(x_ND)}), tmp_path / "x.parquet")
    import_here(tmp_path / "x.parquet", tmp_path / "first", space="s", lang="en", store_dtype="float32", test=0.5)
    export_to(tmp_path / "first", tmp_path / "out", layout)
    import_here(tmp_path / "out", tmp_path / "second")
    assert open_corpus(tmp_path / "second").embeddings.metadata["store_dtype"] == "float32"
    assert content_of(tmp_path / "second") == content_of(tmp_path / "first")


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_smallest_half_floats_there_and_back(tmp_path: Path, layout: str) -> None:
    """Wider on the way (the official layout has float32), they still are half floats, of which nothing is lost."""
    if layout == "lance":
        pytest.importorskip("lance", reason="needs the extra 'lance'")
    x_ND = np.array([[6e-8, 0], [-6e-8, 3e-7], [65504, -65504], [1e-5, 2e-5]], np.float16)
    assert x_ND[:, 0].all()
    pq.write_table(pa.table({"emb": vector_column(x_ND)}), tmp_path / "x.parquet")
    import_here(tmp_path / "x.parquet", tmp_path / "first", space="s", lang="en")
    export_to(tmp_path / "first", tmp_path / "out", layout)
    import_here(tmp_path / "out", tmp_path / "second")
    assert len(open_corpus(tmp_path / "first").embeddings) == 4
    assert content_of(tmp_path / "second") == content_of(tmp_path / "first")


# --- each layout, opened by others -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory, imported: Path) -> Path:
    out = tmp_path_factory.mktemp("meta") / "for-meta"
    export_to(imported, out, "meta")
    return out


def expected(imported: Path) -> Content:
    """Without ids."""
    return {place: [row[1:] for row in rows] for place, rows in content_of(imported).items()}


def test_meta_is_what_the_official_trainer_reads(meta: Path, imported: Path) -> None:
    card = yaml.safe_load((meta / "datacard.yaml").read_text())
    assert card == {
        "name": "for-meta",
        "parquet_path": {"s3": f"{meta}/data"},
        "source_column": "text_sentences_sonar_emb",
        "source_text_column": "text_sentences",
    }
    # That trainer opens the folder of the card with pyarrow, partitioned, and selects by the partition "split".
    for split in ("train", "validation"):
        data = pq.ParquetDataset(card["parquet_path"]["s3"], filters=ds.field("split") == split)
        table = data.read(columns=[card["source_column"], card["source_text_column"], "doc_id", "lang"])
        assert table.schema.field("text_sentences_sonar_emb").type == pa.list_(pa.list_(pa.float32(), 12))
        assert table.schema.field("text_sentences").type == pa.list_(pa.string())
        found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for row in table.to_pylist():
            assert len(row["text_sentences"]) == len(row["text_sentences_sonar_emb"])
            for text, vector in zip(row["text_sentences"], row["text_sentences_sonar_emb"], strict=True):
                found[row["lang"]].append((row["doc_id"], text, bytes(np.array(vector, np.float16))))
        own = {
            lang: [(row[0], *row[2:]) for row in rows] for (s, lang), rows in expected(imported).items() if s == split
        }
        assert dict(found) == own


def test_meta_trains(meta: Path, imported: Path) -> None:
    common = {"max_len": 8, "batch_rows": 4, "end_of_text": None, "endless": False, "min_len": 1}
    totals = []
    for source in ({"path": str(meta), "kind": "nested"}, {"path": str(imported)}):
        loader = ConceptLoader(DataConfig.model_validate({"sources": [{**source, "splits": ["train"]}], **common}))
        totals.append(np.sort(np.concatenate([b.x_BSD[b.doc_BS >= 0].float().numpy() for b in loader]).ravel()))
    np.testing.assert_array_equal(totals[0], totals[1])


def test_meta_without_text_takes_that_of_the_segments(tmp_path: Path) -> None:
    from jobs import embedded, write_jsonl

    from pipelines import encode, segment
    from pipelines.encode import EncodeConfig
    from pipelines.segment import SegmentConfig

    write_jsonl(tmp_path / "in.jsonl", embedded(["eng_Latn"])[:2])
    how: dict[str, Any] = {"corpus": str(tmp_path / "corpus"), "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(tmp_path / "in.jsonl")], validation=0, test=0, **how))
    encode.run(EncodeConfig(model="one", backend="oddencoder:OddEncoder", text=False, **how))
    export_to(tmp_path / "corpus", tmp_path / "out", "meta", dtype="float16")
    table = pq.ParquetDataset(tmp_path / "out/data").read()
    documents = [document["text"] for document in open_corpus(tmp_path / "corpus").segments.documents()]
    assert table["text_sentences"].to_pylist() == documents
    assert pa.types.is_float16(table.schema.field("text_sentences_sonar_emb").type.value_type.value_type)


def test_hf_opens_by_stage_language_and_split(tmp_path: Path, imported: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'analysis'")
    export_to(imported, tmp_path / "out", "hf", licence="cc-by-4.0", name="Signs")
    write_corpus_card(CardConfig(corpus=str(imported)))
    for place in (tmp_path / "out", imported):
        everything = datasets.load_dataset(str(place))
        assert set(everything) == {"train", "validation", "test"}
        assert sum(map(len, everything.values())) == len(open_corpus(imported).embeddings)
        for (split, lang), rows in expected(imported).items():
            own = datasets.load_dataset(str(place), f"embeddings-{lang}", split=split)
            assert table_content(own.with_format("arrow")[:]) == rows
            assert own.with_format("numpy")[:]["emb"].shape == (len(rows), 12)
            streamed = datasets.load_dataset(str(place), f"embeddings-{lang}", split=split, streaming=True)
            assert [row["text"] for row in streamed] == [row[2] for row in rows]
        segments = datasets.load_dataset(str(place), "segments", split="test")
        assert len(segments) == sum(len(rows) for (split, _), rows in expected(imported).items() if split == "test")
    card = (tmp_path / "out/README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["language"], head["size_categories"]) == (
        "cc-by-4.0",
        ["ase", "eng", "fra"],
        ["n<1K"],
    )
    for words in ("# Signs", "| `fra_Latn` | French |", "space signs-1", "halffloat[12]", "Licence: to be stated"):
        assert words in card


def test_datasets_saved_to_disk_come_back(tmp_path: Path, imported: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'analysis'")
    export_to(imported, tmp_path / "out", "hf", stages=["embeddings"])
    everything = datasets.load_dataset(str(tmp_path / "out"))
    everything.save_to_disk(str(tmp_path / "saved"))
    import_here(tmp_path / "saved", tmp_path / "back", space="signs-1", unit_rows=30)
    assert content_of(tmp_path / "back") == content_of(imported)


def test_nested_arrays_of_datasets_come_in(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'analysis'")
    x_ND = np.arange(24, dtype=np.float32).reshape(2, 3, 4) + 1
    features = datasets.Features({"emb": datasets.Array2D((3, 4), "float32"), "id": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"emb": list(x_ND), "id": ["a", "b"]}, features=features)
    made.to_parquet(str(tmp_path / "x.parquet"))
    made.save_to_disk(str(tmp_path / "saved"))
    for source in ("x.parquet", "saved"):
        out = tmp_path / f"out-{source}"
        import_here(tmp_path / source, out, space="s", lang="en", validation=0, test=0)
        table = open_corpus(out).embeddings.table()
        assert table["doc_id"].to_pylist() == ["a"] * 3 + ["b"] * 3
        assert (schema.vectors(table["emb"]) == x_ND.reshape(6, 4)).all()


def test_npy_maps_into_memory(tmp_path: Path, imported: Path) -> None:
    export_to(imported, tmp_path / "out", "npy", splits=["train"], langs=["fr", "eng_Latn"], dtype="float32")
    found = sorted(path.parent for path in (tmp_path / "out").rglob("emb.npy"))
    assert [str(path.relative_to(tmp_path / "out")) for path in found] == [
        "embeddings/split=train/lang=eng_Latn",
        "embeddings/split=train/lang=fra_Latn",
    ]
    for place in found:
        x_ND = np.load(place / "emb.npy", mmap_mode="r")
        rows = pq.read_table(place / "rows.parquet", partitioning=None)
        assert isinstance(x_ND, np.memmap)
        assert x_ND.dtype == np.float32
        table = rows.append_column("emb", vector_column(x_ND.astype(np.float16)))
        assert table_content(table) == expected(imported)["train", place.name.removeprefix("lang=")]


def test_lance_opens_and_searches(tmp_path: Path, imported: Path) -> None:
    lance = pytest.importorskip("lance", reason="needs the extra 'lance'")
    export_to(imported, tmp_path / "out", "lance", stages=["embeddings", "segments"])
    data = lance.dataset(str(tmp_path / "out/embeddings.lance"))
    own = expected(imported)["train", "fra_Latn"]
    assert table_content(data.to_table(filter="lang = 'fra_Latn' AND split = 'train'")) == own
    query = np.frombuffer(own[5][3], np.float16)
    nearest = data.to_table(
        nearest={"column": "emb", "q": query, "k": 1}, columns=["doc_id", "sent_idx", "_distance"]
    ).to_pylist()[0]
    assert (nearest["doc_id"], nearest["sent_idx"]) == own[5][:2]
    assert lance.dataset(str(tmp_path / "out/segments.lance")).count_rows() == data.count_rows()


def test_without_lance_the_error_says_what_to_install(
    tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "lance":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r"needs the package 'pylance'.*pip install 'lcm-data\[lance\]'"):
        export_to(imported, tmp_path / "out", "lance")
    assert list(tmp_path.iterdir()) == []


def test_codes_go_along(tmp_path: Path, imported: Path) -> None:
    import shutil

    from pipelines.quantize import QuantizeConfig
    from pipelines.quantize import run as quantize

    shutil.copytree(imported, tmp_path / "corpus")
    quantize(QuantizeConfig(corpus=str(tmp_path / "corpus"), levels=2, units=4, executor="local", threads=1))
    export_to(tmp_path / "corpus", tmp_path / "out", "npy", stages=["codes", "embeddings"])
    codes = np.load(tmp_path / "out/codes/split=test/lang=fra_Latn/codes.npy")
    own = open_corpus(tmp_path / "corpus").codes.table(langs=["fra_Latn"], splits=["test"])
    assert (codes == schema.vectors(own["codes"])).all()
    import_here(tmp_path / "out/embeddings", tmp_path / "back")
    assert content_of(tmp_path / "back") == content_of(imported)
    export_to(tmp_path / "corpus", tmp_path / "hf", "hf")
    import_here(tmp_path / "hf", tmp_path / "again")  # sentences and codes beside the vectors are left alone
    assert content_of(tmp_path / "again") == content_of(imported)


# --- whole or not there ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process had ended here."""


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("layout", ["meta", "hf", "npy"])
def test_killed_anywhere_it_goes_on(
    tmp_path: Path, imported: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_to(imported, tmp_path / "whole" / "out", layout)
    whole, original = files_of(tmp_path / "whole/out"), LocalFiles.publish
    for last in (0, 1, 5):
        left = [last]

        def publish(self: LocalFiles, local: Path, path: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            original(self, local, path)

        with monkeypatch.context() as patch:
            patch.setattr(LocalFiles, "publish", publish)
            with pytest.raises(Killed):
                export_to(imported, tmp_path / "out", layout)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.unfinished/export.json").exists()
    report = export_to(imported, tmp_path / "out", layout)
    assert report.files_done == report.files - 6
    assert files_of(tmp_path / "out").keys() == whole.keys()
    for name, data in files_of(tmp_path / "out").items():
        assert data.replace(str(tmp_path / "out").encode(), b"") == whole[name].replace(
            str(tmp_path / "whole/out").encode(), b""
        ), name
    assert not (tmp_path / "out.unfinished").exists()


def test_killed_before_it_gets_its_name(tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(building: Path, out: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_rename", rename)
        with pytest.raises(Killed):
            export_to(imported, tmp_path / "out", "meta")
    assert not (tmp_path / "out").exists()
    assert export_to(imported, tmp_path / "out", "meta").files_done == 0
    assert "export.json" in files_of(tmp_path / "out")
    assert not (tmp_path / "out.unfinished").exists()


def test_a_killed_export_of_something_else_is_not_gone_on_with(
    tmp_path: Path, imported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "_rename", lambda building, out: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            export_to(imported, tmp_path / "out", "meta")
    report = export_to(imported, tmp_path / "out", "npy", splits=["test"])
    assert report.files_done == report.files
    assert {name.split("/")[0] for name in files_of(tmp_path / "out")} == {"embeddings", "export.json"}


def test_nothing_is_overwritten_unasked(tmp_path: Path, imported: Path) -> None:
    export_to(imported, tmp_path / "out", "npy")
    assert export_to(imported, tmp_path / "out", "npy").files_done == 0
    with pytest.raises(UsageError, match=r"holds an export of other data or with other settings. Add --overwrite"):
        export_to(imported, tmp_path / "out", "npy", splits=["test"])
    assert export_to(imported, tmp_path / "out", "meta", overwrite=True).files_done > 0
    assert {name.split("/")[0] for name in files_of(tmp_path / "out")} == {"data", "datacard.yaml", "export.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"holds files that are no export, such as thesis\.txt"):
            export_to(imported, tmp_path / "mine", "npy", overwrite=overwrite)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layout": "csv"}, "unknown layout 'csv'.*Known: hf, lance, meta, npy"),
        ({"stages": ["segments"]}, "the layout meta holds embeddings, not 'segments'"),
        ({"layout": "npy", "stages": ["codes"]}, "codes holds no finished stage"),
        ({"langs": ["spa_Latn"]}, "no language 'spa_Latn'"),
        ({"splits": ["dev"]}, "no split 'dev'"),
        ({"layout": "lance", "out": "memory://x/out"}, "a Lance dataset is written to a local disk"),
        ({"layout": "hf", "dtype": "float32"}, "keeps the numbers as they are"),
    ],
)
def test_wrong_settings_leave_nothing_behind(
    tmp_path: Path, imported: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_export(
            ExportConfig(**{"corpus": str(imported), "out": str(tmp_path / "out"), "layout": "meta", **settings})
        )
    assert list(tmp_path.iterdir()) == []


def test_a_place_in_the_corpus_is_refused(tmp_path: Path, imported: Path) -> None:
    for place in (imported, imported / "out", imported.parent):
        with pytest.raises(UsageError, match=r"lies in it or around it.*lcm-data card"):
            export_to(imported, place, "hf")
    with pytest.raises(InputError, match="is not a corpus"):
        export_to(tmp_path, tmp_path / "out", "hf")


def test_two_at_once_are_not(tmp_path: Path, imported: Path) -> None:
    with stage_lock(LocalFiles(str(tmp_path / "out.unfinished"))), pytest.raises(CorpusBusyError):
        export_to(imported, tmp_path / "out", "meta")


def test_to_an_object_store_and_back(tmp_path: Path, imported: Path, bucket: str) -> None:
    import fsspec

    export_to(imported, f"{bucket}/out", "npy")
    record = json.loads(fsspec.filesystem("s3").cat_file(f"{bucket}/out/export.json"))
    assert record["rows"] == {"embeddings": len(open_corpus(imported).embeddings)}
    assert export_to(imported, f"{bucket}/out", "npy").files_done == 0
    import_here(f"{bucket}/out", f"{bucket}/back")
    assert content_of(f"{bucket}/back") == content_of(imported)


# --- the card in place -----------------------------------------------------------------------------------------------


def test_a_readme_of_somebody_else_is_kept(tmp_path: Path, imported: Path) -> None:
    import shutil

    shutil.copytree(imported, tmp_path / "corpus")
    (tmp_path / "corpus/README.md").write_text("# My corpus")
    with pytest.raises(UsageError, match=r"README.md was not written by lcm-data. Move it away, or add --overwrite"):
        write_corpus_card(CardConfig(corpus=str(tmp_path / "corpus")))
    write_corpus_card(CardConfig(corpus=str(tmp_path / "corpus"), overwrite=True))
    write_corpus_card(CardConfig(corpus=str(tmp_path / "corpus"), licence="cc0-1.0"))  # ours is written anew
    assert "license: cc0-1.0" in (tmp_path / "corpus/README.md").read_text()


def test_what_lies_beside_an_export_is_not_swept_away(tmp_path: Path, imported: Path) -> None:
    for beside in ("out.unfinished", "out.replaced"):
        (tmp_path / beside).mkdir()
        (tmp_path / beside / "thesis.txt").write_text("years of work")
        with pytest.raises(UsageError, match=rf"{beside} holds files that are no export, such as thesis\.txt"):
            export_to(imported, tmp_path / "out", "npy", overwrite=True)
        shutil.rmtree(tmp_path / beside)
    corpus = shutil.copytree(imported, tmp_path / "out.unfinished")
    with pytest.raises(UsageError, match="lies in it or around it"):
        export_to(corpus, tmp_path / "out", "npy")
    assert files_of(corpus).keys() == files_of(imported).keys()


def test_an_export_is_there_even_if_another_was_faster(tmp_path: Path, imported: Path) -> None:
    """The second of two runs found nothing to rename: what the first made stays."""
    export_to(imported, tmp_path / "out", "npy")
    with pytest.raises(StorageError):
        pipeline._rename(tmp_path / "out.unfinished", tmp_path / "out")
    assert (tmp_path / "out/export.json").exists()


@pytest.mark.parametrize("layout", ["meta", "npy"])
def test_numbers_that_a_type_cannot_hold_are_not_written(tmp_path: Path, layout: str) -> None:
    x_ND = np.ones((40, 8), np.float32)
    x_ND[3], x_ND[5] = 1e6, 1e-9
    np.save(tmp_path / "x.npy", x_ND)
    import_here(tmp_path / "x.npy", tmp_path / "c", lang="eng_Latn", space="s", store_dtype="float32")
    with pytest.raises(UsageError, match=r"float16 cannot hold \d of its vectors"):
        export_to(tmp_path / "c", tmp_path / "out", layout, dtype="float16")
    assert not (tmp_path / "out").exists()
