//! Numbers that somebody gives, held against the least and the most that make sense.

/// A number that is out of its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}, outside the bounds of {min} to {max}")]
pub struct OutOfBounds {
    /// Which one, with its unit where its name does not have it.
    pub what: &'static str,
    /// As given.
    pub value: u64,
    /// Smallest allowed.
    pub min: u64,
    /// Largest allowed.
    pub max: u64,
}

/// Whether all of these are within their bounds: what, its value, the least, the most.
///
/// # Errors
/// Names the first that is not.
pub fn check(bounds: impl IntoIterator<Item = (&'static str, u64, u64, u64)>) -> Result<(), OutOfBounds> {
    match bounds.into_iter().find(|(_, value, min, max)| !(min..=max).contains(&value)) {
        Some((what, value, min, max)) => Err(OutOfBounds { what, value, min, max }),
        None => Ok(()),
    }
}
