//! How a token is had: from Microsoft Entra by what an application knows, or from the machine for what it is.
//!
//! Files are read at each login, so that what others write there anew is taken; they are put together with the
//! request in locked memory. Nothing of a credential goes anywhere but to the authority of the configuration,
//! whatever a vault's challenge says.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{parse, strange};
use super::assertion;
use super::settings::{AzureAuth, AzureSettings, invalid};
use super::token::Token;
use crate::backend::credential_file::read;
use crate::backend::http::{Answer, Connection, Http, Method, Request, address, percent_encoded};
use crate::backend::{BackendError, Deadline, Result, Variables};
use crate::model::Clock;
use crate::system::{SecretBuffer, SecretBytes, SystemClock};

/// The authority of the public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";
/// The metadata service of a virtual machine.
const METADATA: &str = "http://169.254.169.254";

/// Who we are.
pub(super) enum Identity {
    /// Something that Entra knows, with what it knows it by.
    Application { http: Http, endpoint: String, client_id: String, proof: Proof },
    /// The machine itself.
    Machine { http: Http, url: String, header: (&'static str, SecretBytes) },
}

/// What an application shows.
pub(super) enum Proof {
    Assertion(PathBuf),
    Certificate { certificate: PathBuf, key: PathBuf },
    Secret(Given),
}

/// Where a secret is.
pub(super) enum Given {
    Here(SecretBytes),
    In(PathBuf),
}

impl Identity {
    /// Asks nothing yet; `Invalid` says what is missing.
    pub(super) fn new(settings: &AzureSettings, variables: &Variables<'_>) -> Result<Self> {
        let (tenant, client_id, proof) = match &settings.auth {
            AzureAuth::ManagedIdentity { client_id } => {
                return machine(&settings.connection, client_id.as_deref(), variables);
            }
            AzureAuth::ClientCertificate { tenant, client_id, certificate, key } => {
                let key = key.as_ref().unwrap_or(certificate).clone();
                (tenant, client_id, Proof::Certificate { certificate: certificate.clone(), key })
            }
            AzureAuth::ClientSecret { tenant, client_id, secret_file: Some(file) } => {
                (tenant, client_id, Proof::Secret(Given::In(file.clone())))
            }
            AzureAuth::ClientSecret { tenant, client_id, secret_file: None } => {
                let secret = secret_of(variables, "AZURE_CLIENT_SECRET")?;
                let secret = secret
                    .ok_or_else(|| invalid("neither secret_file nor AZURE_CLIENT_SECRET is set"))?;
                (tenant, client_id, Proof::Secret(Given::Here(secret)))
            }
            AzureAuth::WorkloadIdentity { tenant, client_id, token_file } => {
                let given = || variables("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from);
                let file = token_file.clone().or_else(given).ok_or_else(|| {
                    invalid("neither token_file nor AZURE_FEDERATED_TOKEN_FILE is set")
                })?;
                (tenant, client_id, Proof::Assertion(file))
            }
        };
        let or_variable =
            |said: &Option<String>, name: &str| said.clone().or_else(|| variables(name));
        let tenant = or_variable(tenant, "AZURE_TENANT_ID")
            .ok_or_else(|| invalid("neither auth.tenant nor AZURE_TENANT_ID is set"))?;
        let client_id = or_variable(client_id, "AZURE_CLIENT_ID")
            .ok_or_else(|| invalid("neither auth.client_id nor AZURE_CLIENT_ID is set"))?;
        let authority = or_variable(&settings.authority, "AZURE_AUTHORITY_HOST");
        let authority = authority.unwrap_or_else(|| AUTHORITY.to_owned());
        let authority = authority.trim_end_matches('/');
        // The variable may leave it out.
        let scheme = if authority.contains("://") { "" } else { "https://" };
        let tenant = percent_encoded(&tenant, false);
        let endpoint = format!("{scheme}{authority}/{tenant}/oauth2/v2.0/token");
        address(&endpoint)?;
        let http = Http::new(&settings.connection)?;
        Ok(Self::Application { http, endpoint, client_id, proof })
    }

    /// Gets a token for a resource.
    pub(super) fn log_in(&self, resource: &str, deadline: Deadline) -> Result<Token> {
        match self {
            Self::Application { http, endpoint, client_id, proof } => {
                let scope = format!("{resource}/.default");
                let mut form = SecretBuffer::new();
                push(&mut form, b"grant_type=client_credentials&client_id=")?;
                push_encoded(&mut form, client_id.as_bytes())?;
                push(&mut form, b"&scope=")?;
                push_encoded(&mut form, scope.as_bytes())?;
                proof.push(&mut form, endpoint, client_id)?;
                let headers: [(&str, &[u8]); 1] =
                    [("Content-Type", b"application/x-www-form-urlencoded")];
                let (method, body) = (Method::Post, Some(form.expose()));
                let request = Request { method, url: endpoint, headers: &headers, body };
                granted(&http.send(&request, deadline)?)
            }
            Self::Machine { http, url, header: (name, value) } => {
                let url = format!("{url}&resource={}", percent_encoded(resource, false));
                let headers = [(*name, value.expose())];
                let request = Request { url: &url, headers: &headers, ..Request::default() };
                granted(&http.send(&request, deadline)?)
            }
        }
    }
}

impl Proof {
    /// Appends what is shown to a form.
    fn push(&self, form: &mut SecretBuffer, endpoint: &str, client_id: &str) -> Result<()> {
        let assertion = match self {
            Self::Secret(given) => {
                push(form, b"&client_secret=")?;
                return match given {
                    Given::Here(secret) => push_encoded(form, secret.expose()),
                    Given::In(file) => push_encoded(form, read(file)?.expose()),
                };
            }
            Self::Assertion(file) => read(file)?,
            Self::Certificate { certificate, key } => {
                let (certificate, key) = (read(certificate)?, read(key)?);
                let now = SystemClock.now();
                assertion::signed(&certificate, &key, (endpoint, client_id), now)?
            }
        };
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        push(form, b"&client_assertion_type=")?;
        push_encoded(form, kind.as_bytes())?;
        push(form, b"&client_assertion=")?;
        push_encoded(form, assertion.expose())
    }
}

/// Returns the machine's own identity.
fn machine(
    connection: &Connection,
    client_id: Option<&str>,
    variables: &Variables<'_>,
) -> Result<Identity> {
    let (place, header) = match variables("IDENTITY_ENDPOINT") {
        Some(endpoint) => {
            let value = secret_of(variables, "IDENTITY_HEADER")?
                .ok_or_else(|| invalid("IDENTITY_ENDPOINT is set and IDENTITY_HEADER is not"))?;
            (format!("{endpoint}?api-version=2019-08-01"), ("X-IDENTITY-HEADER", value))
        }
        None => {
            // It is elsewhere in some pods.
            let host = variables("AZURE_POD_IDENTITY_AUTHORITY_HOST");
            let host = host.unwrap_or_else(|| METADATA.to_owned());
            let host = host.trim_end_matches('/');
            let url = format!("{host}/metadata/identity/oauth2/token?api-version=2018-02-01");
            // Without it a page in a browser could ask.
            (url, ("Metadata", SecretBytes::copy_from(b"true")?))
        }
    };
    address(&place)?;
    let which = client_id.map(|id| format!("&client_id={}", percent_encoded(id, false)));
    let url = place + &which.unwrap_or_default();
    // It is on this machine or beside it, where no proxy leads.
    let http = Http::new(&Connection { proxy: None, ..connection.clone() })?;
    Ok(Identity::Machine { http, url, header })
}

fn granted(answer: &Answer) -> Result<Token> {
    #[derive(Deserialize)]
    struct Granted<'a> {
        access_token: &'a str,
        #[serde(borrow)]
        expires_in: Option<&'a RawValue>,
        #[serde(borrow)]
        expires_on: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Refused {
        #[serde(default)]
        error_codes: Vec<u64>,
    }
    match answer.status {
        200 => {}
        400 | 401 | 403 => {
            // Numbers quote nothing, and are what people look up.
            let codes = parse::<Refused>(answer).map(|refused| refused.error_codes);
            let code = codes.unwrap_or_default().first().map(|code| format!(", AADSTS{code}"));
            let (status, code) = (answer.status, code.unwrap_or_default());
            return Err(unauthenticated(&format!(
                "the login is refused with status {status}{code}"
            )));
        }
        status => return Err(BackendError::Failed(format!("the login ends with status {status}"))),
    }
    let granted: Granted<'_> = parse(answer)?;
    let left = match (number(granted.expires_in), number(granted.expires_on)) {
        (Some(seconds), _) => seconds,
        (None, Some(end)) => end.saturating_sub(SystemClock.now().as_second()),
        (None, None) => return Err(strange()),
    };
    let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
    Ok(Token::new(SecretBytes::copy_from(granted.access_token.as_bytes())?, left))
}

/// Reads a number, which the metadata service writes as a text.
fn number(raw: Option<&RawValue>) -> Option<i64> {
    raw?.get().trim_matches('"').parse().ok()
}

fn secret_of(variables: &Variables<'_>, name: &str) -> Result<Option<SecretBytes>> {
    let value = variables(name).map(zeroize::Zeroizing::new);
    Ok(value.map(|value| SecretBytes::copy_from(value.as_bytes())).transpose()?)
}

fn push(form: &mut SecretBuffer, bytes: &[u8]) -> Result<()> {
    Ok(form.write_at(form.len(), bytes)?)
}

/// Appends bytes as a form has them, byte for byte in locked memory.
fn push_encoded(form: &mut SecretBuffer, bytes: &[u8]) -> Result<()> {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            push(form, &[byte])?;
        } else {
            let digit =
                |nibble: u8| b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0');
            push(form, &[b'%', digit(byte >> 4), digit(byte & 15)])?;
        }
    }
    Ok(())
}

pub(super) fn unauthenticated(why: &str) -> BackendError {
    BackendError::Unauthenticated(why.to_owned())
}
