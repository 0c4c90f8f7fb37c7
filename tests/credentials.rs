//! The socket of `LoadCredential=`: a unit gets what the policy gives it, and a refusal is never an
//! empty credential. The manager is played by a process in the unit's control group that connects as
//! systemd.exec(5) says; a booted systemd does the same in `scripts/`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test file: its helpers are tests too"
)]

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::person::Cgroup;
use common::{Person, World};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, connect, socket};

/// What systemd takes as one credential, in bytes.
const CREDENTIAL_MAX: usize = 1 << 20;

/// A world with a credential socket, and a unit that may read `tls-key`.
struct Scene {
    world: World,
    unit: String,
    group: Cgroup,
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Scene {
    fn start(name: &str) -> Option<Self> {
        let unit = format!("secretfs-test-{}-{name}.service", std::process::id());
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("credentials");
        let policy = format!(
            r#"
[[role]]
name = "tls"
allow = [{{ names = ["tls-key", "prod/db"], levels = ["read"] }}]
[[binding]]
id = "web"
role = "tls"
unit = "{unit}"
"#
        );
        let config = format!(
            "[credentials]\nsocket = {socket:?}\nnames = {{ db-password = \"prod/db\" }}\n"
        );
        let world = World::with(&format!("{}\n{policy}", common::ROOT_IS_ADMIN), &config)?;
        let Some(group) = Cgroup::make(&format!("system.slice/{unit}")) else {
            common::skip("no cgroup here");
            return None;
        };
        world.put("tls-key", "the key\n\0 of the site");
        world.put("prod/db", "the password");
        world.put("other", "not for the web");
        Some(Self { world, unit, group, _dir: dir, socket })
    }

    /// Loads a credential as the manager does for this unit, in its control group.
    fn load(&self, credential: &str) -> Vec<u8> {
        self.load_as(&Person::new(0).in_cgroup(&self.group), &self.unit, credential)
    }

    fn load_as(&self, person: &Person, unit: &str, credential: &str) -> Vec<u8> {
        let address = format!("adf9d86b6eda275e{}/unit/{unit}/{credential}", std::process::id());
        person.run(|| from_socket(&self.socket, Some(&address)))
    }
}

fn from_socket(path: &Path, address: Option<&str>) -> Vec<u8> {
    let kind = (AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let fd = socket(kind.0, kind.1, kind.2, None).unwrap();
    if let Some(address) = address {
        bind(fd.as_raw_fd(), &UnixAddr::new_abstract(address.as_bytes()).unwrap()).unwrap();
    }
    connect(fd.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    let mut bytes = Vec::new();
    File::from(fd).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_unit_gets_the_exact_bytes_of_its_credential_and_it_is_recorded_as_its_read() {
    let Some(scene) = Scene::start("gets") else { return };
    assert_eq!(scene.load("tls-key"), b"the key\n\0 of the site");
    assert_eq!(scene.load("db-password"), b"the password", "a name of the configuration");
    let lines = scene.world.audit_of("tls-key", "read", "allowed", 0);
    let unit = format!("system.slice/{}", scene.unit);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["unit"], unit);
    assert_eq!(lines[0]["rule"], "web: tls allow 1");
}

#[test]
fn a_refused_credential_is_too_large_to_be_one() {
    let Some(scene) = Scene::start("refused") else { return };
    for credential in ["other", "missing", "prod", "..", "a b"] {
        assert!(scene.load(credential).len() > CREDENTIAL_MAX, "{credential}");
    }
    let refused = scene.world.audit_of("missing", "read", "denied", 0);
    assert_eq!(refused.len(), 1, "{refused:?}");
    scene.world.control("seal", "seal\n").unwrap();
    assert!(scene.load("tls-key").len() > CREDENTIAL_MAX, "sealed");
}

#[test]
fn nobody_loads_a_credential_in_the_name_of_a_unit_that_it_is_not_in() {
    let Some(scene) = Scene::start("name") else { return };
    let before = scene.world.audit_of("tls-key", "read", "allowed", 0).len();
    // Root elsewhere, and the unit's own processes in the name of another.
    assert!(scene.load_as(&Person::new(0), &scene.unit, "tls-key").len() > CREDENTIAL_MAX);
    let inside = Person::new(0).in_cgroup(&scene.group);
    assert!(scene.load_as(&inside, "other.service", "tls-key").len() > CREDENTIAL_MAX);
    // An ordinary user of the unit: the socket is closed to it, and would not believe it either.
    fs::set_permissions(&scene.socket, PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(scene.socket.parent().unwrap(), PermissionsExt::from_mode(0o711)).unwrap();
    let user = Person::new(61_401).in_cgroup(&scene.group);
    assert!(scene.load_as(&user, &scene.unit, "tls-key").len() > CREDENTIAL_MAX);
    assert!(from_socket(&scene.socket, None).len() > CREDENTIAL_MAX, "no address");
    assert_eq!(scene.world.audit_of("tls-key", "read", "allowed", 0).len(), before);
    let audit = scene.world.audit();
    let told = audit.iter().filter(|line| {
        line["outcome"] == "failed"
            && line["reason"].as_str().is_some_and(|why| why.contains("credential tls-key for"))
    });
    assert_eq!(told.count(), 3, "each of those who said who they were is on record");
}

#[test]
fn the_socket_is_root_s_alone_and_gone_with_the_daemon() {
    let Some(scene) = Scene::start("file") else { return };
    assert_eq!(fs::metadata(&scene.socket).unwrap().permissions().mode() & 0o777, 0o600);
    let umount = common::bounded(scene.world.secretfs().arg("umount"));
    assert!(umount.status.success(), "{umount:?}");
    common::eventually("the socket is removed", || !scene.socket.exists());
}
