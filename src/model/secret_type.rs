//! The ten kinds of secret, and how one is guessed from a value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a secret is for.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum SecretType {
    #[default]
    ApiKey,
    DatabasePassword,
    EncryptionKey,
    EnvironmentVariable,
    JwtToken,
    OauthToken,
    ServiceAccountKey,
    SshKey,
    TlsCertificate,
    WebhookSecret,
}

impl SecretType {
    /// Every type, in the order in which they are listed.
    pub const ALL: [Self; 10] = [
        Self::ApiKey,
        Self::DatabasePassword,
        Self::SshKey,
        Self::TlsCertificate,
        Self::OauthToken,
        Self::JwtToken,
        Self::EnvironmentVariable,
        Self::ServiceAccountKey,
        Self::WebhookSecret,
        Self::EncryptionKey,
    ];

    /// Returns the word for it, in listings, policies and attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::DatabasePassword => "database_password",
            Self::EncryptionKey => "encryption_key",
            Self::EnvironmentVariable => "environment_variable",
            Self::JwtToken => "jwt_token",
            Self::OauthToken => "oauth_token",
            Self::ServiceAccountKey => "service_account_key",
            Self::SshKey => "ssh_key",
            Self::TlsCertificate => "tls_certificate",
            Self::WebhookSecret => "webhook_secret",
        }
    }

    /// Guesses the type of a value from its shape, and where the shape says nothing, from the
    /// name's last segment. Falls back to `ApiKey`.
    pub fn guess(leaf: &str, value: &[u8]) -> Self {
        Self::from_shape(value).or_else(|| Self::from_leaf(leaf)).unwrap_or_default()
    }

    fn from_shape(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim();
        let has = |part: &str| text.contains(part);
        if has("-----BEGIN CERTIFICATE-----") {
            return Some(Self::TlsCertificate);
        }
        if has("-----BEGIN OPENSSH PRIVATE KEY-----") || text.starts_with("PuTTY-User-Key-File-") {
            return Some(Self::SshKey);
        }
        if text.starts_with('{') && has("\"service_account\"") && has("\"private_key\"") {
            return Some(Self::ServiceAccountKey);
        }
        if has("PRIVATE KEY-----") || text.starts_with("AGE-SECRET-KEY-1") {
            return Some(Self::EncryptionKey);
        }
        if is_jwt(text) {
            return Some(Self::JwtToken);
        }
        if text.starts_with("whsec_") {
            return Some(Self::WebhookSecret);
        }
        if text.starts_with("ya29.") || text.starts_with("1//0") || text.starts_with("gho_") {
            return Some(Self::OauthToken);
        }
        let (scheme, rest) = text.split_once("://")?;
        let database = [
            "postgres",
            "postgresql",
            "mysql",
            "mariadb",
            "mongodb",
            "mongodb+srv",
            "redis",
            "rediss",
        ];
        (database.contains(&scheme) && rest.contains('@')).then_some(Self::DatabasePassword)
    }

    fn from_leaf(leaf: &str) -> Option<Self> {
        let leaf = leaf.to_ascii_lowercase();
        // The first word that fits decides, so the longer and rarer ones stand first.
        const WORDS: [(&str, SecretType); 14] = [
            ("webhook", SecretType::WebhookSecret),
            ("oauth", SecretType::OauthToken),
            ("refresh-token", SecretType::OauthToken),
            ("jwt", SecretType::JwtToken),
            ("service-account", SecretType::ServiceAccountKey),
            ("ssh", SecretType::SshKey),
            ("id_ed25519", SecretType::SshKey),
            ("id_rsa", SecretType::SshKey),
            ("tls", SecretType::TlsCertificate),
            ("password", SecretType::DatabasePassword),
            ("passwd", SecretType::DatabasePassword),
            ("encryption", SecretType::EncryptionKey),
            ("master-key", SecretType::EncryptionKey),
            ("env", SecretType::EnvironmentVariable),
        ];
        WORDS.into_iter().find(|(word, _)| leaf.contains(word)).map(|(_, kind)| kind)
    }
}

impl fmt::Display for SecretType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for SecretType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is no secret type: use one of {known}")
        })
    }
}

/// Tells whether a text has the compact form of RFC 7519: three base64url parts, the first a JSON object.
fn is_jwt(text: &str) -> bool {
    let base64url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let mut parts = 0;
    // `eyJ` is base64url of `{"`: both the header and the claims are JSON objects.
    text.split('.').enumerate().all(|(index, part)| {
        parts += 1;
        part.chars().all(base64url) && (index >= 2 || part.starts_with("eyJ"))
    }) && parts == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_value_decides_before_its_name() {
        let cases: [(&str, &str, SecretType); 8] = [
            ("x", "-----BEGIN CERTIFICATE-----\nMII", SecretType::TlsCertificate),
            ("x", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3", SecretType::SshKey),
            ("x", "-----BEGIN PRIVATE KEY-----\nMII", SecretType::EncryptionKey),
            ("x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", SecretType::JwtToken),
            ("x", "whsec_example", SecretType::WebhookSecret),
            ("x", "postgres://app:example@db/app", SecretType::DatabasePassword),
            ("db-password", "example", SecretType::DatabasePassword),
            ("anything", "example", SecretType::ApiKey),
        ];
        for (leaf, value, expected) in cases {
            assert_eq!(SecretType::guess(leaf, value.as_bytes()), expected, "{leaf} {value}");
        }
    }

    #[test]
    fn every_type_parses_back_from_its_word() {
        for kind in SecretType::ALL {
            assert_eq!(kind.as_str().parse::<SecretType>().unwrap(), kind);
        }
    }
}
