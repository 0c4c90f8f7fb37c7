//! What a plain scalar of YAML 1.1 means, by the same patterns as PyYAML.

use std::sync::LazyLock;

use regex::Regex;

use crate::inject::document::Content;

/// What a scalar stands for.
pub(super) enum Meaning {
    Is(Content),
    Text,
    /// PyYAML falls over it with an error that is none of YAML.
    Unfit(&'static str),
    /// An error of YAML.
    Unknown(&'static str),
}

/// The patterns, in the order in which PyYAML tries them.
struct Patterns {
    float: Regex,
    int: Regex,
    time: Regex,
}

#[expect(clippy::expect_used, reason = "the patterns are constants, and a test uses each")]
static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| {
    let pattern = |text: &str| Regex::new(text).expect("a constant pattern");
    Patterns {
        float: pattern(concat!(
            r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?",
            r"|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
            r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        )),
        int: pattern(concat!(
            r"^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)",
            r"|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$",
        )),
        time: pattern(concat!(
            r"^(?:[0-9]{4}-[0-9]{2}-[0-9]{2}",
            r"|[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}",
            r"(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?)$",
        )),
    }
});

/// Returns what a plain scalar without a tag means.
pub(super) fn resolve(text: &str) -> Meaning {
    if let Some(value) = truth(text) {
        return Meaning::Is(Content::Bool(value));
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Is(Content::Null),
        "<<" | "=" => return Meaning::Unknown("this stands for a key"),
        _ => {}
    }
    // Every other pattern begins so; most texts do not.
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Meaning::Text;
    }
    if PATTERNS.float.is_match(text) {
        return float(text);
    }
    if PATTERNS.int.is_match(text) {
        return int(text);
    }
    if PATTERNS.time.is_match(text) {
        return time(text);
    }
    Meaning::Text
}

/// Returns what a scalar with one of YAML's own tags means; `None` for a tag that is not known.
pub(super) fn tagged(suffix: Option<&str>, text: &str) -> Option<Meaning> {
    Some(match suffix? {
        "str" => Meaning::Text,
        "null" => Meaning::Is(Content::Null),
        "bool" => match truth(text) {
            Some(value) => Meaning::Is(Content::Bool(value)),
            None => Meaning::Unfit("this is no truth value"),
        },
        "int" if PATTERNS.int.is_match(text) => int(text),
        "int" => Meaning::Unfit("this is no whole number"),
        "float" if PATTERNS.float.is_match(text) || PATTERNS.int.is_match(text) => float(text),
        "float" => Meaning::Unfit("this is no number"),
        "timestamp" if PATTERNS.time.is_match(text) => time(text),
        "timestamp" => Meaning::Unfit("this is no time"),
        "binary" => Meaning::Unfit("binary values are not supported"),
        _ => return None,
    })
}

/// YAML 1.1 takes these words in three spellings each.
fn truth(text: &str) -> Option<bool> {
    let spelled = |word: &str| {
        let capital = word.get(..1)?.to_uppercase() + word.get(1..)?;
        (text == word || text == capital || text == word.to_uppercase()).then_some(())
    };
    if ["yes", "true", "on"].iter().any(|word| spelled(word).is_some()) {
        return Some(true);
    }
    ["no", "false", "off"].iter().any(|word| spelled(word).is_some()).then_some(false)
}

fn int(text: &str) -> Meaning {
    let bare = text.replace('_', "");
    let (sign, digits) = signed(&bare);
    let number = if digits == "0" {
        Some("0".to_owned())
    } else if let Some(binary) = digits.strip_prefix("0b") {
        radix(sign, binary, 2)
    } else if let Some(hexadecimal) = digits.strip_prefix("0x") {
        radix(sign, hexadecimal, 16)
    } else if digits.starts_with('0') {
        radix(sign, digits, 8)
    } else if digits.contains(':') {
        let mut parts = digits.split(':').map(str::parse::<i128>);
        parts
            .try_fold(0_i128, |total, part| total.checked_mul(60)?.checked_add(part.ok()?))
            .map(|total| (if sign == "-" { -total } else { total }).to_string())
    } else {
        Some(format!("{sign}{digits}"))
    };
    match number {
        // Python's own limit.
        Some(number) if number.len() <= 4300 => Meaning::Is(Content::Int(number)),
        _ => Meaning::Unfit("this number is none, or too large"),
    }
}

fn radix(sign: &str, digits: &str, radix: u32) -> Option<String> {
    let number = i128::from_str_radix(digits, radix).ok()?;
    Some((if sign == "-" { -number } else { number }).to_string())
}

fn float(text: &str) -> Meaning {
    let bare = text.replace('_', "").to_ascii_lowercase();
    let (sign, digits) = signed(&bare);
    let number = match digits {
        ".inf" => Some(f64::INFINITY),
        ".nan" => Some(f64::NAN),
        _ => {
            let mut parts = digits.split(':').map(|part| part.parse::<f64>().ok());
            parts.try_fold(0.0, |total, part| Some(total * 60.0 + part?))
        }
    };
    match number {
        Some(number) => Meaning::Is(Content::Float(if sign == "-" { -number } else { number })),
        None => Meaning::Unfit("this is no number"),
    }
}

fn signed(text: &str) -> (&str, &str) {
    match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    }
}

fn time(text: &str) -> Meaning {
    match iso_time(text) {
        Some(iso) => Meaning::Is(Content::Time(iso)),
        None => Meaning::Unfit("there is no such date or time"),
    }
}

/// Returns a date or time in Python's spelling; `None` for what is none.
pub fn iso_time(text: &str) -> Option<String> {
    let (date, rest) = match text.find(['T', 't', ' ', '\t']) {
        Some(at) => (text.get(..at)?, text.get(at + 1..)?.trim_start()),
        None => (text, ""),
    };
    let number = |part: &str| part.parse::<i16>().ok();
    let mut parts = date.split('-').map(number);
    let small = |part: Option<Option<i16>>| i8::try_from(part??).ok();
    let (year, month, day) = (parts.next()??, small(parts.next())?, small(parts.next())?);
    // Python has no year 0.
    let date = jiff::civil::Date::new(year, month, day).ok().filter(|_| year > 0)?;
    if rest.is_empty() {
        return Some(date.to_string());
    }
    let zone_at = rest.find(['Z', '+', '-', ' ', '\t']).unwrap_or(rest.len());
    let (clock, zone) = (rest.get(..zone_at)?, rest.get(zone_at..)?.trim());
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(number);
    let (hour, minute, second) = (small(parts.next())?, small(parts.next())?, small(parts.next())?);
    let time = jiff::civil::Time::new(hour, minute, second, 0).ok()?;
    let micros: u32 = format!("{:0<6}", fraction.get(..6).unwrap_or(fraction)).parse().ok()?;
    let micros = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    Some(format!("{date}T{time}{micros}{}", offset(zone)?))
}

fn offset(zone: &str) -> Option<String> {
    match zone {
        "" => return Some(String::new()),
        "Z" => return Some("+00:00".into()),
        _ => {}
    }
    let sign = zone.get(..1)?;
    let (hours, minutes) = zone.get(1..)?.split_once(':').unwrap_or((zone.get(1..)?, "0"));
    let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    // Python's timezone is less than a day.
    if total >= 24 * 60 {
        return None;
    }
    // "-00:00" is UTC to Python too, which spells it with a plus.
    let sign = if total == 0 { "+" } else { sign };
    Some(format!("{sign}{:02}:{:02}", total / 60, total % 60))
}
