//! Finds speech in sounds: the example of a model with a state, Silero's voice detector.
//!
//! In: names of WAV files under `/in`, one a line; without any, all of them. Each has one channel of 16,000 samples a second,
//! of 16 bits. Out: one line for each stretch of speech, its fields separated by tabs: name, `speech`, the first sample and
//! the one after the last. With the argument `windows`, after those of a file, one line for each window of 512 samples:
//! name, `window`, its number, the probability of speech.
//!
//! The job declares the model under the name `silero`: f32 `[1, 576]` samples and f32 `[2, 1, 128]` state, to f32 `[1, 1]`
//! probability and the next state. Stretches are those of silero-vad 6.2.3, `get_speech_timestamps` without options.

use std::{env, fmt, fmt::Write as _, fs, io, path::Path};

use guest_sdk::{
    Exit,
    nn::{self, Graph, Tensor},
};

const RATE: u32 = 16_000;
/// Samples that are judged together.
const WINDOW: usize = 512;
/// Samples of the window before, which the model sees again.
const CONTEXT: usize = 64;
const STATE_DIMS: [u32; 3] = [2, 1, 128];

/// From here on a window is speech.
const SPEECH: f64 = 0.5;
/// Below this, speech is taken to have ended.
const SILENCE: f64 = SPEECH - 0.15;
/// Shorter speech is none, in samples.
const SPEECH_MIN: usize = 250 * RATE as usize / 1000;
/// Shorter silence is part of the speech around it, in samples.
const SILENCE_MIN: usize = 100 * RATE as usize / 1000;
/// What is added at both ends of speech, in samples.
const PAD: usize = 30 * RATE as usize / 1000;

fn main() -> Exit {
    let windows = env::args().skip(1).any(|arg| arg == "windows");
    guest_sdk::text(|list| run(Path::new(guest_sdk::abi::DIR_IN), list, windows))
}

/// A list of files to lines.
fn run(dir: &Path, list: &str, windows: bool) -> Result<String, Error> {
    let graph = Graph::by_name("silero")?;
    let mut lines = String::new();
    let mut context = graph.context()?;
    for file in guest_sdk::files_of(dir, list)? {
        let name = file.name;
        let samples = samples(&fs::read(&file.path)?).map_err(|what| Error::Sound { name: name.clone(), what })?;
        let probabilities = listen(&mut context, &samples)?;
        // A String takes all that is written to it.
        for (from, to) in speech(&probabilities, samples.len()) {
            let _ = writeln!(lines, "{name}\tspeech\t{from}\t{to}");
        }
        for (at, probability) in probabilities.iter().enumerate().take(if windows { usize::MAX } else { 0 }) {
            let _ = writeln!(lines, "{name}\twindow\t{at}\t{probability}");
        }
    }
    Ok(lines)
}

/// The samples of a WAV file, from -1 to 1.
fn samples(wav: &[u8]) -> Result<Vec<f32>, NotSound> {
    let form = wav.get(..4).zip(wav.get(8..12)).ok_or(NotSound::Wav)?;
    if form != (b"RIFF", b"WAVE") {
        return Err(NotSound::Wav);
    }
    let mut rest = &wav[12..];
    let mut known = false;
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = &after[..length.min(after.len())];
        match &head[..4] {
            b"fmt " => known = format(body)?,
            b"data" if known => {
                let (pairs, _) = body.as_chunks();
                return Ok(pairs.iter().map(|pair| f32::from(i16::from_le_bytes(*pair)) / 32768.0).collect());
            }
            _ => {}
        }
        // Chunks begin at even offsets.
        rest = after.get(length.saturating_add(length % 2)..).unwrap_or_default();
    }
    Err(NotSound::Wav)
}

/// Checks the description of the samples.
fn format(body: &[u8]) -> Result<bool, NotSound> {
    let field = |at: usize| body.get(at..at + 2).map(|two| u16::from_le_bytes([two[0], two[1]]));
    let rate = body.get(4..8).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    match (field(0), field(2), rate, field(14)) {
        (Some(1), Some(1), Some(RATE), Some(16)) => Ok(true),
        (Some(coding), Some(channels), Some(rate), Some(bits)) => {
            Err(NotSound::Format { coding, channels, rate, bits })
        }
        _ => Err(NotSound::Wav),
    }
}

/// The probability of speech in each window, the last one filled up with silence.
fn listen(context: &mut nn::Context, samples: &[f32]) -> Result<Vec<f32>, nn::Error> {
    let mut state = Tensor::new(STATE_DIMS.to_vec(), vec![0f32; STATE_DIMS.iter().product::<u32>() as usize])?;
    let mut heard = vec![0f32; CONTEXT + WINDOW];
    let mut probabilities = Vec::with_capacity(samples.len().div_ceil(WINDOW));
    for window in samples.chunks(WINDOW) {
        heard.copy_within(WINDOW.., 0);
        let (now, after) = heard[CONTEXT..].split_at_mut(window.len());
        now.copy_from_slice(window);
        after.fill(0.0);
        context.set_input(0, &Tensor::new(vec![1, (CONTEXT + WINDOW) as u32], heard.clone())?)?;
        context.set_input(1, &state)?;
        context.compute()?;
        probabilities.extend(context.output::<f32>(0, &[1, 1])?.into_data());
        state = context.output(1, &STATE_DIMS)?;
    }
    Ok(probabilities)
}

/// From probabilities to stretches of speech, in samples of `length`.
fn speech(probabilities: &[f32], length: usize) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut from = None;
    // Where the silence began that may be the end.
    let mut silent = None;
    for (at, probability) in (0..).step_by(WINDOW).zip(probabilities) {
        let probability = f64::from(*probability);
        if probability >= SPEECH {
            silent = None;
            from = from.or(Some(at));
        } else if let Some(start) = from.filter(|_| probability < SILENCE) {
            let end = *silent.get_or_insert(at);
            if at - end >= SILENCE_MIN {
                found.extend((end - start > SPEECH_MIN).then_some((start, end)));
                (from, silent) = (None, None);
            }
        }
    }
    found.extend(from.filter(|start| length - start > SPEECH_MIN).map(|start| (start, length)));
    pad(&mut found, length);
    found
}

/// Widens each stretch, up to the middle of the silence between two.
fn pad(found: &mut [(usize, usize)], length: usize) {
    if let Some(first) = found.first_mut() {
        first.0 = first.0.saturating_sub(PAD);
    }
    for at in 0..found.len() {
        let next = found.get(at + 1).map_or(usize::MAX, |next| next.0);
        let silence = next - found[at].1;
        let widen = if silence < 2 * PAD { silence / 2 } else { PAD };
        found[at].1 = length.min(found[at].1 + widen);
        if let Some(next) = found.get_mut(at + 1) {
            next.0 = next.0.saturating_sub(widen);
        }
    }
}

/// Why a file has no samples for the model.
#[derive(Debug, PartialEq)]
enum NotSound {
    Wav,
    Format { coding: u16, channels: u16, rate: u32, bits: u16 },
}

#[derive(Debug)]
enum Error {
    Sound { name: String, what: NotSound },
    Read(io::Error),
    Inference(nn::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<nn::Error> for Error {
    fn from(error: nn::Error) -> Self {
        Self::Inference(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sound { name, what: NotSound::Wav } => write!(f, "{name} is not a WAV file"),
            Self::Sound { name, what: NotSound::Format { coding, channels, rate, bits } } => write!(
                f,
                "{name} has {channels} channels of {rate} samples a second of {bits} bits, coding {coding}: it takes 1 of {RATE} \
                 of 16, coding 1"
            ),
            Self::Read(error) => write!(f, "a file cannot be read: {error}"),
            Self::Inference(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(rate: u32, chunk: &[u8], samples: &[i16]) -> Vec<u8> {
        let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let mut file = b"RIFF\0\0\0\0WAVE".to_vec();
        file.extend(b"fmt \x10\0\0\0\x01\0\x01\0");
        file.extend(rate.to_le_bytes());
        file.extend((2 * rate).to_le_bytes());
        file.extend([2, 0, 16, 0]);
        file.extend(chunk);
        file.extend(b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn samples_are_found_behind_other_chunks() {
        for chunk in [b"".as_slice(), b"LIST\x03\0\0\0abc\0"] {
            assert_eq!(samples(&wav(RATE, chunk, &[0, 16384, -32768])), Ok(vec![0.0, 0.5, -1.0]));
        }
        let other = NotSound::Format { coding: 1, channels: 1, rate: 8000, bits: 16 };
        assert_eq!(samples(&wav(8000, b"", &[0])), Err(other));
        let good = wav(RATE, b"", &[7]);
        for length in 0..good.len() - 2 {
            assert!(samples(&good[..length]).is_err() || samples(&good[..length]) == Ok(vec![]), "{length}");
        }
        assert_eq!(samples(b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff"), Err(NotSound::Wav));
    }

    #[test]
    fn short_pauses_join_and_short_speech_is_dropped() {
        let windows = |parts: &[(usize, f32)]| -> Vec<f32> {
            parts.iter().flat_map(|(count, probability)| vec![*probability; *count]).collect()
        };
        let said = |parts: &[(usize, f32)]| {
            let probabilities = windows(parts);
            speech(&probabilities, probabilities.len() * WINDOW)
        };
        assert_eq!(said(&[(10, 0.1), (20, 0.9), (10, 0.1)]), [(10 * 512 - 480, 30 * 512 + 480)]);
        assert_eq!(said(&[(20, 0.9), (3, 0.1), (20, 0.9)]), [(0, 43 * 512)], "96 ms of silence");
        assert_eq!(said(&[(10, 0.1), (7, 0.9), (10, 0.1)]), [], "224 ms of speech");
        assert_eq!(said(&[(20, 0.9), (20, 0.4)]), [(0, 40 * 512)], "between the thresholds nothing changes");
        assert_eq!(said(&[(20, 0.9), (5, 0.1), (20, 0.9)]), [(0, 20 * 512 + 480), (25 * 512 - 480, 45 * 512)]);
        assert_eq!(said(&[]), []);
    }
}
