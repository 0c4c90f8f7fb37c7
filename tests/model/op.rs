//! Operations that callers do, what comes of them, and how a tree looks to one caller.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// The callers: an admin, an application that owns `app/`, and one that reads some of it.
pub const UIDS: [u32; 3] = [0, 1000, 1001];

/// What `tree::Rights` says in the policy's own words.
pub const POLICY: &str = r#"
[[role]]
name = "admin"
allow = [{ names = ["**"], levels = ["admin"] }]

[[role]]
name = "app"
allow = [
    { names = ["app/**"], levels = ["read", "write", "delete"] },
    { tags = ["shared"], levels = ["read"] },
]
deny = [{ names = ["app/locked/**"], levels = ["read", "write", "delete"] }]

[[role]]
name = "reader"
allow = [
    { names = ["app/*"], levels = ["read"] },
    { names = ["pub/**"], levels = ["read", "write"] },
]

[[binding]]
role = "admin"
uid = [0]

[[binding]]
role = "app"
uid = [1000]

[[binding]]
role = "reader"
uid = [1001]
"#;

/// Few names, so that they meet.
const LEAVES: [&str; 6] = ["a", "app/a", "app/d/a", "app/locked/a", "ops/a", "pub/a"];

/// The directories of those; now and then each takes the other's place.
const DIRECTORIES: [&str; 5] = ["app", "app/d", "app/locked", "ops", "pub"];

/// One operation of one caller.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Op {
    Append {
        name: String,
        value: Vec<u8>,
    },
    /// O_CREAT | O_EXCL.
    Create {
        name: String,
        value: Vec<u8>,
    },
    /// Of the nth entry of the caller's trash.
    Destroy {
        nth: usize,
    },
    Mkdir {
        name: String,
    },
    Read {
        name: String,
        which: Which,
    },
    Readdir {
        name: String,
    },
    Rename {
        from: String,
        to: String,
        replace: bool,
    },
    Restart,
    /// Of the nth entry of the caller's trash.
    Restore {
        nth: usize,
        to: String,
    },
    Rmdir {
        name: String,
    },
    SetDescription {
        name: String,
        text: String,
    },
    SetShared {
        name: String,
        shared: bool,
    },
    Stat {
        name: String,
    },
    /// Cuts or extends to `len`, then writes there.
    Truncate {
        name: String,
        len: usize,
        value: Vec<u8>,
    },
    /// O_TRUNC and nothing written.
    TruncateAlone {
        name: String,
    },
    Unlink {
        name: String,
    },
    Write {
        name: String,
        value: Vec<u8>,
    },
    WriteAt {
        name: String,
        offset: usize,
        value: Vec<u8>,
    },
    /// Through `name@expect=`.
    WriteExpecting {
        name: String,
        version: u64,
        value: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Which {
    Current,
    Number(u64),
    Previous,
}

/// What came of an operation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Reply {
    Bytes(Vec<u8>),
    Done,
    Errno(i32),
    Names(Vec<String>),
    Stat(Shown),
}

/// What stat(2) shows.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Shown {
    pub directory: bool,
    /// Of a file, else 0.
    pub size: u64,
    /// Permission bits of a file, else 0.
    pub mode: u32,
}

/// All that one caller can find by walking from the root.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct View {
    pub directories: Vec<String>,
    pub secrets: Vec<Seen>,
    /// As listed: newest first.
    pub trash: Vec<String>,
}

/// A secret as one caller sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    pub name: String,
    pub shown: Shown,
    pub version: u64,
    pub description: Option<String>,
    pub tags: Option<String>,
    /// The value or the errno.
    pub value: Result<Vec<u8>, i32>,
}

/// A program for the callers.
pub fn program(most: usize) -> impl Strategy<Value = Vec<(u32, Op)>> {
    let uid = prop_oneof![8 => Just(0), 4 => Just(1000), 2 => Just(1001)];
    proptest::collection::vec((uid, op()), 1..most)
}

fn op() -> impl Strategy<Value = Op> {
    let of =
        |names: &'static [&'static str]| proptest::sample::select(names).prop_map(str::to_owned);
    let name = || prop_oneof![9 => of(&LEAVES), 1 => of(&DIRECTORIES)];
    let directory = || prop_oneof![9 => of(&DIRECTORIES), 1 => of(&LEAVES)];
    let value = || proptest::collection::vec(any::<u8>(), 1..24);
    let which = prop_oneof![
        Just(Which::Current),
        (1..5_u64).prop_map(Which::Number),
        Just(Which::Previous)
    ];
    let may_replace = || proptest::bool::weighted(0.8);
    let rename = (name(), name(), may_replace());
    let move_all = (directory(), directory(), may_replace());
    prop_oneof![
        14 => (name(), value()).prop_map(|(name, value)| Op::Write { name, value }),
        2 => (name(), value()).prop_map(|(name, value)| Op::Create { name, value }),
        2 => (name(), value()).prop_map(|(name, value)| Op::Append { name, value }),
        2 => (name(), 0..40_usize, value())
            .prop_map(|(name, offset, value)| Op::WriteAt { name, offset, value }),
        2 => (name(), 0..40_usize, value())
            .prop_map(|(name, len, value)| Op::Truncate { name, len, value }),
        1 => name().prop_map(|name| Op::TruncateAlone { name }),
        2 => (name(), 1..4_u64, value())
            .prop_map(|(name, version, value)| Op::WriteExpecting { name, version, value }),
        6 => rename.prop_map(|(from, to, replace)| Op::Rename { from, to, replace }),
        4 => move_all.prop_map(|(from, to, replace)| Op::Rename { from, to, replace }),
        3 => name().prop_map(|name| Op::Unlink { name }),
        7 => directory().prop_map(|name| Op::Mkdir { name }),
        3 => directory().prop_map(|name| Op::Rmdir { name }),
        3 => (0..4_usize, name()).prop_map(|(nth, to)| Op::Restore { nth, to }),
        1 => (0..4_usize).prop_map(|nth| Op::Destroy { nth }),
        4 => (name(), which).prop_map(|(name, which)| Op::Read { name, which }),
        2 => name().prop_map(|name| Op::Stat { name }),
        2 => directory().prop_map(|name| Op::Readdir { name }),
        2 => (name(), any::<bool>()).prop_map(|(name, shared)| Op::SetShared { name, shared }),
        1 => (name(), "[a-z]{1,8}").prop_map(|(name, text)| Op::SetDescription { name, text }),
        1 => Just(Op::Restart),
    ]
}
