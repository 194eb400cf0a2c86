"""Sounds for the example task `speech`, and what silero-vad's own Python says of them.

    PYTHONPATH=.. python3 tools/models/speech.py DIRECTORY

Writes sounds of 16 kHz, one channel, 16 bits into DIRECTORY/*.wav and DIRECTORY/expected.json. The speech is eSpeak NG's, in
several languages, with pauses, noise and tones around it. Probabilities and timestamps are those of the package's own code
on the model that `load_silero_vad(onnx=True)` loads, run by ONNX Runtime; `torch_stand_in` spares it torch.
"""

import ctypes
import json
import sys
import warnings
import wave
from importlib.metadata import version
from pathlib import Path

import espeakng_loader
import numpy as np
import torch_stand_in  # noqa: F401  (before silero_vad, which imports torch)
from silero_vad import get_speech_timestamps, load_silero_vad

RATE = 16_000
SENTENCES = [
    ("en", "The grid runs a task on hosts that nobody vouches for."),
    ("de", "Jede Aufgabe läuft in einem Sandkasten, und ihr Ergebnis wird geprüft."),
    ("es", "El resultado es el mismo en cada máquina."),
    ("en", "Two of them have to agree before anybody is paid."),
]


class Voice:
    """eSpeak NG, in this process."""

    SYNCHRONOUS, UTF8 = 2, 1

    def __init__(self) -> None:
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate = self.library.espeak_Initialize(self.SYNCHRONOUS, 0, data, 0)
        assert self.rate > 0, "eSpeak NG does not start"
        signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        self.callback = signature(self.take)
        self.library.espeak_SetSynthCallback(self.callback)
        self.parts: list[np.ndarray] = []

    def take(self, samples, count, _events) -> int:
        if samples and count > 0:
            self.parts.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float64))
        return 0

    def say(self, language: str, text: str) -> np.ndarray:
        """Samples at RATE, from -1 to 1."""
        self.parts = []
        assert self.library.espeak_SetVoiceByName(language.encode()) == 0
        data = text.encode()
        assert self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, self.UTF8, None, None) == 0
        spoken = np.concatenate(self.parts) / 32768
        count = int(len(spoken) * RATE / self.rate)
        return np.interp(np.arange(count) * self.rate / RATE, np.arange(len(spoken)), spoken)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE))


def sounds() -> dict[str, np.ndarray]:
    voice, random = Voice(), np.random.default_rng(20261)
    said = [voice.say(*sentence) for sentence in SENTENCES]
    pauses = [silence(seconds) for seconds in (0.7, 1.1, 0.25, 0.6)]
    talk = np.concatenate([part for pair in zip(pauses, said) for part in pair] + [silence(0.8)])
    seconds = np.arange(6 * RATE) / RATE
    tone = 0.3 * np.sin(2 * np.pi * 440 * seconds) + 0.2 * np.sin(2 * np.pi * 660 * seconds)
    noise = 0.05 * random.standard_normal(6 * RATE)
    return {
        "talk": talk,
        "talk-in-noise": talk + 0.02 * random.standard_normal(len(talk)),
        "quiet-talk": 0.02 * talk,
        "no-pause": np.concatenate(said),
        "noise": noise,
        "tone": tone,
        "silence": silence(2),
        "tone-then-talk": np.concatenate([tone[:RATE], said[0], noise[:RATE]]),
        # Not a whole number of windows, and less than one.
        "cut": talk[: 3 * RATE + 77],
        "shorter-than-a-window": said[0][4000:4300],
    }


def write(path: Path, samples: np.ndarray) -> np.ndarray:
    """Writes the file; gives its samples as the package's readers would."""
    integers = np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(integers.tobytes())
    return integers.astype(np.float32) / np.float32(32768)


class Listener:
    """The package's model, which remembers what it said."""

    def __init__(self, model) -> None:
        self.model, self.said = model, []

    def reset_states(self) -> None:
        self.model.reset_states()
        self.said = []

    def __call__(self, chunk, rate):
        answer = self.model(chunk, rate)
        self.said.append(float(answer.item()))
        return answer


def main() -> None:
    root = Path(sys.argv[1])
    warnings.simplefilter("ignore")
    listener = Listener(load_silero_vad(onnx=True))
    expected = []
    for name, samples in sounds().items():
        heard = write(root / f"{name}.wav", samples)
        speech = get_speech_timestamps(heard, listener, sampling_rate=RATE)
        expected.append({"name": name, "probabilities": listener.said, "speech": speech})
    (root / "expected.json").write_text(json.dumps({"silero_vad": version("silero-vad"), "sounds": expected}, indent=1))


main()
