"""A trained space as a folder: the same vectors and sentences in our loader, and in transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from m2m100 import hf_ids
from toylanguages import sentences

from lcm_data.decode import DecoderOptions, load_decoder
from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.errors import CheckpointError, UnknownNameError, UsageError
from lcm_data.sonar.describe import describe_model
from lcm_models.sonar.config import BatchConfig, SonarConfig
from lcm_models.sonar.export import export
from lcm_models.sonar.prepared import Prepared
from lcm_models.sonar.task import SonarTask
from lcm_models.train.config import OptimConfig, TrainConfig
from lcm_models.train.launch import Launch, start
from lcm_models.train.run import Run


@pytest.fixture(scope="module")
def trained(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of some seconds, on one thread: the products are too small to share."""
    torch.set_num_threads(1)
    config = SonarConfig(**SonarConfig.presets["tiny"], mse=0.1)
    batches = BatchConfig(path=str(prepared.folder), batch_tokens=300, noised=0)
    train = TrainConfig(max_steps=200, device="cpu", valid_every=200, metrics=("jsonl",))
    optim = OptimConfig(lr=5e-3, warmup_steps=10, eps=1e-8, clip_norm=1.0)
    folder = tmp_path_factory.mktemp("run")
    start(Run(SonarTask(config, batches), optim, train, str(folder), quiet=True), Launch())
    return str(folder)


@pytest.fixture(scope="module")
def model(trained: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(trained, tmp_path_factory.mktemp("export") / "toy", space="toy-1", dtype="float32")


def test_sentences_go_around(model: Path) -> None:
    """What is said again in its own language and in another is what was meant, and translations are neighbours."""
    rows = sentences(40, seed=9)
    encoder = load_encoder(EncoderOptions(model=str(model)))
    decoder = load_decoder(DecoderOptions(model=str(model), max_tokens=40))
    english = encoder.embed(encoder.prepare([row["eng_Latn"] for row in rows], "eng_Latn"))
    french = encoder.embed(encoder.prepare([row["fra_Latn"] for row in rows], "fra_Latn"))
    for vectors in (english, french):
        said = decoder.decode(vectors, "eng_Latn").texts
        right = [len(set(text.split()) & set(row["eng_Latn"].split())) for text, row in zip(said, rows, strict=True)]
        assert np.mean(right) > 2.2  # of four words; by chance it is little more than one
    distances = ((english[:, None] - french[None]) ** 2).sum(axis=2)
    same = [rows[a]["eng_Latn"] == rows[b]["eng_Latn"] for a, b in enumerate(distances.argmin(axis=1))]
    assert sum(same) > 10  # by chance it is one or two


def test_what_the_folder_says(model: Path) -> None:
    (about,) = describe_model(model)
    assert about["space"] == "toy-1"
    assert about["trained"]
    assert {network["kind"] for network in about["networks"]} == {"text encoder", "text decoder"}
    assert about["languages"] == 3


def test_transformers_reads_it(model: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.M2M100ForConditionalGeneration.from_pretrained(model).eval()
    encoder = load_encoder(EncoderOptions(model=str(model)))
    prepared = encoder.prepare(["small red tree falls"], "eng_Latn")
    ids = hf_ids(torch.from_numpy(prepared.payload.ids.astype(np.int64))).unsqueeze(0)
    with torch.no_grad():
        hidden = theirs.get_encoder()(input_ids=ids).last_hidden_state
    assert np.allclose(hidden.mean(1).numpy(), encoder.embed(prepared), atol=1e-5)


def test_half_precision_is_half_the_size(trained: str, model: Path, tmp_path: Path) -> None:
    half = export(trained, tmp_path / "half", space="toy-1")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (model, half)]
    assert sizes[1] < 0.52 * sizes[0]
    ours, rounded = (load_encoder(EncoderOptions(model=str(folder))) for folder in (model, half))
    vectors = [each.embed(each.prepare(["old blue bird sings"], "eng_Latn")) for each in (ours, rounded)]
    assert np.allclose(*vectors, atol=2e-2)


def test_what_is_refused(trained: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no checkpoint"):
        export(str(tmp_path), tmp_path / "a", space="x")
    with pytest.raises(UnknownNameError, match="dtype"):
        export(trained, tmp_path / "a", space="x", dtype="int3")
    with pytest.raises(CheckpointError, match="without optim"):
        export(trained, tmp_path / "a", space="x", ema=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").touch()
    with pytest.raises(UsageError, match="not empty"):
        export(trained, tmp_path / "b", space="x")


def test_a_frozen_encoder_is_exported_with_the_averages_of_the_decoder(
    trained: str, prepared: Prepared, tmp_path: Path
) -> None:
    config = SonarConfig(**SonarConfig.presets["tiny"], freeze_encoder=True)
    batches = BatchConfig(path=str(prepared.folder), batch_tokens=300, noised=0)
    train = TrainConfig(max_steps=3, device="cpu", valid_every=0, metrics=("jsonl",), init_from=trained)
    optim = OptimConfig(lr=5e-3, ema=0.9)
    start(Run(SonarTask(config, batches), optim, train, str(tmp_path / "run"), quiet=True), Launch())
    folder = export(str(tmp_path / "run"), tmp_path / "model", space="toy-1", dtype="float32")
    before = load_encoder(EncoderOptions(model=str(export(trained, tmp_path / "old", space="toy-1", dtype="float32"))))
    after = load_encoder(EncoderOptions(model=str(folder)))
    vectors = [encoder.embed(encoder.prepare(["red house"], "eng_Latn")) for encoder in (before, after)]
    assert np.array_equal(*vectors)
