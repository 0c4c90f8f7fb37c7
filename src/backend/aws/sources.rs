//! Where the credential is, in the order in which AWS's own tools look: the environment, the shared files, a web
//! identity, the container, the instance.
//!
//! The first that has one is taken. One that should have one and fails is an error: nobody is somebody else because
//! of a file that cannot be read. No program is run for a credential.

use std::path::PathBuf;

use super::answer::unauthenticated;
use super::credential::Credential;
use super::metadata::{Container, EC2, ECS, Instance};
use super::profile::{Files, Profile};
use super::settings::AwsSettings;
use super::sts::{Role, Sts, WebIdentity};
use super::wire::Wire;
use crate::backend::http::{Connection, Http};
use crate::backend::{BackendError, Deadline, Result, Variables};
use crate::system::SecretBytes;

/// How many profiles may lead to each other.
const MAX_PROFILES: usize = 8;

/// All places of one backend, as they were when it was opened.
pub(super) struct Sources {
    /// The profile that the settings name, which is then the only source.
    only: Option<String>,
    environment: Option<Key>,
    files: Files,
    /// That of the environment, which has to be there.
    profile: Option<String>,
    identity: Option<WebIdentity>,
    container: Option<Container>,
    instance: Option<Instance>,
    /// The role of the settings.
    role: Option<Role>,
    sts: Sts,
    /// Without a proxy.
    near: Http,
}

/// A key of the environment.
struct Key {
    id: String,
    secret: SecretBytes,
    token: Option<SecretBytes>,
}

impl Sources {
    pub(super) fn new(
        settings: &AwsSettings,
        region: &str,
        variables: &Variables<'_>,
    ) -> Result<Self> {
        // An empty one is none, as for AWS's own tools.
        let variable = |name: &str| variables(name).filter(|value| !value.is_empty());
        let path = |named: &Option<PathBuf>, name: &str, usual: &str| {
            let home = || variable("HOME").map(|home| PathBuf::from(home).join(usual));
            named.clone().or_else(|| variable(name).map(PathBuf::from)).or_else(home)
        };
        let at = settings.sts_endpoint.as_deref();
        let near = Connection { ca: settings.connection.ca.clone(), ..Connection::default() };
        let instance = Instance {
            endpoint: variable("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| EC2.into()),
        };
        let is_off = variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let role = |arn, session, external_id| Role { arn, session, external_id };
        Ok(Self {
            only: settings.profile.clone(),
            environment: Key::of(&variable)?,
            files: Files {
                credentials: path(
                    &settings.credentials_file,
                    "AWS_SHARED_CREDENTIALS_FILE",
                    ".aws/credentials",
                ),
                config: path(&settings.config_file, "AWS_CONFIG_FILE", ".aws/config"),
            },
            profile: variable("AWS_PROFILE"),
            identity: variable("AWS_WEB_IDENTITY_TOKEN_FILE").zip(variable("AWS_ROLE_ARN")).map(
                |(file, arn)| WebIdentity {
                    role: role(arn, variable("AWS_ROLE_SESSION_NAME"), None),
                    token_file: file.into(),
                },
            ),
            container: container(&variable)?,
            instance: (!is_off).then_some(instance),
            role: settings.role.clone().map(|arn| role(arn, None, settings.external_id.clone())),
            sts: Sts { wire: Wire::new("sts", region, at, &settings.connection)? },
            near: Http::new(&near)?,
        })
    }

    /// Gets the credential from where it is now.
    pub(super) fn fetch(&self, deadline: Deadline) -> Result<Credential> {
        let found = self.find(deadline)?;
        match &self.role {
            Some(role) => self.sts.assume(role, &found, deadline),
            None => Ok(found),
        }
    }

    fn find(&self, deadline: Deadline) -> Result<Credential> {
        if let Some(only) = &self.only {
            return self.named(only, deadline);
        }
        if let Some(key) = &self.environment {
            return key.credential();
        }
        if let Some(profile) = &self.profile {
            return self.named(profile, deadline);
        }
        if let Some(profile) = self.files.profile("default")?
            && let Some(found) = self.of_profile("default", &profile, (MAX_PROFILES, deadline))?
        {
            return Ok(found);
        }
        if let Some(identity) = &self.identity {
            return self.sts.assume_by_token(identity, deadline);
        }
        if let Some(container) = &self.container {
            return container.fetch(&self.near, deadline);
        }
        self.of_instance(deadline)
    }

    /// Gets the credential of a profile that has to be there and to have one.
    fn named(&self, name: &str, deadline: Deadline) -> Result<Credential> {
        self.behind(name, (MAX_PROFILES, deadline))
    }

    fn behind(&self, name: &str, (left, deadline): (usize, Deadline)) -> Result<Credential> {
        let profile = self.files.profile(name)?;
        let profile =
            profile.ok_or_else(|| unauthenticated(&format!("there is no profile {name}")))?;
        let found = self.of_profile(name, &profile, (left, deadline))?;
        found.ok_or_else(|| unauthenticated(&format!("the profile {name} has no credential")))
    }

    /// Gets the credential of a profile: its own key, or a role with the key of another.
    fn of_profile(
        &self,
        name: &str,
        profile: &Profile,
        (left, deadline): (usize, Deadline),
    ) -> Result<Option<Credential>> {
        let Some(arn) = profile.text("role_arn") else { return own_key(profile) };
        let text = |key| profile.text(key).map(str::to_owned);
        let (session, external_id) = (text("role_session_name"), text("external_id"));
        let role = Role { arn: arn.into(), session, external_id };
        if let Some(file) = profile.text("web_identity_token_file") {
            let identity = WebIdentity { role, token_file: file.into() };
            return self.sts.assume_by_token(&identity, deadline).map(Some);
        }
        let source = match (profile.text("source_profile"), profile.text("credential_source")) {
            (Some(source), None) if source == name => own_key(profile)?
                .ok_or_else(|| unauthenticated(&format!("the profile {name} has no key")))?,
            (Some(source), None) => {
                let left = left.checked_sub(1);
                let left = left.ok_or_else(|| unauthenticated("the profiles lead in a circle"))?;
                self.behind(source, (left, deadline))?
            }
            (None, Some(source)) => self.of_source(source, deadline)?,
            _ => return Err(unauthenticated(&format!("the profile {name} says not by whom"))),
        };
        self.sts.assume(&role, &source, deadline).map(Some)
    }

    /// Gets what `credential_source` of a profile names.
    fn of_source(&self, source: &str, deadline: Deadline) -> Result<Credential> {
        match (source, &self.environment, &self.container) {
            ("Environment", Some(key), _) => key.credential(),
            ("EcsContainer", _, Some(container)) => container.fetch(&self.near, deadline),
            ("Ec2InstanceMetadata", _, _) => self.of_instance(deadline),
            _ => Err(unauthenticated("a profile's credential_source has none")),
        }
    }

    fn of_instance(&self, deadline: Deadline) -> Result<Credential> {
        const NOWHERE: &str = "no credential is in the environment or the shared files";
        let Some(instance) = &self.instance else { return Err(unauthenticated(NOWHERE)) };
        instance.fetch(&self.near, deadline).map_err(|error| {
            let is_away = matches!(error, BackendError::TimedOut | BackendError::Unreachable(_));
            if is_away {
                let why = format!("{NOWHERE}, and nobody answers for an instance");
                BackendError::Unreachable(why)
            } else {
                error
            }
        })
    }
}

impl Key {
    fn of(variable: &Variables<'_>) -> Result<Option<Self>> {
        let secret = |name| -> Result<Option<SecretBytes>> {
            let text = variable(name).map(zeroize::Zeroizing::new);
            Ok(text.map(|text| SecretBytes::copy_from(text.as_bytes())).transpose()?)
        };
        let (id, key) = (variable("AWS_ACCESS_KEY_ID"), secret("AWS_SECRET_ACCESS_KEY")?);
        let token = secret("AWS_SESSION_TOKEN")?;
        Ok(id.zip(key).map(|(id, secret)| Self { id, secret, token }))
    }

    fn credential(&self) -> Result<Credential> {
        let token = self.token.as_ref().map(SecretBytes::expose);
        Credential::new(&self.id, self.secret.expose(), token, "the environment")
    }
}

fn container(variable: &Variables<'_>) -> Result<Option<Container>> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let relative = relative.map(|path| format!("{ECS}/{}", path.trim_start_matches('/')));
    let Some(url) = relative.or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI")) else {
        return Ok(None);
    };
    let token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(zeroize::Zeroizing::new);
    Ok(Some(Container {
        url,
        authorization: token.map(|token| SecretBytes::copy_from(token.as_bytes())).transpose()?,
        authorization_file: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from),
    }))
}

/// Returns the key that stands in a profile itself.
fn own_key(profile: &Profile) -> Result<Option<Credential>> {
    let text = |key| profile.text(key).filter(|text| !text.is_empty());
    let key = text("aws_access_key_id").zip(text("aws_secret_access_key"));
    if let Some((id, secret)) = key {
        let token = text("aws_session_token").map(str::as_bytes);
        return Credential::new(id, secret.as_bytes(), token, "the shared files").map(Some);
    }
    if profile.has(&["credential_process", "sso_session", "sso_start_url"]) {
        return Err(BackendError::Unsupported(
            "a profile's credential_process or sso: it would run a program or ask a person".into(),
        ));
    }
    Ok(None)
}
