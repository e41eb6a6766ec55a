"""Our networks, sonar-space's and transformers' M2M100 on the same weights (``make parity``; skipped without both)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from m2m100 import decoder_logits, hf_ids, m2m100_decoder, m2m100_encoder
from manyscripts import strings

from lcm_data.encode import EncoderOptions, load_encoder
from lcm_data.sonar.checkpoint import load_text_decoder, load_text_encoder
from lcm_data.sonar.files import find_model

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(importlib.util.find_spec("sonar") is None, reason="sonar-space is not installed"),
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed"),
]

NUM_HEADS = 4


@pytest.fixture(scope="module", params=["golden", "wide"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "golden":
        return Path(__file__).parent / "golden"
    from lcm_data.sonar.random_model import write_random_checkpoint

    return write_random_checkpoint(
        tmp_path_factory.mktemp("wide"),
        strings(300),
        model_dim=256,
        num_layers=6,
        num_heads=NUM_HEADS,
        ffn_dim=1024,
        decoder_layers=6,
    )


def test_three_encoders(folder: Path) -> None:
    from lcm_data.encode.sonar_space import reference_model

    texts = [*strings(120), *strings(60, seed=18)[-20:], "x y " * 600]
    model = load_text_encoder(folder, device="cpu")
    _, reference = reference_model(find_model(folder), torch.float32)
    encode = reference.create_encoder(lang="fra_Latn")
    rows = model.tokenizer.encode(texts, "fra_Latn").rows()
    # fairseq2 may choose the other of two segmentations of equal score: another input, with another vector.
    same = [row.tolist() == encode(text)[:514].tolist() for text, row in zip(texts, rows, strict=True)]
    assert sum(same) >= 0.95 * len(texts)
    texts = [text for text, equal in zip(texts, same, strict=True) if equal]
    tokens = model.tokenizer.encode(texts, "fra_Latn")
    assert tokens.truncated.any()
    assert tokens.lengths.max() == 514
    encoders = [
        load_encoder(EncoderOptions(model=str(folder), backend=name, device="cpu"))
        for name in ("native", "sonar-space")
    ]
    ours, theirs = (torch.from_numpy(each.embed(each.prepare(texts, "fra_Latn"))) for each in encoders)
    network = m2m100_encoder(model.encoder.state_dict(), NUM_HEADS)
    with torch.inference_mode():
        theirs_of = [hf_ids(torch.from_numpy(row).long())[None] for row in tokens.rows()]
        third = torch.stack([network(input_ids=ids).last_hidden_state[0].mean(0) for ids in theirs_of])
    errors = {"sonar-space": (ours - theirs).abs().max(), "transformers": (ours - third).abs().max()}
    print(f"\n{folder.name}: largest differences { ({k: f'{v:.2e}' for k, v in errors.items()}) }")
    assert max(errors.values()) <= 1e-5
    assert (theirs - third).abs().max() <= 1e-5


def test_three_decoders(folder: Path) -> None:
    from lcm_data.decode.sonar_space import reference_decoder

    ours = load_text_decoder(folder, device="cpu").decoder
    theirs, _ = reference_decoder(find_model(folder, "decoder"), torch.float32)
    from fairseq2.nn import BatchLayout

    torch.manual_seed(4)
    # Short vectors and long ones; prefixes up to the most the decoder takes.
    emb = torch.randn(4, ours.config.model_dim) * torch.tensor([0.01, 0.05]).repeat(2)[:, None]
    third = m2m100_decoder(ours.full_state(), NUM_HEADS)
    for length in (2, 60, 512):
        ids = torch.randint(1, ours.config.vocab_size, (4, length))
        with torch.inference_mode():
            wanted = theirs(emb[:, None], BatchLayout.of(emb[:, None]), ids, BatchLayout.of(ids))
            logits = ours(emb, ids)
        errors = [float((logits - each).abs().max()) for each in (wanted, decoder_logits(third, emb, ids))]
        print(f"\n{folder.name}, {length} tokens: {errors[0]:.2e} {errors[1]:.2e}, largest {wanted.abs().max():.1f}")
        assert max(errors) <= 1e-5 * max(1.0, float(wanted.abs().max()))
