"""Plots: one for every kind of figure that was measured, with the numbers of the report in it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the extra 'quality'")
pytest.importorskip("sacrebleu", reason="needs the extra 'quality'")

from jobs import write_jsonl

from lcm_data.quality.plots import draw
from lcm_data.quality.report import Report
from pipelines.evaluate_space import EvaluateSpaceConfig
from pipelines.space_figures import measure, silent


@pytest.fixture(scope="module")
def report(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("plots")
    rows = [
        {"eng_Latn": f"I have {i} apples, Paul!", "fra_Latn": f"Paul, {i} apples!" * (1 + i % 5)} for i in range(24)
    ]
    config = EvaluateSpaceConfig(
        source=str(write_jsonl(folder / "t.jsonl", rows)),
        out=str(folder / "out"),
        model=str(tiny),
        decoder=str(tiny),
        beam_size=1,
        noise_levels=2,
        fragility_sample=8,
        threads=1,
    )
    return measure(config, silent)


def test_every_plot_can_be_written(report: Report) -> None:
    figures = draw(report)
    assert set(figures) == {"xsim", "norms", "autoencoding", "lengths", "fragility"}
    for figure in figures.values():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=30)
        assert image.getvalue().startswith(b"\x89PNG")


def test_bars_are_the_figures_of_the_report(report: Report) -> None:
    (axes,) = draw(report)["xsim"].axes
    widths = [bar.get_width() for bar in axes.patches]
    xsim = report.languages["fra_Latn"].xsim
    assert xsim is not None
    assert widths == pytest.approx([100 * xsim["to_pivot"].cosine, 100 * xsim["to_pivot"].margin])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fra_Latn"]


def test_curves_are_the_figures_of_the_report(report: Report) -> None:
    left = draw(report)["fragility"].axes[0]
    fragility = report.languages["eng_Latn"].fragility
    assert fragility is not None
    assert [*fragility.curve.scores["chrf"]] == pytest.approx([*left.lines[0].get_ydata()])
    assert len(left.lines) == 3  # two languages and their mean
    assert [*left.lines[0].get_xdata()] == pytest.approx([0, 1 / 3, 2 / 3])


def test_nothing_is_drawn_of_what_was_not_measured(report: Report) -> None:
    from dataclasses import replace

    bare = {
        lang: replace(each, xsim=None, autoencoding=None, fragility=None) for lang, each in report.languages.items()
    }
    assert set(draw(replace(report, languages=bare, points={}))) == {"norms"}
