//! `elevate`: a one-time code makes this login session meet the guards that ask for it.
//!
//! The seed is made here, shown once on the terminal, and given to the daemon only with a code that
//! proves that an app has it. Code and seed are never in argv.

use std::io::{IsTerminal, stdout};

use super::Done;
use crate::cli::Context;
use crate::cli::account::Account;
use crate::cli::args::Elevate;
use crate::cli::client::Client;
use crate::cli::error::{Failure, Kind};
use crate::cli::out::text_of;
use crate::cli::plaintext;
use crate::cli::table::short_time;
use crate::crypto::Seed;
use crate::system::SecretBytes;

pub(super) fn run(context: &Context, args: &Elevate) -> Done {
    let client = context.client()?;
    if args.enrol {
        return enrol(context, &client);
    }
    if args.drop {
        let dropped = client.control("elevate", b"drop\n")?;
        return context.out.done("this session is not elevated any more", &dropped);
    }
    if let Some(user) = &args.forget {
        let uid = Account::find(user)?.uid;
        let forgotten = client.control("elevate", format!("forget {uid}\n").as_bytes())?;
        return context.out.done(format_args!("{user} has to enrol anew"), &forgotten);
    }
    let elevated = client.control("elevate", ask("Code: ")?.expose())?;
    let until = elevated.get("until").map(text_of).unwrap_or_default();
    let said = format!("this login session is elevated until {}", short_time(&until));
    context.out.done(said, &elevated)
}

fn enrol(context: &Context, client: &Client) -> Done {
    let fail = |why: String| Failure::new(Kind::Encryption, "elevate --enrol", why);
    if !stdout().is_terminal() {
        let why = "the seed is shown once, on a terminal only";
        return Err(Failure::new(Kind::Config, "elevate --enrol", why));
    }
    // Who may not have one sees none.
    client.control("elevate", b"enrol\n")?;
    let seed = Seed::generate().map_err(|err| fail(err.to_string()))?;
    let text = seed.base32().map_err(|err| fail(err.to_string()))?;
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    let host = nix::sys::utsname::uname().ok();
    let host = host.and_then(|host| host.nodename().to_str().map(str::to_owned));
    let host = host.unwrap_or_else(|| "localhost".into());
    context.out.note("give this to an authenticator app; it is not shown again");
    context.out.bytes(
        parts(&[
            format!("otpauth://totp/secretfs:{user}@{host}?secret=").as_bytes(),
            text.expose(),
            b"&issuer=secretfs&algorithm=SHA1&digits=6&period=30\nsecret: ",
            text.expose(),
            b"\n",
        ])
        .map_err(|err| fail(err.to_string()))?
        .expose(),
    )?;
    let code = ask("Code that the app shows: ")?;
    let command = parts(&[b"enrol ", text.expose(), b" ", code.expose(), b"\n"]);
    let enrolled =
        client.control("elevate", command.map_err(|err| fail(err.to_string()))?.expose())?;
    context.out.done("enrolled: `secretfs elevate` takes the app's codes from now on", &enrolled)
}

fn ask(question: &str) -> Result<SecretBytes, Failure> {
    let hint = "a code is typed on a terminal, or written to .control/elevate";
    plaintext::prompt(question).map_err(|failure| failure.hint(hint))
}

/// Puts text together in locked memory.
fn parts(parts: &[&[u8]]) -> Result<SecretBytes, crate::system::MemoryError> {
    let len = parts.iter().map(|part| part.len()).sum();
    SecretBytes::with_len(len, |room| {
        let mut rest = room;
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        Ok(len)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_in_order() {
        assert_eq!(parts(&[b"enrol ", b"A", b" 1"]).unwrap().expose(), b"enrol A 1");
    }
}
