//! CRC-32C, and joining the checksums of two parts.
//!
//! A batch's header changes with every attempt while its records do not. The records' checksum and
//! their *shift* are computed once, at sealing; a new header then costs its own 40 bytes and one
//! multiplication. The general combine function of the checksum crate rebuilds matrices each time:
//! 15 us, more than encoding a hundred records.

/// The Castagnoli polynomial, reflected: bit 31 is the coefficient of x^0.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1 in that representation.
const ONE: u32 = 1 << 31;

/// x to the power of 2^k, modulo the polynomial, for every k that a length below 2^32 bytes needs.
const POWERS: [u32; 35] = {
    let mut powers = [ONE >> 1; 35];
    let mut k = 1;
    while k < powers.len() {
        powers[k] = multiply(powers[k - 1], powers[k - 1]);
        k += 1;
    }
    powers
};

/// Product of two polynomials modulo the polynomial.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        // Masks instead of branches: the bits of a checksum cannot be predicted.
        product ^= b & 0u32.wrapping_sub((a & bit != 0) as u32);
        b = (b >> 1) ^ (POLYNOMIAL & 0u32.wrapping_sub(b & 1));
        bit >>= 1;
    }
    product
}

/// Checksum of `bytes`, as the batch header holds it.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Checksum of a second part, ready to be joined to any first part.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suffix {
    crc: u32,
    /// x to the power of the part's length in bits. Multiplying the first part's checksum by it extends that by
    /// the length of this part.
    shift: u32,
}

impl Suffix {
    /// For a part of `len` bytes (below 2^32) with the checksum `crc`.
    pub(crate) fn new(crc: u32, len: u32) -> Self {
        let mut shift = ONE;
        for k in 0..32 {
            if len & (1 << k) != 0 {
                shift = multiply(shift, POWERS[k + 3]); // 8 bits a byte
            }
        }
        Self { crc, shift }
    }

    /// Checksum of a first part, whose own is `first`, and this one behind it.
    pub(crate) fn after(self, first: u32) -> u32 {
        multiply(self.shift, first) ^ self.crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn check_value() {
        // What every CRC-32C implementation is measured by.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn agrees_with_the_checksum_crate_for_every_length_bit() {
        for k in 0..32 {
            let joined = Suffix::new(0x1234_5678, 1 << k).after(0x9abc_def0);
            let theirs = crc_fast::checksum_combine(
                crc_fast::CrcAlgorithm::Crc32Iscsi,
                0x9abc_def0,
                0x1234_5678,
                1 << k,
            );
            assert_eq!(u64::from(joined), theirs, "length 2^{k}");
        }
    }

    proptest! {
        #[test]
        fn joined_equals_whole(bytes: Vec<u8>, cut in any::<prop::sample::Index>()) {
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            let suffix = Suffix::new(crc32c(second), second.len() as u32);
            prop_assert_eq!(suffix.after(crc32c(first)), crc32c(&bytes));
        }
    }
}
