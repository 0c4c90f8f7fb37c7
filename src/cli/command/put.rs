//! `put`: a new version out of standard input, a file, a prompt or a generator.

use std::io::{self, IsTerminal};

use serde_json::{Map, json};

use super::Done;
use crate::cli::Context;
use crate::cli::args::{Attributes, Put};
use crate::cli::client::{Client, Writing};
use crate::cli::error::{Failure, Kind};
use crate::cli::{plaintext, when};
use crate::daemon::compose;
use crate::fs;
use crate::generate::{GenerateError, Generated, Inputs};
use crate::model::{Clock, SecretName};
use crate::scan::Inspector;
use crate::system::SecretBytes;

pub(super) fn run(context: &Context, args: &Put) -> Done {
    let name = &args.name;
    if fs::is_scratch_name(name.leaf()) {
        return Err(Failure::new(Kind::Config, name.as_str(), "this is a name of editors' files")
            .hint("such files are never stored: choose another name"));
    }
    // Before anything is asked or stored.
    let clock = compose::clock();
    let mut attributes = attributes(&args.attributes, clock.as_ref())?;
    let client = context.client()?;
    let Generated { value, expires, public } = value(args, clock.as_ref())?;
    if let Some(expires) = expires.filter(|_| args.attributes.expires.is_none()) {
        attributes.push(("expires", expires.to_string()));
    }
    attributes.extend(args.decoy.then(|| ("decoy", "yes".to_owned())));
    let expect = args.expect.map(std::num::NonZeroU64::get);
    if value.is_empty() {
        put_empty(&client, args)?;
    } else {
        client.write_value(name, &value, Writing { expect, create: args.create })?;
    }
    set(&client, name, &attributes)?;
    let version = client.attribute(name, "version").unwrap_or_default();
    let mut document = Map::new();
    document.insert("name".into(), name.as_str().into());
    document.insert("version".into(), version.parse::<u64>().ok().into());
    document.extend(public.clone().map(|public| ("public".into(), public.into())));
    context.out.done(format_args!("{name} version {version}"), &document.into())?;
    public.map_or(Ok(()), |public| context.out.line(public))
}

fn value(args: &Put, clock: &dyn Clock) -> Result<Generated, Failure> {
    if let Some(generator) = &args.generate {
        let inputs = Inputs { current: None, user: None, authority: None, now: clock.now() };
        let failed = |err: GenerateError| {
            Failure::new(Kind::Encryption, args.name.as_str(), err.to_string())
        };
        return generator.generate(&inputs).map_err(failed);
    }
    given(args).map(|value| Generated { value, expires: None, public: None })
}

fn given(args: &Put) -> Result<SecretBytes, Failure> {
    let name = args.name.as_str();
    if let Some(path) = &args.file {
        return plaintext::read_file(path);
    }
    if io::stdin().is_terminal() {
        return plaintext::prompt(&format!("Value of {name}: "));
    }
    plaintext::read_all(io::stdin())
        .map_err(|err| Failure::new(Kind::Config, "standard input", err.to_string()))
}

/// No write(2) can say "no bytes", so an empty value is a command.
fn put_empty(client: &Client, args: &Put) -> Done {
    if !args.allow_empty {
        return Err(Failure::new(Kind::Config, args.name.as_str(), "the value is empty")
            .hint("use --allow-empty if it should be"));
    }
    let Put { name, expect, create, .. } = args;
    let command = json!({ "do": "put-empty", "name": name, "expect": expect, "create": create });
    client.admin(&command).map(drop)
}

/// Returns attributes as the daemon takes them, with times in full.
fn attributes(
    given: &Attributes,
    clock: &dyn Clock,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let expires = given.expires.as_ref().map(|text| {
        let time = when::parse(text, clock.now(), when::Direction::FromNow);
        time.map(|time| time.to_string())
            .map_err(|why| Failure::new(Kind::Config, "--expires", why))
    });
    let tags = (!given.tags.is_empty()).then(|| given.tags.join(","));
    let pairs = [
        ("type", given.secret_type.map(|kind| kind.to_string())),
        ("description", given.description.clone()),
        ("service", given.service.clone()),
        ("environment", given.environment.clone()),
        ("env_name", given.env_name.as_ref().map(ToString::to_string)),
        ("oneiric_path", given.oneiric_path.as_ref().map(ToString::to_string)),
        ("tags", tags),
        ("expires", expires.transpose()?),
    ];
    Ok(pairs.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
}

fn set(client: &Client, name: &SecretName, attributes: &[(&str, String)]) -> Done {
    attributes.iter().try_for_each(|(key, value)| {
        client.set_attribute(name, key, value).map_err(|failure| {
            let hint = "the value itself has been stored".to_owned();
            // The kernel passes on a number alone, so what the daemon objected to is found out once more.
            let objection = Inspector::default().inspect(key, value).ok().flatten();
            match objection.filter(|_| failure.kind == Kind::Config) {
                Some(objection) => {
                    Failure { why: format!("--{key}: {objection}"), hint, ..failure }
                }
                None => Failure { hint, ..failure },
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ManualClock;

    #[test]
    fn only_what_was_given_is_set_and_times_are_made_absolute() {
        let given = Attributes {
            tags: vec!["a".into(), "b".into()],
            expires: Some("1d".into()),
            ..Attributes::default()
        };
        let pairs = attributes(&given, &ManualClock::at(0)).unwrap();
        let expected = [("tags", "a,b".into()), ("expires", "1970-01-02T00:00:00Z".into())];
        assert_eq!(pairs, expected);
        let bad = Attributes { expires: Some("soon".into()), ..Attributes::default() };
        assert_eq!(attributes(&bad, &ManualClock::at(0)).unwrap_err().what, "--expires");
    }
}
