//! One file a command; here, which is which.

use std::path::PathBuf;
use std::process::ExitCode;

use super::Context;
use super::args::{Cli, Command};
use super::client::{self, Client};
use super::error::{Failure, Kind};
use crate::daemon::compose::{self, EffectorPart};
use crate::daemon::config::{Absolute, Config, KeyLayer, Layer, Sources};
use crate::daemon::paths::Mode;
use crate::effect::Orders;
use crate::keysource::WrappingKey;

mod abort;
mod anomalies;
mod audit;
mod backend;
mod backup;
mod completions;
mod container_args;
mod destroy;
mod doctor;
mod edit;
mod elevate;
mod env;
mod explain;
mod get;
mod grant;
mod history;
mod holders;
mod import;
mod init;
mod inject;
mod key;
mod log;
mod ls;
mod man;
mod mirror;
mod mount;
mod mv;
mod oneiric;
mod policy;
mod put;
mod quarantine;
mod render;
mod report;
mod restore;
mod revoke;
mod rm;
mod rotate;
mod rotations;
mod run;
mod scan;
mod seal;
mod server;
mod show;
mod status;
mod umount;
mod unit;
mod unseal;
mod up;
mod upgrade;
mod verify;
mod whoami;

type Done = Result<(), Failure>;

/// Runs a command. Commands that find something wrong end with their own code, not with a failure.
pub(super) fn run(context: &Context, command: Command) -> Result<ExitCode, Failure> {
    let done = match command {
        Command::Abort => abort::run(context),
        Command::Anomalies(args) => anomalies::run(context, &args),
        Command::Audit(args) => return audit::run(context, &args),
        Command::Backend(args) => return backend::run(context, &args),
        Command::Backup(args) => backup::run(context, &args),
        Command::Completions(args) => completions::run(context, &args),
        Command::ContainerArgs(args) => container_args::run(context, &args),
        Command::Destroy(args) => destroy::run(context, &args),
        Command::Doctor(args) => return doctor::run(context, &args),
        Command::Edit(args) => edit::run(context, &args),
        Command::Effector(args) => {
            let orders = |rotation| Orders {
                rotation,
                injections: args.injections,
                alerts: args.alerts,
                mountpoint: args.mountpoint,
                backends: args.backends,
                namespace: args.namespace,
            };
            let part = match (args.rotation, args.order) {
                (None, _) => EffectorPart::Search,
                (Some(rotation), true) => EffectorPart::Order(orders(rotation)),
                (Some(rotation), false) => EffectorPart::Whole(orders(rotation)),
            };
            helper("the effector", || compose::serve_effector(part))
        }
        Command::Elevate(args) => elevate::run(context, &args),
        Command::Env(args) => env::run(context, &args),
        Command::Exec(args) => return run::exec(context, &args),
        Command::Explain(args) => explain::run(context, &args),
        Command::Export(args) => return mirror::export(context, &args),
        Command::Get(args) => get::run(context, &args),
        Command::Grant(args) => grant::run(context, &args),
        Command::Quarantine(args) => quarantine::run(context, &args),
        Command::History(args) => history::run(context, &args),
        Command::Holders(args) => holders::run(context, &args),
        Command::Import(args) => return import::run(context, &args),
        Command::Init(args) => init::run(context, &args),
        Command::Inject(args) => inject::run(context, &args),
        Command::Key(args) => key::run(context, &args),
        Command::Log(args) => log::run(context, &args),
        Command::Ls(args) => ls::run(context, &args),
        Command::Man(args) => man::run(context, &args),
        Command::Mounter(args) => unit::mount(context, &args),
        Command::Mount(args) => return mount::run(context, &args),
        Command::Mv(args) => mv::run(context, &args),
        Command::Observer => helper("the observer", compose::serve_observer),
        Command::Oneiric(args) => oneiric::run(context, &args),
        Command::Policy(args) => return policy::run(context, &args),
        Command::Probe => doctor::probe(context),
        Command::Put(args) => put::run(context, &args),
        Command::Refuse => helper("refusing", compose::serve_refusals),
        Command::Render(args) => return render::run(context, &args),
        Command::Report(args) => return report::run(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Revoke(args) => revoke::run(context, &args),
        Command::Rotate(args) => return rotate::run(context, &args),
        Command::Rotations(args) => rotations::run(context, &args),
        Command::Rm(args) => rm::run(context, &args),
        Command::Run(args) => return run::run(context, &args),
        Command::Scan(args) => return scan::run(context, &args),
        Command::Seal => seal::run(context),
        Command::Server(args) => server::run(context, &args),
        Command::Show(args) => show::run(context, &args),
        Command::Stale => holders::stale(context),
        Command::Status => status::run(context),
        Command::Sync(args) => return mirror::sync(context, &args),
        Command::Umount(args) => umount::run(context, &args),
        Command::Unmounter(args) => unit::unmount(context, &args),
        Command::Unseal(args) => unseal::run(context, &args),
        Command::Up(args) => return up::run(context, &args),
        Command::Upgrade(args) => upgrade::run(context, &args),
        Command::Verify => return verify::run(context),
        Command::Whoami => whoami::run(context),
    };
    done.map(|()| ExitCode::SUCCESS)
}

impl Context {
    /// Finds the running daemon's mount.
    fn client(&self) -> Result<Client, Failure> {
        match self.named_mount() {
            Some(named) => Client::find(Some(&named), None),
            None => Client::find(None, Some(&self.configured_mount()?)),
        }
    }

    /// Returns where the mount is that is meant now. A command that stays goes by it ever after: it
    /// must not come to another store because its own is unmounted.
    fn mountpoint(&self) -> Result<PathBuf, Failure> {
        Ok(self.client()?.mount.mountpoint)
    }

    /// Returns the mount that `--mount` names, or else `SECRETFS_MOUNT`.
    fn named_mount(&self) -> Option<PathBuf> {
        let variable = || self.environment.value("SECRETFS_MOUNT").map(PathBuf::from);
        self.args.mount.clone().or_else(variable)
    }

    /// Returns where the configuration mounts, be it mounted or not.
    fn configured_mount(&self) -> Result<PathBuf, Failure> {
        let file = self.args.config.as_deref().map(absolute).transpose()?;
        client::configured(&self.environment, file)
    }

    /// Loads the configuration as the daemon would have it, with flags over it.
    fn config(&self, system: bool, flags: Layer) -> Result<(Sources, Config), Failure> {
        let mode = Mode::choose(system, nix::unistd::geteuid().is_root());
        let file = self.args.config.as_deref().map(absolute).transpose()?;
        let sources = Sources { mode, file, environment: self.environment.clone(), flags };
        let config = sources.load().map_err(crate::daemon::DaemonError::from)?;
        config.warnings.iter().for_each(|warning| self.out.note(warning));
        Ok((sources, config))
    }
}

fn helper(what: &str, serve: impl FnOnce() -> std::io::Result<()>) -> Done {
    serve().map_err(|err| Failure::new(Kind::BackendConnection, what, err.to_string()))
}

/// Makes a path absolute: a daemon has another working directory.
fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|err| Failure::new(Kind::Config, path.display().to_string(), err.to_string()))
}

/// Returns the layer that a mountpoint and a key source on the command line make.
fn layer(
    mountpoint: Option<&std::path::Path>,
    key: &super::args::KeyFrom,
) -> Result<Layer, Failure> {
    let path = |path: Option<&std::path::Path>| {
        path.map(absolute).transpose().map(|path| path.map(Absolute))
    };
    let passphrase = key.passphrase || key.from.passphrase_fd.is_some();
    Ok(Layer {
        mountpoint: path(mountpoint)?,
        key: KeyLayer::named(passphrase, path(key.key_file.as_deref())?, key.credential.clone())
            .map_err(|why| Failure::new(Kind::Config, "--credential", why))?
            .or_backend(
                key.key_backend
                    .clone()
                    .zip(key.key_name.clone())
                    .map(|(backend, name)| WrappingKey { backend, name }),
            ),
        ..Layer::default()
    })
}

/// Returns the grammar, for completions and manual pages.
fn grammar() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}
