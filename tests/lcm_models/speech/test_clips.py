"""What a table of clips, or a corpus with speech, says; and rows that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from speechcorpus import Spoken, write_segments

from lcm_data.errors import InputError
from lcm_models.speech.clips import Clip, read_clips

ROW = {"audio": "a/1.wav", "lang": "eng_Latn", "text": "a  red\nhouse"}


def table(folder: Path, *rows: object) -> str:
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def test_paths_are_relative_to_the_table(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "audio": "/b/2.wav"}, {**ROW, "audio": "s3://bucket/3.wav"}]
    uris = [clip.uri for clip in read_clips(table(tmp_path, *rows))]
    assert uris == [str(tmp_path / "a/1.wav"), "/b/2.wav", "s3://bucket/3.wav"]


def test_what_a_row_says(tmp_path: Path) -> None:
    row = {**ROW, "start": 1, "end": "2.5", "channel": 1, "fra_Latn": "une maison rouge", "deu_Latn": None, "id": 7}
    (clip,) = read_clips(table(tmp_path, row))
    texts = {"eng_Latn": "a red house", "fra_Latn": "une maison rouge"}
    assert clip == Clip(str(tmp_path / "a/1.wav"), 1, 1.0, 2.5, "eng_Latn", texts)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "clips.csv"
    path.write_text("audio,lang,text,start,end\n1.wav,en,a house,,\n2.wav,fr,une maison,0.5,1.5\n", "utf-8")
    first, second = read_clips(str(path))
    assert (first.lang, first.start, second.lang, second.end) == ("eng_Latn", None, "fra_Latn", 1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": None}, "its audio is None"),
        ({"lang": "xyz"}, "xyz"),
        ({"text": 3}, "its text in eng_Latn is a int"),
        ({"start": 1}, "start and end belong together"),
        ({"start": "soon", "end": 2}, "its start is 'soon', not a number"),
    ],
)
def test_rows_that_are_no_clips(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=rf"row 2 of .*{message}.*Columns: audio"):
        list(read_clips(table(tmp_path, ROW, {**ROW, **change})))


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has no 'lang'"):
        list(read_clips(table(tmp_path, {"audio": "1.wav", "text": "a"})))


def test_a_corpus_gives_the_rows_of_speech_whose_words_are_known(tmp_path: Path) -> None:
    rows = [
        Spoken("/a.wav", 0.5, 1.5, text="one two"),
        "a sentence",
        Spoken("/a.wav", 2, 3),
        Spoken("/b.wav", 0, 1, 1, "x"),
    ]
    write_segments(tmp_path / "corpus", {"eng_Latn": rows})
    found = list(read_clips(str(tmp_path / "corpus")))
    assert found == [
        Clip("/a.wav", None, 0.5, 1.5, "eng_Latn", {"eng_Latn": "one two"}),
        Clip("/b.wav", 1, 0.0, 1.0, "eng_Latn", {"eng_Latn": "x"}),
    ]
