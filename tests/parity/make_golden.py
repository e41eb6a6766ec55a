"""Makes the golden files of ``tests/sonar/test_*golden*.py``: what sonar-space computes with small random checkpoints.

Run it in an environment with sonar-space (see ``docs``; ``make parity``), from the root of the checkout:

    python tests/parity/make_golden.py

Everything random is seeded. The checkpoints are written too, so that the test needs no equal random generator.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent / "golden"

LANGS = ("eng_Latn", "fra_Latn", "ace_Arab", "zul_Latn")

TRAINING = [
    "Hello, my name is Paul and I am working as a teacher in a small town by the sea.",
    "Bonjour, mon nom est Paul et je travaille comme professeur dans une petite ville au bord de la mer.",
    "Привет, меня зовут Павел, и я работаю учителем в маленьком городе у моря.",
    "مرحبا، اسمي بول وأعمل مدرسا في بلدة صغيرة على شاطئ البحر.",
    "नमस्ते, मेरा नाम पॉल है और मैं समुद्र के किनारे एक छोटे शहर में शिक्षक हूँ।",
    "你好，我叫保罗，我在海边的一个小镇当老师。",
    "こんにちは、私の名前はポールです。海辺の小さな町で教師をしています。",
    "안녕하세요, 제 이름은 폴이고 바닷가 작은 마을에서 교사로 일하고 있습니다.",
    "สวัสดี ฉันชื่อพอล ฉันเป็นครูในเมืองเล็ก ๆ ริมทะเล",
    "The embedding of a sentence is the mean of the vectors of its tokens.",
    "Numbers such as 3.14, 42 and 1,000,000 occur; so do e-mail@example.org and https://example.org/a?b=c.",
]

SENTENCES = [
    *TRAINING,
    "",
    " ",
    "a",
    "My name is SONAR.",
    "I can embed the sentences into vectorial space.",
    "</s> __eng_Latn__ <pad> <s> <unk>",
    "tabs\tand\nnew lines\r\nand a\x00zero",
    "e\u0301 combining, \ufb01 ligature, \u2028 separator, \u00a0 space, \u200b zero width, \ufeff mark",
    "emoji \U0001f600\U0001f469\u200d\U0001f52c and rare script \U00010330\U00012000",
    "ß İstanbul ǅ ﷺ Å",
    "x" * 200,
    "word " * 509,
    "word " * 600,
    "The sea, the sea! " * 300,
]


def train_tokenizer() -> bytes:
    """A unigram model without byte fallback, like NLLB's, so that unknown characters occur."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(TRAINING * 4),
        model_writer=out,
        model_type="unigram",
        vocab_size=420,
        hard_vocab_limit=False,
        character_coverage=0.9995,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


STRENGTHS = (0.0, 6.0, 9.0, 12.0)
"""How likely the random decoder is made to end a sentence: 0 runs into every limit, 12 ends most at once."""

SEARCHES: list[dict[str, Any]] = [
    {"strength": 0, "lang": "eng_Latn", "beam_size": 5, "max_tokens": 24},
    {"strength": 1, "lang": "fra_Latn", "beam_size": 5, "max_tokens": 24},
    {"strength": 1, "lang": "eng_Latn", "beam_size": 5, "max_tokens": 12, "min_tokens": 4},
    {"strength": 1, "lang": "zul_Latn", "beam_size": 2, "max_tokens": 24, "len_penalty": 0.5},
    {"strength": 2, "lang": "eng_Latn", "beam_size": 5, "max_tokens": 24},
    {"strength": 2, "lang": "fra_Latn", "beam_size": 1, "max_tokens": 24},
    {"strength": 2, "lang": "ace_Arab", "beam_size": 8, "max_tokens": 16, "temperature": 0.7},
    {"strength": 2, "lang": "eng_Latn", "beam_size": 3, "max_tokens": 40, "unk_penalty": 1.5},
    {"strength": 2, "lang": "zul_Latn", "beam_size": 5, "max_tokens": 60, "temperature": 1.8},
    {"strength": 2, "lang": "fra_Latn", "beam_size": 4, "max_tokens": 16, "len_penalty": 0.0},
    {"strength": 3, "lang": "eng_Latn", "beam_size": 5, "max_tokens": 24},
    {"strength": 3, "lang": "ace_Arab", "beam_size": 3, "max_tokens": 24, "min_tokens": 6},
    {"strength": 3, "lang": "fra_Latn", "beam_size": 5, "max_tokens": 24, "unk_penalty": -9.0},
    {"strength": 1, "lang": "eng_Latn", "beam_size": 5, "max_tokens": 3},
    {"strength": 2, "lang": "eng_Latn", "beam_size": 5, "max_tokens": 4},
    {"strength": 2, "lang": "zul_Latn", "beam_size": 4, "max_tokens": 90},
]
"""Settings of the golden beam searches, each run over all golden vectors."""


def write_decoder(vectors: Any) -> None:
    """Write the decoder, its logits and its beam searches (``vectors`` are those of the golden sentences)."""
    import numpy as np
    import torch
    from safetensors.numpy import save

    from lcm_data.decode.sonar_space import reference_decoder, reference_generator
    from lcm_data.sonar.config import TextDecoderConfig
    from lcm_data.sonar.files import find_model
    from lcm_data.sonar.random_model import write_random_weights
    from lcm_data.sonar.settings import Generation

    vocab_size = find_model(GOLDEN).layout().config.vocab_size
    sizes = TextDecoderConfig(model_dim=48, num_layers=3, num_heads=4, ffn_dim=96, vocab_size=vocab_size)
    write_random_weights(GOLDEN / "decoder.safetensors", None, sizes, seed=20241)
    network, tokenizer = reference_decoder(find_model(GOLDEN, "decoder"), torch.float32)
    from fairseq2.nn import BatchLayout
    from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline

    torch.manual_seed(7)
    apart = vectors[:12].mean(0) + 3 * (vectors[:12] - vectors[:12].mean(0))  # random encoders put all close together
    emb = torch.cat([apart, 0.03 * torch.randn(6, 48), 3 * torch.randn(2, 48)])
    arrays: dict[str, Any] = {"emb": emb.numpy()}
    prefixes = torch.cat([torch.full((4, 1), 3), torch.randint(1, vocab_size, (4, 8))], dim=1)
    with torch.inference_mode():
        layouts = BatchLayout.of(emb[:4, None]), BatchLayout.of(prefixes)
        arrays["logits"] = network(emb[:4, None], layouts[0], prefixes, layouts[1]).numpy()
    arrays["prefixes"] = prefixes.numpy().astype(np.int16)

    pipeline = EmbeddingToTextModelPipeline(network, tokenizer)
    norm = network.decoder.layer_norm
    eos = network.decoder_frontend.embed.weight[3].detach()
    biases = torch.stack([strength * eos / eos.square().sum() for strength in STRENGTHS])
    arrays["norm_biases"] = biases.numpy()
    ids, lengths, counts, scores = [], [], [], []
    for search in SEARCHES:
        settings = {name: value for name, value in search.items() if name not in ("strength", "lang")}
        norm.bias.data = biases[search["strength"]]
        how = Generation(**settings)
        generator = reference_generator(pipeline.model, tokenizer.vocab_info, how, how.limit(512))
        first = tokenizer.create_encoder(lang=search["lang"], mode="target").prefix_indices
        for start in range(0, len(emb), 5):
            batch = emb[start : start + 5]
            prompts = first.expand(len(batch), -1)
            output = generator(batch, BatchLayout.of(batch), prompts, BatchLayout.of(prompts))
            for hypotheses in output.hypotheses:
                counts.append(len(hypotheses))
                for one in hypotheses:
                    ids.append(one.seq.numpy().astype(np.int16))
                    lengths.append(len(one.seq))
                    scores.append(float(one.score))
    arrays["search.ids"] = np.concatenate(ids)
    arrays["search.lengths"] = np.array(lengths, np.int16)
    arrays["search.counts"] = np.array(counts, np.int16)
    arrays["search.scores"] = np.array(scores, np.float32)
    (GOLDEN / "decoder_golden.safetensors").write_bytes(save(arrays))
    (GOLDEN / "searches.json").write_text(json.dumps(SEARCHES, indent=1) + "\n")


def main() -> None:
    """Write checkpoints, vectors, token ids, logits and beam searches into ``golden/``."""
    import make_golden_speech
    import make_golden_tokens
    import numpy as np
    import sentencepiece
    import torch
    from safetensors.numpy import save

    from lcm_data.encode.sonar_space import reference_model
    from lcm_data.languages import FLORES_200
    from lcm_data.sonar.config import TextEncoderConfig
    from lcm_data.sonar.files import find_model
    from lcm_data.sonar.random_model import write_random_weights

    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    (GOLDEN / "sentencepiece.model").write_bytes(train_tokenizer())
    pieces = sentencepiece.SentencePieceProcessor(str(GOLDEN / "sentencepiece.model")).GetPieceSize()
    sizes = TextEncoderConfig(
        model_dim=48, num_layers=3, num_heads=4, ffn_dim=96, vocab_size=1 + pieces + len(FLORES_200) + 3
    )
    write_random_weights(GOLDEN / "model.safetensors", sizes, seed=20240)
    (GOLDEN / "config.json").write_text(json.dumps({"num_heads": 4, "trained": False}) + "\n")

    network, tokenizer = reference_model(find_model(GOLDEN), torch.float32)
    from sonar.inference_pipelines.text import TextToEmbeddingModelPipeline  # after reference_model loaded libsndfile

    pipeline = TextToEmbeddingModelPipeline(network, tokenizer)
    arrays = {}
    for lang in LANGS:
        arrays[f"vectors.{lang}"] = pipeline.predict(SENTENCES, source_lang=lang, batch_size=5).numpy()
        encode = tokenizer.create_encoder(lang=lang)
        ids = [encode(text).numpy().astype(np.int32) for text in SENTENCES]
        arrays[f"lengths.{lang}"] = np.array([len(row) for row in ids], np.int32)
        arrays[f"ids.{lang}"] = np.concatenate(ids)
    (GOLDEN / "golden.safetensors").write_bytes(save(arrays))
    decode = tokenizer.create_decoder()
    decoded = [decode(tokenizer.create_encoder(lang="eng_Latn")(text)) for text in SENTENCES]
    about = {"langs": LANGS, "sentences": SENTENCES, "decoded": decoded}
    (GOLDEN / "sentences.json").write_text(json.dumps(about, ensure_ascii=True, indent=1) + "\n")
    write_decoder(torch.from_numpy(arrays["vectors.eng_Latn"]))
    make_golden_tokens.main()
    make_golden_speech.main()


if __name__ == "__main__":
    main()
