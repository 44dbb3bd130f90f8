// SPDX-License-Identifier: GPL-2.0

//! A device that does what a string of bytes says, which is how it is fuzzed.
//!
//! The first bytes are what is wrong in the configuration space, the rest is what becomes of one
//! request after the other. A string that has come to its end means a device without a fault, and
//! so does every byte below [`PROPER`], so that a string which is mutated often gets far.

use crate::config::{Config, SIZE};

/// The most changes of the configuration space.
const MOST_PATCHES: u8 = 4;

/// Bytes below this stand for a proper answer.
const PROPER: u8 = 144;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is done, and the answer is right.
    Proper,
    /// It is done, and the status byte is this.
    Status(u8),
    /// It is done, and the status byte is not written.
    NoStatus,
    /// It is done, and the data of the answer is this byte over and over.
    Data(u8),
    /// The used ring names a wrong length.
    Length(u32),
    /// The used ring names another descriptor.
    Id(u32),
    /// The used ring names the request more than once.
    Times(u8),
    /// The used ring's index is so far ahead of what was used.
    Ahead(u16),
    /// It is answered later: after so many others, or when the device has a moment.
    Later(u8),
    /// The configuration changes: this byte of it becomes that one.
    Config(u8, u8),
}

/// The rest of such a string.
#[derive(Debug, Default)]
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    /// Takes hexadecimal digits.
    pub fn parse(hex: &str) -> Result<Self, String> {
        let wrong = || format!("{hex:?} is not an even number of hexadecimal digits");

        if !hex.is_ascii() || hex.len() % 2 != 0 {
            return Err(wrong());
        }
        let bytes = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16))
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;

        Ok(Self { bytes, at: 0 })
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);

        self.at += 1;
        byte
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// Makes the changes of the configuration space that the string begins with.
    pub fn patch(&mut self, config: &mut Config) {
        for _ in 0..self.byte() % (MOST_PATCHES + 1) {
            let (at, value) = (self.byte(), self.byte());

            config.put_byte(usize::from(at) % SIZE, value);
        }
    }

    /// What becomes of the next request.
    pub fn next(&mut self) -> Deed {
        let byte = self.byte();

        if byte < PROPER {
            return Deed::Proper;
        }
        match byte % 14 {
            0 | 1 => Deed::Status(self.byte()),
            2 | 3 => Deed::Status(byte % 4),
            4 => Deed::NoStatus,
            5 => Deed::Data(self.byte()),
            6 => Deed::Length(self.number()),
            7 => Deed::Id(self.number()),
            8 => Deed::Id(u32::from(self.byte())),
            9 => Deed::Times(self.byte() % 4),
            10 => Deed::Ahead(u16::from(self.byte())),
            11 | 12 => Deed::Later(self.byte() % 16),
            _ => Deed::Config(self.byte(), self.byte()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_end_means_no_fault() {
        let mut script = Script::parse("").unwrap();
        assert!((0..9).all(|_| script.next() == Deed::Proper));
        assert!(Script::parse("0").is_err() && Script::parse("xy").is_err());
    }

    #[test]
    fn bytes_are_deeds() {
        let mut script = Script::parse("00b64d10b7").unwrap();
        assert_eq!(script.next(), Deed::Proper);
        assert_eq!(script.next(), Deed::Status(0x4d));
        assert_eq!(script.next(), Deed::Proper);
        assert_eq!(script.next(), Deed::Status(0));
    }
}
