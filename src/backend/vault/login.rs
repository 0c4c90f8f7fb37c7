//! How a token is had: one login for each method of authentication, and its renewal.
//!
//! Files are read at each login, so that what others write there anew is taken; they are put together with the
//! request in locked memory.

use std::time::Duration;

use serde::Deserialize;

use super::answer::{Data, parse, strange};
use super::client::{Call, LOOK, Wire, unauthenticated};
use super::session::Token;
use super::settings::AuthSettings;
use crate::backend::credential_file::read;
use crate::backend::http::{Answer, Method, percent_encoded};
use crate::backend::{BackendError, Deadline, Result};
use crate::inject::json::push_string;
use crate::system::{SecretBuffer, SecretBytes};

/// Gets a token.
pub(super) fn log_in(
    auth: &AuthSettings,
    given: Option<&SecretBytes>,
    wire: &Wire,
    deadline: Deadline,
) -> Result<Token> {
    let token = match auth {
        AuthSettings::AppRole { mount, role_id, secret_id_file } => {
            let secret_id = secret_id_file.as_deref().map(read).transpose()?;
            let members = [
                ("role_id", Some(role_id.as_bytes())),
                ("secret_id", secret_id.as_ref().map(SecretBytes::expose)),
            ];
            post(wire, mount, &members, deadline)?
        }
        AuthSettings::Cert { mount, role } => {
            post(wire, mount, &[("name", role.as_deref().map(str::as_bytes))], deadline)?
        }
        AuthSettings::Jwt { mount, role, jwt_file } => {
            let jwt = read(jwt_file)?;
            let members = [("role", Some(role.as_bytes())), ("jwt", Some(jwt.expose()))];
            post(wire, mount, &members, deadline)?
        }
        AuthSettings::Token { token_file } => match (token_file, given) {
            (Some(file), _) => Token::new(read(file)?, Duration::ZERO),
            (None, Some(given)) => {
                Token::new(SecretBytes::copy_from(given.expose())?, Duration::ZERO)
            }
            (None, None) => return Err(unauthenticated("neither token_file nor VAULT_TOKEN")),
        },
    };
    look_at(token, matches!(auth, AuthSettings::Token { .. }), wire, deadline)
}

/// Gives a token a longer life.
pub(super) fn renew(token: &Token, wire: &Wire, deadline: Deadline) -> Result<Token> {
    if !token.renewable {
        return Err(unauthenticated("the token cannot be renewed"));
    }
    let path = "auth/token/renew-self";
    let call = Call { method: Method::Post, path, body: Some(b"{}"), ..Call::default() };
    let answer = wire.send(call, Some(&token.secret), deadline)?;
    let renewed = granted(&answer, "the token's renewal")?;
    Ok(Token { looks: token.looks, ..renewed })
}

/// Logs in at one method with these members.
fn post(
    wire: &Wire,
    mount: &str,
    members: &[(&str, Option<&[u8]>)],
    deadline: Deadline,
) -> Result<Token> {
    let path = format!("auth/{}/login", percent_encoded(mount, true));
    let body = object(members)?;
    let body = Some(body.expose());
    let call = Call { method: Method::Post, path: &path, body, ..Call::default() };
    granted(&wire.send(call, None, deadline)?, "the login")
}

fn granted(answer: &Answer, what: &str) -> Result<Token> {
    #[derive(Deserialize)]
    struct Login<'a> {
        #[serde(borrow)]
        auth: Auth<'a>,
    }
    #[derive(Deserialize)]
    struct Auth<'a> {
        client_token: &'a str,
        lease_duration: u64,
        renewable: bool,
    }
    match answer.status {
        200..=299 => {}
        // Of a role that is not known, or a credential that does not fit. A method that is not there is 403.
        400 | 401 | 403 | 404 => {
            let status = answer.status;
            return Err(unauthenticated(&format!("{what} is refused with status {status}")));
        }
        503 => return Err(BackendError::Failed("it is sealed, or no active node".into())),
        status => return Err(BackendError::Failed(format!("{what} ends with status {status}"))),
    }
    let Login { auth } = parse(answer)?;
    let secret = SecretBytes::copy_from(auth.client_token.as_bytes())?;
    let token = Token::new(secret, Duration::from_secs(auth.lease_duration));
    Ok(Token { renewable: auth.renewable, ..token })
}

/// Finds out what a token may, and of one that was given how long it lives.
fn look_at(token: Token, is_given: bool, wire: &Wire, deadline: Deadline) -> Result<Token> {
    #[derive(Deserialize)]
    struct Looked {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
    }
    let answer = wire.send(LOOK, Some(&token.secret), deadline)?;
    match answer.status {
        200 if is_given => {
            let Data { data: Looked { ttl, renewable } } = parse(&answer)?;
            let token = Token::new(token.secret, Duration::from_secs(ttl));
            Ok(Token { renewable, looks: true, ..token })
        }
        200 => Ok(Token { looks: true, ..token }),
        503 => Err(BackendError::Failed("it is sealed, or no active node".into())),
        // One that may not look at itself may still be good for what it is for; one that was given is more
        // often a wrong one, and would be asked for again and again.
        401 | 403 if is_given => Err(unauthenticated("the token is refused")),
        400..=499 => Ok(token),
        _ => Err(strange()),
    }
}

/// Puts a JSON object of texts together.
fn object(members: &[(&str, Option<&[u8]>)]) -> Result<SecretBytes> {
    let mut json = SecretBuffer::new();
    let mut before: &[u8] = b"{";
    for (name, value) in members {
        let Some(value) = value else { continue };
        let value = std::str::from_utf8(value)
            .map_err(|_| BackendError::Unauthenticated("the credential is no text".to_owned()))?;
        json.write_at(json.len(), before)?;
        push_string(&mut json, name)?;
        json.write_at(json.len(), b":")?;
        push_string(&mut json, value)?;
        before = b",";
    }
    let open: &[u8] = if json.is_empty() { b"{}" } else { b"}" };
    json.write_at(json.len(), open)?;
    Ok(json.into_bytes())
}
