"""Our decoder and its generation against sonar-space itself, in one process (``make parity``; skipped without it)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lcm_data.decode import DecoderOptions, load_decoder
from lcm_data.sonar.checkpoint import load_text_decoder
from lcm_data.sonar.files import find_model

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("sonar") is None, reason="sonar-space is not installed"),
]

LANGS = ("eng_Latn", "fra_Latn", "ace_Arab", "zul_Latn")


@pytest.fixture(scope="module", params=["golden", "wide"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "golden":
        return Path(__file__).parent / "golden"
    from lcm_data.sonar.random_model import write_random_checkpoint

    words = [f"The sea {i}, мир и {i} 你好 नमस्ते" for i in range(200)]
    sizes = {"model_dim": 256, "num_layers": 1, "num_heads": 4, "ffn_dim": 1024, "decoder_layers": 6}
    return write_random_checkpoint(tmp_path_factory.mktemp("wide"), words, **sizes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def emb(folder: Path) -> np.ndarray:
    dim = find_model(folder, "decoder").layout("decoder").config.model_dim
    rng = np.random.default_rng(3)
    return (rng.normal(0, 1, (48, dim)) * rng.choice([0.01, 0.05, 0.5], (48, 1))).astype(np.float32)


def test_logits(folder: Path, emb: np.ndarray) -> None:
    from lcm_data.decode.sonar_space import reference_decoder

    theirs, _ = reference_decoder(find_model(folder, "decoder"), torch.float32)
    from fairseq2.nn import BatchLayout

    ours = load_text_decoder(folder, device="cpu").decoder
    ids = torch.randint(1, ours.config.vocab_size, (48, 40), generator=torch.Generator().manual_seed(0))
    x = torch.from_numpy(emb)
    with torch.inference_mode():
        wanted = theirs(x[:, None], BatchLayout.of(x[:, None]), ids, BatchLayout.of(ids))
        logits = ours(x, ids)
    error = float((logits - wanted).abs().max())
    print(f"\n{folder.name}: largest difference {error:.2e}, standard deviation {wanted.std():.2f}")
    assert error < 1e-5 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("mode", ["beam", "greedy"])
def test_texts(folder: Path, emb: np.ndarray, lang: str, mode: str) -> None:
    ours, theirs = (
        load_decoder(DecoderOptions(model=str(folder), backend=name, device="cpu", mode=mode, max_tokens=40))
        for name in ("native", "sonar-space")
    )
    a, b = ours.decode(emb, lang), theirs.decode(emb, lang)
    assert a.texts == b.texts
    assert a.num_tokens.tolist() == b.num_tokens.tolist()
    assert a.truncated.tolist() == b.truncated.tolist()
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_the_pipeline_as_users_call_it(folder: Path, emb: np.ndarray) -> None:
    from lcm_data.decode.sonar_space import reference_decoder

    network, tokenizer = reference_decoder(find_model(folder, "decoder"), torch.float32)
    from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline

    pipeline = EmbeddingToTextModelPipeline(network, tokenizer)
    wanted = pipeline.predict(torch.from_numpy(emb), target_lang="fra_Latn", max_seq_len=30)
    ours = load_decoder(DecoderOptions(model=str(folder), device="cpu", max_tokens=30))
    assert ours.decode(emb, "fra_Latn").texts == wanted


def test_scores_of_draws(folder: Path, emb: np.ndarray) -> None:
    """With one candidate left the draws agree, and so do the scores, which are sums there instead of a search's."""
    options = {
        "model": str(folder),
        "device": "cpu",
        "mode": "sample",
        "top_k": 1,
        "temperature": 0.6,
        "max_tokens": 20,
    }
    ours, theirs = (load_decoder(DecoderOptions(backend=name, **options)) for name in ("native", "sonar-space"))  # type: ignore[arg-type]
    a, b = ours.decode(emb, "eng_Latn"), theirs.decode(emb, "eng_Latn")
    assert a.texts == b.texts
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


def test_a_card_of_sonar_space_itself(tmp_path: Path) -> None:
    """Loaded by sonar-space's own loader, in a process of its own: cards are read once, at import."""
    from safetensors.torch import save_file

    golden = Path(__file__).parent / "golden"
    sizes = find_model(golden, "decoder").layout("decoder").config
    state = load_text_decoder(golden, device="cpu").decoder.full_state()
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "full.safetensors")
    card = f"""name: my_sonar_decoder
base: text_sonar_basic_decoder
checkpoint: {tmp_path / "full.safetensors"}
tokenizer: {golden / "sentencepiece.model"}
model_config:
  _set_:
    model_dim: 48
    num_decoder_layers: 3
    num_encoder_attn_heads: 4
    ffn_inner_dim: 96
    vocab_info: {{size: {sizes.vocab_size}, unk_idx: 1, bos_idx: 2, eos_idx: 3, pad_idx: 1}}
"""
    (tmp_path / "cards.yaml").write_text(card)
    code = f"""
import numpy as np
from lcm_data.decode import DecoderOptions, load_decoder
emb = np.random.default_rng(0).normal(0, 0.1, (7, 48)).astype(np.float32)
said = []
for backend, model in (("sonar-space", "my_sonar_decoder"), ("native", {str(golden)!r})):
    decoder = load_decoder(DecoderOptions(model=model, backend=backend, device="cpu", max_tokens=20))
    said.append(decoder.decode(emb, "fra_Latn").texts)
assert said[0] == said[1], said
"""
    environment = {**os.environ, "FAIRSEQ2_USER_ASSET_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
