//! The table `[backend.NAME]` of an AWS Secrets Manager: where it is, which part of it is ours, and who we are there.
//!
//! No value in it is a secret: those are where AWS's own tools have them (`sources`).

use std::path::PathBuf;

use serde::Deserialize;

use crate::backend::http::{Connection, address};
use crate::backend::{BackendError, Result, Variables};

/// All about one Secrets Manager, as the configuration has it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AwsSettings {
    /// Without one it is that of `AWS_REGION`.
    pub region: Option<String>,
    /// Where the service is, if not where the region has it: such as an endpoint in a private network.
    pub endpoint: Option<String>,
    /// The same for the service that has keys.
    pub kms_endpoint: Option<String>,
    /// The same for the service that gives the credentials of roles.
    pub sts_endpoint: Option<String>,
    #[serde(default)]
    pub connection: Connection,
    /// What stands before each name there.
    #[serde(default)]
    pub prefix: String,
    /// The only profile whose credentials are used.
    pub profile: Option<String>,
    /// The shared files, if they are not where the environment has them.
    pub credentials_file: Option<PathBuf>,
    pub config_file: Option<PathBuf>,
    /// The ARN of a role, which is assumed with the credentials that there are.
    pub role: Option<String>,
    pub external_id: Option<String>,
    /// For how many days a deleted secret can be brought back.
    #[serde(default = "default_recovery_days")]
    pub recovery_days: u8,
}

fn default_recovery_days() -> u8 {
    30
}

impl AwsSettings {
    /// Refuses what can never work, and returns the region.
    pub(super) fn check(&self, variables: &Variables<'_>) -> Result<String> {
        for endpoint in
            [&self.endpoint, &self.kms_endpoint, &self.sts_endpoint].into_iter().flatten()
        {
            address(endpoint)?;
        }
        if !(7..=30).contains(&self.recovery_days) {
            return Err(invalid("recovery_days is from 7 to 30"));
        }
        if self.external_id.is_some() && self.role.is_none() {
            return Err(invalid("external_id goes with a role"));
        }
        if !self.prefix.chars().all(is_name) {
            return Err(invalid("the prefix has a character that no name there may have"));
        }
        let region = self.region.clone().or_else(|| variables("AWS_REGION"));
        let region = region.or_else(|| variables("AWS_DEFAULT_REGION"));
        let region = region.ok_or_else(|| invalid("neither region nor AWS_REGION"))?;
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if region.is_empty() || !region.chars().all(is_word) {
            return Err(invalid("region is a word such as us-east-1"));
        }
        Ok(region)
    }
}

/// Returns where a service is in a region. Those in China have a domain of their own.
pub(super) fn endpoint(service: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{domain}")
}

/// Tells whether a name there may have this character.
pub(super) fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/_+=.@-".contains(c)
}

fn invalid(why: &str) -> BackendError {
    BackendError::Invalid(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "region = \"eu-west-1\"\nprefix = \"prod/\"\nrole = \"arn:aws:iam::123456789012:role/r\"\n";

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn settings_are_read_and_a_typing_error_is_refused() {
        let settings: AwsSettings = toml::from_str(TEXT).unwrap();
        assert_eq!((settings.prefix.as_str(), settings.recovery_days), ("prod/", 30));
        assert_eq!(settings.check(&none).unwrap(), "eu-west-1");
        for (good, bad) in [("region", "regoin"), ("role", "role_arn"), ("prefix", "access_key")] {
            assert!(toml::from_str::<AwsSettings>(&TEXT.replace(good, bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_can_never_work_is_refused_at_once() {
        let good: AwsSettings = toml::from_str(TEXT).unwrap();
        let refused = |change: fn(&mut AwsSettings)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(matches!(bad.check(&none), Err(BackendError::Invalid(_))), "{bad:?}");
        };
        refused(|bad| bad.region = None);
        refused(|bad| bad.region = Some("evil.example/".into()));
        refused(|bad| bad.endpoint = Some("http://aws.example".into()));
        refused(|bad| bad.sts_endpoint = Some("aws.example".into()));
        refused(|bad| bad.recovery_days = 6);
        refused(|bad| bad.recovery_days = 31);
        refused(|bad| bad.prefix = "a b".into());
        refused(|bad| (bad.role, bad.external_id) = (None, Some("x".into())));
    }

    #[test]
    fn the_region_may_be_in_the_environment() {
        let mut settings: AwsSettings = toml::from_str(TEXT).unwrap();
        settings.region = None;
        let variables =
            |name: &str| (name == "AWS_DEFAULT_REGION").then(|| "cn-north-1".to_owned());
        let region = settings.check(&variables).unwrap();
        assert_eq!(endpoint("sts", &region), "https://sts.cn-north-1.amazonaws.com.cn");
    }
}
