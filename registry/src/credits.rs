//! Money: whole millionths of a credit, bounded, never a float.
//!
//! Two types, so that a sign cannot slip in: [`Credits`] is an amount, from nothing to [`Credits::MAX`]; [`Delta`] is a
//! change of an account, or what stands on one, and may be below zero. The bound of both is 10^18 micro-credits: a ninth of
//! what 64 bits hold, so that two values within it always add up inside the machine's integers, and what is too much is an
//! error with the bound in it and never an overflow. Every operation says so by its type.

use std::{fmt, ops::Neg, str::FromStr};

use serde::{Deserialize, Serialize};

/// Micro-credits of one credit.
pub const MICRO_PER_CREDIT: u64 = 1_000_000;
/// Micro-credits that any amount or account may have: 10^12 credits.
pub const CREDITS_MICRO_MAX: u64 = 1_000_000_000_000_000_000;
const _: () = assert!(CREDITS_MICRO_MAX < i64::MAX as u64 / 2, "two amounts add up inside 64 bits");
/// Digits after the point.
const DIGITS: usize = 6;
/// Millionths in the whole.
pub const PPM: u32 = 1_000_000;

/// Why an amount is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreditsError {
    /// Outside the bound of [`CREDITS_MICRO_MAX`], on either side.
    #[error("amount is over the bound of {CREDITS_MICRO_MAX} micro-credits")]
    Bound,
    /// More is taken than there is.
    #[error("{taken} credits are taken of {there}")]
    Short {
        /// What there is.
        there: Credits,
        /// What is taken.
        taken: Credits,
    },
    /// Not a number of credits.
    #[error("`{text}` is no amount: expected credits such as 12 or 0.25, with at most {DIGITS} digits after the point")]
    Form {
        /// As received.
        text: String,
    },
}

/// An amount of micro-credits, from nothing to [`Credits::MAX`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Credits(u64);

impl Credits {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The most that an amount may be.
    pub const MAX: Self = Self(CREDITS_MICRO_MAX);

    /// So many micro-credits.
    ///
    /// # Errors
    /// When there are more than [`CREDITS_MICRO_MAX`].
    pub fn from_micro(micro: impl Into<u128>) -> Result<Self, CreditsError> {
        match u64::try_from(micro.into()) {
            Ok(micro) if micro <= CREDITS_MICRO_MAX => Ok(Self(micro)),
            _ => Err(CreditsError::Bound),
        }
    }

    /// In micro-credits.
    pub const fn micro(self) -> u64 {
        self.0
    }

    /// Whether it is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Both together.
    ///
    /// # Errors
    /// When that is over the bound.
    pub fn plus(self, other: Self) -> Result<Self, CreditsError> {
        Self::from_micro(u128::from(self.0) + u128::from(other.0))
    }

    /// What is left of it.
    ///
    /// # Errors
    /// When `taken` is more than it.
    pub fn minus(self, taken: Self) -> Result<Self, CreditsError> {
        self.0.checked_sub(taken.0).map(Self).ok_or(CreditsError::Short { there: self, taken })
    }

    /// So many times as much.
    ///
    /// # Errors
    /// When that is over the bound.
    pub fn times(self, count: u64) -> Result<Self, CreditsError> {
        Self::from_micro(u128::from(self.0) * u128::from(count))
    }

    /// So many millionths of it, rounded down; more than all of it is all of it.
    pub fn share(self, ppm: u32) -> Self {
        let part = u128::from(self.0) * u128::from(ppm.min(PPM)) / u128::from(PPM);
        // A part of it is no more than it.
        Self(u64::try_from(part).unwrap_or(self.0).min(self.0))
    }
}

/// The sum of all.
///
/// # Errors
/// When it is over the bound.
pub fn sum(amounts: impl IntoIterator<Item = Credits>) -> Result<Credits, CreditsError> {
    amounts.into_iter().try_fold(Credits::ZERO, Credits::plus)
}

/// A change of an account, or what stands on one: micro-credits from -[`CREDITS_MICRO_MAX`] to [`CREDITS_MICRO_MAX`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Delta(i64);

impl Delta {
    /// No change.
    pub const ZERO: Self = Self(0);

    /// So many micro-credits, up or down.
    ///
    /// # Errors
    /// When there are more than [`CREDITS_MICRO_MAX`] either way.
    pub fn from_micro(micro: impl Into<i128>) -> Result<Self, CreditsError> {
        match i64::try_from(micro.into()) {
            Ok(micro) if micro.unsigned_abs() <= CREDITS_MICRO_MAX => Ok(Self(micro)),
            _ => Err(CreditsError::Bound),
        }
    }

    /// In micro-credits.
    pub const fn micro(self) -> i64 {
        self.0
    }

    /// Both together.
    ///
    /// # Errors
    /// When that is out of bounds.
    pub fn plus(self, other: Self) -> Result<Self, CreditsError> {
        Self::from_micro(i128::from(self.0) + i128::from(other.0))
    }

    /// As an amount; none when it is below zero.
    pub fn credits(self) -> Option<Credits> {
        u64::try_from(self.0).ok().map(Credits)
    }
}

impl From<Credits> for Delta {
    fn from(amount: Credits) -> Self {
        // The bound of amounts is below what 63 bits hold.
        Self(amount.0 as i64)
    }
}

impl Neg for Delta {
    type Output = Self;

    fn neg(self) -> Self {
        // The bounds are symmetric.
        Self(-self.0)
    }
}

impl TryFrom<u64> for Credits {
    type Error = CreditsError;

    fn try_from(micro: u64) -> Result<Self, CreditsError> {
        Self::from_micro(micro)
    }
}

impl From<Credits> for u64 {
    fn from(amount: Credits) -> Self {
        amount.0
    }
}

impl TryFrom<i64> for Delta {
    type Error = CreditsError;

    fn try_from(micro: i64) -> Result<Self, CreditsError> {
        Self::from_micro(micro)
    }
}

impl From<Delta> for i64 {
    fn from(delta: Delta) -> Self {
        delta.0
    }
}

/// In credits, to the last digit: `0.250000`.
impl fmt::Display for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / MICRO_PER_CREDIT, self.0 % MICRO_PER_CREDIT)
    }
}

impl fmt::Debug for Credits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credits({self})")
    }
}

/// With its sign when it is below zero.
impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.0 < 0 { "-" } else { "" }, Credits(self.0.unsigned_abs()))
    }
}

impl fmt::Debug for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Delta({self})")
    }
}

impl FromStr for Credits {
    type Err = CreditsError;

    fn from_str(text: &str) -> Result<Self, CreditsError> {
        let refused = || CreditsError::Form { text: text.chars().take(40).collect() };
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > DIGITS {
            return Err(refused());
        }
        // Only digits are left: what does not fit is too much.
        let whole: u64 = whole.parse().map_err(|_| CreditsError::Bound)?;
        let part: u64 = format!("{part:0<DIGITS$}").parse().map_err(|_| refused())?;
        Self::from_micro(u128::from(whole) * u128::from(MICRO_PER_CREDIT) + u128::from(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micro(micro: u64) -> Credits {
        Credits::from_micro(micro).unwrap()
    }

    #[test]
    fn the_edge_is_an_error_and_never_an_overflow() {
        let one = micro(1);
        assert_eq!(Credits::MAX.plus(one), Err(CreditsError::Bound));
        assert_eq!(Credits::MAX.plus(Credits::MAX), Err(CreditsError::Bound));
        assert_eq!(Credits::MAX.times(u64::MAX), Err(CreditsError::Bound));
        assert_eq!(Credits::MAX.minus(one).unwrap().plus(one), Ok(Credits::MAX));
        assert_eq!(Credits::ZERO.minus(one), Err(CreditsError::Short { there: Credits::ZERO, taken: one }));
        for micro in [CREDITS_MICRO_MAX + 1, u64::MAX] {
            assert_eq!(Credits::from_micro(micro), Err(CreditsError::Bound));
        }
        assert_eq!(sum([Credits::MAX, Credits::ZERO]), Ok(Credits::MAX));
        assert_eq!(sum([Credits::MAX, one]), Err(CreditsError::Bound));
        let most = Delta::from(Credits::MAX);
        assert_eq!(most.plus(most), Err(CreditsError::Bound));
        assert_eq!((-most).plus(Delta::from_micro(-1).unwrap()), Err(CreditsError::Bound));
        assert_eq!((-most).plus(most), Ok(Delta::ZERO));
        for micro in [i64::MIN, i64::MAX] {
            assert_eq!(Delta::from_micro(micro), Err(CreditsError::Bound));
        }
        assert_eq!((-most).credits(), None);
    }

    #[test]
    fn a_share_is_rounded_down_and_never_more_than_the_whole() {
        assert_eq!(micro(10).share(333_333), micro(3));
        assert_eq!(micro(1).share(999_999), Credits::ZERO);
        for ppm in [PPM, u32::MAX] {
            assert_eq!(Credits::MAX.share(ppm), Credits::MAX);
        }
    }

    #[test]
    fn an_amount_reads_back_from_its_own_text_and_other_texts_are_refused() {
        for amount in [Credits::ZERO, micro(1), micro(1_250_000), Credits::MAX] {
            assert_eq!(amount.to_string().parse(), Ok(amount));
        }
        assert_eq!("12".parse(), Ok(micro(12_000_000)));
        assert_eq!("0.25".parse(), Ok(micro(250_000)));
        assert_eq!((-Delta::from(micro(1))).to_string(), "-0.000001");
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "0.0000001", "1.2.3", "١"] {
            assert!(matches!(text.parse::<Credits>(), Err(CreditsError::Form { .. })), "{text}");
        }
        for text in ["1000000000000.000001", "99999999999999999999999"] {
            assert_eq!(text.parse::<Credits>(), Err(CreditsError::Bound), "{text}");
        }
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_as_it_is_read() {
        let refusal = serde_json::from_str::<Credits>("1000000000000000001").unwrap_err().to_string();
        assert!(refusal.contains("over the bound of 1000000000000000000 micro-credits"), "{refusal}");
        assert!(serde_json::from_str::<Credits>("-1").is_err());
        assert!(serde_json::from_str::<Delta>("-1000000000000000001").is_err());
        assert_eq!(serde_json::from_str::<Delta>("-5").unwrap(), -Delta::from(micro(5)));
    }
}
