//! Half-precision numbers, of which stable Rust has no type.

/// An IEEE half, as its bits. Tasks compute in `f32` and convert at the wall.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct F16(pub u16);

/// Bits of a mantissa that a half has not.
const LOST: u32 = 23 - 10;
/// The smallest `f32` exponent of a normal half, biased.
const NORMAL: u32 = 127 - 14;

impl From<f32> for F16 {
    /// The nearest half, of two the even one. What is too large is infinite, and a NaN stays one.
    fn from(value: f32) -> Self {
        let bits = value.to_bits();
        let sign = (bits >> 16) & 0x8000;
        let magnitude = bits & 0x7fff_ffff;
        let half = if magnitude > 0x7f80_0000 {
            // Quiet, with the upper bits of its payload.
            0x7e00 | (magnitude >> LOST) & 0x3ff
        } else if magnitude >= (NORMAL << 23) {
            // A carry out of the mantissa raises the exponent, at the end to infinity.
            (rounded(magnitude, LOST) - ((NORMAL - 1) << 10)).min(0x7c00)
        } else {
            // Below the normal halves, which are multiples of the smallest one: shift by as much as the exponent is lower.
            let mantissa = magnitude & 0x7f_ffff | 0x80_0000;
            let shift = LOST + 1 + (NORMAL - 1).saturating_sub(magnitude >> 23);
            if shift > 24 { 0 } else { rounded(mantissa, shift) }
        };
        // Sixteen bits by construction.
        Self((sign | half) as u16)
    }
}

/// `bits` without the lower `lost`, to the nearest, of two the even one.
const fn rounded(bits: u32, lost: u32) -> u32 {
    let kept = bits >> lost;
    let rest = bits & ((1 << lost) - 1);
    let middle = 1 << (lost - 1);
    kept + (rest > middle || (rest == middle && kept & 1 == 1)) as u32
}

impl From<F16> for f32 {
    /// The same number.
    fn from(half: F16) -> Self {
        let bits = u32::from(half.0);
        let (sign, exponent, mantissa) = ((bits & 0x8000) << 16, bits >> 10 & 0x1f, bits & 0x3ff);
        match exponent {
            // A multiple of the smallest half, 2^-24.
            0 => Self::from_bits(sign | (mantissa as Self * Self::from_bits((127 - 24) << 23)).to_bits()),
            0x1f => Self::from_bits(sign | 0x7f80_0000 | mantissa << LOST),
            _ => Self::from_bits(sign | (exponent + NORMAL - 1) << 23 | mantissa << LOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_an_f32_and_back() {
        for bits in 0..=u16::MAX {
            let value = f32::from(F16(bits));
            if value.is_nan() {
                assert!(f32::from(F16::from(value)).is_nan(), "{bits:#06x}");
            } else {
                assert_eq!(F16::from(value), F16(bits), "{value:e}");
            }
        }
    }

    #[test]
    fn numbers_between_go_to_the_nearest_and_halfway_to_the_even() {
        for bits in 0..0x7c00u16 {
            let (low, high) = (f64::from(f32::from(F16(bits))), f64::from(f32::from(F16(bits + 1))));
            // The last one ends where the next would begin.
            let high = if high.is_infinite() { 65536.0 } else { high };
            let at = |part: f64| F16::from((low + (high - low) * part) as f32).0;
            assert_eq!((at(0.25), at(0.75)), (bits, bits + 1), "{low:e}");
            assert_eq!(at(0.5), bits + (bits & 1), "{low:e}");
        }
    }

    #[test]
    fn known_numbers() {
        let known = [(0.0, 0), (-0.0, 0x8000), (1.0, 0x3c00), (-2.0, 0xc000), (65504.0, 0x7bff), (65520.0, 0x7c00)];
        let ends =
            [(f32::INFINITY, 0x7c00), (f32::MAX, 0x7c00), (f32::MIN_POSITIVE, 0), (5.960_464_5e-8, 1), (2e-8, 0)];
        for (value, bits) in known.into_iter().chain(ends) {
            assert_eq!(F16::from(value), F16(bits), "{value:e}");
        }
        assert!(f32::from(F16::from(f32::NAN)).is_nan());
    }
}
