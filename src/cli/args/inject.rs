//! The arguments of the commands that bring values to programs: `run`, `env`, `render`, `import`,
//! `oneiric`.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use nix::sys::signal::Signal;

use super::{Copying, Origin, parse_place};
use crate::cli::client::complete_name;
use crate::inject::oneiric::Project;
use crate::inject::template::Pattern;
use crate::inject::variable::Assignment;
use crate::model::{OneiricPath, SecretName};

/// Which secrets, and as which variables.
#[derive(Args, Clone, Debug)]
pub(crate) struct Selection {
    /// A secret and the variable it becomes; may be given again.
    #[arg(short = 'e', long = "env", value_name = "VAR=NAME", value_parser = parse_assignment)]
    pub variables: Vec<Assignment>,
    /// A dotenv file, in whose values ${SECRET_NAME} stands for a secret; the rest is passed on.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Option<PathBuf>,
    /// Every secret below this directory, as its name there in capitals with _ for - . and /.
    #[arg(long, value_name = "DIR", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub dir: Option<SecretName>,
    /// Every secret of the mount that you may know of.
    #[arg(long, conflicts_with = "dir")]
    pub all: bool,
    /// Put before the names of variables that come from --dir and --all.
    #[arg(long, value_name = "PREFIX", default_value = "")]
    pub prefix: String,
    /// Gives each secret the names under which Oneiric looks for it, instead of its own.
    #[arg(long)]
    pub oneiric: bool,
    /// The project whose variables --oneiric makes.
    #[arg(long, value_name = "PROJECT", default_value = "mahavishnu", requires = "oneiric")]
    pub project: Project,
}

#[derive(Args, Debug)]
pub(crate) struct Env {
    /// What the output is for.
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub format: FormatName,
    #[command(flatten)]
    pub selection: Selection,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum FormatName {
    /// --env-file of docker and podman.
    Docker,
    /// python-dotenv and node --env-file.
    Dotenv,
    /// One object; bytes that are no UTF-8 as {"base64": "..."}.
    Json,
    /// eval "$(secretfs env --format sh ...)".
    Sh,
    /// EnvironmentFile= of a unit.
    Systemd,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub selection: Selection,
    /// Runs the command as this user; the secrets are read as you.
    #[arg(long, value_name = "UID|USER")]
    pub user: Option<String>,
    /// Puts *** in the place of the values in what the command prints.
    #[arg(long)]
    pub mask: bool,
    /// Stops the command when one of its secrets has changed, waits for it, and starts it anew.
    #[arg(long)]
    pub watch: bool,
    /// With --watch: sends this signal instead, such as HUP; the environment stays as it was.
    #[arg(long, value_name = "SIGNAL", requires = "watch", value_parser = parse_signal)]
    pub signal: Option<Signal>,
    /// With --watch: how long the command may take to stop before it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "watch")]
    pub stop_seconds: u64,
    /// The command and its arguments.
    #[arg(value_name = "COMMAND", last = true, required = true, value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// What the supervisor of `run` starts.
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Where the variables come from.
    #[arg(long, value_name = "FD")]
    pub variables_fd: RawFd,
    #[arg(long, value_name = "UID|USER")]
    pub user: Option<String>,
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Render {
    /// The template; - is standard input.
    #[arg(value_name = "IN", value_hint = ValueHint::FilePath)]
    pub template: PathBuf,
    /// The file to write, in one step; standard output if none is named.
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// The permission bits of the file.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = parse_mode)]
    pub mode: u32,
    /// The owner of the file.
    #[arg(long, value_name = "USER[:GROUP]", requires = "output")]
    pub owner: Option<String>,
    /// A literal text that stands for a secret, and its name; may be given again.
    #[arg(long = "pattern", value_name = "PATTERN=NAME", value_parser = parse_pattern)]
    pub patterns: Vec<Pattern>,
    /// Takes {{ and {% for text: only ${SECRET_NAME} and patterns are replaced.
    #[arg(long)]
    pub plain: bool,
    /// Names of variables are those of the secrets below this directory.
    #[arg(long, value_name = "DIR", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub dir: Option<SecretName>,
    /// Writes the file again whenever one of its secrets has changed.
    #[arg(long, requires = "output")]
    pub watch: bool,
    /// A command for the shell, run each time the file was written.
    #[arg(long, value_name = "COMMAND", requires = "output")]
    pub exec: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Inject {
    /// Puts a secret where a program looks for a file.
    File(InjectFile),
    /// Shows the files that the daemon keeps, and who is told of changes.
    List,
    /// Takes away what `inject file` has put there.
    Remove(InjectRemove),
}

#[derive(Args, Debug)]
pub(crate) struct InjectFile {
    /// The secret.
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete_name))]
    pub name: SecretName,
    /// Where the program looks; the directory must be there.
    #[arg(value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub path: PathBuf,
    /// Mounts the secret there instead of a link to it, or a directory of secrets: takes root.
    ///
    /// It is the mount's own file under another path: whoever opens it is asked for, and finds what is current. It
    /// goes with the mount.
    #[arg(long, conflicts_with_all = ["copy", "mode", "owner", "watch"])]
    pub bind: bool,
    /// Puts a copy there instead of a link to the mount: on a filesystem in memory alone.
    ///
    /// The path is a link to ..data/ and its last part, and ..data a link to a directory that is
    /// replaced as a whole, as in a Kubernetes volume: so several copies beside each other change
    /// one by one, and each is always whole.
    #[arg(long)]
    pub copy: bool,
    /// The permission bits of the copy.
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = parse_mode, requires = "copy")]
    pub mode: u32,
    /// The owner of the copy.
    #[arg(long, value_name = "USER[:GROUP]", requires = "copy")]
    pub owner: Option<String>,
    /// Stays, and makes the copy anew whenever the secret has changed.
    #[arg(long, requires = "copy")]
    pub watch: bool,
}

#[derive(Args, Debug)]
pub(crate) struct InjectRemove {
    /// Where the file was put.
    #[arg(value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub path: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Import {
    /// What the file is: dir (a directory with a file for each secret), dotenv, env, json or yaml. Or a service: a table
    /// [backend.NAME] of the configuration; or aws, azure or vault, where it has one of that kind.
    #[arg(value_name = "FROM")]
    pub from: Origin,
    /// The file, or the directory.
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub storing: Storing,
    /// Takes every text in the file, not only those that are secrets by their names.
    #[arg(long, requires = "file")]
    pub all: bool,
    /// Puts ${SECRET_NAME} in the place of what was stored.
    #[arg(long, requires = "file")]
    pub rewrite: bool,
    /// Of a service, only what is below this; names here are without it.
    #[arg(long, value_name = "PREFIX", conflicts_with = "file")]
    pub prefix: Option<String>,
    #[command(flatten)]
    pub copying: Copying,
}

/// How what is found becomes secrets.
#[derive(Args, Debug)]
pub(crate) struct Storing {
    /// Stores below this directory.
    #[arg(long, value_name = "DIR", value_parser = parse_place, add = ArgValueCompleter::new(complete_name))]
    pub dir: Option<SecretName>,
    /// Makes a new version of a secret that has another value.
    #[arg(long)]
    pub replace: bool,
    /// Says what would be stored, and stores nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ImportForm {
    /// A directory with a file for each secret.
    Dir,
    /// A dotenv file.
    Dotenv,
    /// NAME=value lines as env prints them and docker reads them; with NULs, as env -0.
    Env,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Oneiric {
    /// Shows the settings that Oneiric's loader comes to, from all of its layers.
    Load(OneiricLoad),
    /// Writes secrets into the layers that Oneiric reads.
    Sync(OneiricSync),
}

/// Whose settings, and where they are.
#[derive(Args, Debug)]
pub(crate) struct OneiricPlace {
    /// The project.
    #[arg(long, value_name = "PROJECT", default_value = "mahavishnu")]
    pub project: Project,
    /// The directory that the program runs in.
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct OneiricLoad {
    #[command(flatten)]
    pub place: OneiricPlace,
    /// Says for each setting which layer it comes from, and shows no value.
    #[arg(long)]
    pub explain: bool,
    /// Stores those settings that are secrets.
    #[arg(long, conflicts_with = "explain")]
    pub import: bool,
    #[command(flatten)]
    pub storing: Storing,
}

#[derive(Args, Debug)]
pub(crate) struct OneiricSync {
    /// The secrets.
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCompleter::new(complete_name))]
    pub names: Vec<SecretName>,
    /// Every secret that you may know of.
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
    #[command(flatten)]
    pub place: OneiricPlace,
    /// Which file to write.
    #[arg(long, value_name = "LAYER", value_enum, default_value = "xdg-local")]
    pub layer: LayerName,
    /// Where a program reads the one secret, such as auth.secret, besides secrets.inline; instead of its own
    /// `oneiric_path`.
    #[arg(long, value_name = "SETTING", conflicts_with = "all")]
    pub at: Option<OneiricPath>,
    /// Writes over a file that somebody else wrote; its settings stay, its comments do not.
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LayerName {
    /// settings/PROJECT.yaml
    Settings,
    /// settings/local.yaml
    SettingsLocal,
    /// PROJECT/config.yaml in the user's configuration
    Xdg,
    /// PROJECT/local.yaml in the user's configuration
    XdgLocal,
}

fn parse_assignment(text: &str) -> Result<Assignment, String> {
    let (variable, name) = text.split_once('=').ok_or("VAR=NAME was expected")?;
    let variable = variable.parse().map_err(|err| format!("{err}"))?;
    let name = name.parse().map_err(|err| format!("{err}"))?;
    Ok(Assignment { variable, name })
}

fn parse_pattern(text: &str) -> Result<Pattern, String> {
    // A pattern may have an `=` of its own; a name has none.
    let (pattern, name) = text.rsplit_once('=').ok_or("PATTERN=NAME was expected")?;
    if pattern.is_empty() {
        return Err("a pattern of no characters is everywhere".into());
    }
    let name = name.parse().map_err(|err| format!("{err}"))?;
    Ok(Pattern { text: pattern.to_owned(), name })
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permission bits such as 0640 were expected".into())
}

fn parse_signal(text: &str) -> Result<Signal, String> {
    let upper = text.to_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse().map_err(|_| "the name of a signal was expected, such as HUP".into())
}
