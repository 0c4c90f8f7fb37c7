//! `init`: a store with its key, configuration and policy.

use nix::unistd::User;
use serde_json::{Value, json};

use super::mount::{passphrase, read_descriptor};
use super::{Done, layer};
use crate::cli::Context;
use crate::cli::args::Init;
use crate::cli::error::{Failure, Kind};
use crate::cli::plaintext;
use crate::daemon::config::{Environment, KeyConfig};
use crate::daemon::init::{self, Made, PassphraseInput, default_admins};
use crate::model::Uid;

pub(super) fn run(context: &Context, args: &Init) -> Done {
    let (_, config) = context.config(args.system.system, layer(None, &args.key)?)?;
    let mut passphrase = passphrase(&config.key, &args.key.from);
    if let (KeyConfig::Passphrase, PassphraseInput::Ask) = (&config.key, &passphrase) {
        passphrase = PassphraseInput::Given(plaintext::new_passphrase()?);
    }
    let admins = admins(&args.admins, &context.environment)?;
    let made = init::init(&config, admins, &read_descriptor(passphrase)?)?;
    let out = &context.out;
    out.json(&made_value(&made))?;
    out.line(format_args!("store     {}", config.store().display()))?;
    out.line(format_args!("config    {}", config.file.display()))?;
    out.line(format_args!("policy    {}", config.policy.display()))?;
    if let KeyConfig::File(path) = &config.key {
        out.line(format_args!("root key  {} (keep a copy elsewhere)", path.display()))?;
    }
    for kept in &made.kept {
        out.note(format_args!("{} was there already and is used as it is", kept.display()));
    }
    Ok(())
}

/// Returns the admins that are named, or those by default.
pub(super) fn admins(named: &[String], environment: &Environment) -> Result<Vec<Uid>, Failure> {
    if named.is_empty() {
        return Ok(default_admins(environment));
    }
    named.iter().map(|name| uid(name)).collect()
}

fn uid(name: &str) -> Result<Uid, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(Uid(number));
    }
    let unknown = || Failure::new(Kind::Config, name, "there is no such user");
    let user = User::from_name(name).ok().flatten().ok_or_else(unknown)?;
    Ok(Uid(user.uid.as_raw()))
}

pub(super) fn made_value(made: &Made) -> Value {
    json!({
        "store_id": made.store_id.to_string(),
        "admins": made.admins,
        "kept": made.kept,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admins_are_numbers_or_names_of_the_host() {
        assert_eq!(uid("1000").unwrap(), Uid(1000));
        assert_eq!(uid("root").unwrap(), Uid(0));
        assert_eq!(uid("no-such-user-7f3a").unwrap_err().kind, Kind::Config);
    }
}
