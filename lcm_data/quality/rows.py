"""The rows of files that hold translations, one after the other: of tables, and of text files line by line.

Only reading; sampling and what becomes of blank texts is in ``aligned``.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import posixpath
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from lcm_data.documents.inputs import file_format
from lcm_data.documents.streams import file_system, read_chunks, storage_errors
from lcm_data.errors import InputError
from lcm_data.languages import LANGUAGE_NAMES, parse_language

_PACKED = {".gz": "gz", ".zst": "zst"}
_LANG, _TEXT = "lang", "text"
_SIDES = {"en": "eng_Latn"}
"""Short names of the other side of a table of pairs; FLORES-200 codes are taken, too."""

_LAYOUTS = (
    "Allowed: a table with columns named by FLORES-200 codes (eng_Latn, fra_Latn, ...), or a table of pairs with the "
    "columns lang, text and en"
)


def table_rows(uri: str) -> Iterator[dict[str, str | None]]:
    """The texts by language of each row of a .jsonl, .csv, .tsv or .parquet file.

    Raises:
        InputError: the file cannot be read, is no table, or has no columns that name languages.
    """
    found = file_format(uri)
    assert found is not None, uri
    if found[0] == "text":
        raise InputError(
            f"{uri!r} is one text file, and translations need more. {_LAYOUTS}, or a folder of text files."
        )
    records = table_records(uri, {_LANG, _TEXT, *_SIDES, *LANGUAGE_NAMES})
    first = next(records, None)
    if first is None:
        raise InputError(f"{uri!r} has no rows. {_LAYOUTS}.")
    columns = _language_columns(first)
    is_pairs = {_LANG, _TEXT} <= first.keys()
    if len(columns) != 1 if is_pairs else not columns:
        listed = ", ".join(map(str, first))[:300]
        raise InputError(f"{uri!r} has the columns {listed}: no layout of translations. {_LAYOUTS}.")
    for number, record in enumerate(itertools.chain([first], records), 1):
        try:
            yield _pair(record) if is_pairs else _texts(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"row {number:,} of {uri!r} cannot be used: {error}. Mend or remove it.") from error


def table_records(uri: str, columns: Container[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a .jsonl, .csv, .tsv or .parquet file as they are; of a .parquet file only ``columns``.

    Raises:
        InputError: the file cannot be read, or is no table.
    """
    found = file_format(uri)
    if found is None or found[0] == "text":
        raise InputError(f"{uri!r} is no table. Allowed: .jsonl, .csv, .tsv (also .gz and .zst) and .parquet.")
    kind, compression = found
    return _parquet(uri, columns) if kind == "parquet" else _READERS[kind](uri, compression)


def _language_columns(record: Mapping[str, Any]) -> dict[str, str]:
    """The language of every column that is named by one."""
    return {name: _SIDES.get(name, name) for name in record if name in LANGUAGE_NAMES or name in _SIDES}


def _texts(record: Mapping[str, Any]) -> dict[str, str | None]:
    return {lang: _text_of(record[name]) for name, lang in _language_columns(record).items()}


def _pair(record: Mapping[str, Any]) -> dict[str, str | None]:
    texts, lang = _texts(record), parse_language(str(record[_LANG]))
    if lang in texts:
        raise ValueError(f"both sides are {lang}")
    return texts | {lang: _text_of(record[_TEXT])}


def line_rows(pattern: str) -> Iterator[dict[str, str | None]]:
    """The texts by language of each line of the files that a folder holds or a glob matches.

    Raises:
        InputError: no files named by FLORES-200 codes, several for one language, or of different lengths.
    """
    files = _line_files(pattern)
    streams = {lang: _lines(uri, compression) for lang, (uri, compression) in files.items()}
    for number, lines in enumerate(itertools.zip_longest(*streams.values())):
        ended = [lang for lang, line in zip(streams, lines, strict=True) if line is None]
        if ended:
            raise InputError(
                f"the files of {pattern!r} do not correspond: {', '.join(ended)} ends after {number:,} lines, "
                "others go on. Line n of every file must be the same sentence."
            )
        yield dict(zip(streams, lines, strict=True))


def _line_files(pattern: str) -> dict[str, tuple[str, str | None]]:
    """By language the path or URL of its file and the compression."""
    fs, path = file_system(pattern)
    with storage_errors(pattern):
        if "*" in path:
            names = fs.glob(path)
        elif fs.isdir(path):
            names = fs.ls(path, detail=False)
        else:
            raise InputError(
                f"{pattern!r} is neither a folder nor a file of a known format (.jsonl, .csv, .tsv, .parquet, also "
                f".gz and .zst), nor a corpus with embeddings. {_LAYOUTS}, or a folder of <language>.txt files."
            )
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        lang = posixpath.basename(name).partition(".")[0]
        if lang in LANGUAGE_NAMES:
            found.setdefault(lang, []).append(name)
    if not found:
        raise InputError(
            f"{pattern!r} has no files named by a FLORES-200 code, such as eng_Latn.txt or fra_Latn.dev. "
            "If they are in a folder inside it, give that one."
        )
    for lang, several in found.items():
        if len(several) > 1:
            listed = ", ".join(posixpath.basename(name) for name in several)
            raise InputError(f"{pattern!r} has more than one file of {lang}: {listed}. Give a glob such as '*.dev'.")
    return {
        lang: (str(fs.unstrip_protocol(name)), _PACKED.get(posixpath.splitext(name)[1]))
        for lang, (name,) in found.items()
    }


def _lines(uri: str, compression: str | None) -> Iterator[str]:
    """Lines without their ends; only a newline ends one (texts may hold other separators)."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    rest = ""
    try:
        for chunk in itertools.chain(read_chunks(uri, compression), [b""]):
            *lines, rest = (rest + decoder.decode(chunk, final=not chunk)).split("\n")
            yield from (line.removesuffix("\r") for line in lines)
    except UnicodeDecodeError as error:
        raise InputError(f"{uri!r} is not UTF-8: {error}. Convert it first.") from error
    if rest:
        yield rest


def _json_lines(uri: str, compression: str | None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(uri, compression), 1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise InputError(f"line {number:,} of {uri!r} is not JSON: {error}.") from error
        if not isinstance(record, dict):
            raise InputError(f"line {number:,} of {uri!r} is {type(record).__name__}, expected an object.")
        yield record


def _delimited(uri: str, records: Iterable[Sequence[str]]) -> Iterator[dict[str, Any]]:
    rows = iter(records)
    try:
        header = next(rows, [])
        for number, values in enumerate(rows, 2):
            if values and len(values) != len(header):
                raise InputError(f"record {number:,} of {uri!r} has {len(values)} fields, the header {len(header)}.")
            if values:
                yield dict(zip(header, values, strict=True))
    except csv.Error as error:
        raise InputError(f"{uri!r} is no sound CSV: {error}.") from error


def _csv(uri: str, compression: str | None) -> Iterator[dict[str, Any]]:
    lines = (line + "\n" for line in _lines(uri, compression))
    return _delimited(uri, csv.reader(lines, strict=True))


def _tsv(uri: str, compression: str | None) -> Iterator[dict[str, Any]]:
    """Without quoting, as everywhere here: a quote is a character like any other."""
    return _delimited(uri, (line.split("\t") for line in _lines(uri, compression)))


_READERS = {"jsonl": _json_lines, "csv": _csv, "tsv": _tsv}


def _parquet(uri: str, wanted: Container[str] | None) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fs, path = file_system(uri)
    with storage_errors(uri), fs.open(path, "rb") as stream:
        try:
            file = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise InputError(f"{uri!r} is not a Parquet file: {error}.") from error
        columns = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
        if not columns:
            raise InputError(f"{uri!r} has the columns {', '.join(file.schema_arrow.names)[:300]}. {_LAYOUTS}.")
        for batch in file.iter_batches(1024, columns=columns):
            yield from batch.to_pylist()


def _text_of(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"its text is a {type(value).__name__}")
    return value
