//! What a failed command says: one line with what, why and what to do, a kind, and an exit code.

use std::fmt;
use std::io;
use std::process::ExitCode;

use super::out::Shown;
use crate::broker::BrokerError;
use crate::daemon::DaemonError;
use crate::daemon::background::BackgroundError;

/// `error.kind` in `--json`. The exit codes stand in `secretfs --help` too.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Authorization,
    BackendConnection,
    Config,
    Decryption,
    Encryption,
    Injection,
    Rotation,
    Scanning,
    SecretAlreadyExists,
    SecretNotFound,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Authorization,
        Self::BackendConnection,
        Self::Config,
        Self::Decryption,
        Self::Encryption,
        Self::Injection,
        Self::Rotation,
        Self::Scanning,
        Self::SecretAlreadyExists,
        Self::SecretNotFound,
    ];

    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::SecretNotFound => 3,
            Self::SecretAlreadyExists => 4,
            Self::Authorization => 5,
            Self::Encryption => 6,
            Self::Decryption => 7,
            Self::Rotation => 8,
            Self::Injection => 9,
            Self::Scanning => 10,
            Self::BackendConnection => 11,
            Self::Config => 12,
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub kind: Kind,
    /// What was to be done, or to what it was to be done: "prod/db".
    pub what: String,
    pub why: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind, what: what.into(), why: why.into(), hint: String::new() }
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    /// Explains an errno that an operation on a secret, or on the mount, ended with.
    pub(crate) fn from_errno(what: impl Into<String>, error: &io::Error) -> Self {
        let Some(code) = error.raw_os_error() else {
            return Self::new(Kind::BackendConnection, what, error.to_string());
        };
        let (kind, why, hint) = explain(code);
        let why = if why.is_empty() { error.to_string() } else { why.to_owned() };
        Self::new(kind, what, why).hint(hint)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.exit_code())
    }

    /// Returns the failure as `--json` has it.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let Self { kind, what, why, hint } = self;
        serde_json::json!({ "error": {
            "kind": kind, "what": what, "message": why, "hint": hint, "exit_code": kind.exit_code(),
        }})
    }
}

/// One line; what comes from outside cannot steer the terminal.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, why, hint, .. } = self;
        write!(f, "{}: {}", Shown(what), Shown(why))?;
        if hint.is_empty() { Ok(()) } else { write!(f, "; {}", Shown(hint)) }
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        let (kind, hint) = daemon_kind(&error);
        Self::new(kind, "the store", error.chain()).hint(hint)
    }
}

/// Returns the exit code of a daemon that ends with this error.
pub(crate) fn exit_code(error: &DaemonError) -> u8 {
    daemon_kind(error).0.exit_code()
}

fn daemon_kind(error: &DaemonError) -> (Kind, &'static str) {
    match error {
        DaemonError::Broker(error @ BrokerError::Rollback { .. }) => {
            (broker_kind(error), "find out who put it back; an admin can `mount --accept-rollback`")
        }
        DaemonError::Broker(error) => (broker_kind(error), ""),
        DaemonError::Busy(_) => (Kind::BackendConnection, "use it, or `secretfs umount` it first"),
        DaemonError::Config(_)
        | DaemonError::Policy { .. }
        | DaemonError::Settings { .. }
        | DaemonError::Template { .. }
        | DaemonError::TemplateTwice(_) => (Kind::Config, "correct the file and try again"),
        DaemonError::Exists(_) => (Kind::Config, "mount it with `secretfs up`"),
        DaemonError::Io { .. } => (Kind::BackendConnection, ""),
        DaemonError::JournalAlone(_) => {
            (Kind::Config, "put the store back beside it; or move it away, and what it holds")
        }
        DaemonError::Key(_) => (Kind::Decryption, "`secretfs doctor` looks at the key source"),
        DaemonError::Lock(_) => (Kind::BackendConnection, "one daemon serves a store at a time"),
        DaemonError::Mount { .. } => {
            (Kind::BackendConnection, "`secretfs doctor` looks at what mounting needs")
        }
        DaemonError::Mountpoint(_) => (Kind::Config, "name an empty directory, or one to be made"),
        DaemonError::NoStore(_) => (Kind::Config, "make one with `secretfs init`"),
        DaemonError::Trust(_) => (Kind::Config, "only root and you may be able to change it"),
    }
}

impl From<BackgroundError> for Failure {
    fn from(error: BackgroundError) -> Self {
        let (kind, hint) = match &error {
            BackgroundError::Failed { code, .. } => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.exit_code() == *code);
                (kind, "`secretfs doctor` may know more")
            }
            BackgroundError::Died(_) | BackgroundError::Fork(_) | BackgroundError::Io(_) => {
                (None, "")
            }
        };
        let kind = kind.unwrap_or(Kind::BackendConnection);
        Self::new(kind, "not mounted", error.to_string()).hint(hint)
    }
}

fn broker_kind(error: &BrokerError) -> Kind {
    match error {
        BrokerError::Damaged(_) | BrokerError::Key(_) | BrokerError::Sealed => Kind::Decryption,
        BrokerError::Denied
        | BrokerError::Expired(_)
        | BrokerError::Refused(_)
        | BrokerError::Revoked(_) => Kind::Authorization,
        BrokerError::Exists(_) | BrokerError::IsDirectory(_) | BrokerError::NotEmpty(_) => {
            Kind::SecretAlreadyExists
        }
        BrokerError::ExpectationFailed { .. }
        | BrokerError::Rotating(_)
        | BrokerError::RotationFailed { .. } => Kind::Rotation,
        BrokerError::Invalid(_)
        | BrokerError::Name(_)
        | BrokerError::OtherRoute(_)
        | BrokerError::Policy(_)
        | BrokerError::Quota { .. }
        | BrokerError::TooBig { .. }
        | BrokerError::Unsupported(_) => Kind::Config,
        BrokerError::NotDirectory(_) | BrokerError::NotFound(_) => Kind::SecretNotFound,
        BrokerError::Audit(_)
        | BrokerError::Rollback { .. }
        | BrokerError::Store(_)
        | BrokerError::Busy(_)
        | BrokerError::Changing(_)
        | BrokerError::Elsewhere(_)
        | BrokerError::Unfinished(_)
        | BrokerError::Upstream(_)
        | BrokerError::Verifying => Kind::BackendConnection,
    }
}

/// What the errors of the mount mean (the contract's section 7): kind, why, what to do. An empty
/// "why" leaves it to the operating system's words.
fn explain(code: i32) -> (Kind, &'static str, &'static str) {
    match code {
        libc::EACCES => (
            Kind::Authorization,
            "the policy does not allow it",
            "`secretfs explain NAME` says what you may do",
        ),
        libc::EPERM => (Kind::Authorization, "this is not possible here, or not for you", ""),
        libc::ENOENT => {
            (Kind::SecretNotFound, "there is no such secret", "`secretfs ls` lists them")
        }
        libc::ENOTDIR => (Kind::SecretNotFound, "a part of the name is a secret, no directory", ""),
        libc::EISDIR => (Kind::SecretNotFound, "this is a directory, no secret", ""),
        libc::EEXIST => (Kind::SecretAlreadyExists, "there is one already", ""),
        libc::ENOTEMPTY => (Kind::SecretAlreadyExists, "the directory is not empty", ""),
        libc::ENOKEY => (Kind::Decryption, "the store is sealed", "an admin can `secretfs unseal`"),
        libc::EKEYEXPIRED => (
            Kind::Authorization,
            "the secret is past its expiry",
            "store a new value, or set --expires to a later day",
        ),
        libc::EKEYREVOKED => (Kind::Authorization, "the secret was revoked", ""),
        libc::EKEYREJECTED => (
            Kind::Decryption,
            "the key is wrong, or the backend does not accept the daemon's credential",
            "",
        ),
        libc::EBADMSG => (
            Kind::Decryption,
            "what is stored does not authenticate: it is damaged or was changed",
            "run `secretfs verify`, and restore a backup",
        ),
        libc::EIO => (
            Kind::BackendConnection,
            "the audit log could not be written or the store failed, so nothing was done",
            "see the daemon's log",
        ),
        libc::ETIMEDOUT => (Kind::BackendConnection, "it took too long", "try again"),
        libc::EHOSTUNREACH => (
            Kind::BackendConnection,
            "the backend that keeps it cannot be reached, and no copy is young enough",
            "see the daemon's log",
        ),
        libc::ENOTCONN | libc::ECONNABORTED => (
            Kind::BackendConnection,
            "the daemon is gone",
            "start it again with `secretfs up`, which cleans up the mount",
        ),
        libc::EBUSY => (
            Kind::Rotation,
            "it was changed meanwhile, or a rotation of it is running",
            "look at `secretfs history NAME` and try again",
        ),
        libc::EFBIG => (Kind::Encryption, "the value is larger than the store's limit", ""),
        libc::ENOSPC => (Kind::Encryption, "the store's disk is full", ""),
        libc::EDQUOT => (
            Kind::Encryption,
            "your uid has used up its share: of secrets (limits.secrets_per_uid), directories (limits.directories_per_uid), or open values and scratch files",
            "`secretfs whoami` says of which; what is in the trash counts until it is destroyed",
        ),
        libc::EMFILE => {
            (Kind::BackendConnection, "your uid has too many files open in the mount", "")
        }
        libc::EINVAL => (Kind::Config, "the daemon takes no such name, value or command", ""),
        libc::EOPNOTSUPP => (
            Kind::Config,
            "a filesystem of secrets does not do this, or the backend that keeps the secret does not",
            "`cat NAME@why` says who keeps it",
        ),
        libc::EXDEV => (
            Kind::Config,
            "another service keeps the secrets there",
            "copy it, and remove the original",
        ),
        _ => (Kind::BackendConnection, "", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_differ_by_kind_and_from_success_failure_and_usage() {
        let mut codes: Vec<u8> = Kind::ALL.into_iter().map(Kind::exit_code).collect();
        codes.sort_unstable();
        assert_eq!(codes, (3..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn the_words_for_kinds_are_those_of_the_contract() {
        let words: Vec<_> =
            Kind::ALL.iter().map(|kind| serde_json::to_value(kind).unwrap()).collect();
        let expected = [
            "authorization",
            "backend_connection",
            "config",
            "decryption",
            "encryption",
            "injection",
            "rotation",
            "scanning",
            "secret_already_exists",
            "secret_not_found",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn each_errno_of_the_contract_has_its_kind() {
        let cases = [
            (libc::EACCES, Kind::Authorization),
            (libc::ENOENT, Kind::SecretNotFound),
            (libc::ENOKEY, Kind::Decryption),
            (libc::EKEYEXPIRED, Kind::Authorization),
            (libc::EBADMSG, Kind::Decryption),
            (libc::EIO, Kind::BackendConnection),
            (libc::EBUSY, Kind::Rotation),
            (libc::EEXIST, Kind::SecretAlreadyExists),
            (libc::EFBIG, Kind::Encryption),
            (libc::EINVAL, Kind::Config),
        ];
        for (code, kind) in cases {
            let failure = Failure::from_errno("x", &io::Error::from_raw_os_error(code));
            assert_eq!(failure.kind, kind, "{code}");
            assert!(!failure.why.is_empty());
        }
    }

    #[test]
    fn a_failure_is_one_line_whatever_is_in_it() {
        let failure = Failure::new(Kind::Config, "a\nb", "\u{1b}[31mred").hint("do\rit");
        let line = failure.to_string();
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains(['\u{1b}', '\r']), "{line:?}");
    }
}
