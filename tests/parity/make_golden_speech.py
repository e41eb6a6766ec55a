"""Makes the golden files of ``tests/sonar/test_golden_speech.py``: what sonar-space makes of ``speechlike.clips()``.

Called by ``make_golden.py``. The weights are numbers of 16 bits, so that storing them so changes nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "golden" / "speech"

NUM_FEATURES = 4
"""Clips whose features are kept; those of the longer ones would be large."""


def main() -> None:
    """Write the checkpoint, the features of the shorter clips, and the vectors of all, in one batch and alone."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
    import numpy as np
    import torch
    from safetensors.torch import save
    from speechlike import clips

    from lcm_data.encode.sonar_space_speech import reference_speech_model
    from lcm_data.sonar.random_speech import random_speech_state
    from lcm_data.sonar.speech_checkpoint import find_speech_model
    from lcm_data.sonar.speech_config import SpeechEncoderConfig

    sizes = SpeechEncoderConfig(
        model_dim=32, num_layers=2, num_heads=4, ffn_dim=48, pooler_layers=2, pooler_heads=2, pooler_ffn_dim=40,
        pooler_vocab=32, embedding_dim=32,
    )  # fmt: skip
    FOLDER.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.half() for name, tensor in random_speech_state(sizes, seed=20242).items()}
    (FOLDER / "speech_encoder.safetensors").write_bytes(save(state, metadata={"format": "pt"}))
    (FOLDER / "config.json").write_text(json.dumps({"pooler_heads": 2, "trained": False}) + "\n")

    network = reference_speech_model(find_speech_model(FOLDER))
    from fairseq2.data.audio import WaveformToFbankConverter
    from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline

    waves = [torch.from_numpy(wave) for wave in clips()]
    pipeline = SpeechToEmbeddingModelPipeline(network)
    inputs = [wave.unsqueeze(0) for wave in waves]
    arrays = {
        "batched": pipeline.predict(inputs, batch_size=len(inputs)),
        "single": pipeline.predict(inputs, batch_size=1),
    }
    for kind, standardize in (("raw", False), ("features", True)):
        convert = WaveformToFbankConverter(
            num_mel_bins=80, waveform_scale=2**15, channel_last=True, standardize=standardize
        )
        for number, wave in enumerate(waves[:NUM_FEATURES]):
            bank = convert({"waveform": wave.unsqueeze(1), "sample_rate": 16000.0, "format": -1})["fbank"]
            if kind == "features" or number == 2:
                arrays[f"{kind}.{number}"] = bank
    assert all(np.isfinite(array.numpy()).all() for array in arrays.values())
    (FOLDER / "golden.safetensors").write_bytes(save(arrays))


if __name__ == "__main__":
    main()
