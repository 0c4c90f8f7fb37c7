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
