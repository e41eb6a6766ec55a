"""``lcm-data evaluate``: Large Concept Models side by side on the documents of a corpus, beside baselines.

Composition only: the documents of a language and split are read once; every model is scored on them, and what was kept
of its guesses is said and judged. What cannot be measured with what was given is left out, and the report says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from lcm_data.corpus import open_corpus
from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.store.files import open_files
from lcm_data.version import __version__
from pipelines.config import Dtype, Languages
from pipelines.evaluate_models import BASELINES, Networks, decoder_and_encoder, named, samplings, window_of

if TYPE_CHECKING:
    from lcm_models.evaluate.documents import Partition
    from lcm_models.evaluate.judge import Judge
    from lcm_models.evaluate.scores import Material, Scored
    from lcm_models.model import ConceptModel

REPORT = "report.json"
Show = Callable[[str, int, int], None]
"""Called with a job, how much of it is done, and how much there is."""


def silent(job: str, done: int, total: int) -> None:
    """Show nothing."""


class EvaluateConfig(BaseModel):
    """Settings of ``lcm-data evaluate``."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    checkpoints: list[str] = Field(min_length=1, description="Runs or checkpoints that 'train' wrote; or name=folder.")
    corpus: str = Field(description="Corpus folder or fsspec URL with embeddings.")
    out: str | None = Field(None, description="Folder or fsspec URL for report.json.")
    splits: list[str] = Field(["test"], min_length=1, description="Splits to evaluate on.")
    langs: Languages = Field(None, description="Languages; by default all.")
    documents: int = Field(1000, ge=0, description="Documents of a language and split; 0 for all.")
    window: int | None = Field(None, ge=2, description="Longest documents a model sees at once; by default as trained.")
    pool: int = Field(1000, ge=2, description="Candidates of contrastive accuracy.")
    seed: int = Field(0, ge=0, description="Of the samples, and of what models draw.")
    sampling: dict[str, Any] = Field({}, description="Settings of the samplers of those models that have them.")
    batch_concepts: int = Field(2048, ge=1, description="Concepts predicted at once.")
    decoder: str | None = Field(None, description="Decoder: a name, hf:owner/repo, or a folder or file.")
    decoder_backend: str = Field("native", description="Of the decoder.")
    beam_size: int = Field(5, ge=1, description="Hypotheses a sentence.")
    max_tokens: int | None = Field(None, ge=3, description="Longest decoded sentence in tokens.")
    model: str | None = Field(None, description="Encoder of the corpus, for the round trip.")
    backend: str = Field("native", description="Of the encoder.")
    decode_sample: int = Field(200, ge=1, description="Guesses of a language and split that are decoded.")
    language_model: str | None = Field(None, description="Causal language model (Hugging Face) for MI.")
    coherence_model: str | None = Field(None, description="Sequence classifier (Hugging Face) of coherence.")
    continuations: int | None = Field(None, ge=0, description="Documents to continue; by default 50 with a decoder.")
    prefix_share: float = Field(0.5, gt=0, lt=1, description="Share of them that is given.")
    max_new: int = Field(32, ge=1, description="New sentences at most.")
    end_of_text: str = Field("auto", description="End-of-text concept: auto, none or a file.")
    dtype: Dtype = Field("float32", description="Precision of the networks: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    threads: int = Field(0, ge=0, description="CPU threads; 0 for torch's default.")
    overwrite: bool = Field(False, description="Replace an earlier report.")

    @property
    def num_continued(self) -> int:
        """Documents of a language and split to continue."""
        return (50 if self.decoder else 0) if self.continuations is None else self.continuations


@dataclass
class EvaluateReport:
    """Everything measured. ``results`` is by model or baseline, then by ``split/lang``; ``mean`` is over the latter.

    Figures and their units are in ``FIGURES``; ``counts`` say over how many places, documents and tokens.
    """

    corpus: str
    settings: dict[str, Any]
    models: dict[str, dict[str, Any]]
    results: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    counts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    mean: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    out: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As the report file holds it."""
        return {"lcm_data": __version__, "figures": FIGURES, **asdict(self)}


FIGURES = {
    "l2": "distance of guess and truth, raw vectors",
    "l2_roundtrip": "the same after decoding and encoding the guess",
    "cosine": "of guess and truth",
    "ca": "contrastive accuracy: share of other concepts further from the guess than the truth is, 0 to 1",
    "par": "paraphrase ratio: likeness to a concept before, of the guess over the truth; 1 is as the documents",
    "mi": "nats a token by which the context makes the sentence likelier",
    "rouge_l": "ROUGE-L F1 of continuation and document, 0 to 1",
    "ovl_3": "share of the prefix's word 3-grams in the continuation, 0 to 1",
    "rep_4": "word 4-grams of the continuation that were there before, percent",
    "coherence": "of the continuation by the classifier, 0 to 1",
    "local_coherence": "mean cosine of sentences n and n + 2 of a continuation",
    "length": "sentences of the continuation over those of the document",
    "words": "the same in words",
    "ended": "share of continuations that ended by the end-of-text concept",
    "repeated": "share of continuations that ended by repetition",
}


def run(config: EvaluateConfig, show: Show = silent) -> EvaluateReport:
    """Measure, write ``report.json`` if a folder for it is given, and return the report.

    Raises:
        UsageError: the folder has a report and ``overwrite`` is not set; models, corpus and settings do not fit.
        SpaceError: a model, decoder or encoder of another space.
        InputError: the corpus has no finished embeddings.
        CheckpointError: a model cannot be loaded.
    """
    if config.out is not None and open_files(config.out).size(REPORT) is not None and not config.overwrite:
        raise UsageError(f"{config.out} has a {REPORT}. Name another folder, or add --overwrite to replace it.")
    work = _Evaluation(config, show)
    work.measure()
    report = work.report()
    if config.out is not None:
        text = json.dumps(report.to_json(), ensure_ascii=False, indent=1, allow_nan=False)
        open_files(config.out).write(REPORT, text.encode() + b"\n")
    return report


class _Evaluation:
    """The state of one run: what was found so far, by model and partition."""

    def __init__(self, config: EvaluateConfig, show: Show) -> None:
        self.config, self.show = config, show
        self.data = open_corpus(config.corpus).embeddings
        self.models = named(config.checkpoints)
        for facts in self.models.values():
            facts.check_corpus(self.data.dim, self.data.manifest.provenance, self.data.files.root)
        self.samplings = samplings(self.models, config.sampling)
        self.window = window_of(config.window, self.models)
        self.context = max(self.window - config.max_new, self.window // 2, 1)
        for facts in self.models.values():
            facts.warn_of_length(self.window, 0, "Lower --window.")
            if config.num_continued:
                facts.warn_of_length(self.context, config.max_new, "Lower --max-new.")
        self.partitions = self._partitions()
        self.found: dict[str, dict[str, Scored]] = {name: {} for name in (*self.models, *BASELINES)}
        self.skipped: list[str] = []
        self.seconds: dict[str, float] = {}
        self.judge = self._make_judge()  # loaded first: what does not fit is said before the work

    def _partitions(self) -> list[Partition]:
        from lcm_models.evaluate.documents import Partition

        self.data.shards(self.config.langs, self.config.splits)  # names what is not there
        wanted = self.config.langs or self.data.langs
        places = [name.split("/") for name in self.data.manifest.partitions]
        return [
            Partition(self.data, split, lang, self.config.documents, self.config.seed)
            for split, lang in places
            if split in self.config.splits and lang in wanted
        ]

    def measure(self) -> None:
        """All figures, one language and split after the other: each is read once, for all models."""
        models = Networks(self.models, self.config.device, keep=len(self.partitions) > 1)
        for number, partition in enumerate(self.partitions):
            self._measure(number, partition, models)
        if not self.found["truth"]:
            raise UsageError("no document of two sentences to evaluate on. Choose other splits or languages.")

    def _measure(self, number: int, partition: Partition, models: Networks) -> None:
        from lcm_models.evaluate.scores import Material

        config, num = self.config, len(self.partitions)
        with self._timed("documents"):
            sizes = (self.window, config.pool, config.decode_sample, config.num_continued)
            material = Material.of(partition, *sizes, config.prefix_share)
        if not material.documents:
            return
        for name, found in self.found.items():
            self.show(f"{name}, {partition.name}", number, num)
            with self._timed(name), models.on_device(name) as model:
                scored = self._score(name, model, material)
            if scored.counts["not_finite"]:
                self._skip(f"{scored.counts['not_finite']} guesses of {name} in {partition.name}: not finite")
            found[partition.name] = scored
        if not self.judge.is_idle and self._speaks(partition.lang):
            if material.documents[0].texts is None:
                self._skip("MI and texts of continuations: the corpus keeps no sentences (encode --text)")
            for name, found in self.found.items():
                self.show(f"sentences of {name}, {partition.name}", number, num)
                with self._timed("sentences"):
                    self.judge.add(found[partition.name], material, name == "truth", config.max_new)
        for found in self.found.values():
            found[partition.name].forget_vectors()

    def _score(self, name: str, model: ConceptModel | None, material: Material) -> Scored:
        """Everything that is measured on vectors, of a model or baseline."""
        from lcm_models.evaluate.predict import baseline_guesses, model_guesses
        from lcm_models.evaluate.scores import score, true_continuations, vector_figures
        from lcm_models.generate.worker import precision

        config = self.config
        if model is None:
            scored = score(material, baseline_guesses(name, material.windows, material.pool.mean_D))
            if name == "truth" and material.prefixes:
                scored.continued = true_continuations(material, config.max_new)
                scored.figures |= vector_figures(material, scored.continued, config.max_new)
            return scored
        with precision(model, config.dtype):
            seeds, sampling = material.seeds(config.seed), self.samplings[name]
            scored = score(material, model_guesses(model, material.windows, seeds, sampling, config.batch_concepts))
            if material.prefixes:
                self._continue(name, model, material, scored)
        return scored

    def _continue(self, name: str, model: ConceptModel, material: Material, scored: Scored) -> None:
        import torch

        from lcm_models.evaluate.scores import continue_documents
        from lcm_models.generate.stop import StopRules

        provenance = {**self.data.manifest.provenance, "dim": self.data.dim}
        end = self.models[name].end_of_text(self.config.end_of_text, self.config.corpus, provenance)
        if end is None:
            self._skip(f"ends of {name}: it has no end-of-text concept")
        scored.continued, figures = continue_documents(
            model,
            material,
            StopRules(max_new=self.config.max_new),
            self.samplings[name],
            None if end is None else torch.from_numpy(end[1].vector),
            context=self.context,
            seed=self.config.seed,
            max_rows=max(1, self.config.batch_concepts // self.window),
        )
        scored.figures |= figures

    def _speaks(self, lang: str) -> bool:
        """Whether decoder and encoder know a language; if not, the report says so."""
        import numpy as np

        try:
            if self.judge.decoder is not None:
                self.judge.decoder.decode(np.zeros((0, self.judge.decoder.dim), np.float32), lang)
            if self.judge.encoder is not None:
                self.judge.encoder.prepare([""], lang)
        except UnknownNameError:
            self._skip(f"sentences of {lang}: the decoder or encoder does not know the language")
            return False
        return True

    def _make_judge(self) -> Judge:
        from lcm_models.evaluate.coherence import CoherenceModel
        from lcm_models.evaluate.information import LanguageModel
        from lcm_models.evaluate.judge import Judge
        from lcm_models.generate.worker import device_of

        config = self.config
        if config.model and not config.decoder:
            raise UsageError("--model encodes decoded sentences: give a --decoder, too.")
        device = device_of(config.device)
        decoder, encoder = decoder_and_encoder(config, self.data)
        if decoder is None:
            self._skip("sentences (l2_roundtrip, MI of models, texts of continuations): no --decoder was given")
        elif encoder is None:
            self._skip("l2_roundtrip: no encoder (--model) was given")
        if config.language_model is None:
            self._skip("MI: no --language-model was given")
        if not config.num_continued:
            self._skip("continuations: --continuations is 0")
        return Judge(
            decoder,
            encoder,
            LanguageModel(config.language_model, device) if config.language_model else None,
            CoherenceModel(config.coherence_model, device) if config.coherence_model else None,
        )

    def report(self) -> EvaluateReport:
        """What was found."""
        settings = {**self.config.model_dump(mode="json"), "window": self.window}
        settings["sampling"] = {name: value.model_dump(mode="json") for name, value in self.samplings.items()}
        models = {
            name: {
                "variant": facts.variant,
                "checkpoint": str(facts.folder),
                "step": facts.step,
                "revision": facts.revision(),
                "provenance": dict(facts.provenance),
            }
            for name, facts in self.models.items()
        }
        report = EvaluateReport(self.config.corpus, settings, models, skipped=self.skipped, seconds=self.seconds)
        for name, found in self.found.items():
            report.results[name] = {where: scored.figures for where, scored in found.items()}
            report.counts[name] = {where: scored.counts for where, scored in found.items()}
            report.mean[name] = _means(report.results[name].values())
        report.out = self.config.out
        return report

    def _skip(self, note: str) -> None:
        if note not in self.skipped:
            self.skipped.append(note)

    @contextmanager
    def _timed(self, job: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self.seconds[job] = round(self.seconds.get(job, 0.0) + time.monotonic() - begun, 3)


def _means(found: Any) -> dict[str, float]:
    """The mean of each figure over the languages and splits that have it, in the order of ``FIGURES``."""
    values = {name: [each[name] for each in found if name in each] for name in FIGURES}
    return {name: sum(some) / len(some) for name, some in values.items() if some}
