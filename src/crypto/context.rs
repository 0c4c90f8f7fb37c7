//! What keys are for, and what sealed bytes are bound to.
//!
//! A [`Purpose`] is the `info` of a derived key or the first field of associated data. The labels
//! are stored in every sealed byte, so to speak: changing one makes old stores unreadable.

/// The only uses of keys and associated data. No label is the beginning of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    AuditKey,
    CheckKey,
    CommitmentKey,
    Content,
    DataKey,
    ElementKey,
    FingerprintKey,
    InodeKey,
    Keyring,
    KeyringKey,
    Learned,
    Lines,
    MetadataKey,
    Record,
    RootRecordKey,
    Slot,
    SlotKey,
    WrappingKey,
}

impl Purpose {
    #[cfg(test)]
    pub(super) const ALL: [Self; 18] = [
        Self::AuditKey,
        Self::CheckKey,
        Self::CommitmentKey,
        Self::Content,
        Self::DataKey,
        Self::ElementKey,
        Self::FingerprintKey,
        Self::InodeKey,
        Self::Keyring,
        Self::KeyringKey,
        Self::Learned,
        Self::Lines,
        Self::MetadataKey,
        Self::Record,
        Self::RootRecordKey,
        Self::Slot,
        Self::SlotKey,
        Self::WrappingKey,
    ];

    pub(super) const fn label(self) -> &'static [u8] {
        match self {
            Self::AuditKey => b"secretfs/v1/key/audit",
            Self::CheckKey => b"secretfs/v1/key/check",
            Self::CommitmentKey => b"secretfs/v1/key/commitment",
            Self::Content => b"secretfs/v1/sealed/content",
            Self::DataKey => b"secretfs/v1/sealed/data-key",
            Self::ElementKey => b"secretfs/v1/key/element",
            Self::FingerprintKey => b"secretfs/v1/key/fingerprint",
            Self::InodeKey => b"secretfs/v1/key/inode",
            Self::Keyring => b"secretfs/v1/sealed/keyring",
            Self::KeyringKey => b"secretfs/v1/key/keyring",
            Self::Learned => b"secretfs/v1/sealed/learned",
            Self::Lines => b"secretfs/v1/sealed/lines",
            Self::MetadataKey => b"secretfs/v1/key/metadata",
            Self::Record => b"secretfs/v1/sealed/record",
            Self::RootRecordKey => b"secretfs/v1/key/root-record",
            Self::Slot => b"secretfs/v1/sealed/slot",
            Self::SlotKey => b"secretfs/v1/key/slot",
            Self::WrappingKey => b"secretfs/v1/key/wrapping",
        }
    }
}

/// Associated data: fields that are led by their length each, so that no two lists of fields give
/// the same bytes.
pub(super) struct Context(Vec<u8>);

impl Context {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self(Vec::with_capacity(128)).bytes(purpose.label())
    }

    pub(super) fn bytes(mut self, field: &[u8]) -> Self {
        // Eight bytes hold any length there is.
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field);
        self
    }

    pub(super) fn number(self, field: impl Into<u64>) -> Self {
        self.bytes(&field.into().to_be_bytes())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_purpose_is_the_beginning_of_another() {
        for (i, a) in Purpose::ALL.iter().enumerate() {
            for (j, b) in Purpose::ALL.iter().enumerate() {
                assert!(i == j || !a.label().starts_with(b.label()), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn fields_cannot_be_split_in_another_way() {
        let of = |fields: &[&[u8]]| {
            let new = Context::new(Purpose::Record);
            fields.iter().fold(new, |context, field| context.bytes(field)).0
        };
        let all = [of(&[b"ab", b"c"]), of(&[b"a", b"bc"]), of(&[b"abc"]), of(&[b"abc", b""])];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
