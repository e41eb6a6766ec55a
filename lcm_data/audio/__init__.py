"""Recordings to speech segments: reading any format as samples at 16 kHz, finding speech, cutting it like sentences.

The way through: ``sound`` decodes a file as samples on one timeline, ``resample`` brings them to 16 kHz, ``vad`` gives
the probability of speech, ``spans`` and ``cut`` make segments of it, ``recording`` does all of this for one file.
``read`` gives the samples of a segment back. Importing this package is cheap: PyAV and onnxruntime are imported where
they are used. Documents, units and output are the business of ``lcm_data.documents`` and ``lcm_data.workers``.
"""

from lcm_data.audio.model import CHANNELS, FRAME, SAMPLE_RATE, AudioError, AudioOptions, SpeechSegment

__all__ = ["CHANNELS", "FRAME", "SAMPLE_RATE", "AudioError", "AudioOptions", "SpeechSegment"]
