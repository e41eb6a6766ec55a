"""The verbs that make the stages of a corpus: segment, encode, quantize, normalize, decode, dequantize.

Each collects what was given, lets ``pipelines`` check it against the settings file, runs, and prints the report.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer

from lcm_data.cli.options import (
    ConfigOption,
    CorpusArgument,
    DryRunOption,
    ExecutorOption,
    GpusOption,
    JsonOption,
    OverwriteOption,
    PrintConfigOption,
    QuietOption,
    RayAddressOption,
    RejectRateOption,
    ThreadsOption,
    TimeoutOption,
    WorkersOption,
    given,
    option,
)

_input = partial(option, panel="Input")
_text = partial(option, panel="Sentences")
_model = partial(option, panel="Model")
_speech = partial(option, panel="Speech")
_split = partial(option, panel="Splits")
_words = partial(option, panel="Choice of words")
_aloud = partial(option, panel="Speech")


def register(app: typer.Typer) -> None:
    """Add the verbs to the application."""
    for verb in (segment, encode, quantize, normalize, decode, dequantize):
        app.command(rich_help_panel="Make", no_args_is_help=True)(verb)


def segment(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, globs or fsspec URLs.", show_default=False)],
    corpus: CorpusArgument,
    text_column: Annotated[str | None, _input("Field of the text.", default="text")] = None,
    id_column: Annotated[str | None, _input("Field of the id; 'id' where a row has it.")] = None,
    lang_column: Annotated[str | None, _input("Field of the language; 'lang' where a row has it.")] = None,
    audio_column: Annotated[str | None, _input("Field of a path or URL: rows that have it are recordings.")] = None,
    lang: Annotated[str | None, _input("Of documents that do not say: eng_Latn, en, ...; detected by default.")] = None,
    min_lang_score: Annotated[float | None, _input("Least certainty of a detected language.", default="0.5")] = None,
    max_doc_chars: Annotated[int | None, _input("Reject longer documents.", default="2000000")] = None,
    unit_bytes: Annotated[int | None, _input("Input text of a unit.", default="8 MiB")] = None,
    unit_audio_bytes: Annotated[int | None, _input("Recordings of a unit, as stored.", default="64 MiB")] = None,
    unit_recordings: Annotated[int | None, _input("Rows of a unit, with --audio-column.", default="32")] = None,
    segmenter: Annotated[str | None, _text("rules, spacy, stanza, sat, or module:Class.", default="rules")] = None,
    segmenter_model: Annotated[str | None, _text("Model of the segmenter: a name or path.")] = None,
    max_chars: Annotated[int | None, _text("Cap of a sentence in characters, 0 for none.", default="250")] = None,
    channels: Annotated[str | None, _speech("mix (one track of all) or each.", default="mix")] = None,
    min_pause: Annotated[float | None, _speech("Seconds of a pause that ends a segment.", default="0.25")] = None,
    min_seconds: Annotated[float | None, _speech("Shortest segment.", default="1.0")] = None,
    max_seconds: Annotated[float | None, _speech("Longest segment.", default="30.0")] = None,
    padding: Annotated[float | None, _speech("Seconds kept around speech.", default="0.1")] = None,
    speech_threshold: Annotated[float | None, _speech("Probability at which speech begins.", default="0.5")] = None,
    max_hours: Annotated[float | None, _speech("Reject longer recordings.", default="24.0")] = None,
    clips: Annotated[bool, typer.Option("--clips", help="Write the segments as FLAC files, too.",
                                        rich_help_panel="Speech")] = False,
    validation: Annotated[float | None, _split("Share of documents.", default="0.01")] = None,
    test: Annotated[float | None, _split("Share of documents.", default="0.01")] = None,
    split_seed: Annotated[int | None, _split("Another seed holds out others.", default="0")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Cut documents into sentences with exact offsets, by language and split.

    Reads JSON Lines (.jsonl, .gz, .zst), Parquet, CSV, and folders of .txt and .md.
    Recordings (.wav, .flac, .mp3, .m4a, .opus, .ogg, .webm, ...) become segments of
    speech; rows that name recordings make a manifest (--audio-column).

    Example: lcm-data segment docs/*.jsonl.zst my-corpus --workers 4
    """
    _refuse_file(corpus)
    run_verb(
        "segment", given(**{k: v for k, v in locals().items() if k not in _HOW}),
        config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet,
    )  # fmt: skip


def encode(
    corpus: CorpusArgument,
    model: Annotated[
        str | None,
        _model("Name, hf:owner/repo or path. By default text_sonar_basic_encoder if it is cached, else sonar-mini."),
    ] = None,
    backend: Annotated[
        str | None, _model("native, sonar-space, sentence-transformers or module:Class.", default="native")
    ] = None,
    prompt: Annotated[str | None, _model("Put before every sentence, for models that want it: 'query: '.")] = None,
    dtype: Annotated[str | None, _model("Network: float32, bfloat16, float16, int8.", default="float32")] = None,
    device: Annotated[str | None, _model("auto, cpu or cuda.", default="auto")] = None,
    token_budget: Annotated[int | None, _model("Tokens in a batch.")] = None,
    store_dtype: Annotated[str | None, _model("Stored vectors: float16 or float32.", default="float16")] = None,
    text: Annotated[bool | None, _model("Keep the sentences beside the vectors.", flags="--text/--no-text")] = None,
    speech_model: Annotated[
        str | None, _speech("Name, hf:owner/repo or path; {lang} is the language. By default the published one.")
    ] = None,
    speech_backend: Annotated[str | None, _speech("native, sonar-space, or module:Class.")] = None,
    speech_budget: Annotated[int | None, _speech("Positions in a batch, 50 a second.")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus_per_worker: GpusOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Turn the sentences of a corpus into embeddings: SONAR's, or those of any sentence encoder.

    Segments of recordings go through the SONAR speech encoder of their language.

    Example: lcm-data encode my-corpus --model ./sonar --dtype bfloat16
    """
    values = given(**{k: v for k, v in locals().items() if k not in {*_HOW, "text"}})
    if text is not None:
        values["text"] = text
    run_verb("encode", values, config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet)


def quantize(
    corpus: CorpusArgument,
    levels: Annotated[int | None, _model("Codebooks in a row.", default="64")] = None,
    units: Annotated[int | None, _model("Centroids of a codebook.", default="8192")] = None,
    sample_rows: Annotated[int | None, _model("Rows to fit on, at most.", default="1000 a unit")] = None,
    iterations: Annotated[int | None, _model("k-means steps of a level.", default="12")] = None,
    engine: Annotated[str | None, _model("faiss, torch, or auto: torch if worth it.", default="auto")] = None,
    device: Annotated[str | None, _model("auto, cpu or cuda.", default="auto")] = None,
    trainer: Annotated[
        str | None,
        _model("growing, spherical, progressive (as the paper: the default of --engine faiss).", default="auto"),
    ] = None,
    beam: Annotated[
        int | None, _model("Codes kept while encoding: nearer vectors, but exact prefixes only with 1.", default="1")
    ] = None,
    seed: Annotated[int | None, _model("Of sample and fit.", default="0")] = None,
    codebook: Annotated[str | None, _model("Use this fitted codebook instead of fitting one.")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Fit residual codebooks on the embeddings (or take one) and write the codes of every sentence.

    Example: lcm-data quantize my-corpus --levels 8 --units 256
    """
    run_verb(
        "quantize", given(**{k: v for k, v in locals().items() if k not in _HOW}),
        config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet,
    )  # fmt: skip


def normalize(
    corpus: CorpusArgument,
    method: Annotated[str | None, option("gaussian_robust, robust or standard.", default="gaussian_robust")] = None,
    sample_rows: Annotated[int | None, option("Rows to fit on, at most.", default="1000000")] = None,
    clip_proba: Annotated[float | None, option("Clip to the quantiles p and 1-p.")] = None,
    seed: Annotated[int | None, option("Of the sample.", default="0")] = None,
    config: ConfigOption = None,
    overwrite: OverwriteOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Fit the robust scaler of the embedding space that the diffusion models train in.

    Example: lcm-data normalize my-corpus
    """
    values = given(**{k: v for k, v in locals().items() if k not in _HOW})
    from lcm_data.cli import render
    from pipelines import normalize as pipeline
    from pipelines.config import load_config

    settings = load_config(pipeline.NormalizeConfig, config, values)
    if print_config:
        render.settings(settings.model_dump(mode="json"), json)
        return
    report = pipeline.run(settings).model_dump()
    if json:
        render.as_json(report)
    else:
        render.facts(f"normalize: {corpus}", report)


def decode(
    embeddings: Annotated[str, typer.Argument(help="Corpus whose embeddings are decoded.", show_default=False)],
    corpus: Annotated[str, typer.Argument(metavar="OUT", help="Corpus to make of them.", show_default=False)],
    lang: Annotated[str | None, _input("Language to say them in: fra_Latn, fr, ...; required.")] = None,
    from_langs: Annotated[
        list[str] | None, _input("Only vectors of this language; repeatable.", flags="--from-lang")
    ] = None,
    splits: Annotated[list[str] | None, _input("Only this split; repeatable.", flags="--split")] = None,
    unit_rows: Annotated[int | None, _input("Sentences of a unit, about.", default="1024")] = None,
    model: Annotated[
        str | None, _model("Name, hf:owner/repo or path. By default the decoder of the corpus's space.")
    ] = None,
    backend: Annotated[str | None, _model("native or sonar-space.", default="native")] = None,
    dtype: Annotated[str | None, _model("Network: float32, bfloat16, float16.", default="float32")] = None,
    device: Annotated[str | None, _model("auto, cpu or cuda.", default="auto")] = None,
    batch_rows: Annotated[int | None, _model("Hypotheses in a batch (sentences times beams).")] = None,
    mode: Annotated[str | None, _words("beam, greedy or sample.", default="beam")] = None,
    beam_size: Annotated[int | None, _words("Hypotheses of a sentence.", default="5")] = None,
    max_tokens: Annotated[int | None, _words("Longest sentence in tokens, 2 of the prompt included.")] = None,
    temperature: Annotated[float | None, _words("Divides the logits.", default="1.0")] = None,
    top_p: Annotated[float | None, _words("Draw from the likeliest tokens of this probability.")] = None,
    top_k: Annotated[int | None, _words("Draw from so many likeliest tokens.")] = None,
    seed: Annotated[int | None, _words("Of the draws.", default="0")] = None,
    speech: Annotated[
        str | None, _aloud("Say the sentences aloud: espeak-ng, or the folder of a VITS model.")
    ] = None,
    speech_format: Annotated[str | None, _aloud("Sound files: wav or flac.", default="wav")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    gpus_per_worker: GpusOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Say the embeddings of a corpus in a language: sentences of a new corpus, under the same ids.

    Encode and decode translate; encode OUT again for a round trip. With --speech every sentence becomes a sound file,
    OUT/speech/split=.../lang=.../SID.wav.

    Example: lcm-data decode my-corpus my-corpus-in-french --lang fra_Latn
    """
    run_verb(
        "decode", given(**{k: v for k, v in locals().items() if k not in _HOW}),
        config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet,
    )  # fmt: skip


def dequantize(
    codes: Annotated[str, typer.Argument(help="Corpus whose codes are decoded.", show_default=False)],
    corpus: Annotated[str, typer.Argument(metavar="OUT", help="Corpus to make of them.", show_default=False)],
    levels: Annotated[int | None, _model("Only the first levels of a code; by default all.")] = None,
    codebook: Annotated[str | None, _model("Of the codes; by default the one beside them.")] = None,
    store_dtype: Annotated[str | None, _model("Stored vectors: float16 or float32.", default="float16")] = None,
    from_langs: Annotated[
        list[str] | None, _input("Only codes of this language; repeatable.", flags="--from-lang")
    ] = None,
    splits: Annotated[list[str] | None, _input("Only this split; repeatable.", flags="--split")] = None,
    config: ConfigOption = None,
    executor: ExecutorOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    ray_address: RayAddressOption = None,
    unit_timeout: TimeoutOption = None,
    max_reject_rate: RejectRateOption = None,
    overwrite: OverwriteOption = False,
    dry_run: DryRunOption = False,
    print_config: PrintConfigOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:  # fmt: skip
    """Turn codes back into vectors: embeddings of a new corpus, under the same ids.

    Say them with decode, measure them with evaluate-space, or train on them.

    Example: lcm-data dequantize my-corpus my-corpus-16 --levels 16
    """
    run_verb(
        "dequantize", given(**{k: v for k, v in locals().items() if k not in _HOW}),
        config=config, dry_run=dry_run, print_config=print_config, json=json, quiet=quiet,
    )  # fmt: skip


def _refuse_file(corpus: str) -> None:
    """Inputs without a corpus after them: the last one would be taken for it."""
    if "://" not in corpus.removeprefix("file://") and os.path.isfile(corpus.removeprefix("file://")):
        from lcm_data.errors import UsageError

        raise UsageError(
            f"the last argument is the corpus folder, got the file {corpus!r}. Name the folder after the inputs."
        )


_HOW = {"config", "dry_run", "print_config", "json", "quiet"}
_NOUNS = {
    "segment": "documents",
    "encode": "sentences",
    "quantize": "sentences",
    "decode": "sentences",
    "dequantize": "sentences",
    "generate": "documents",
    "import": "rows",
}
_MODULES = {"import": "import_vectors"}
"""Verbs whose name no module can have."""


def run_verb(
    verb: str,
    values: dict[str, Any],
    *,
    config: str | None,
    print_config: bool,
    json: bool,
    quiet: bool,
    dry_run: bool,
) -> None:
    """Run a verb that makes a stage, or say what it would do, and print the report."""
    from lcm_data.cli import render
    from lcm_data.progress import progress
    from pipelines.config import load_config
    from pipelines.stage import dry_run as estimate

    module = import_module(f"pipelines.{_MODULES.get(verb, verb)}")
    settings = load_config(getattr(module, f"{verb.capitalize()}Config"), config, values)
    if print_config:
        render.settings(settings.model_dump(mode="json"), json)
    elif dry_run:
        render.dry_run(
            estimate(module.make_stage(settings), settings.run_options, settings.overwrite), _NOUNS[verb], json
        )
    else:
        # Ray reports deaths of nodes and workers on stdout, which is for the result alone.
        with progress(verb, _NOUNS[verb], quiet or json) as show, contextlib.redirect_stdout(sys.stderr):
            report = module.run(settings, show)
        render.report(report, verb, json)
