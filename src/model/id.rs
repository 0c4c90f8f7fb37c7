//! Identifiers and counters, each a type of its own so that none is taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines a number that is shown and stored as itself.
macro_rules! number {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

number! {
    /// A key of the keyring that wraps data keys; a higher one is newer.
    Epoch(u32);
    /// A group id in the daemon's user namespace.
    Gid(u32);
    /// How many commits the store has taken. An older copy of the file has a lower one.
    Generation(u64);
    /// An inode number, which is also the FUSE node id.
    Inode(u64);
    /// The place of a line in the audit log, from 1, without gaps.
    Seq(u64);
    /// A login session: the kernel's audit session, which every login gets anew.
    Session(u32);
    /// A user id in the daemon's user namespace: the kernel's fsuid of the caller.
    Uid(u32);
    /// A version of one secret, from 1; numbers are never used twice.
    Version(u64);
}

impl Version {
    /// The version of a secret's first value.
    pub const FIRST: Self = Self(1);

    /// The number of the version that comes after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Generation {
    /// The generation that the next commit makes.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A grant: short enough to be typed, and random so that none is met again in the log.
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct GrantId(pub [u8; 6]);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrantId({self})")
    }
}

impl std::str::FromStr for GrantId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let error = || format!("{text:?} is no grant: use its 12 hexadecimal digits");
        let is_hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 12 || !is_hex {
            return Err(error());
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| error())?;
        let [_, _, id @ ..] = number.to_be_bytes();
        Ok(Self(id))
    }
}

/// Defines 16 random bytes, shown in lower-case hexadecimal.
macro_rules! random_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
        #[serde(transparent)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    )*};
}

random_id! {
    /// A secret for its whole life: renames keep it, a new secret of the same name has another.
    SecretId;
    /// A store for its whole life, backups and restores included.
    StoreId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_read_as_it_is_shown_and_nothing_else_is_one() {
        let id = GrantId([0, 1, 0xab, 0xff, 0x10, 9]);
        assert_eq!(id.to_string(), "0001abff1009");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "0001abff100", "0001abff10099", "0001ABFF1009", "+001abff1009"] {
            assert!(bad.parse::<GrantId>().is_err(), "{bad}");
        }
    }
}
