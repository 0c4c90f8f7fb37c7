//! What stands at a place in the tree, and what a name in a directory means.
//!
//! The meaning of a name follows from the name alone: nothing here asks whether anything exists.

use std::sync::Arc;

use super::by::By;
use super::control::{self, Control};
use super::render::Place;
use super::scratch::{ScratchFile, is_scratch_name};
use crate::broker::FrozenId;
use crate::model::{SecretId, SecretName, Version};

/// A place in the tree that exists, or did when the kernel learned of it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Node {
    By(By),
    Control(Control),
    Directory(SecretName),
    /// A file or directory of `.templates` or `.oneiric`.
    Rendered(Place),
    Root,
    Scratch(Arc<ScratchFile>),
    Secret(SecretName),
    Trashed(SecretId),
    View(View),
}

/// Another way to look at a secret or a directory: can be opened, is never listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct View {
    /// The secret or directory that is looked at; `None` is the root.
    pub(super) of: Option<SecretName>,
    pub(super) kind: ViewKind,
}

/// What a view shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ViewKind {
    /// `@env`: the directory's secrets as `NAME='value'` lines.
    Env,
    /// `name@expect=N`: takes a write if version N is current.
    Expect(Version),
    /// `@snap=ID`: a directory of versions that were current together.
    Frozen(FrozenId),
    /// `@json`: the directory's secrets as one object.
    Json,
    /// `name@meta`.
    Meta,
    /// `name@N`.
    Numbered(Version),
    /// `name@pending`.
    Pending,
    /// `name@previous`.
    Previous,
    /// `@snap`: a link to a set of what is current.
    Snap,
    /// `name@why`.
    Why,
}

impl ViewKind {
    /// Returns what stands behind the at sign.
    pub(super) fn word(self) -> String {
        match self {
            Self::Env => "env".into(),
            Self::Expect(version) => format!("expect={version}"),
            Self::Frozen(FrozenId(id)) => format!("snap={id:016x}"),
            Self::Json => "json".into(),
            Self::Meta => "meta".into(),
            Self::Numbered(version) => version.to_string(),
            Self::Pending => "pending".into(),
            Self::Previous => "previous".into(),
            Self::Snap => "snap".into(),
            Self::Why => "why".into(),
        }
    }

    /// Tells whether it is a directory that is looked at.
    fn is_of_directory(self) -> bool {
        match self {
            Self::Env | Self::Frozen(_) | Self::Json | Self::Snap => true,
            Self::Expect(_)
            | Self::Meta
            | Self::Numbered(_)
            | Self::Pending
            | Self::Previous
            | Self::Why => false,
        }
    }

    /// Tells whether the bytes differ from caller to caller, so that no two may share a page.
    pub(super) fn is_per_caller(self) -> bool {
        match self {
            Self::Env | Self::Json | Self::Meta | Self::Why => true,
            Self::Expect(_)
            | Self::Frozen(_)
            | Self::Numbered(_)
            | Self::Pending
            | Self::Previous
            | Self::Snap => false,
        }
    }
}

impl Node {
    /// Returns the node as text for the next server, or `None` for one that ends with this one.
    pub(super) fn to_kept(&self) -> Option<String> {
        Some(match self {
            Self::By(by) => format!("p{}", by.path()),
            Self::Control(control) => format!("p{}", control.path()),
            Self::Directory(name) => format!("d{name}"),
            Self::Rendered(place) => format!("p{}", place.path()),
            Self::Root | Self::Scratch(_) => return None,
            Self::Secret(name) => format!("s{name}"),
            Self::Trashed(id) => format!("t{id}"),
            Self::View(View { of, kind }) => match of {
                Some(of) if kind.is_of_directory() => format!("p{of}/@{}", kind.word()),
                Some(of) => format!("p{of}@{}", kind.word()),
                None => format!("p@{}", kind.word()),
            },
        })
    }

    /// Reads a node from such a text.
    pub(super) fn from_kept(text: &str) -> Option<Self> {
        let rest = text.get(1..)?;
        match text.as_bytes().first()? {
            b'd' => rest.parse().ok().map(Self::Directory),
            b'p' => {
                let mut node = Self::Root;
                for segment in rest.split('/') {
                    node = match meaning(&node, segment.as_bytes()) {
                        Meaning::By(by) => Self::By(by),
                        Meaning::Control(control) => Self::Control(control),
                        Meaning::Path(path) => Self::Directory(path),
                        Meaning::Rendered(place) => Self::Rendered(place),
                        Meaning::View(view) => Self::View(view),
                        Meaning::Bad
                        | Meaning::Member { .. }
                        | Meaning::Scratch(_)
                        | Meaning::Trashed(_) => return None,
                    };
                }
                Some(node)
            }
            b's' => rest.parse().ok().map(Self::Secret),
            b't' => {
                let byte = |at: usize| u8::from_str_radix(rest.get(at * 2..at * 2 + 2)?, 16).ok();
                let bytes: Option<Vec<u8>> = (0..16).map(byte).collect();
                Some(Self::Trashed(SecretId(bytes?.try_into().ok()?)))
            }
            _ => None,
        }
    }
}

/// What a name in a directory stands for, whether or not it is there.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Meaning {
    /// A name that nothing can have.
    Bad,
    By(By),
    Control(Control),
    /// A secret of a set, in the version that it has there.
    Member {
        set: FrozenId,
        name: SecretName,
    },
    /// A secret or a directory.
    Path(SecretName),
    Rendered(Place),
    /// An editor's file; stored nowhere.
    Scratch(ScratchName),
    /// An entry of the trash, as listed.
    Trashed(Box<str>),
    View(View),
}

/// A scratch file's place; every uid has its own.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct ScratchName {
    /// `None` is the root.
    pub(super) directory: Option<SecretName>,
    pub(super) leaf: Box<str>,
}

/// Tells what `name` means in the directory `parent`.
pub(super) fn meaning(parent: &Node, name: &[u8]) -> Meaning {
    let Ok(name) = std::str::from_utf8(name) else { return Meaning::Bad };
    match parent {
        Node::By(by) => by.child(name).map_or(Meaning::Bad, Meaning::By),
        Node::Control(Control::Trash) => Meaning::Trashed(name.into()),
        Node::Control(place) => control::child(*place, name).map_or(Meaning::Bad, Meaning::Control),
        Node::Directory(directory) => below(Some(directory), name),
        Node::Rendered(place) => place.child(name).map_or(Meaning::Bad, Meaning::Rendered),
        Node::Root => match name {
            ".by" => Meaning::By(By::Facets),
            ".control" => Meaning::Control(Control::Top),
            name => Place::top(name).map_or_else(|| below(None, name), Meaning::Rendered),
        },
        Node::View(View { of, kind: ViewKind::Frozen(set) }) => SecretName::join(of.as_ref(), name)
            .map_or(Meaning::Bad, |name| Meaning::Member { set: *set, name }),
        Node::Scratch(_) | Node::Secret(_) | Node::Trashed(_) | Node::View(_) => Meaning::Bad,
    }
}

fn below(directory: Option<&SecretName>, name: &str) -> Meaning {
    if is_scratch_name(name) {
        return Meaning::Scratch(ScratchName { directory: directory.cloned(), leaf: name.into() });
    }
    match name.split_once('@') {
        Some((leaf, view)) => parse_view(directory, leaf, view).map_or(Meaning::Bad, Meaning::View),
        None => SecretName::join(directory, name).map_or(Meaning::Bad, Meaning::Path),
    }
}

fn parse_view(directory: Option<&SecretName>, leaf: &str, view: &str) -> Option<View> {
    if leaf.is_empty() {
        let kind = match view {
            "env" => ViewKind::Env,
            "json" => ViewKind::Json,
            "snap" => ViewKind::Snap,
            _ => ViewKind::Frozen(parse_set(view.strip_prefix("snap=")?)?),
        };
        return Some(View { of: directory.cloned(), kind });
    }
    let kind = match view {
        "meta" => ViewKind::Meta,
        "pending" => ViewKind::Pending,
        "previous" => ViewKind::Previous,
        "why" => ViewKind::Why,
        _ => match view.strip_prefix("expect=") {
            Some(number) => ViewKind::Expect(parse_version(number)?),
            None => ViewKind::Numbered(parse_version(view)?),
        },
    };
    Some(View { of: Some(SecretName::join(directory, leaf).ok()?), kind })
}

/// Parses a version in its one spelling: no sign, no zeros in front.
fn parse_version(text: &str) -> Option<Version> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok().map(Version)).flatten()
}

/// Parses a set's number in its one spelling.
fn parse_set(text: &str) -> Option<FrozenId> {
    let id = FrozenId(u64::from_str_radix(text, 16).ok()?);
    (ViewKind::Frozen(id).word() == format!("snap={text}")).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GrantId;

    fn in_directory(name: &str) -> Meaning {
        meaning(&Node::Directory("prod".parse().unwrap()), name.as_bytes())
    }

    fn view(of: &str, kind: ViewKind) -> Meaning {
        Meaning::View(View { of: Some(of.parse().unwrap()), kind })
    }

    #[test]
    fn a_plain_name_is_a_path_below_its_directory() {
        assert_eq!(in_directory("db"), Meaning::Path("prod/db".parse().unwrap()));
        assert_eq!(meaning(&Node::Root, b"db"), Meaning::Path("db".parse().unwrap()));
    }

    #[test]
    fn views_are_told_by_what_follows_the_at_sign() {
        let cases = [
            ("k@previous", view("prod/k", ViewKind::Previous)),
            ("k@pending", view("prod/k", ViewKind::Pending)),
            ("k@meta", view("prod/k", ViewKind::Meta)),
            ("k@why", view("prod/k", ViewKind::Why)),
            ("k@7", view("prod/k", ViewKind::Numbered(Version(7)))),
            ("k@expect=7", view("prod/k", ViewKind::Expect(Version(7)))),
            ("@env", view("prod", ViewKind::Env)),
            ("@json", view("prod", ViewKind::Json)),
            ("@snap", view("prod", ViewKind::Snap)),
            ("@snap=00000000000000a7", view("prod", ViewKind::Frozen(FrozenId(0xa7)))),
        ];
        for (name, expected) in cases {
            assert_eq!(in_directory(name), expected, "{name}");
        }
        let root_env = View { of: None, kind: ViewKind::Env };
        assert_eq!(meaning(&Node::Root, b"@env"), Meaning::View(root_env));
    }

    #[test]
    fn no_other_spelling_is_a_view() {
        for bad in [
            "k@",
            "k@0",
            "k@07",
            "k@+7",
            "k@-1",
            "k@x",
            "@meta",
            "@7",
            "k@env",
            "k@snap",
            "@snap=",
            "@snap=a7",
            "@snap=00000000000000A7",
            "@snap=+0000000000000a7",
            "k@expect=",
            "k@expect=0",
            "k@7@7",
            "a b@7",
            "k@18446744073709551616",
        ] {
            assert_eq!(in_directory(bad), Meaning::Bad, "{bad}");
        }
    }

    #[test]
    fn a_node_survives_being_kept_and_a_scratch_file_does_not() {
        let members = By::Facets.child("tag").unwrap().child("web").unwrap();
        let views = [
            View { of: None, kind: ViewKind::Json },
            View { of: Some("a/b".parse().unwrap()), kind: ViewKind::Expect(Version(7)) },
            View { of: Some("b".parse().unwrap()), kind: ViewKind::Numbered(Version(7)) },
            View { of: Some("a/b".parse().unwrap()), kind: ViewKind::Snap },
            View { of: None, kind: ViewKind::Frozen(FrozenId(7)) },
        ];
        let mut nodes = vec![
            Node::Secret("prod/db".parse().unwrap()),
            Node::Directory("prod".parse().unwrap()),
            Node::Trashed(SecretId([0xa7; 16])),
            Node::Control(Control::Grant(GrantId([0xa7; 6]))),
            Node::By(members.child("prod:db").unwrap()),
            Node::By(members),
            Node::Rendered(Place::Templates.child("nginx.conf").unwrap()),
            Node::Rendered(Place::Layers.child("app.yaml").unwrap()),
        ];
        nodes.extend(views.map(Node::View));
        for place in [Control::Top, Control::Audit] {
            nodes.extend(control::children(place).into_iter().map(|(_, file)| Node::Control(file)));
        }
        for node in nodes {
            assert_eq!(Node::from_kept(&node.to_kept().unwrap()).unwrap(), node);
        }
        for bad in ["", "x", "d../a", "p.control/nothing", "p.control/grants/a7", "t00", "p.x~"] {
            assert_eq!(Node::from_kept(bad), None, "{bad}");
        }
    }

    #[test]
    fn dot_led_names_are_scratch_but_those_of_the_tree_itself() {
        assert_eq!(meaning(&Node::Root, b".control"), Meaning::Control(Control::Top));
        assert_eq!(meaning(&Node::Root, b".by"), Meaning::By(By::Facets));
        assert_eq!(meaning(&Node::Root, b".templates"), Meaning::Rendered(Place::Templates));
        assert!(matches!(in_directory(".control"), Meaning::Scratch(_)));
        assert!(matches!(in_directory("k@7~"), Meaning::Scratch(_)));
    }

    #[test]
    fn hostile_names_mean_nothing() {
        for bad in [&b"a b"[..], b"\xff", b"a\nb", b"", &[b'a'; 256]] {
            assert_eq!(meaning(&Node::Root, bad), Meaning::Bad, "{bad:?}");
        }
    }
}
