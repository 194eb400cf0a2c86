//! What `quorate calibrate` writes, and `push`, `submit` and `receipt replay` read: a tolerance with what it was measured on.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use registry::{
    id::ModelHash,
    tolerance::{Tolerance, ToleranceError},
};
use serde::{Deserialize, Serialize};

use super::measure::Pair;
use crate::limits;

/// One model's tolerance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// The model.
    pub model: ModelHash,
    /// What was fitted.
    pub tolerance: Tolerance,
    /// Times what was measured.
    pub safety: f64,
    /// How many samples were asked.
    pub samples: u64,
    /// Name and version of each backend.
    pub backends: Vec<String>,
    /// What was measured.
    pub pairs: Vec<Pair>,
}

/// What of it is needed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Said {
    /// The model.
    pub model: ModelHash,
    /// How far its answers may differ.
    pub tolerance: Tolerance,
}

/// Why a file says no tolerance.
#[derive(Debug, thiserror::Error)]
pub enum CalibrationError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no such file.
    #[error("{}: not what `quorate calibrate --out` writes: {source}", path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A number in it is out of bounds.
    #[error("{}: {source}", path.display())]
    Tolerance {
        /// The file.
        path: PathBuf,
        /// Which.
        source: ToleranceError,
    },
}

/// Reads a file.
///
/// # Errors
/// When it says no tolerance.
pub fn read(path: &Path) -> Result<Said, CalibrationError> {
    let failed = |source| CalibrationError::File { path: path.to_owned(), source };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(limits::CALIBRATION_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
    let said: Said =
        serde_json::from_slice(&text).map_err(|source| CalibrationError::Form { path: path.to_owned(), source })?;
    said.tolerance.check().map_err(|source| CalibrationError::Tolerance { path: path.to_owned(), source })?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nonsense_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("digits.json");
        let tolerance = Tolerance { atol_exp2: -17, rtol_exp2: -20, top: None };
        let calibration = Calibration {
            model: ModelHash([1; 32]),
            tolerance,
            safety: 4.0,
            samples: 10,
            backends: vec!["tract".to_owned()],
            pairs: Vec::new(),
        };
        std::fs::write(&path, serde_json::to_vec(&calibration).unwrap()).unwrap();
        assert_eq!(read(&path).unwrap(), Said { model: ModelHash([1; 32]), tolerance });
        let wild = Calibration { tolerance: Tolerance { atol_exp2: 9999, ..tolerance }, ..calibration };
        std::fs::write(&path, serde_json::to_vec(&wild).unwrap()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("atol_exp2 is 9999"));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not what `quorate calibrate"));
    }
}
