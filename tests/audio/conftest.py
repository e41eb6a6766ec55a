"""What recordings need; without it these tests are skipped."""

from __future__ import annotations

import pytest

from lcm_data.audio.vad import VoiceActivity


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    for module in ("av", "onnxruntime"):
        pytest.importorskip(module, reason="needs the extra 'audio'")


@pytest.fixture(scope="session")
def voice(_installed: None) -> VoiceActivity:
    return VoiceActivity()
