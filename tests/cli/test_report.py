"""``stats`` and ``report``: the numbers are those of the rows, and the page is safe, whole, offline and readable."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import copy, write_jsonl

pytest.importorskip("jinja2", reason="needs the extra 'analysis'")

from lcm_data.corpus import open_corpus
from pipelines import encode, quantize, report, segment
from pipelines.encode import EncodeConfig
from pipelines.quantize import QuantizeConfig
from pipelines.report import ReportConfig
from pipelines.segment import SegmentConfig
from pipelines.statistics import corpus_statistics

EVIL = '<script>document.title=\'owned\';window.owned=1</script><img src=x onerror="window.owned=1"> & "quoted" text.'
ARABIC = "انقر على الزر لطباعة هذا المستند مرة واحدة فقط من فضلك."
SECTIONS = ("languages", "distributions", "rejects", "space", "nearness", "neighbours", "codebook", "provenance")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose texts and ids try to be markup; in three languages, one of them written from the right."""
    folder = tmp_path_factory.mktemp("hostile")
    texts = {"eng_Latn": EVIL, "fra_Latn": "Une phrase assez longue pour la page, numéro {n}.", "deu_Latn": ARABIC}
    rows = [
        {"id": f"<b>{n}</b>", "lang": lang, "text": text.replace("{n}", str(n)) + f" Number {n}."}
        for lang, text in texts.items()
        for n in range(30)
    ]
    source = write_jsonl(folder / "<i>docs.jsonl", [*rows, {"id": "none", "lang": "eng_Latn", "text": None}])
    how = {"corpus": str(folder / "corpus"), "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(source)], validation=0.2, test=0, **how))
    encode.run(EncodeConfig(backend="oddencoder:OddEncoder", model="one", **how))
    quantize.run(QuantizeConfig(levels=2, units=8, iterations=2, **how))
    return folder / "corpus"


@pytest.fixture(scope="session")
def page(hostile: Path) -> Path:
    out = hostile.parent / "report.html"
    report.run(ReportConfig(corpus=str(hostile), out=str(out), title="<u>Title</u> & more"))
    return out


# --- stats ----------------------------------------------------------------------------------------------------------


def test_stats_are_those_of_the_rows(call: Callable[..., Any], finished: Path) -> None:
    result = call("stats", finished, "--json").json
    stages = {stage["stage"]: stage for stage in result["stages"]}
    assert list(stages) == ["segments", "embeddings", "codes"]
    columns = {"segments": {"chars": "n_chars"}, "embeddings": {"tokens": "n_tokens", "norm": "norm"}}
    for name, measures in columns.items():
        for part in [
            *stages[name]["parts"],
            *stages[name]["languages"],
            *stages[name]["splits"],
            stages[name]["total"],
        ]:
            where = {"langs": [part["lang"]] if "lang" in part else None}
            where["splits"] = [part["split"]] if "split" in part else None
            table = getattr(open_corpus(finished), name).table(**where)
            assert part["sentences"] == len(table)
            places = zip(table["lang"].to_pylist(), table["doc_id"].to_pylist(), strict=True)
            assert part["documents"] == len(set(places))
            for label, column in measures.items():
                values = table[column].to_numpy().astype(float)
                spread = part["measures"][label]
                assert spread["count"] == len(values)
                assert (spread["min"], spread["max"]) == pytest.approx((values.min(), values.max()))
                assert (spread["mean"], spread["std"]) == pytest.approx((values.mean(), values.std()), rel=1e-4)
                for share in (5, 50, 95):
                    truth = np.percentile(values, share, method="inverted_cdf")
                    assert spread[f"p{share}"] == pytest.approx(truth, rel=1e-3), (label, share)
    assert stages["segments"]["rejects"] == {"null_text": 1, "wrong_type": 1}
    text = call("stats", finished, "--stage", "segments").out
    assert text.startswith("segments: ")
    assert "rejected: null_text 1, wrong_type 1" in text


def test_stats_of_a_part(call: Callable[..., Any], finished: Path) -> None:
    result = call("stats", finished, "--lang", "fra_Latn", "--split", "train", "--json").json
    assert {(part["lang"], part["split"]) for stage in result["stages"] for part in stage["parts"]} == {
        ("fra_Latn", "train")
    }
    assert "no language 'deu_Latn'" in call("stats", finished, "--lang", "deu_Latn", code=2).err
    assert "unknown stage 'nosuch'" in call("stats", finished, "--stage", "nosuch", code=2).err


def test_documents_longer_than_a_row_group_are_one(tmp_path: Path) -> None:
    source = write_jsonl(
        tmp_path / "docs.jsonl", [{"id": "long", "lang": "eng_Latn", "text": "A sentence here. " * 5000}]
    )
    corpus = str(tmp_path / "corpus")
    segment.run(SegmentConfig(inputs=[str(source)], corpus=corpus, executor="local", validation=0, test=0))
    (stage,) = corpus_statistics(corpus)["stages"]
    assert (stage["total"]["documents"], stage["total"]["sentences"]) == (1, 5000)


def test_rejects_by_language(tmp_path: Path) -> None:
    rows = [{"id": str(n), "lang": "eng_Latn", "text": "Some NAN here." if n < 3 else "Fine."} for n in range(40)]
    source = write_jsonl(tmp_path / "docs.jsonl", rows)
    how = {"corpus": str(tmp_path / "corpus"), "executor": "local"}
    segment.run(SegmentConfig(inputs=[str(source)], validation=0, test=0, **how))
    encode.run(EncodeConfig(backend="oddencoder:OddEncoder", model="one", **how))
    stage = corpus_statistics(how["corpus"], "embeddings")["stages"][0]
    assert [(part["lang"], part["rejects"]) for part in stage["parts"]] == [("eng_Latn", {"invalid_embedding": 3})]


# --- the page as text -----------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: Path) -> Tags:
    tags = Tags()
    tags.feed(page.read_text("utf-8"))
    return tags


def test_texts_are_no_markup(page: Path) -> None:
    tags = parsed(page)
    names = {tag for tag, _ in tags.tags}
    assert not names & {"script", "img", "b", "i", "u", "iframe", "object"}
    assert not [attrs for _, attrs in tags.tags if any(name.startswith("on") for name in attrs)]
    assert "<script>document.title" in tags.text  # it is there to be read
    assert "<u>Title</u> & more" in tags.text
    links = [attrs.get("href") or "" for _, attrs in tags.tags if "href" in attrs]
    assert all(link.startswith(("#", "data:,")) for link in links)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page.read_text("utf-8")).replace("http://www.w3.org", "")


def test_the_page_has_every_section_and_is_accessible(page: Path) -> None:
    tags = parsed(page)
    ids = [attrs["id"] for _, attrs in tags.tags if "id" in attrs]
    assert set(SECTIONS) <= set(ids)
    assert len(ids) == len(set(ids))
    levels = [int(tag[1]) for tag, _ in tags.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all(attrs.get("aria-label") for tag, attrs in tags.tags if tag == "svg")
    assert all(attrs.get("scope") for tag, attrs in tags.tags if tag == "th")
    assert sum(tag == "table" for tag, _ in tags.tags) == sum(tag == "caption" for tag, _ in tags.tags)
    assert all(attrs.get("dir") == "auto" for tag, attrs in tags.tags if tag == "blockquote")
    for fact in ("null text", "30", "eng_Latn", "oddencoder", "sha256"):
        assert fact in tags.text, fact


def test_the_same_corpus_gives_the_same_page(hostile: Path, page: Path) -> None:
    again = page.with_name("again.html")
    report.run(ReportConfig(corpus=str(hostile), out=str(again), title="<u>Title</u> & more"))
    assert again.read_bytes() == page.read_bytes()


def test_parts_that_are_not_there_are_left_out(hostile: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    corpus = copy(hostile, tmp_path / "corpus")
    shutil.rmtree(corpus / "codes")
    out = tmp_path / "report.html"
    result = call("report", corpus, "-o", out, "--json").json
    assert result["bytes"] == out.stat().st_size
    ids = {attrs.get("id") for _, attrs in parsed(out).tags}
    assert ids & set(SECTIONS) == set(SECTIONS) - {"codebook"}
    assert "exists. Name another file, or add --overwrite" in call("report", corpus, "-o", out, code=2).err
    shutil.rmtree(corpus / "embeddings")
    call("report", corpus, "-o", out, "--overwrite", "-q")
    ids = {attrs.get("id") for _, attrs in parsed(out).tags}
    assert ids & set(SECTIONS) == {"languages", "distributions", "rejects", "provenance"}
    assert "is not a corpus" in call("report", tmp_path / "nosuch", code=2).err


@pytest.mark.parametrize("dim", [1, 5])
def test_a_language_of_one_sentence_and_vectors_of_one_number(tmp_path: Path, dim: int) -> None:
    from vectorcorpus import write_vectors

    rng = np.random.default_rng(0)
    parts = {
        ("train", "eng_Latn"): rng.standard_normal((1, dim)),
        ("train", "fra_Latn"): rng.standard_normal((40, dim)),
    }
    corpus = write_vectors(tmp_path / "c", parts)
    report.run(ReportConfig(corpus=str(corpus), out=str(tmp_path / "page.html")))
    text = (tmp_path / "page.html").read_text()
    assert "English, English: no other sentence" in text
    assert "nan" not in re.sub(r"[a-z]+nan[a-z]*|nan[a-z]+", "", text.lower())


def test_the_command_of_a_run_is_on_the_page(tmp_path: Path) -> None:
    from jobs import cli

    source = write_jsonl(tmp_path / "docs.jsonl", [{"id": "1", "lang": "eng_Latn", "text": "Hello there."}])
    script = tmp_path / "cli.py"
    script.write_text("from lcm_data.cli import main; main()")
    import subprocess
    import sys

    command = [sys.executable, str(script), "segment", str(source), str(tmp_path / "corpus"), "--validation", "0"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": os.getcwd()})
    (record,) = (tmp_path / "corpus/segments/_lcm/runs").iterdir()
    run = json.loads(record.read_text())
    assert run["command"] == f"lcm-data segment {source} {tmp_path / 'corpus'} --validation 0"
    assert run["units"] == 1
    assert {"lcm-data", "numpy"} <= set(run["versions"])
    cli("report", tmp_path / "corpus", "-o", tmp_path / "r.html", "-q")
    assert run["command"] in parsed(tmp_path / "r.html").text


# --- the page in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright (make setup)")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with api.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (1280, "light"), (1280, "dark")])
def test_in_a_browser(browser: Any, page: Path, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(page.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("window.owned") is None
    assert tab.title().startswith("<u>Title</u> & more")
    for section in SECTIONS:
        assert tab.locator(f"#{section}").is_visible(), section
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 150) == (scheme == "dark")
    context.close()


def test_text_from_the_right_and_hiding_a_language(browser: Any, page: Path) -> None:
    tab = browser.new_page()
    tab.goto(page.as_uri())
    arabic = tab.locator("article p, article blockquote").filter(has_text="انقر").first
    assert arabic.evaluate("element => element.matches(':dir(rtl)')")
    points = tab.locator(".plot use").first
    assert points.is_visible()
    tab.locator("#c0").uncheck()
    assert not points.is_visible()
    tab.close()


def test_it_prints(browser: Any, page: Path, tmp_path: Path) -> None:
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 30
    tab.close()
