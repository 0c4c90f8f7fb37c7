//! Key sources against real files, permissions and owners.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use super::*;
use crate::system::atomic_file::replace;
use crate::system::probe::setting;

const STORE: StoreId = StoreId([1; 16]);

fn secret(text: &str) -> SecretBytes {
    SecretBytes::copy_from(text.as_bytes()).unwrap()
}

fn given(text: &str) -> KeySource {
    KeySource::Passphrase(PassphraseFrom::Given(secret(text)))
}

fn header(slots: Vec<Slot>) -> Header {
    Header { store: STORE, slots }
}

fn same(a: &RootKey, b: &RootKey) -> bool {
    a.expose().constant_time_eq(b.expose())
}

/// Makes a key file and the header of a store that it opens.
fn with_key_file(path: &Path) -> (KeySource, Header) {
    let source = KeySource::File(path.into());
    let slot = source.create_slot(STORE, &RootKey::generate().unwrap()).unwrap();
    (source, header(vec![slot]))
}

#[test]
fn a_key_file_is_made_once_and_opens_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.key");
    let (source, root) = (KeySource::File(path.clone()), RootKey::generate().unwrap());
    let slot = source.create_slot(STORE, &root).unwrap();
    let text = fs::read(&path).unwrap();
    assert!(text.len() == 65 && text[..64].iter().all(u8::is_ascii_hexdigit));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o400);
    assert!(same(&source.unlock(&header(vec![slot])).unwrap(), &root));
    source.create_slot(STORE, &root).unwrap();
    assert_eq!(fs::read(&path).unwrap(), text);
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_the_command_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it's.key");
    let (source, header) = with_key_file(&path);
    for mode in [0o440, 0o404, 0o420, 0o410, 0o401, 0o402] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = source.unlock(&header).unwrap_err();
        assert!(matches!(error, KeySourceError::KeyFileMode { .. }), "{mode:o}: {error}");
        let command = format!("chmod 0400 -- '{}/it'\\''s.key'", dir.path().display());
        assert!(error.to_string().ends_with(&command), "{error}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(source.unlock(&header).is_ok());
}

#[test]
fn a_key_file_of_another_user_is_refused_with_the_command_to_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.key");
    let (source, header) = with_key_file(&path);
    if chown(&path, Some(65534), None).is_err() {
        assert!(setting("SECRETFS_REQUIRE_ALL").is_none(), "needs root");
        std::io::stderr().write_all(b"SKIP: needs root\n").unwrap();
        return;
    }
    let error = source.unlock(&header).unwrap_err();
    assert!(matches!(error, KeySourceError::KeyFileOwner { owner: 65534, expected: 0, .. }));
    assert!(error.to_string().contains("run: chown 0 -- '/"), "{error}");
}

#[test]
fn what_is_not_a_key_file_is_refused_and_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (_, header) = with_key_file(&dir.path().join("root.key"));
    let at = |name: &str| dir.path().join(name);
    symlink(at("root.key"), at("link")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let digits = "a".repeat(64);
    for (name, text) in [
        ("empty", String::new()),
        ("short", "a".repeat(63)),
        ("long", format!("{digits}\n\n")),
        ("other", format!("g{}", &digits[1..])),
    ] {
        replace(&at(name), text.as_bytes(), 0o400).unwrap();
    }
    for name in ["link", "directory", "fifo", "empty", "short", "long", "other"] {
        let error = KeySource::File(at(name)).unlock(&header).unwrap_err();
        assert!(matches!(error, KeySourceError::KeyFileMalformed { .. }), "{name}: {error}");
    }
    let error = KeySource::File(at("missing")).unlock(&header).unwrap_err();
    assert!(matches!(error, KeySourceError::KeyFileMissing { .. }));
}

#[test]
fn the_key_file_of_another_store_is_a_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let (source, _) = with_key_file(&dir.path().join("one.key"));
    let (_, other) = with_key_file(&dir.path().join("two.key"));
    assert!(matches!(source.unlock(&other), Err(KeySourceError::WrongKey)));
}

#[test]
fn a_passphrase_opens_the_one_slot_that_is_its_own() {
    let root = RootKey::generate().unwrap();
    let slot = |text| given(text).create_slot_with(STORE, &root, Stretching::FLOOR).unwrap();
    let header = header(vec![slot("example-one"), slot("example-two")]);
    assert!(same(&given("example-two").unlock(&header).unwrap(), &root));
    assert!(matches!(given("example-six").unlock(&header), Err(KeySourceError::WrongKey)));
}

#[test]
fn the_default_cost_of_a_passphrase_is_written_into_its_slot() {
    let root = RootKey::generate().unwrap();
    let slot = given("example-value").create_slot(STORE, &root).unwrap();
    let SlotKind::Passphrase { memory_kib, passes, lanes, .. } = slot.kind else {
        panic!("another kind");
    };
    assert_eq!(Stretching { memory_kib, passes, lanes }, Stretching::DEFAULT);
}

#[test]
fn a_passphrase_is_the_first_line_of_a_descriptor() {
    let root = RootKey::generate().unwrap();
    let new = given("example-value").create_slot_with(STORE, &root, Stretching::FLOOR).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"example-value\nnot this\n").unwrap();
    let source = KeySource::Passphrase(PassphraseFrom::Descriptor(reader.as_raw_fd()));
    assert!(same(&source.unlock(&header(vec![new])).unwrap(), &root));
}

#[test]
fn empty_and_endless_passphrases_are_refused() {
    let root = RootKey::generate().unwrap();
    let create = |source: KeySource| source.create_slot(STORE, &root).unwrap_err();
    assert!(matches!(create(given("")), KeySourceError::EmptyPassphrase));
    let long = "a".repeat(passphrase::MAX_BYTES + 1);
    assert!(matches!(create(given(&long)), KeySourceError::PassphraseTooLong));
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"\n").unwrap();
    writer.write_all(long.as_bytes()).unwrap();
    let piped = || KeySource::Passphrase(PassphraseFrom::Descriptor(reader.as_raw_fd()));
    assert!(matches!(create(piped()), KeySourceError::EmptyPassphrase));
    assert!(matches!(create(piped()), KeySourceError::PassphraseTooLong));
}

#[test]
fn nobody_is_asked_for_a_passphrase_when_there_is_no_slot_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_, header) = with_key_file(&dir.path().join("root.key"));
    let source = KeySource::Passphrase(PassphraseFrom::Descriptor(-1));
    assert!(matches!(source.unlock(&header), Err(KeySourceError::NoSlot(_))));
}

#[test]
fn a_systemd_credential_opens_the_slot_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    replace(&dir.path().join("root"), &[7; 32], 0o400).unwrap();
    replace(&dir.path().join("other"), &[7; 32], 0o400).unwrap();
    let source = |name: &str| KeySource::SystemdCredential(name.into(), dir.path().into());
    let root = RootKey::generate().unwrap();
    let header = header(vec![source("root").create_slot(STORE, &root).unwrap()]);
    assert!(same(&source("root").unlock(&header).unwrap(), &root));
    assert!(matches!(source("other").unlock(&header), Err(KeySourceError::NoSlot(_))));
    fs::remove_file(dir.path().join("root")).unwrap();
    let missing = source("root").unlock(&header);
    assert!(matches!(missing, Err(KeySourceError::CredentialMissing { .. })));
}

#[test]
fn credentials_that_are_no_keys_or_lie_elsewhere_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    replace(&dir.path().join("short"), &[7; 31], 0o400).unwrap();
    replace(&dir.path().join("long"), &[7; 4097], 0o400).unwrap();
    let root = RootKey::generate().unwrap();
    for name in ["short", "long", "", ".", "..", "../root", "/etc/passwd", "a/b"] {
        let source = KeySource::SystemdCredential(name.into(), dir.path().into());
        let refused = source.create_slot(STORE, &root);
        assert!(
            matches!(refused, Err(KeySourceError::CredentialUnusable { .. })),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn debug_of_a_source_shows_no_passphrase() {
    let from = PassphraseFrom::Given(secret("canary-7f3a"));
    assert_eq!(format!("{from:?}"), "Given(..)");
    assert_eq!(format!("{:?}", KeySource::Passphrase(from)), "KeySource(passphrase)");
}

/// A service that seals by turning bytes round and knows one key, or is away.
struct Service(Option<&'static str>);

impl Wrapping for Service {
    fn wrap(&self, key: &WrappingKey, plain: &SecretBytes) -> Result<String, KeySourceError> {
        self.find(key)?;
        Ok(plain.expose().iter().rev().map(|byte| format!("{byte:02x}")).collect())
    }

    fn unwrap(&self, key: &WrappingKey, wrapped: &str) -> Result<SecretBytes, KeySourceError> {
        self.find(key)?;
        let pair = |at| u8::from_str_radix(&wrapped[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..wrapped.len()).step_by(2).rev().map(pair).collect();
        Ok(SecretBytes::copy_from(&bytes).unwrap())
    }
}

impl Service {
    fn find(&self, key: &WrappingKey) -> Result<(), KeySourceError> {
        if self.0 == Some(&key.name) {
            return Ok(());
        }
        let (backend, passes) = (key.backend.clone(), self.0.is_none());
        Err(KeySourceError::Service { backend, why: "example".into(), passes })
    }
}

fn wrapped_by(service: Option<&'static str>, backend: &str, name: &str) -> KeySource {
    let key = WrappingKey { backend: backend.into(), name: name.into() };
    KeySource::Wrapped(key, Arc::new(Service(service)))
}

#[test]
fn a_service_s_key_opens_what_it_has_sealed_and_no_other_key_does() {
    let root = RootKey::generate().unwrap();
    let source = wrapped_by(Some("k"), "corp", "k");
    let slot = source.create_slot(STORE, &root).unwrap();
    let SlotKind::Wrapped { wrapped, .. } = slot.kind.clone() else { unreachable!() };
    assert!(same(&source.unlock(&header(vec![slot.clone()])).unwrap(), &root));
    assert_eq!(source.to_string(), "key k of backend corp");
    for (backend, name) in [("corp", "other"), ("other", "k")] {
        let other = wrapped_by(Some("k"), backend, name).unlock(&header(vec![slot.clone()]));
        assert!(matches!(other, Err(KeySourceError::NoSlot(_))));
    }
    let away = wrapped_by(None, "corp", "k").unlock(&header(vec![slot.clone()]));
    assert!(matches!(away, Err(KeySourceError::Service { passes: true, .. })));
    // What another service key has sealed is not what the slot is sealed under.
    let mut changed = slot;
    let wrapped =
        wrapped.replacen(&wrapped[..2], if wrapped.starts_with("00") { "01" } else { "00" }, 1);
    changed.kind = SlotKind::Wrapped { backend: "corp".into(), key: "k".into(), wrapped };
    let opened = source.unlock(&header(vec![changed]));
    assert!(matches!(opened, Err(KeySourceError::WrongKey)), "{opened:?}");
}
