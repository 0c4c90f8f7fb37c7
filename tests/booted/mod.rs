//! A real systemd, booted in a container on the host's `/usr` with the shipped unit in it.
//!
//! `systemd-nspawn --volatile=yes` needs no image: `/usr` is the host's, read-only, with our files laid
//! over it; everything else is empty memory that goes with the container. The last unit to run is a
//! script whose lines `claim WORDS` say what was seen; it ends the container, and the test reads what
//! was claimed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by test programs, each of which uses a part of it"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::common::{DEADLINE, bounded_by, skip, write_file};

/// Units and files of one boot.
pub struct Boot {
    dir: tempfile::TempDir,
}

/// Puts the container into a pure cgroup v2 of its own, whatever the host has.
const OWN_CGROUPS: &str = "mount --make-rprivate / && \
    { umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup; } 2>/dev/null; \
    mount -t cgroup2 cgroup2 /sys/fs/cgroup && \"$@\"";

const TARGET: &str = "[Unit]\nRequires=basic.target\nAfter=basic.target\nWants=report.service\n";

/// Runs once the units that it wants are up, or have failed.
const REPORT: &str = "[Unit]\nWants=prepare.service secretfs.service\n\
    After=prepare.service secretfs.service\nFailureAction=exit-force\n\
    [Service]\nType=oneshot\nExecStart=/bin/bash /units/report\n";

const PREPARE: &str = "[Unit]\nBefore=secretfs.service\n\
    [Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/bash -e /units/prepare\n";

/// What a report may use: `claim` notes what was seen, `eventually` waits for a command to succeed.
const PRELUDE: &str = r#"
exec 2>/out/trace; set -x
claim() { echo "$*" >>/out/claims; }
eventually() { for _ in $(seq 400); do "$@" && return 0; sleep 0.05; done; claim "never: $*"; return 1; }
trap 'journalctl -b --no-pager >/out/journal; systemctl exit 0' EXIT
"#;

impl Boot {
    /// Prepares a boot of the shipped unit. `None`, with a SKIP, where none can be had.
    pub fn new() -> Option<Self> {
        if !super::common::can_mount() {
            return None;
        }
        if Command::new("systemd-nspawn").arg("--version").stdout(Stdio::null()).status().is_err() {
            skip("no systemd-nspawn here");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let usr = dir.path().join("usr");
        for made in ["bin", "lib/systemd/system", "lib/sysusers.d", "lib/tmpfiles.d"] {
            fs::create_dir_all(usr.join(made)).unwrap();
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        for (from, to) in [
            ("secretfs.service", "lib/systemd/system/secretfs.service"),
            ("secretfs-effector.socket", "lib/systemd/system/secretfs-effector.socket"),
            ("secretfs-effector@.service", "lib/systemd/system/secretfs-effector@.service"),
            ("secretfs-observer.socket", "lib/systemd/system/secretfs-observer.socket"),
            ("secretfs-observer@.service", "lib/systemd/system/secretfs-observer@.service"),
            ("secretfs.sysusers.conf", "lib/sysusers.d/secretfs.conf"),
            ("secretfs.tmpfiles.conf", "lib/tmpfiles.d/secretfs.conf"),
        ] {
            fs::copy(shipped.join(from), usr.join(to)).unwrap();
        }
        fs::copy(env!("CARGO_BIN_EXE_secretfs"), usr.join("bin/secretfs")).unwrap();
        for made in ["out", "units"] {
            fs::create_dir(dir.path().join(made)).unwrap();
        }
        let boot = Self { dir };
        Some(
            boot.unit("test.target", TARGET)
                .unit("prepare.service", PREPARE)
                .unit("report.service", REPORT),
        )
    }

    /// Adds a program that lies in `/usr/bin`.
    #[must_use]
    pub fn program(self, name: &str, from: &Path) -> Self {
        super::common::copy_program(from, &self.dir.path().join("usr/bin").join(name));
        self
    }

    /// Adds a unit, or a drop-in as `UNIT.d/NAME.conf`.
    #[must_use]
    pub fn unit(self, name: &str, text: &str) -> Self {
        let path = self.dir.path().join("units").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write_file(&path, text.as_bytes());
        self
    }

    /// Boots. `prepare` runs before the daemon starts, `report` after. Returns what was claimed.
    pub fn run(self, prepare: &str, report: &str) -> Claims {
        let dir = self.dir.path();
        write_file(&dir.join("units/prepare"), prepare.as_bytes());
        write_file(&dir.join("units/report"), format!("{PRELUDE}{report}").as_bytes());
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
        let at = |below: &str| dir.join(below).display().to_string();
        let mut command = Command::new("unshare");
        // In a pid namespace of its own, so that nothing of it outlives a test that is ended.
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", OWN_CGROUPS, "sh", "systemd-nspawn", "-q", "-D", "/"]);
        command.args(["--volatile=yes", "--boot", "--register=no", "--keep-unit"]);
        command.args(["--private-network", "--console=pipe", "--bind=/dev/fuse"]);
        command.arg(format!("--machine=secretfs-{}", std::process::id()));
        command.arg(format!("--overlay-ro=/usr:{}:/usr", at("usr")));
        command.arg(format!("--bind={}:/out", at("out")));
        command.arg(format!("--bind-ro={}:/units", at("units")));
        command.arg(format!("--bind-ro={}:/run/systemd/system", at("units")));
        command.args(["systemd.unit=test.target", "systemd.firstboot=no"]);
        // A whole machine, beside others.
        let output = bounded_by(4 * DEADLINE, &mut command);
        let read = |name: &str| fs::read_to_string(dir.join("out").join(name)).unwrap_or_default();
        let claims =
            Claims { claims: read("claims"), trace: read("trace"), journal: read("journal") };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!claims.claims.is_empty(), "nothing was claimed: {output:?} {said} {claims:?}");
        claims
    }
}

/// What a report has claimed, and the journal of the boot.
#[derive(Debug)]
pub struct Claims {
    claims: String,
    trace: String,
    pub journal: String,
}

impl Claims {
    /// Asserts that exactly this line was claimed.
    pub fn have(&self, claim: &str) {
        let found = self.claims.lines().any(|line| line == claim);
        assert!(
            found,
            "not claimed: {claim}\nclaims:\n{}\ntrace:\n{}\njournal:\n{}",
            self.claims, self.trace, self.journal
        );
    }
}
