//! The fault table of AWS: each call against a service with each fault, which must end as it should, in time, and
//! leave a client behind that works as soon as the service does.

use std::sync::{Arc, Mutex};

use secretfs::backend::BackendError;
use secretfs::backend::aws::{AwsSettings, SecretsManager};
use secretfs::backend::http::Connection;
use serde_json::{Value, json};

use crate::conformance::{listed, time};
use crate::faults::{
    CALLS, Expected, MANY, fails_and_heals, is_failed, nobody, reaches_nobody, succeeds_for_many,
    table,
};
use crate::service::{Asked, Reply, Service};

/// A Secrets Manager that is right but for its fault, with a container's credentials beside it.
pub struct Fake {
    pub service: Service,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    fault: Option<Reply>,
    /// The number of the key that is accepted.
    key: usize,
    /// Whatever key is given has expired.
    expired: bool,
    given: usize,
    names: usize,
}

impl Fake {
    pub fn start(names: usize) -> Self {
        let state = Arc::new(Mutex::new(State { names, ..State::default() }));
        let shared = Arc::clone(&state);
        let service = Service::start(move |asked| shared.lock().unwrap().answer(asked));
        Self { service, state }
    }

    pub fn settings(&self) -> AwsSettings {
        let text = format!("region = \"us-east-1\"\nendpoint = \"{}\"\n", self.service.url(""));
        let settings: AwsSettings = toml::from_str(&text).unwrap();
        let ca = Some(self.service.authority());
        AwsSettings { connection: Connection { ca, ..Connection::default() }, ..settings }
    }

    pub fn client(&self) -> SecretsManager {
        self.client_with(&self.settings())
    }

    fn client_with(&self, settings: &AwsSettings) -> SecretsManager {
        let url = self.service.url("/credentials");
        let variable =
            move |name: &str| (name == "AWS_CONTAINER_CREDENTIALS_FULL_URI").then(|| url.clone());
        SecretsManager::new(settings, &variable).unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Reply {
        if let Some(fault) = &self.fault {
            return fault.clone();
        }
        if asked.path == "/credentials" {
            self.given += 1;
            return Reply::json(
                200,
                &json!({
                    "AccessKeyId": format!("ASIA{}", self.key), "SecretAccessKey": "canary-key",
                    "Token": "canary-token", "Expiration": "2099-01-01T00:00:00Z",
                }),
            );
        }
        if self.expired {
            return refusal("ExpiredTokenException");
        }
        let authorization = asked.headers.get("authorization");
        if !authorization.is_some_and(|it| it.contains(&format!("Credential=ASIA{}/", self.key))) {
            return refusal("UnrecognizedClientException");
        }
        let body: Value = serde_json::from_slice(&asked.body).unwrap();
        let version = json!({ "VersionId": "v".repeat(32), "VersionStages": ["AWSCURRENT"], "CreatedDate": 1.5 });
        let target = asked.headers.get("x-amz-target").map_or("", String::as_str);
        let answer = match target.strip_prefix("secretsmanager.") {
            Some("GetSecretValue") => json!({ "VersionId": "v".repeat(32), "SecretString": "x" }),
            Some("ListSecretVersionIds") => json!({ "Versions": [version] }),
            Some("ListSecrets") => self.list(&body),
            Some("DescribeSecret" | "PutSecretValue" | "DeleteSecret") => version,
            _ => return refusal("InvalidAction"),
        };
        Reply::json(200, &answer)
    }

    /// Gives a page of as many names as are wanted.
    fn list(&self, body: &Value) -> Value {
        let from: usize = body["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
        let end =
            self.names.min(from + usize::try_from(body["MaxResults"].as_u64().unwrap()).unwrap());
        let secrets: Vec<Value> = (from..end).map(|n| json!({ "Name": format!("n{n}") })).collect();
        let next = (end < self.names).then(|| end.to_string());
        json!({ "SecretList": secrets, "NextToken": next })
    }
}

fn refusal(name: &str) -> Reply {
    Reply::json(
        400,
        &json!({ "__type": format!("com.amazonaws#{name}"), "message": "canary-7f3a" }),
    )
}

#[test]
fn every_call_ends_as_it_should_whatever_is_wrong_with_the_service() {
    // A key that is not accepted is a test of its own.
    let table = table(refusal("ExpiredTokenException")).into_iter();
    for (fault, reply, expected) in table.filter(|(fault, ..)| *fault != "expired token") {
        for (call, run) in CALLS {
            // One that has a credential already, and one that has to get it.
            for warm in [true, false] {
                // Whether a secret is deleted is not looked at in the answer.
                if (fault, call, warm) == ("no JSON", "delete", true) {
                    continue;
                }
                let fake = Fake::start(1);
                let client = fake.client();
                if warm {
                    run(&client, time()).unwrap();
                }
                let named = format!("{call} with {fault}, warm {warm}");
                fails_and_heals(&client, (&named, run), (&reply, expected), |fault| {
                    fake.set(|state| state.fault = fault);
                });
            }
        }
    }
}

#[test]
fn an_error_of_aws_is_one_of_ours_by_its_name() {
    let xml = |name: &str| {
        let body = format!(
            "<ErrorResponse><Error><Code>{name}</Code><Message>canary-7f3a</Message></Error></ErrorResponse>"
        );
        Reply::Answer { status: 403, headers: Vec::new(), body: body.into_bytes() }
    };
    let by_header = Reply::status(400, &[("x-amzn-ErrorType", "ThrottlingException:http://x/")]);
    let deleted = Reply::json(
        400,
        &json!({ "__type": "InvalidRequestException", "Message": "it was marked for deletion" }),
    );
    let table: [(Reply, Expected); 12] = [
        (refusal("ThrottlingException"), |error| {
            *error == BackendError::Throttled { retry_after: None }
        }),
        (by_header, |error| *error == BackendError::Throttled { retry_after: None }),
        (refusal("ExpiredTokenException"), is_unauthenticated),
        (refusal("UnrecognizedClientException"), is_unauthenticated),
        (refusal("InvalidSignatureException"), is_unauthenticated),
        (xml("InvalidClientTokenId"), is_unauthenticated),
        (xml("AccessDenied"), |error| matches!(error, BackendError::Denied(_))),
        (refusal("AccessDeniedException"), |error| matches!(error, BackendError::Denied(_))),
        (refusal("ResourceNotFoundException"), |error| *error == BackendError::NotFound),
        (deleted, |error| *error == BackendError::NotFound),
        (refusal("InvalidParameterException"), |error| matches!(error, BackendError::Invalid(_))),
        (refusal("SomethingElse"), is_failed),
    ];
    for (reply, expected) in table {
        let fake = Fake::start(1);
        let client = fake.client();
        CALLS[0].1(&client, time()).unwrap();
        // The credential is given by another server then.
        let named = format!("{reply:?}");
        fake.set(|state| state.fault = Some(reply));
        let failed = CALLS[2].1(&client, time()).unwrap_err();
        assert!(expected(&failed), "{named}: {failed:?}");
        assert!(!format!("{failed:?} {failed}").contains("canary"), "{failed:?}");
    }
}

fn is_unauthenticated(error: &BackendError) -> bool {
    matches!(error, BackendError::Unauthenticated(_))
}

#[test]
fn a_service_that_is_down_or_another_one_is_unreachable_for_every_call() {
    let (fake, other) = (Fake::start(0), Fake::start(0));
    let down = AwsSettings { endpoint: Some(nobody()), ..fake.settings() };
    let wrong = AwsSettings { endpoint: Some(other.service.url("")), ..fake.settings() };
    for settings in [down, wrong] {
        reaches_nobody(&fake.client_with(&settings));
    }
    assert!(other.service.asked().is_empty(), "nothing was said to who is not trusted");
}

#[test]
fn a_key_that_is_revoked_costs_one_other_whatever_is_called() {
    for (call, run) in CALLS {
        let fake = Fake::start(1);
        let client = fake.client();
        run(&client, time()).unwrap();
        fake.set(|state| state.key += 1);
        succeeds_for_many(&client, run);
        fake.set(|state| assert_eq!(state.given, 2, "{call}"));
    }
}

#[test]
fn a_key_that_has_expired_is_not_accepted_whatever_is_called() {
    for (call, run) in CALLS {
        for warm in [true, false] {
            let fake = Fake::start(1);
            let client = fake.client();
            if warm {
                run(&client, time()).unwrap();
            }
            fake.set(|state| state.expired = true);
            let failed = run(&client, time()).unwrap_err();
            assert!(is_unauthenticated(&failed), "{call}, warm {warm}: {failed:?}");
            assert!(!format!("{failed:?} {failed}").contains("canary"), "{failed:?}");
            fake.set(|state| state.expired = false);
            assert_eq!(run(&client, time()), Ok(()), "after {call}, warm {warm}");
        }
    }
}

#[test]
fn a_key_that_stays_refused_is_tried_once() {
    let fake = Fake::start(1);
    let client = fake.client();
    CALLS[0].1(&client, time()).unwrap();
    let before = fake.service.asked().len();
    let variables = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("ASIAOTHER".to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some("canary-key".to_owned()),
        _ => None,
    };
    let other = SecretsManager::new(&fake.settings(), &variables).unwrap();
    assert!(is_unauthenticated(&CALLS[0].1(&other, time()).unwrap_err()));
    assert_eq!(fake.service.asked().len(), before + 1, "the same key is not sent again");
}

#[test]
fn a_hundred_thousand_names_are_listed_page_by_page() {
    let fake = Fake::start(MANY);
    let names = listed(&fake.client());
    assert_eq!(names.len(), MANY);
    assert!((0..MANY).all(|n| names.contains(&format!("n{n}"))));
}
