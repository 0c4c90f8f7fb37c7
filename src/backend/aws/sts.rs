//! The Security Token Service: the credentials of a role, for those of somebody who may assume it or for a token of
//! somebody else, such as Kubernetes.

use std::path::{Path, PathBuf};

use super::answer::{succeeded, unauthenticated};
use super::credential::Credential;
use super::file;
use super::wire::{Call, Wire};
use crate::backend::http::percent_encoded;
use crate::backend::{BackendError, Deadline, Result};
use crate::inject::push;
use crate::system::SecretBuffer;

/// What a role's session is called, where nobody has said so.
const SESSION: &str = "secretfs";

/// The service in one region.
pub(super) struct Sts {
    pub(super) wire: Wire,
}

/// A role, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) session: Option<String>,
    pub(super) external_id: Option<String>,
}

/// A role for whoever shows the token in a file.
#[derive(Clone, Debug)]
pub(super) struct WebIdentity {
    pub(super) role: Role,
    pub(super) token_file: PathBuf,
}

impl Sts {
    /// Assumes a role with another credential.
    pub(super) fn assume(
        &self,
        role: &Role,
        with: &Credential,
        deadline: Deadline,
    ) -> Result<Credential> {
        let form = role.form("AssumeRole");
        self.ask(form.as_bytes(), Some(with), "a role", deadline)
    }

    /// Assumes a role with the token in a file, which is read each time.
    pub(super) fn assume_by_token(
        &self,
        identity: &WebIdentity,
        deadline: Deadline,
    ) -> Result<Credential> {
        let mut form = SecretBuffer::new();
        push(&mut form, identity.role.form("AssumeRoleWithWebIdentity").as_bytes())?;
        push(&mut form, b"&WebIdentityToken=")?;
        push(&mut form, token(&identity.token_file)?.expose())?;
        self.ask(form.expose(), None, "a web identity", deadline)
    }

    fn ask(
        &self,
        form: &[u8],
        credential: Option<&Credential>,
        source: &'static str,
        deadline: Deadline,
    ) -> Result<Credential> {
        let kind = "application/x-www-form-urlencoded; charset=utf-8";
        let call = Call { kind, target: None, body: form };
        let answer = succeeded(self.wire.send(call, credential, deadline)?);
        let answer = answer.map_err(|error| {
            let is_refused = matches!(
                error,
                BackendError::Denied(_) | BackendError::Invalid(_) | BackendError::NotFound
            );
            if is_refused {
                unauthenticated("the role is not given to whoever asks")
            } else {
                error
            }
        })?;
        let text = std::str::from_utf8(answer.body.expose()).unwrap_or_default();
        Credential::from_xml(text, source)
    }
}

impl Role {
    fn form(&self, action: &str) -> String {
        let encoded = |text: &str| percent_encoded(text, false);
        let session = encoded(self.session.as_deref().unwrap_or(SESSION));
        let arn = encoded(&self.arn);
        let external = self.external_id.as_deref().map(|id| format!("&ExternalId={}", encoded(id)));
        let external = external.unwrap_or_default();
        format!(
            "Action={action}&Version=2011-06-15&RoleArn={arn}&RoleSessionName={session}{external}"
        )
    }
}

/// Reads a token. It stands in a form as it is, which all tokens of this kind do.
fn token(path: &Path) -> Result<crate::system::SecretBytes> {
    let bytes = file::read_trimmed(path)?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    if bytes.expose().iter().all(is_plain) {
        return Ok(bytes);
    }
    Err(unauthenticated(&format!("{}: it holds no token", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_asked_for_in_a_form() {
        let role = Role {
            arn: "arn:aws:iam::123456789012:role/a".into(),
            session: None,
            external_id: Some("x&y".into()),
        };
        assert_eq!(
            role.form("AssumeRole"),
            "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fa\
             &RoleSessionName=secretfs&ExternalId=x%26y"
        );
    }
}
