//! Profiles in the files that AWS's tools share: `~/.aws/credentials` and `~/.aws/config`.
//!
//! A section is a profile, a line in it `key = value`. What is indented belongs to the line before and is none of
//! ours. A key of the first file stands before the same one of the second.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::answer::unauthenticated;
use super::file;
use crate::backend::Result;
use crate::system::SecretBytes;

/// Both files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) credentials: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
}

/// What a profile says.
#[derive(Debug, Default)]
pub(super) struct Profile(BTreeMap<String, SecretBytes>);

impl Files {
    /// Reads a profile; `None` if neither file has it.
    pub(super) fn profile(&self, name: &str) -> Result<Option<Profile>> {
        let mut profile = Profile::default();
        let mut is_there = false;
        for (path, prefix) in [(&self.config, Some("profile")), (&self.credentials, None)] {
            let Some(path) = path else { continue };
            let Some(bytes) = file::read(path)? else { continue };
            let text = std::str::from_utf8(bytes.expose())
                .map_err(|_| unauthenticated(&format!("{}: it is no text", path.display())))?;
            is_there |= profile.add(text, prefix, name)?;
        }
        Ok(is_there.then_some(profile))
    }
}

impl Profile {
    /// Returns a value as text.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        std::str::from_utf8(self.0.get(key)?.expose()).ok()
    }

    /// Tells whether there is one of these keys.
    pub(super) fn has(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.0.contains_key(*key))
    }

    /// Takes the keys of a section, over those that are there, and tells whether there is such a section. With a
    /// `prefix` it stands before all names but that of the default.
    fn add(&mut self, text: &str, prefix: Option<&str>, name: &str) -> Result<bool> {
        let (mut is_there, mut is_inside) = (false, false);
        for line in text.lines() {
            if line.trim().is_empty() || line.starts_with(['#', ';', ' ', '\t']) {
                continue;
            }
            if let Some(section) = line.strip_prefix('[') {
                let section = section.split(']').next().unwrap_or_default().trim();
                is_inside = section_is(section, prefix, name);
                is_there |= is_inside;
            } else if is_inside && let Some((key, value)) = line.split_once('=') {
                let value = [" #", " ;", "\t#", "\t;"]
                    .iter()
                    .fold(value, |value, mark| value.split(mark).next().unwrap_or(value));
                let value = SecretBytes::copy_from(value.trim().as_bytes())?;
                self.0.insert(key.trim().to_ascii_lowercase(), value);
            }
        }
        Ok(is_there)
    }
}

fn section_is(section: &str, prefix: Option<&str>, name: &str) -> bool {
    let Some(prefix) = prefix else { return section == name };
    let behind = section.strip_prefix(prefix).filter(|rest| rest.starts_with([' ', '\t']));
    behind.map(str::trim) == Some(name) || (section == "default" && name == "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# a comment
[default]
region = us-east-1
[profile app]
role_arn = arn:aws:iam::123456789012:role/app  # why
source_profile=base
s3 =
  max_concurrent_requests = 20
aws_access_key_id = FROM-CONFIG
[sso-session app]
sso_region = us-east-1
[app]
region = not-a-profile
";
    const CREDENTIALS: &str = "\
[base]
AWS_Access_Key_Id = A1
aws_secret_access_key = a=b#c;d
; a comment
[app]
aws_access_key_id = FROM-CREDENTIALS
[profile app]
aws_access_key_id = NOT-A-PROFILE-HERE
";

    fn files() -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes())
                .unwrap();
            Some(path)
        };
        let files = Files {
            credentials: write("credentials", CREDENTIALS),
            config: write("config", CONFIG),
        };
        (dir, files)
    }

    #[test]
    fn a_profile_is_what_both_files_say_of_it() {
        let (_dir, files) = files();
        let app = files.profile("app").unwrap().unwrap();
        assert_eq!(app.text("role_arn"), Some("arn:aws:iam::123456789012:role/app"));
        assert_eq!(app.text("source_profile"), Some("base"));
        assert_eq!(app.text("aws_access_key_id"), Some("FROM-CREDENTIALS"));
        assert!(!app.has(&["region", "max_concurrent_requests", "sso_region"]));
        let base = files.profile("base").unwrap().unwrap();
        assert_eq!(base.text("aws_access_key_id"), Some("A1"));
        assert_eq!(base.text("aws_secret_access_key"), Some("a=b#c;d"));
        assert_eq!(files.profile("default").unwrap().unwrap().text("region"), Some("us-east-1"));
    }

    #[test]
    fn a_profile_that_is_nowhere_is_none() {
        let (dir, files) = files();
        for name in ["none", "sso-session app", "ap", "", "profile app x"] {
            assert!(files.profile(name).unwrap().is_none(), "{name}");
        }
        let missing = Some(dir.path().join("missing/file"));
        let files = Files { credentials: missing, config: None };
        assert!(files.profile("default").unwrap().is_none());
    }
}
