//! CRC-32 (IEEE 802.3, reflected) of 1 MiB, `n` times, one table look-up a byte.

use super::{Numbers, mix};

const BYTES: usize = 1 << 20;

pub(super) fn run(n: u32) -> u64 {
    let mut numbers = Numbers::new(32);
    let mut data: Vec<u8> = (0..BYTES / 8).flat_map(|_| numbers.next().to_le_bytes()).collect();
    let table = table();
    (0..n).fold(0, |sum, round| {
        data[0] = round as u8;
        mix(sum, crc(&table, &data).into())
    })
}

fn table() -> [u32; 256] {
    let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
    std::array::from_fn(|byte| (0..8).fold(byte as u32, |crc, _| step(crc)))
}

fn crc(table: &[u32; 256], data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, byte| (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_catalogues_check_value_comes_out() {
        assert_eq!(super::crc(&super::table(), b"123456789"), 0xcbf4_3926);
    }
}
