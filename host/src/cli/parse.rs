//! What arguments mean.

use std::{path::PathBuf, str::FromStr};

use registry::{
    device::DeviceAsk,
    job::{Class, Profile, Split},
};

/// `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl Pair {
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(&self.value)
    }
}

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => Err("expected NAME=VALUE".to_owned()),
        }
    }
}

/// `each`, `lines=N`, or `bytes=N[:DELIMITER]`.
pub(crate) fn split(text: &str) -> Result<Split, String> {
    let number = |text: &str| match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is no number from 1")),
        Ok(number) => Ok(number),
    };
    match text.split_once('=') {
        None if text == "each" => Ok(Split::Each),
        Some(("lines", lines)) => Ok(Split::Lines(number(lines)?)),
        Some(("bytes", rest)) => {
            let (bytes, delimiter) = rest.split_once(':').unwrap_or((rest, "\\n"));
            Ok(Split::Records { bytes: number(bytes)?, delimiter: self::delimiter(delimiter)? })
        }
        _ => Err("expected each, lines=N or bytes=N[:DELIMITER]".to_owned()),
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match (text, text.as_bytes()) {
        ("\\n", _) => Ok(b'\n'),
        ("\\r", _) => Ok(b'\r'),
        ("\\t", _) => Ok(b'\t'),
        ("\\0", _) => Ok(0),
        (_, [byte]) => Ok(*byte),
        _ => {
            let hex = text.strip_prefix("0x").and_then(|digits| u8::from_str_radix(digits, 16).ok());
            hex.ok_or_else(|| format!("`{text}` is no delimiter: give one byte, \\n, \\r, \\t, \\0 or 0xHH"))
        }
    }
}

/// `exact`, `homogeneous` or `tolerant`.
pub(crate) fn class(text: &str) -> Result<Class, String> {
    match text {
        "exact" => Ok(Class::Exact),
        "homogeneous" => Ok(Class::Homogeneous),
        "tolerant" => Ok(Class::Tolerant),
        _ => Err("expected exact, homogeneous or tolerant".to_owned()),
    }
}

/// `any`, `cpu` or `gpu`.
pub(crate) fn device(text: &str) -> Result<DeviceAsk, String> {
    [DeviceAsk::Any, DeviceAsk::Cpu, DeviceAsk::Gpu]
        .into_iter()
        .find(|device| device.word() == text)
        .ok_or_else(|| "expected any, cpu or gpu".to_owned())
}

/// `native` or `portable`.
pub(crate) fn profile(text: &str) -> Result<Profile, String> {
    [Profile::Native, Profile::Portable]
        .into_iter()
        .find(|profile| profile.word() == text)
        .ok_or_else(|| "expected native or portable".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_read_and_nonsense_is_not() {
        let records = |bytes, delimiter| Ok(Split::Records { bytes, delimiter });
        assert_eq!(split("each"), Ok(Split::Each));
        assert_eq!(split("lines=10"), Ok(Split::Lines(10)));
        assert_eq!(split("bytes=100"), records(100, b'\n'));
        assert_eq!(split("bytes=100:,"), records(100, b','));
        assert_eq!(split("bytes=100::"), records(100, b':'));
        assert_eq!(split("bytes=100:\\0"), records(100, 0));
        assert_eq!(split("bytes=100:0x1E"), records(100, 0x1e));
        for text in ["", "lines", "lines=0", "lines=-1", "bytes=", "bytes=5:ab", "each=1", "bytes=5:"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pair_keeps_every_equals_sign_but_the_first() {
        assert_eq!("A=b=c".parse(), Ok(Pair { name: "A".into(), value: "b=c".into() }));
        assert!("=x".parse::<Pair>().is_err() && "x".parse::<Pair>().is_err());
    }
}
