"""``lcm-data evaluate-space``: measure an embedding space on translations, or on the embeddings of a corpus.

Loads the models, puts the measurements of ``lcm_data.quality`` in order, and writes a report with plots. What cannot
be measured with what was given is left out, and the report says so.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lcm_data.quality.report import Report
from pipelines.config import Dtype, Language, Languages
from pipelines.report_folder import new_report, write_report
from pipelines.space_figures import Show, measure, silent


class EvaluateSpaceConfig(BaseModel):
    """Settings of ``lcm-data evaluate-space``."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    source: str = Field(description="Translations (a table, or a folder of text files), or a corpus with embeddings.")
    out: str = Field(description="Folder or fsspec URL for the report and the plots.")
    lang: Languages = Field(None, description="Languages; by default all.")
    pivot: Language = Field("eng_Latn", description="Language that all others are compared with.")
    all_pairs: bool = Field(False, description="Search between all pairs of languages, not only with the pivot.")
    sample: int = Field(1000, ge=0, description="Sentences of a language; 0 for all.")
    min_sentences: int = Field(20, ge=1, description="Leave out languages with fewer.")
    seed: int = Field(0, ge=0, description="Of the sample and the noise.")
    model: str | None = Field(None, description="Encoder: a name, hf:owner/repo, or a folder or file.")
    backend: str = Field("native", description="Of the encoder.")
    prompt: str | None = Field(None, description="Text put before every sentence, for models that want one.")
    decoder: str | None = Field(None, description="Decoder: a name, hf:owner/repo, or a folder or file.")
    decoder_backend: str = Field("native", description="Of the decoder.")
    judge_model: str | None = Field(
        None, description="An unrelated encoder that compares decoded texts with originals."
    )
    judge_backend: str = Field("native", description="Of the judge.")
    to: Language | None = Field(None, description="Also translate into this language through the space.")
    decode_sample: int = Field(500, ge=0, description="Sentences of a language that are decoded; 0 for all.")
    beam_size: int = Field(5, ge=1, description="Hypotheses a sentence.")
    max_tokens: int | None = Field(None, ge=3, description="Longest decoded text in tokens.")
    noise_levels: int = Field(9, ge=0, description="Levels of noise for fragility; 0 for none.")
    fragility_sample: int = Field(100, ge=0, description="Sentences of a language that are disturbed; 0 for all.")
    normalizer: str | None = Field(None, description="Normaliser file; by default one is fitted on the sample.")
    dtype: Dtype = Field("float32", description="Precision of the networks: float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu or cuda.")
    threads: int = Field(0, ge=0, description="CPU threads; 0 for torch's default.")
    plots: bool = Field(True, description="Draw plots.")
    overwrite: bool = Field(False, description="Replace an earlier report.")


def run(config: EvaluateSpaceConfig, show: Show = silent) -> Report:
    """Measure, write ``report.json`` and the plots, and return the report.

    ``show`` is called with a job, how much of it is done, and how much there is.

    Raises:
        UsageError: the folder has a report and ``overwrite`` is not set, or models that do not fit together.
        SpaceError: a decoder or normaliser of another space.
        InputError: the input cannot be read as translations or as a corpus.
        MissingExtraError: sacrebleu or matplotlib is wanted and not installed.
    """
    out = new_report(config.out, overwrite=config.overwrite, plots=config.plots, decodes=bool(config.decoder))
    report = measure(config, show)
    figures = {}
    if config.plots:
        from lcm_data.quality.plots import draw

        figures = draw(report)
    write_report(out, report.to_json(), figures)
    return report
