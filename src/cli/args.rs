//! The grammar of the command line.
//!
//! No argument takes a value of a secret: other users can read argv. `tests` walks this tree and
//! fails on any argument that is not known to take something else.

use std::num::NonZeroU64;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;

mod anomalies;
mod backend;
mod grant;
mod inject;
mod mirror;
mod quarantine;
mod report;
mod rotation;
mod scan;

pub(crate) use anomalies::Anomalies;
pub(crate) use backend::{Backend, BackendCheck};
pub(crate) use grant::{Elevate, Grant, GrantCommand, GrantGive};
pub(crate) use inject::{
    Env, Exec, FormatName, Import, ImportForm, Inject, InjectFile, InjectRemove, LayerName,
    Oneiric, OneiricLoad, OneiricPlace, OneiricSync, Render, Run, Selection, Storing,
};
pub(crate) use mirror::{Copying, Export, Origin, Place, Sync};
pub(crate) use quarantine::{Quarantine, QuarantineCommand};
pub(crate) use report::{PolicySuggest, Recorded, Report};
pub(crate) use rotation::{Rotate, Rotations};
pub(crate) use scan::{Scan, ScanCommand, ScanHook, ScanRules, ScanRulesArgs};

use super::client::complete_name;
use super::generate;
use crate::generate::Generator;
use crate::model::{EnvName, NameError, OneiricPath, SecretName, SecretType};

/// A filesystem of secrets: reading a file decrypts it for a caller whom the policy allows, and
/// records who read it.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 secret not found, 4 secret already exists, 5 not
/// authorized, 6 encryption, 7 decryption or sealed, 8 rotation or changed meanwhile, 9 injection,
/// 10 scanning, 11 no connection to a daemon or backend, 12 configuration.
#[derive(Debug, Parser)]
#[command(name = "secretfs", version, propagate_version = false, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Answers in JSON; a failure too, with an error.kind.
    #[arg(long, global = true)]
    pub json: bool,
    /// The mount to talk to, where there are several (also SECRETFS_MOUNT).
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub mount: Option<PathBuf>,
    /// The configuration file (also SECRETFS_CONFIG).
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a store on first use and mounts it in the background: the two-minute start.
    Up(Up),
    /// Makes a store, its key, configuration and policy, and mounts nothing.
    Init(Init),
    /// Mounts the store.
    Mount(MountArgs),
    /// Unmounts; the directory stays behind, closed, so that nobody writes plaintext into it.
    Umount(Umount),
    /// Shows how the daemon is.
    Status,
    /// Has another program, or the same one anew, take over from the running daemon.
    Upgrade(Upgrade),
    /// Stores a value: from standard input, a file, a prompt on a terminal, or a generator.
    Put(Put),
    /// Writes a value to standard output, byte by byte as it was stored.
    Get(Get),
    /// Lists secrets.
    Ls(Ls),
    /// Shows everything about a secret but its value.
    Show(Named),
    /// Lists the versions of a secret.
    History(Named),
    /// Moves a secret to the trash.
    Rm(Named),
    /// Brings a secret back from the trash.
    Restore(Restore),
    /// Destroys a secret in the trash for good; without a name, lists the trash.
    Destroy(Destroy),
    /// Renames a secret with its history; onto an existing one, makes a new version of that.
    Mv(Mv),
    /// Opens a value in $EDITOR, in memory, and stores what comes out.
    Edit(Edit),
    /// Rotates a secret: makes a new value, has it accepted where it is used, proves that it works, and
    /// only then gives it to readers.
    Rotate(Rotate),
    /// Shows how rotations ended, of one secret or of all, or what is due.
    Rotations(Rotations),
    /// Makes every read of a secret fail at once, on open files too, until it has a new value.
    Revoke(Named),
    /// Lists the live processes that have opened a secret, with the version that each opened last.
    Holders(Named),
    /// Lists the live processes that have not opened the current version of what they hold.
    Stale,
    /// Runs a program with secrets in its environment.
    Run(Run),
    /// Prints secrets as variables, in a form that another program reads.
    Env(Env),
    /// Fills a template with secrets.
    Render(Render),
    /// Puts secrets where programs look for files.
    #[command(subcommand)]
    Inject(Inject),
    /// Stores the secrets that are in a file, and can put placeholders in their place; or those of a service.
    ///
    /// `import dotenv FILE` and its like store what is in a file. `import NAME`, with the name of a backend of the
    /// configuration, copies the secrets of that service, with their versions. It shows a plan first, changes
    /// nothing that has another value here, and compares both sides at the end; killed in the middle, it goes on by
    /// being started again. Exit codes of its own then: 0 all are equal, 1 some are not.
    Import(Box<Import>),
    /// Copies the secrets of the store to a service, as `import NAME` does in the other direction.
    Export(Export),
    /// Copies secrets from one side to another, of which each is the store or a service; once, or ever after.
    ///
    /// Exit codes of its own: 0 all are equal, 1 some are not.
    Sync(Sync),
    /// Reads and writes the layers of Oneiric's settings.
    #[command(subcommand)]
    Oneiric(Oneiric),
    /// Shows who did what, from the audit log.
    Log(Log),
    /// Shows what in the audit log is unlike the log before it.
    Anomalies(Anomalies),
    /// Says what the log, the keys and the policy show of the controls of an audit.
    ///
    /// It is evidence and no certificate. Exit codes of its own: 0 no check has failed, 1 one has.
    Report(Report),
    /// Verifies the audit log, or shows where it ends.
    #[command(subcommand)]
    Audit(Audit),
    /// Checks, tests, explains and shows policies.
    #[command(subcommand)]
    Policy(Policy),
    /// Tries services that keep secrets, as the configuration names them.
    #[command(subcommand)]
    Backend(Backend),
    /// Grants levels on top of the policy for a time, lists such grants and revokes them.
    Grant(Box<Grant>),
    /// Shows who is kept from every secret for a while, keeps somebody so, or ends that.
    Quarantine(Quarantine),
    /// Elevates this login session by a one-time code, for what the policy lets only elevated ones do.
    Elevate(Elevate),
    /// Shows and rotates the store's keys.
    #[command(subcommand)]
    Key(Key),
    /// Makes and restores encrypted backups of the store.
    #[command(subcommand)]
    Backup(Backup),
    /// Checks every record and value in the store.
    Verify,
    /// Says what you may do with a secret, and which rule says so.
    Explain(Named),
    /// Looks for what is wrong here and says what to do.
    Doctor(System),
    /// Looks for secrets that are where they should not be, in files, archives and histories.
    ///
    /// Exit codes of its own: 0 nothing found, 1 secrets found, 2 not everything could be read.
    Scan(Box<Scan>),
    /// Frees callers that hang in the mount by cutting its connection; the mount is dead afterwards.
    Abort,
    /// Prints what to pass to a container runtime so that secrets are files in the container.
    ///
    /// What is printed binds a directory of the mount, or single secrets, into the container: by default
    /// at /run/secrets, as Docker's own secrets are, so that a program finds /run/secrets/NAME. A bind
    /// follows rotation: what is opened in the container is the version that is current then.
    ///
    /// Read-only, because a container should not change what it is given. Never Docker's -v: where
    /// nothing is mounted, that would make an empty directory on the host and start the container
    /// without its secrets. The runtime looks the path up itself, so root (for Docker), or with a user
    /// namespace the namespace's root, needs some level there too.
    ///
    /// The policy sees the user as the host knows it: user 1000 in a container is 1000 without a user
    /// namespace, and with one whatever it is mapped to. Root in a container is root only without one.
    ///
    /// A bind belongs to the mount that it was made from. After an unmount it is dead, whatever is
    /// mounted later; for containers that must go on then, see --across-remounts.
    ContainerArgs(ContainerArgs),
    /// Shows as whom the daemon sees you.
    Whoami,
    /// Forgets the keys at once: every read fails until `unseal`.
    Seal,
    /// Brings the keys back.
    Unseal(Unseal),
    /// Prints the completion script of a shell; it completes names of secrets too.
    Completions(Completions),
    /// Writes the manual pages into a directory.
    Man(Man),
    /// The helper process that carries out what rotations do elsewhere.
    #[command(hide = true)]
    Effector(EffectorArgs),
    /// Mounts for the system's unit, before its server starts.
    #[command(hide = true)]
    Mounter(UnitArgs),
    /// Becomes a program with variables from a pipe; the supervisor of `run` starts it.
    #[command(hide = true)]
    Exec(Exec),
    /// The helper process that the daemon starts for itself.
    #[command(hide = true)]
    Observer,
    /// Looks at the mount for `doctor`, which must not hang with it.
    #[command(hide = true)]
    Probe,
    /// Answers for a daemon that cannot be had; its keeper starts it.
    #[command(hide = true)]
    Refuse,
    /// The daemon itself; its keeper starts it.
    #[command(hide = true)]
    Server(ServerArgs),
    /// Unmounts for the system's unit, after its server has ended for good.
    #[command(hide = true)]
    Unmounter(UnitArgs),
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct System {
    /// Uses the system's configuration and paths instead of your own.
    #[arg(long)]
    pub system: bool,
}

/// Where a passphrase comes from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PassphraseFrom {
    /// Reads the passphrase from this open descriptor instead of asking for it.
    #[arg(long, value_name = "FD")]
    pub passphrase_fd: Option<RawFd>,
}

/// Where the root key of a new store comes from.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct KeyFrom {
    /// Keeps the root key in this file (the default, in the configuration's directory).
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["passphrase", "credential"])]
    pub key_file: Option<PathBuf>,
    /// Derives the root key's wrapping from a passphrase.
    #[arg(long, conflicts_with = "credential")]
    pub passphrase: bool,
    /// Takes the root key from a systemd credential of this name.
    #[arg(long, value_name = "CREDENTIAL_NAME")]
    pub credential: Option<String>,
    /// Has the service [backend.NAME] of the configuration seal it under a key of its own.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["key_file", "passphrase", "credential"], requires = "key_name")]
    pub key_backend: Option<String>,
    /// The name of the service's key: for Vault, KEY or MOUNT/KEY.
    #[arg(long, value_name = "NAME", requires = "key_backend")]
    pub key_name: Option<String>,
    #[command(flatten)]
    pub from: PassphraseFrom,
}

#[derive(Args, Debug)]
pub(crate) struct Up {
    /// Where to mount; ~/secrets (with --system /secrets) unless configured otherwise.
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub system: System,
    /// Stays in the foreground and logs to standard error.
    #[arg(long)]
    pub foreground: bool,
    /// An admin of a new store, besides or instead of you; may be given again.
    #[arg(long = "admin", value_name = "UID|USER")]
    pub admins: Vec<String>,
    #[command(flatten)]
    pub key: KeyFrom,
}

#[derive(Args, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    pub system: System,
    /// An admin; you (under sudo, the person behind it too) if none is named. May be given again.
    #[arg(long = "admin", value_name = "UID|USER")]
    pub admins: Vec<String>,
    #[command(flatten)]
    pub key: KeyFrom,
}

#[derive(Args, Debug)]
pub(crate) struct MountArgs {
    /// Where to mount, if not where the configuration says.
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub system: System,
    /// Stays in the foreground and logs to standard error.
    #[arg(long)]
    pub foreground: bool,
    /// Serves a store that is older than its audit log says: one that you have put back on purpose.
    #[arg(long)]
    pub accept_rollback: bool,
    #[command(flatten)]
    pub from: PassphraseFrom,
}

/// How the effector is started, and by it a process for each order.
#[derive(Args, Debug)]
pub(crate) struct EffectorArgs {
    /// What may be ordered.
    #[arg(long, value_name = "FILE", required_unless_present = "search")]
    pub rotation: Option<PathBuf>,
    /// Which files may be placed, and who is told of them.
    #[arg(long, value_name = "FILE")]
    pub injections: Option<PathBuf>,
    /// Who may be told of alerts and of the log.
    #[arg(long, value_name = "FILE")]
    pub alerts: Option<PathBuf>,
    /// Where the secrets are.
    #[arg(long, value_name = "DIR")]
    pub mountpoint: Option<PathBuf>,
    /// The configuration, for the services that keep secrets, and those whose keys may be asked.
    #[arg(long, value_name = "FILE")]
    pub backends: Option<PathBuf>,
    /// The mount namespace in which binds are made, such as /proc/1/ns/mnt.
    #[arg(long, value_name = "FILE")]
    pub namespace: Option<PathBuf>,
    /// Carries out one order.
    #[arg(long)]
    pub order: bool,
    /// Looks at files in the place of who asks for it.
    #[arg(long, conflicts_with_all = ["rotation", "order"])]
    pub search: bool,
}

/// What the system's unit gives to those who mount and unmount for it.
#[derive(Args, Debug)]
pub(crate) struct UnitArgs {
    #[command(flatten)]
    pub system: System,
    /// The unit's name.
    #[arg(long, value_name = "UNIT")]
    pub unit: String,
}

/// What `up` and `mount` give on to the servers that their keeper starts.
#[derive(Args, Debug)]
pub(crate) struct ServerArgs {
    #[arg(long, value_name = "DIR")]
    pub mountpoint: Option<PathBuf>,
    #[command(flatten)]
    pub system: System,
    #[arg(long)]
    pub accept_rollback: bool,
    /// Says that it is held ready, and may have to wait for its turn.
    #[arg(long)]
    pub spare: bool,
    #[command(flatten)]
    pub key: KeyFrom,
}

#[derive(Args, Debug)]
pub(crate) struct Upgrade {
    /// The program that takes over; without one, the one that is running is started anew.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub program: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Umount {
    /// What to unmount, if not the only one.
    #[arg(value_name = "MOUNTPOINT", value_hint = ValueHint::DirPath)]
    pub mountpoint: Option<PathBuf>,
    /// Takes it out of the tree even while files in it are open.
    #[arg(long)]
    pub lazy: bool,
    /// Removes the directory too, with its protection.
    #[arg(long)]
    pub rmdir: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The name of a secret.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete_name))]
    pub name: SecretName,
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The name of the secret.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete_name))]
    pub name: SecretName,
    /// Reads the value from a file instead of standard input.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "generate")]
    pub file: Option<PathBuf>,
    /// Makes up a value: LEN characters out of A-Z a-z 0-9 - _ (32 if nothing is said), password[:LEN],
    /// api-key[:BYTES], hex[:BYTES], hmac, webhook, uuid, ssh, ssh-rsa or tls:NAME[,NAME] (signed by
    /// itself).
    #[arg(long, value_name = "WHAT", num_args = 0..=1, default_missing_value = "32", require_equals = true, value_parser = generate::parse)]
    pub generate: Option<Generator>,
    #[command(flatten)]
    pub attributes: Attributes,
    /// Fails unless version N is the current one.
    #[arg(long, value_name = "N", conflicts_with = "create")]
    pub expect: Option<NonZeroU64>,
    /// Fails if the secret exists.
    #[arg(long)]
    pub create: bool,
    /// Nothing should ever open it: if anybody does, that is an anomaly. Together with --generate it looks real.
    #[arg(long)]
    pub decoy: bool,
    /// Stores a value of no bytes.
    #[arg(long)]
    pub allow_empty: bool,
}

/// What is known of a secret beside its value.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Attributes {
    /// What kind of secret it is.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub secret_type: Option<SecretType>,
    /// What it is for. Not encrypted towards those who may know of the secret.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// The service it belongs to.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// The environment it belongs to, such as prod.
    #[arg(long, value_name = "ENVIRONMENT")]
    pub environment: Option<String>,
    /// The environment variable that it becomes, instead of the one made of its name. For admins.
    #[arg(long, value_name = "VARIABLE")]
    pub env_name: Option<EnvName>,
    /// Where Oneiric's settings have it, such as auth.secret, besides secrets.inline. For admins.
    #[arg(long, value_name = "SETTING")]
    pub oneiric_path: Option<OneiricPath>,
    /// A tag; may be given again.
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// When it ends: 2027-01-31, 2027-01-31T12:00:00Z, or 90d from now.
    #[arg(long, value_name = "WHEN")]
    pub expires: Option<String>,
}

fn parse_type(text: &str) -> Result<SecretType, String> {
    text.parse()
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The name of the secret.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete_name))]
    pub name: SecretName,
    /// Reads this version instead of the current one.
    #[arg(long, value_name = "N", conflicts_with = "previous")]
    pub version: Option<NonZeroU64>,
    /// Reads the version before the current one.
    #[arg(long)]
    pub previous: bool,
    /// Writes a binary value even to a terminal.
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Ls {
    /// The directory to list; the whole tree's root if none is named.
    #[arg(value_name = "DIR", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub directory: Option<SecretName>,
    /// Shows type, version, size and dates.
    #[arg(short, long)]
    pub long: bool,
    /// Goes down into directories.
    #[arg(short = 'R', long)]
    pub recursive: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ContainerArgs {
    #[command(flatten)]
    pub runtime: Runtime,
    /// A secret or a directory; the whole mount if none is named. May be given again.
    ///
    /// One directory is bound at the target itself, so that its secrets are TARGET/NAME. Of several,
    /// and of secrets, each is bound at TARGET/ and the last part of its name.
    #[arg(long = "path", value_name = "NAME", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub paths: Vec<SecretName>,
    /// Where in the container.
    #[arg(long, value_name = "DIR", default_value = "/run/secrets")]
    pub target: PathBuf,
    /// Binds the directory that holds the mountpoint instead, so that a later mount there is seen.
    ///
    /// A new mount comes into a running container only if it happens below what was bound, and if
    /// that is a shared mount of which the container's is a slave (rslave). The directory must hold
    /// nothing but the mountpoint, because the container sees all of it. Read-only is then the
    /// directory alone and not the mount in it: who may write is for the policy to say.
    #[arg(long, conflicts_with = "paths")]
    pub across_remounts: bool,
}

/// Who starts the container.
#[derive(Args, Clone, Copy, Debug, Default)]
#[group(multiple = false)]
pub(crate) struct Runtime {
    /// For `docker run` (the default).
    #[arg(long)]
    pub docker: bool,
    /// For `podman run`.
    #[arg(long)]
    pub podman: bool,
    /// For a service in a compose file.
    #[arg(long)]
    pub compose: bool,
    /// For bwrap.
    #[arg(long)]
    pub bwrap: bool,
    /// For the config.json of an OCI runtime, such as runc and crun.
    #[arg(long)]
    pub oci: bool,
}

/// Takes a directory as completion offers it, too: with a slash at its end.
fn parse_place(text: &str) -> Result<SecretName, NameError> {
    text.strip_suffix('/').unwrap_or(text).parse()
}

#[derive(Args, Debug)]
pub(crate) struct Restore {
    /// The name that the secret had, or its entry in the trash.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Restores it under another name.
    #[arg(long, value_name = "NEW_NAME")]
    pub to: Option<SecretName>,
}

#[derive(Args, Debug)]
pub(crate) struct Destroy {
    /// The name that the secret had, or its entry in the trash.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Does not ask.
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Mv {
    /// The secret to rename.
    #[arg(value_name = "FROM", add = ArgValueCompleter::new(complete_name))]
    pub from: SecretName,
    /// Its new name.
    #[arg(value_name = "TO")]
    pub to: SecretName,
    /// Fails if there is a secret of that name.
    #[arg(short, long)]
    pub no_clobber: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Edit {
    /// The name of the secret.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete_name))]
    pub name: SecretName,
}

#[derive(Args, Debug)]
pub(crate) struct Log {
    /// Only what concerns this secret, or the secrets below this directory.
    #[arg(value_name = "NAME", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub name: Option<SecretName>,
    /// Only the newest N lines that fit; 0 shows all.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub limit: usize,
    /// Only this user id.
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Only programs at this path.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub exe: Option<String>,
    /// Only this systemd unit, by its full path or its name.
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// Only this outcome, such as allowed, denied or failed.
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Option<String>,
    /// Only this action, such as read, write or control.
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Only from then on: a date, a time, or 2h ago.
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// Only up to then.
    #[arg(long, value_name = "WHEN")]
    pub until: Option<String>,
    /// Prints whole events in the words of others, a line each: for a collector of events.
    #[arg(long, value_name = "FORMAT", conflicts_with = "stats")]
    pub format: Option<LogFormat>,
    /// Shows counts in place of lines, with those of lines that retention has removed.
    #[arg(long, conflicts_with = "follow")]
    pub stats: bool,
    /// Goes on with lines as they are written.
    #[arg(short, long)]
    pub follow: bool,
}

/// In whose words.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    /// ArcSight's Common Event Format.
    Cef,
    /// As in the log.
    Json,
    /// Open Cybersecurity Schema Framework 1.5.0, as JSON.
    Ocsf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Verifies the whole chain.
    Verify,
    /// Shows the last line's number and code, to be kept elsewhere.
    Head,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Says whether a policy file is well formed, and where it is not.
    Check(PolicyFile),
    /// Runs the expectations written in a policy file.
    Test(PolicyFile),
    /// Says who may do what with a name, and which rule says so.
    Explain(PolicyExplain),
    /// Shows the policy in force; for admins.
    Show,
    /// Proposes the least rules that would have allowed what the log shows, and lists what nobody used.
    Suggest(PolicySuggest),
}

#[derive(Args, Debug)]
pub(crate) struct PolicyFile {
    /// The policy file.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct PolicyExplain {
    /// A name, of an existing secret or not.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete_name))]
    pub name: SecretName,
    /// For this user instead of yourself; for admins.
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// With this group instead of the user's own one.
    #[arg(long, value_name = "GID", requires = "uid")]
    pub gid: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Shows key sources and epochs.
    Status,
    /// Starts a new epoch and re-wraps every value's key in the background.
    RotateEpoch,
    /// Makes a new root key for the same key source.
    RotateRoot(PassphraseFrom),
    /// Makes a new root key for another key source.
    ChangeSource(ChangeSource),
}

#[derive(Args, Debug)]
pub(crate) struct ChangeSource {
    /// The kind of the new source.
    #[arg(value_name = "SOURCE", value_enum)]
    pub source: KeySourceKind,
    /// The new key's file, for the source `file`.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_if_eq("source", "file"))]
    pub file: Option<PathBuf>,
    /// The credential's name, for the source `credential`.
    #[arg(long, value_name = "CREDENTIAL_NAME", required_if_eq("source", "credential"))]
    pub credential: Option<String>,
    /// The service's name in the configuration, for the source `backend`.
    #[arg(long, value_name = "NAME", required_if_eq("source", "backend"))]
    pub key_backend: Option<String>,
    /// The name of its key, for the source `backend`.
    #[arg(long, value_name = "NAME", required_if_eq("source", "backend"))]
    pub key_name: Option<String>,
    #[command(flatten)]
    pub from: PassphraseFrom,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum KeySourceKind {
    Backend,
    Credential,
    File,
    Passphrase,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Writes an encrypted backup of the whole store into a new file.
    Create(BackupFile),
    /// Replaces everything in the store by a backup of the same store.
    Restore(BackupRestore),
}

#[derive(Args, Debug)]
pub(crate) struct BackupFile {
    /// The backup's file.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct BackupRestore {
    /// The backup's file.
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Does not ask.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub system: System,
    #[command(flatten)]
    pub from: PassphraseFrom,
}

#[derive(Args, Debug)]
pub(crate) struct Unseal {
    /// Gives a passphrase, asked for on the terminal.
    #[arg(long)]
    pub passphrase: bool,
    #[command(flatten)]
    pub from: PassphraseFrom,
}

#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

#[derive(Args, Debug)]
pub(crate) struct Man {
    /// An existing directory for the pages, such as /usr/local/share/man/man1.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: PathBuf,
}
