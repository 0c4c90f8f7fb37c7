//! A webhook: a POST of JSON, signed so that its receiver can tell who sent it, and when.
//!
//! The signature is over the time too, so that a request that was seen cannot be sent again later. What was
//! delivered already may come again: the `seq` of each entry tells.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{Message, Webhook, host};
use crate::effect::EffectError;
use crate::effect::step::{Outcome, invalid};
use crate::effect::web::Url;
use crate::model::Clock;
use crate::system::{SecretBytes, SystemClock};

impl Webhook {
    pub(super) fn deliver(&self, name: &str, messages: &[Message], key: &SecretBytes) -> Outcome {
        let url = Url::parse(&self.url)?;
        let body = body(name, messages).map_err(|error| invalid(&error.to_string()))?;
        let seconds = SystemClock.now().as_second();
        let signature = signature(key, seconds, body.as_bytes())?;
        let request = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: secretfs/{}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nSecretfs-Timestamp: {seconds}\r\n\
             Secretfs-Signature: v1={signature}\r\n\r\n{body}",
            url.path,
            url.address,
            env!("CARGO_PKG_VERSION"),
            body.len(),
        );
        let status = url.send(request.as_bytes(), self.ca.as_deref())?;
        let answer = format!("{} answers {status}", url.address);
        match status {
            200..=299 => Ok(answer),
            // Too many, or not now.
            408 | 425 | 429 | 500..=599 => Err(EffectError::Unreachable(answer)),
            _ => Err(EffectError::Refused(answer)),
        }
    }
}

/// Returns `{"host": ..., "receiver": ..., "entries": [...]}`, an entry for each message.
fn body(name: &str, messages: &[Message]) -> Result<String, serde_json::Error> {
    let mut entries = String::new();
    for message in messages {
        let as_json = message.text.starts_with('{');
        let as_json = as_json.then(|| serde_json::from_str::<&RawValue>(&message.text).ok());
        if !entries.is_empty() {
            entries.push(',');
        }
        match as_json.flatten() {
            Some(raw) => entries.push_str(raw.get()),
            None => entries.push_str(&Value::from(message.text.as_str()).to_string()),
        }
    }
    let entries = RawValue::from_string(format!("[{entries}]"))?;
    let head = json!({ "host": host(), "receiver": name }).to_string();
    let head = head.strip_suffix('}').unwrap_or_default();
    Ok(format!("{head},\"entries\":{}}}", entries.get()))
}

/// Returns HMAC-SHA-256 over `SECONDS.BODY`, in hexadecimal.
fn signature(key: &SecretBytes, seconds: i64, body: &[u8]) -> Result<String, EffectError> {
    let key = key.expose().trim_ascii();
    if key.is_empty() {
        return Err(invalid("the key is empty"));
    }
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key).map_err(|_| invalid("the key is of no use"))?;
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    let code = mac.finalize().into_bytes();
    Ok(code.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn entries_are_json_where_they_are_and_text_else() {
        let messages = [message(1, "{\"seq\":1}"), message(2, "CEF:0|\"x\""), message(3, "{torn")];
        let body: Value = serde_json::from_str(&body("siem", &messages).unwrap()).unwrap();
        assert_eq!(body["receiver"], "siem");
        assert_eq!(body["entries"], json!([{ "seq": 1 }, "CEF:0|\"x\"", "{torn"]));
    }

    #[test]
    fn the_signature_is_that_of_other_programs() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac canary-7f3a
        let key = |text: &[u8]| SecretBytes::copy_from(text).unwrap();
        let made = signature(&key(b"canary-7f3a\n"), 1_700_000_000, b"{}").unwrap();
        assert_eq!(made, "0913c013473f86547786940bafd7ad0f296072c14e45db7bff4f9dd3f7d89862");
        assert_ne!(signature(&key(b"canary-7f3a"), 1_700_000_001, b"{}").unwrap(), made);
        assert!(signature(&key(b" \n"), 1, b"").is_err());
    }
}
