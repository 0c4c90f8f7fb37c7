//! A hash of the set of all entries of a store, kept up to date in constant time.
//!
//! Each entry alone says where it belongs; this says that none is missing, doubled or older than
//! it should be. It is the sum, modulo 2^256, of a keyed hash of each entry: the additive multiset
//! hash of Clarke et al., "Incremental Multiset Hash Functions" (2003). Without the key nobody can
//! make entries whose hashes add up to a given sum.

use serde::{Deserialize, Serialize};

use super::keyring::Keyring;

/// The keyed hash of one entry of a table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Element([u8; 32]);

/// How many entries there are, and the sum of their elements (256 bits, little-endian).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct RecordSet {
    pub count: u64,
    pub sum: [u8; 32],
}

impl RecordSet {
    /// Takes in an entry.
    pub fn add(&mut self, element: &Element) {
        self.count = self.count.wrapping_add(1);
        let mut carry = false;
        self.each_limb(element, |a, b| {
            let sum;
            (sum, carry) = a.carrying_add(b, carry);
            sum
        });
    }

    /// Takes out an entry that was taken in before.
    pub fn remove(&mut self, element: &Element) {
        self.count = self.count.wrapping_sub(1);
        let mut borrow = false;
        self.each_limb(element, |a, b| {
            let difference;
            (difference, borrow) = a.borrowing_sub(b, borrow);
            difference
        });
    }

    fn each_limb(&mut self, element: &Element, mut combine: impl FnMut(u64, u64) -> u64) {
        let (limbs, _) = self.sum.as_chunks_mut();
        let (others, _) = element.0.as_chunks();
        for (limb, other) in limbs.iter_mut().zip(others) {
            *limb = combine(u64::from_le_bytes(*limb), u64::from_le_bytes(*other)).to_le_bytes();
        }
    }
}

impl Keyring {
    /// Returns the element of one entry of a table, by the table's stored number.
    pub fn element(&self, table: u8, key: &[u8], value: &[u8]) -> Element {
        let key_len = (key.len() as u64).to_be_bytes();
        Element(self.lasting.element.mac(&[&[table], &key_len, key, value]))
    }

    /// Authenticates the encoded root record: the set, the generation and the audit log's head.
    pub fn authenticate(&self, bytes: &[u8]) -> [u8; 32] {
        self.lasting.root_record.mac(&[bytes])
    }

    /// Tells in constant time whether `mac` is that of [`authenticate`](Self::authenticate).
    #[must_use]
    pub fn verify(&self, bytes: &[u8], mac: &[u8]) -> bool {
        self.lasting.root_record.verify(&[bytes], mac)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::tests::keyring;

    #[test]
    fn the_sum_carries_from_limb_to_limb() {
        let mut set = RecordSet { count: 0, sum: [0xff; 32] };
        let mut one = [0; 32];
        one[0] = 1;
        set.add(&Element(one));
        assert_eq!(set, RecordSet { count: 1, sum: [0; 32] });
        set.remove(&Element(one));
        assert_eq!(set, RecordSet { count: 0, sum: [0xff; 32] });
    }

    #[test]
    fn elements_differ_by_table_key_value_and_the_border_between_them() {
        let keys = keyring(1);
        let element = keys.element(3, b"ab", b"c");
        for other in [(4, "ab", "c"), (3, "a", "bc"), (3, "abc", ""), (3, "ab", "d")] {
            let (table, key, value) = other;
            assert_ne!(element, keys.element(table, key.as_bytes(), value.as_bytes()));
        }
        assert_eq!(element, keys.element(3, b"ab", b"c"));
        assert_ne!(element, keyring(1).element(3, b"ab", b"c"));
    }

    #[test]
    fn a_root_record_verifies_with_its_own_code_only() {
        let keys = keyring(1);
        let mut mac = keys.authenticate(b"generation 7");
        assert!(keys.verify(b"generation 7", &mac));
        assert!(!keys.verify(b"generation 8", &mac));
        assert!(!keys.verify(b"generation 7", &mac[..31]) && !keys.verify(b"generation 7", &[]));
        mac[31] ^= 1;
        assert!(!keys.verify(b"generation 7", &mac));
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64, failure_persistence: None, ..Default::default()
        })]

        #[test]
        fn the_set_after_any_changes_is_that_of_what_remains(
            changes in proptest::collection::vec((0..20_u8, 0..4_u8), 0..100)
        ) {
            let keys = keyring(1);
            let (mut set, mut entries) = (RecordSet::default(), std::collections::BTreeMap::new());
            for (key, value) in changes {
                // Value 0 stands for a removal.
                if let Some(old) = entries.remove(&key) {
                    set.remove(&keys.element(3, &[key], &[old]));
                }
                if value > 0 {
                    entries.insert(key, value);
                    set.add(&keys.element(3, &[key], &[value]));
                }
            }
            let mut anew = RecordSet::default();
            entries.iter().rev().for_each(|(k, v)| anew.add(&keys.element(3, &[*k], &[*v])));
            prop_assert_eq!(set, anew);
            prop_assert_eq!(set.count, entries.len() as u64);
        }
    }
}
