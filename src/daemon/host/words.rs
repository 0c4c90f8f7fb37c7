//! What stands in a command, as JSON or as a word of a bare line.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use crate::model::parse_span;

/// Yes or no, as JSON or as a word of a bare line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag(pub(super) bool);

impl Flag {
    pub(super) fn no() -> Self {
        Self(false)
    }

    pub(super) fn yes() -> Self {
        Self(true)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Bool(flag) => Ok(Self(flag)),
            Value::String(word) if word == "yes" || word == "true" => Ok(Self(true)),
            Value::String(word) if word == "no" || word == "false" => Ok(Self(false)),
            Value::Array(_)
            | Value::Null
            | Value::Number(_)
            | Value::Object(_)
            | Value::String(_) => Err(de::Error::custom("expected yes or no")),
        }
    }
}

/// A number, as JSON or as a word of a bare line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let value = Value::deserialize(from)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        number.map(Self).ok_or_else(|| de::Error::custom("expected a number that is not negative"))
    }
}

/// Something that is written as text.
#[derive(Debug)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(from)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// Words or numbers: a list, or one of them; several in a bare line stand with commas between.
#[derive(Debug, Default)]
pub(super) struct Words(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let error = || de::Error::custom("expected a word, a number or a list of them");
        let word = |value: &Value| match value {
            Value::String(word) => Ok(word.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => Err(error()),
        };
        match Value::deserialize(from)? {
            Value::Array(words) => words.iter().map(word).collect::<std::result::Result<_, _>>(),
            Value::String(words) => Ok(words.split(',').map(str::to_owned).collect()),
            one @ (Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_)) => {
                Ok(vec![word(&one)?])
            }
        }
        .map(Self)
    }
}

/// How long, as in `15m`.
#[derive(Debug)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let error =
            || de::Error::custom(format!("{text:?} is no time: write it as 45s, 15m or 2h"));
        parse_span(&text).map(Self).ok_or_else(error)
    }
}
