"""The verb ``search``: the sentences of a corpus nearest to a question, across languages."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from typing import Annotated, Any

import typer

from lcm_data.cli.options import CorpusArgument, JsonOption, given, option

_filter = partial(option, panel="Which sentences")
_model = partial(option, panel="Encoder")


def register(app: typer.Typer) -> None:
    """Add the verb to the application."""
    app.command(rich_help_panel="Look", no_args_is_help=True)(search)


def search(
    corpus: CorpusArgument,
    text: Annotated[str | None, typer.Argument(help="What to look for, in words.", show_default=False)] = None,
    audio: Annotated[str | None, option("Look for what is said in this recording.", flags="--audio")] = None,
    lang: Annotated[str | None, option("Language of the question; not needed if the corpus has only one.")] = None,
    k: Annotated[int | None, option("Rows to find.", default="10", flags="-k")] = None,
    within: Annotated[list[str] | None, _filter("Only in this language; repeatable.", flags="--within")] = None,
    split: Annotated[list[str] | None, _filter("Only in this split; repeatable.")] = None,
    where: Annotated[str | None, _filter('Only where this SQL is true, as in "length(text) > 20".')] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Look at every vector, however many.")] = False,
    index: Annotated[str | None, option("flat, ivf, or auto: by size and memory.", default="auto")] = None,
    model: Annotated[str | None, _model("Of the question; by default the one the corpus names.")] = None,
    backend: Annotated[str | None, _model("By default as for the corpus.")] = None,
    prompt: Annotated[str | None, _model("Put before the question; by default as for the corpus.")] = None,
    speech_model: Annotated[str | None, _model("Of a recording; by default that of the corpus.")] = None,
    speech_backend: Annotated[str | None, _model("Of the speech encoder.")] = None,
    device: Annotated[str | None, _model("auto, cpu or cuda.", default="auto")] = None,
    json: JsonOption = False,
) -> None:  # fmt: skip
    """Find the sentences nearest to a question, in all languages of a corpus.

    The index is made on the first search, and kept in CORPUS/search.

    Example: lcm-data search my-corpus "How do I print?" --lang eng_Latn --within fra_Latn
    """
    from lcm_data.cli import render
    from pipelines import search as pipeline
    from pipelines.config import load_config

    values = given(
        text=text, audio=audio, lang=lang, k=k, within=within, split=split, where=where, exact=exact, index=index,
        model=model, backend=backend, prompt=prompt, speech_model=speech_model, speech_backend=speech_backend,
        device=device,
    )  # fmt: skip
    with contextlib.redirect_stdout(sys.stderr):
        result = pipeline.run(load_config(pipeline.SearchConfig, None, {"corpus": corpus, **values}))
    if json:
        render.as_json(result)
        return
    _show(result)


def _show(result: dict[str, Any]) -> None:
    from lcm_data.cli import render

    hits = result["hits"]
    if not hits:
        print(f"none of the {result['rows']:,} sentences passes the filters")
        return
    columns = ["rank", "score", "lang", "document", "position", "text"]
    rows = [
        (hit["rank"], f"{hit['score']:.3f}", hit["lang"], hit["doc_id"], hit["sent_idx"], _said(hit)) for hit in hits
    ]
    render.table(f"Nearest to: {result['query']}", columns, rows, numbers=["rank", "score", "position"])
    print(_how(result))


def _said(hit: dict[str, Any]) -> str:
    """The sentence, or where it is said."""
    from lcm_data.schema import SPEECH_COLUMNS

    uri, _, start, end, *_ = (hit.get(name) for name in SPEECH_COLUMNS)
    place = f"{uri} {start:.2f} to {end:.2f} s" if uri is not None and start is not None and end is not None else ""
    return " ".join(part for part in (hit["text"], f"({place})" if place else "") if part)


def _how(result: dict[str, Any]) -> str:
    facts = result["index"]
    among = f"{result['rows']:,} sentences"
    if result["matching"] < result["rows"]:
        among = f"the {result['matching']:,} of {among} that pass the filters"
    how = "exact" if result["exact"] else f"{facts['probes']} of {facts['lists']} lists, recall {facts['recall']:.3f}"
    built = f", built in {result['seconds']['index']:.1f} s" if facts["built_now"] else ""
    return f"among {among}; {how} (index {facts['kind']}{built}); {result['seconds']['search'] * 1000:.0f} ms"
