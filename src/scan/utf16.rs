//! UTF-16 as a stream of UTF-8, so that lines and columns can be counted as in any other text.

use std::io::{self, Read};

/// The order of the two bytes of a character.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    Big,
    Little,
}

impl Order {
    /// Guesses from the beginning of a text: by its mark, or because every other byte is zero.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0xff, 0xfe, third, fourth, ..] if (*third, *fourth) != (0, 0) => {
                return Some(Self::Little);
            }
            [0xfe, 0xff, ..] => return Some(Self::Big),
            _ => {}
        }
        let head = head.get(..256).unwrap_or(head);
        let zeros =
            |offset: usize| head.iter().skip(offset).step_by(2).filter(|&&byte| byte == 0).count();
        let half = head.len() / 2;
        // Text of the Latin alphabet has nothing but zeros in one half and none in the other.
        match (zeros(0), zeros(1)) {
            (0, high) if half >= 8 && high * 10 >= half * 9 => Some(Self::Little),
            (high, 0) if half >= 8 && high * 10 >= half * 9 => Some(Self::Big),
            _ => None,
        }
    }
}

/// Reads UTF-16 and gives UTF-8.
pub(super) struct Utf16Reader<R> {
    inner: R,
    order: Order,
    /// Bytes that are not decoded yet: the second half of a character, or of a pair of them.
    pending: Vec<u8>,
    /// Text that did not fit into the reader's buffer.
    ready: Vec<u8>,
    given: usize,
}

impl<R: Read> Utf16Reader<R> {
    pub(super) fn new(inner: R, order: Order) -> Self {
        Self { inner, order, pending: Vec::new(), ready: Vec::new(), given: 0 }
    }

    fn refill(&mut self) -> io::Result<()> {
        let mut room = [0; 8192];
        let read = self.inner.read(&mut room)?;
        self.pending.extend_from_slice(room.get(..read).unwrap_or_default());
        let mut units: Vec<u16> = self
            .pending
            .chunks_exact(2)
            .filter_map(|pair| <[u8; 2]>::try_from(pair).ok())
            .map(|pair| match self.order {
                Order::Big => u16::from_be_bytes(pair),
                Order::Little => u16::from_le_bytes(pair),
            })
            .collect();
        // The first half of a pair waits for its second.
        if read > 0 && units.last().is_some_and(|unit| (0xd800..0xdc00).contains(unit)) {
            units.pop();
        }
        self.pending.drain(..units.len() * 2);
        if read == 0 {
            self.pending.clear();
        }
        self.ready.clear();
        self.given = 0;
        let text = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
        let text: String = text.filter(|&c| c != '\u{feff}').collect();
        self.ready.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl<R: Read> Read for Utf16Reader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() {
            let before = self.pending.len();
            self.refill()?;
            if self.ready.is_empty() && self.pending.len() <= before {
                return Ok(0);
            }
        }
        let rest = self.ready.get(self.given..).unwrap_or_default();
        let len = rest.len().min(to.len());
        to.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.given += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str, order: Order) -> Vec<u8> {
        text.encode_utf16()
            .flat_map(|unit| match order {
                Order::Big => unit.to_be_bytes(),
                Order::Little => unit.to_le_bytes(),
            })
            .collect()
    }

    #[test]
    fn text_of_either_order_is_known_and_read() {
        // Long enough that pairs lie across the borders of reads.
        let text = format!("{}{}", "password = x\n".repeat(20), "a\u{1f511}".repeat(5000));
        for order in [Order::Big, Order::Little] {
            let bytes = encoded(&text, order);
            assert_eq!(Order::of(&bytes), Some(order));
            let mut read = String::new();
            Utf16Reader::new(&bytes[..], order).read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn other_data_is_not_taken_for_it() {
        assert_eq!(Order::of(b"plain text of one byte each"), None);
        assert_eq!(Order::of(&[0; 64]), None);
        assert_eq!(Order::of(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0"), None);
    }
}
