//! The store as a side of a copy: the mount, as its caller may see and change it.
//!
//! A value is written to a scratch file at the root, which is never stored, and renamed to its name: so a copy that is
//! killed leaves whole values alone, however long they are. What it leaves at the root the next one takes away.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde::Deserialize;
use serde_json::json;

use super::side::{After, Edition, Held, Mark, Tags};
use super::{Side, Trouble};
use crate::backend::VersionId;
use crate::cli::client::{Client, close};
use crate::cli::error::{Failure, Kind};
use crate::cli::{names, plaintext};
use crate::fs::is_scratch_name;
use crate::model::SecretName;
use crate::system::SecretBytes;

/// What scratch files of copies begin with; the process and a number follow.
const SCRATCH: &str = ".secretfs-copy-";

/// Tags of services that are attributes of a secret here.
const TEXTS: [&str; 4] = ["description", "environment", "expires", "service"];

/// The value of a tag that is a word here.
const WORD: &str = "true";

/// The secrets below a directory of a mount.
pub(crate) struct Local {
    client: Client,
    directory: Option<SecretName>,
    /// Directories whose secrets are not copied.
    without: Vec<SecretName>,
    written: AtomicUsize,
}

impl Local {
    /// `None` is the whole mount. What is below one of `without` is none of this side's.
    pub(crate) fn new(
        client: Client,
        directory: Option<SecretName>,
        without: Vec<SecretName>,
    ) -> Self {
        Self { client, directory, without, written: AtomicUsize::new(0) }
    }

    /// Takes away what copies that were killed have left at the root.
    pub(crate) fn tidy(&self) {
        for (name, _) in self.client.list("").unwrap_or_default() {
            let process = name.strip_prefix(SCRATCH).and_then(|rest| rest.split('-').next());
            let is_left = |process: &str| !Path::new("/proc").join(process).exists();
            if process.is_some_and(is_left) {
                // Somebody else may have done so.
                drop(fs::remove_file(self.client.path(&name)));
            }
        }
    }

    fn name(&self, name: &str) -> Result<SecretName, String> {
        let whole = self.directory.as_ref().map_or(name.to_owned(), |dir| format!("{dir}/{name}"));
        let parsed: SecretName =
            whole.parse().map_err(|err| format!("it can be no name: {err}"))?;
        if is_scratch_name(parsed.leaf()) {
            return Err("it is a name of editors' files, which are never stored".into());
        }
        Ok(parsed)
    }

    fn known(&self, name: &str) -> Result<SecretName, Trouble> {
        self.name(name).map_err(Trouble::Refused)
    }

    fn meta(&self, name: &SecretName) -> Result<Option<Meta>, Trouble> {
        let text = match fs::read(self.client.path(&format!("{name}@meta"))) {
            Err(err) if is_absent(&err) => return Ok(None),
            read => read.map_err(|err| trouble(&err))?,
        };
        let meta = serde_json::from_slice(&text);
        meta.map(Some).map_err(|_| Trouble::Lost("the daemon's answer is no JSON".into()))
    }

    /// No write(2) can say "no bytes", so an empty value is a command, for admins.
    fn write_empty(&self, name: &SecretName, expect: Option<u64>) -> Result<(), Trouble> {
        let create = expect.is_none();
        let command =
            json!({ "do": "put-empty", "name": name, "expect": expect, "create": create });
        self.client.admin(&command).map(drop).map_err(|failure| {
            if matches!(failure.kind, Kind::SecretAlreadyExists | Kind::Rotation) {
                return Trouble::Changed;
            }
            Trouble::Refused(format!("an empty value: {}", failure.why))
        })
    }

    fn write_value(
        &self,
        name: &SecretName,
        value: &SecretBytes,
        expect: Option<u64>,
    ) -> io::Result<()> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let scratch = self.client.path(&format!("{SCRATCH}{}-{number}", std::process::id()));
        let written = self.write_scratch(&scratch, value).and_then(|()| {
            let flags = RenameFlags::RENAME_NOREPLACE;
            let (target, flags) = match expect {
                None => (name.to_string(), flags),
                Some(version) => (format!("{name}@expect={version}"), RenameFlags::empty()),
            };
            let target = self.client.path(&target);
            let rename = || Ok(renameat2(AT_FDCWD, &scratch, AT_FDCWD, &target, flags)?);
            match rename() {
                Err(err) if is_absent(&err) && expect.is_none() => {
                    if let Some(parent) = name.parent() {
                        fs::create_dir_all(self.client.path(parent.as_str()))?;
                    }
                    rename()
                }
                renamed => renamed,
            }
        });
        if written.is_err() {
            drop(fs::remove_file(&scratch));
        }
        written
    }

    fn write_scratch(&self, path: &Path, value: &SecretBytes) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(value.expose())?;
        close(file)
    }
}

impl Side for Local {
    fn keeps_versions(&self) -> bool {
        true
    }

    fn is_tree(&self) -> bool {
        true
    }

    fn names(&self) -> Result<BTreeSet<String>, Trouble> {
        let found = match names::below(&self.client, self.directory.as_ref()) {
            // It is made with its first secret.
            Err(failure) if failure.kind == Kind::SecretNotFound => Vec::new(),
            found => found.map_err(|failure| Trouble::Refused(failure.to_string()))?,
        };
        let skipped = |name: &SecretName| self.without.iter().any(|dir| name.is_below(dir));
        let relative = |name: &SecretName| match &self.directory {
            None => name.to_string(),
            Some(dir) => name.as_str().get(dir.as_str().len() + 1..).unwrap_or_default().to_owned(),
        };
        Ok(found.iter().filter(|name| !skipped(name)).map(relative).collect())
    }

    fn look(&self, name: &str) -> Result<Option<Held>, Trouble> {
        // What can be no name is not there.
        let Ok(name) = self.name(name) else { return Ok(None) };
        Ok(self.meta(&name)?.map(|meta| meta.held()))
    }

    fn read(&self, name: &str, version: &VersionId) -> Result<SecretBytes, Trouble> {
        let name = self.known(name)?;
        File::open(self.client.path(&format!("{name}@{}", version.0)))
            .and_then(plaintext::read_all)
            .map_err(|err| trouble(&err))
    }

    fn refuses(&self, name: &str, bytes: Option<usize>) -> Option<String> {
        let too_long = bytes.is_some_and(|bytes| bytes > plaintext::MAX_BYTES);
        self.name(name).err().or_else(|| too_long.then(|| "the value is longer than 16 MiB".into()))
    }

    fn write(
        &self,
        name: &str,
        value: &SecretBytes,
        after: After<'_>,
    ) -> Result<VersionId, Trouble> {
        let name = self.known(name)?;
        let expect = match after {
            After::Nothing => None,
            // Only what `look` has given comes here, and that is a number.
            After::Version(id) => Some(id.0.parse().map_err(|_| Trouble::Changed)?),
        };
        if value.is_empty() {
            self.write_empty(&name, expect)?;
        } else {
            self.write_value(&name, value, expect).map_err(|err| trouble(&err))?;
        }
        // If it is another one, the next write finds that out.
        Ok(VersionId((expect.unwrap_or(0) + 1).to_string()))
    }

    fn holds(&self, key: &str, value: &str) -> bool {
        match key {
            "environment" | "service" => is_word(value),
            _ if TEXTS.contains(&key) => true,
            word => is_word(word) && (value == WORD || value.is_empty()),
        }
    }

    fn annotate(&self, name: &str, tags: &Tags) -> Result<(), Trouble> {
        let name = self.known(name)?;
        let mut words = self.meta(&name)?.ok_or(Trouble::Changed)?.tags;
        words.extend(tags.keys().filter(|key| !TEXTS.contains(&key.as_str())).cloned());
        let texts = tags.iter().filter(|(key, _)| TEXTS.contains(&key.as_str()));
        let mut attributes: Vec<(&str, String)> =
            texts.map(|(key, value)| (key.as_str(), value.clone())).collect();
        if !words.is_empty() {
            attributes.push(("tags", words.join(",")));
        }
        // One that is refused keeps no other from being set.
        let refused = attributes.iter().filter_map(|(key, value)| {
            let failure = self.client.set_attribute(&name, key, value).err()?;
            Some(format!("{key}: {}", failure.why))
        });
        let refused: Vec<String> = refused.collect();
        if refused.is_empty() { Ok(()) } else { Err(Trouble::Refused(refused.join(", "))) }
    }
}

/// Of `NAME@meta`, what a copy needs.
#[derive(Debug, Deserialize)]
struct Meta {
    id: String,
    version: u64,
    description: Option<String>,
    environment: Option<String>,
    expires: Option<String>,
    service: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    versions: Vec<VersionMeta>,
}

#[derive(Debug, Deserialize)]
struct VersionMeta {
    version: u64,
    state: String,
    size: usize,
}

impl Meta {
    fn held(self) -> Held {
        let mark =
            |version: u64| Mark { id: VersionId(version.to_string()), made: self.id.clone() };
        let readable = self.versions.iter().filter(|version| {
            // A staged one is nobody's yet, and of a destroyed one there is no value.
            matches!(version.state.as_str(), "current" | "previous")
        });
        let versions: Vec<Edition> = readable
            .map(|version| Edition { mark: mark(version.version), bytes: Some(version.size) })
            .collect();
        let is_whole = versions.first().is_some_and(|first| first.mark == mark(1));
        let current = Some(mark(self.version));
        let texts = [self.description, self.environment, self.expires, self.service];
        let named = TEXTS.iter().zip(texts);
        let texts = named.filter_map(|(key, text)| Some(((*key).to_owned(), text?)));
        let words = self.tags.into_iter().map(|word| (word, WORD.to_owned()));
        Held { current, versions, is_whole, tags: words.chain(texts).collect() }
    }
}

fn is_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= 255 && !text.starts_with('.') && text.chars().all(allowed)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

/// Says what an errno of the mount means for the copy.
fn trouble(error: &io::Error) -> Trouble {
    let why = Failure::from_errno("", error).why;
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::EEXIST | libc::EBUSY) => Trouble::Changed,
        // Sealed, or no mount any more.
        Some(libc::ENOKEY | libc::ENOTCONN | libc::ENODEV | libc::ENOSPC) => Trouble::Lost(why),
        Some(
            libc::EIO
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::EAGAIN
            | libc::ESTALE
            | libc::EDQUOT,
        ) => Trouble::Passing { why, rest: None },
        _ => Trouble::Refused(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_of_a_secret_is_told_from_what_cannot() {
        let meta: Meta = serde_json::from_value(json!({
            "id": "7f", "version": 3, "tags": ["blue"], "service": "shop", "description": null,
            "versions": [
                { "version": 1, "state": "destroyed", "size": 1 },
                { "version": 2, "state": "previous", "size": 2 },
                { "version": 3, "state": "current", "size": 3 },
                { "version": 4, "state": "pending", "size": 4 },
            ],
        }))
        .unwrap();
        let held = meta.held();
        let versions: Vec<_> =
            held.versions.iter().map(|one| (one.mark.id.0.as_str(), one.bytes)).collect();
        assert_eq!(versions, [("2", Some(2)), ("3", Some(3))]);
        assert!(!held.is_whole && held.readable().is_some());
        let tags: Vec<_> = held.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(tags, [("blue", "true"), ("service", "shop")]);
    }

    #[test]
    fn an_errno_is_tried_again_given_up_or_the_end() {
        let of = |errno| trouble(&io::Error::from_raw_os_error(errno));
        for changed in [libc::EEXIST, libc::EBUSY, libc::ENOENT] {
            assert_eq!(of(changed), Trouble::Changed);
        }
        assert!(matches!(of(libc::ENOKEY), Trouble::Lost(_)));
        assert!(matches!(of(libc::ETIMEDOUT), Trouble::Passing { .. }));
        assert!(matches!(of(libc::EACCES), Trouble::Refused(_)));
        assert!(matches!(of(libc::EFBIG), Trouble::Refused(_)));
    }
}
