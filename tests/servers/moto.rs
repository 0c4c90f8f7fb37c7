//! moto's server: AWS's protocols in Python, with its check of signatures and permissions on. It uses botocore's own
//! signer for that, so what it accepts is signed as AWS's tools sign.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use secretfs::backend::Deadline;
use secretfs::backend::aws::{AwsSettings, SecretsManager};
use secretfs::backend::http::{Connection, Http, Method, Request};
use tempfile::TempDir;

use super::{Server, directory, mortal, port};
use crate::common::{DEADLINE, python, write_file};

/// The region of all tests.
pub const REGION: &str = "us-east-1";

/// A server with one user who may do everything.
pub struct Moto {
    pub server: Server,
    pub port: u16,
    pub key_id: String,
    pub secret: String,
    pub dir: TempDir,
}

impl Moto {
    /// Starts one. `None`, with a SKIP, where it is not installed.
    pub fn start() -> Option<Self> {
        // The first calls make the user, and all others are checked.
        Self::start_after(3)
    }

    /// Starts one that checks nothing: with its check on, it does not answer what nobody has to sign.
    pub fn start_unchecked() -> Option<Self> {
        Self::start_after(1_000_000)
    }

    fn start_after(unchecked: u32) -> Option<Self> {
        let program = python()?.with_file_name("moto_server");
        assert!(program.exists(), "scripts/setup-python.sh installs {}", program.display());
        let (dir, port) = (directory(), port());
        let mut command = mortal(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", unchecked.to_string()).env("HOME", dir.path());
        let server = Server::start(command, port, dir.path().join("log"));
        let mut moto = Self { server, port, key_id: String::new(), secret: String::new(), dir };
        moto.ask_iam("Action=CreateUser&UserName=admin");
        let made = moto.ask_iam("Action=CreateAccessKey&UserName=admin");
        let part = |tag: &str| {
            let (_, rest) = made.split_once(&format!("<{tag}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        (moto.key_id, moto.secret) = (part("AccessKeyId"), part("SecretAccessKey"));
        let all = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22Allow%22%2C\
                   %22Action%22%3A%22%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D";
        moto.ask_iam(&format!(
            "Action=PutUserPolicy&UserName=admin&PolicyName=all&PolicyDocument={all}"
        ));
        Some(moto)
    }

    /// Writes the user's key down as AWS's tools keep it; returns the file, as a configuration names it.
    pub fn credentials(&self) -> String {
        let path = self.dir.path().join("credentials");
        let Self { key_id, secret, .. } = self;
        let key = format!("aws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n");
        write_file(&path, format!("[default]\n{key}").as_bytes());
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        format!("{path:?}")
    }

    fn ask_iam(&self, form: &str) -> String {
        let http = Http::new(&Connection::default()).unwrap();
        let body = format!("{form}&Version=2010-05-08");
        // It looks here for the service, while it checks nothing.
        let scope = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
        let headers: [(&str, &[u8]); 2] = [
            ("authorization", scope.as_bytes()),
            ("content-type", b"application/x-www-form-urlencoded"),
        ];
        let url = format!("{}/", self.url());
        let body = Some(body.as_bytes());
        let request = Request { method: Method::Post, url: &url, headers: &headers, body };
        let answer = http.send(&request, Deadline::within(DEADLINE)).unwrap();
        let text = String::from_utf8(answer.body.expose().to_vec()).unwrap();
        assert_eq!(answer.status, 200, "{text}");
        text
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn settings(&self) -> AwsSettings {
        AwsSettings {
            region: Some(REGION.into()),
            endpoint: Some(self.url()),
            kms_endpoint: Some(self.url()),
            sts_endpoint: Some(self.url()),
            connection: Connection::default(),
            prefix: String::new(),
            profile: None,
            credentials_file: None,
            config_file: None,
            role: None,
            external_id: None,
            recovery_days: 30,
        }
    }

    /// Returns a client for the user, after a change of its settings.
    pub fn client(&self, change: impl FnOnce(&mut AwsSettings)) -> SecretsManager {
        self.client_of(&self.key(), change)
    }

    /// Returns the variables with the user's key.
    pub fn key(&self) -> [(&str, &str); 2] {
        [("AWS_ACCESS_KEY_ID", &*self.key_id), ("AWS_SECRET_ACCESS_KEY", &*self.secret)]
    }

    /// Returns a client in an environment of these variables.
    pub fn client_of(
        &self,
        variables: &[(&str, &str)],
        change: impl FnOnce(&mut AwsSettings),
    ) -> SecretsManager {
        let mut settings = self.settings();
        change(&mut settings);
        SecretsManager::new(&settings, &environment(variables)).unwrap()
    }

    /// Runs a script with AWS's own client in Python, as the user, and returns what it prints. `sm`, `iam`, `sts` and
    /// `kms` are there.
    pub fn boto(&self, script: &str) -> String {
        let before = format!(
            "import boto3, json\n\
             def of(name): return boto3.client(name, region_name='{REGION}', endpoint_url='{}')\n\
             sm, iam, sts, kms = [of(name) for name in ('secretsmanager', 'iam', 'sts', 'kms')]\n",
            self.url()
        );
        let mut command = Command::new(python().unwrap());
        command.arg("-c").arg(before + script).env("HOME", self.dir.path());
        command.env("AWS_ACCESS_KEY_ID", &self.key_id).env("AWS_SECRET_ACCESS_KEY", &self.secret);
        super::succeed(&mut command).trim_end().to_owned()
    }

    /// Makes a role that may do everything and that everybody may assume, and returns its ARN.
    pub fn role(&self) -> String {
        self.boto(
            "one = lambda **k: json.dumps({'Version': '2012-10-17', 'Statement': [dict(Effect='Allow', **k)]})\n\
             trust = one(Principal={'AWS': '*'}, Action='sts:AssumeRole')\n\
             role = iam.create_role(RoleName='app', AssumeRolePolicyDocument=trust)\n\
             iam.put_role_policy(RoleName='app', PolicyName='all', PolicyDocument=one(Action='*', Resource='*'))\n\
             print(role['Role']['Arn'])",
        )
    }

    /// Returns a credential of a role as metadata services give it.
    pub fn role_credential(&self, role: &str) -> serde_json::Value {
        let made = self.boto(&format!(
            "c = sts.assume_role(RoleArn='{role}', RoleSessionName='test')['Credentials']\n\
             c['Expiration'] = c['Expiration'].strftime('%Y-%m-%dT%H:%M:%SZ')\n\
             print(json.dumps(dict(c, Token=c['SessionToken'], Code='Success')))",
        ));
        serde_json::from_str(&made).unwrap()
    }

    /// Returns the path of a file of this server's.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Returns an environment of these variables.
pub fn environment(variables: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: BTreeMap<String, String> = variables.iter().map(owned).collect();
    move |name: &str| variables.get(name).cloned()
}
