//! One event as one line of JSON in printable ASCII, and back to the parts that verification needs.
//!
//! Written by hand into a reused buffer, for it is on the way of every read. The order of the fields is
//! fixed: `seq`, `time` and `action` lead, `prev` and `mac` end the line, and `mac` covers every byte
//! before its own comma. Whatever a caller may choose is escaped, so no event can forge a second line.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use super::chain::MAC_BYTES;
use super::event::{Event, UserNames};
use crate::model::{Caller, Gid, Process, Seq, Timestamp, Uid};

/// Longest line in bytes with its newline; bounds the memory of every reader.
pub(super) const MAX_LINE: usize = 1 << 20;

const MAC_FIELD: &[u8] = b",\"mac\":\"";
const PREV_FIELD: &[u8] = b",\"prev\":\"";

/// A code in lower-case hexadecimal.
pub(super) type HexMac = [u8; MAC_BYTES * 2];

/// The place of a line, and who knows the name of its caller.
pub(super) struct Place<'a> {
    pub(super) seq: Seq,
    pub(super) time: Timestamp,
    pub(super) names: &'a dyn UserNames,
    pub(super) prev: &'a [u8; MAC_BYTES],
}

/// Formats lines; remembers the second and the caller that it formatted last.
#[derive(Debug, Default)]
pub(super) struct Formatter {
    second: i64,
    text: Vec<u8>,
    caller: Option<RecentCaller>,
}

/// The fields of a caller, `uid` to `container`. They follow from what is kept beside them alone: the
/// process is held, so no other can lie at its address.
#[derive(Debug)]
struct RecentCaller {
    ids: (Uid, Gid, Option<u32>),
    process: Arc<Process>,
    text: Vec<u8>,
    is_utf8: Utf8,
}

/// Which of the fields that may hold any bytes are UTF-8.
#[derive(Clone, Copy, Debug)]
struct Utf8 {
    exe: bool,
    comm: bool,
}

impl Formatter {
    /// Writes the line of `event` without `mac` and newline.
    pub(super) fn write_body(&mut self, out: &mut Vec<u8>, place: &Place<'_>, event: &Event<'_>) {
        out.clear();
        out.extend_from_slice(b"{\"seq\":");
        push_number(out, place.seq.0);
        out.extend_from_slice(b",\"time\":\"");
        self.push_recent_time(out, place.time);
        out.push(b'"');
        text(out, "action", Some(event.action.as_str()));
        text(out, "outcome", Some(event.outcome.as_str()));
        text(out, "secret", event.secret.map(|name| name.as_str()));
        number(out, "version", event.version.map(|version| version.0));
        let is_utf8 = self.push_recent_caller(out, place.names, event.caller);
        text(out, "rule", event.rule);
        text(out, "reason", event.reason);
        // An escaped lone byte looks like the character of that number; this says where that is so.
        match (is_utf8.exe, is_utf8.comm) {
            (true, true) => {}
            (false, true) => out.extend_from_slice(b",\"not_utf8\":[\"exe\"]"),
            (true, false) => out.extend_from_slice(b",\"not_utf8\":[\"comm\"]"),
            (false, false) => out.extend_from_slice(b",\"not_utf8\":[\"exe\",\"comm\"]"),
        }
        let exe = event.caller.and_then(|caller| caller.exe_now.as_deref());
        if let Some(digest) = exe.and_then(|exe| exe.sha256) {
            text(out, "exe_sha256", Some(&hex_text(&digest)));
        }
        if let Some(request) = event.caller.and_then(|caller| caller.request) {
            number(out, "request", Some(request.number));
        }
        if let Some(generation) = event.generation {
            number(out, "generation", Some(generation.0));
        }
        if let Some(detail) = &event.detail {
            key(out, "detail");
            push_ascii_json(out, detail);
        }
        out.extend_from_slice(PREV_FIELD);
        out.extend_from_slice(&hex(place.prev));
        out.push(b'"');
    }

    fn push_recent_caller(
        &mut self,
        out: &mut Vec<u8>,
        names: &dyn UserNames,
        caller: Option<&Caller>,
    ) -> Utf8 {
        // What a process runs right now is looked up anew each time.
        let Some((caller, process)) = caller
            .filter(|caller| caller.exe_now.is_none())
            .and_then(|caller| Some((caller, caller.process.as_ref()?)))
        else {
            return push_caller(out, names, caller);
        };
        let ids = (caller.uid, caller.gid, caller.tid);
        if let Some(recent) = &self.caller
            && recent.ids == ids
            && Arc::ptr_eq(&recent.process, process)
        {
            out.extend_from_slice(&recent.text);
            return recent.is_utf8;
        }
        let mut text = self.caller.take().map(|recent| recent.text).unwrap_or_default();
        text.clear();
        let is_utf8 = push_caller(&mut text, names, Some(caller));
        out.extend_from_slice(&text);
        self.caller = Some(RecentCaller { ids, process: Arc::clone(process), text, is_utf8 });
        is_utf8
    }

    fn push_recent_time(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        let micros = time.as_microsecond();
        let second = micros.div_euclid(1_000_000);
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            push_time(&mut self.text, time);
            self.text.truncate(self.text.len().saturating_sub("000000Z".len()));
        }
        out.extend_from_slice(&self.text);
        push_digits(out, micros.rem_euclid(1_000_000).unsigned_abs(), 6);
        out.push(b'Z');
    }
}

fn push_caller(out: &mut Vec<u8>, names: &dyn UserNames, caller: Option<&Caller>) -> Utf8 {
    let process = caller.and_then(|caller| caller.process.as_deref());
    let exe = caller.and_then(|caller| caller.exe_now.as_deref());
    let exe = exe.or_else(|| process.and_then(|process| process.exe.as_ref()));
    let exe = exe.map(|exe| exe.path.as_os_str().as_bytes());
    let comm = process.map(|process| process.comm.as_slice());
    number(out, "uid", caller.map(|caller| caller.uid.0.into()));
    text(out, "user", caller.and_then(|caller| names.user(caller.uid)).as_deref());
    number(out, "gid", caller.map(|caller| caller.gid.0.into()));
    number(out, "tid", caller.and_then(|caller| caller.tid).map(u64::from));
    number(out, "pid", process.map(|process| process.pid.into()));
    key(out, "start_time");
    match process {
        None => out.extend_from_slice(b"null"),
        Some(process) => {
            out.push(b'"');
            push_time(out, process.started);
            out.push(b'"');
        }
    }
    let is_utf8 = Utf8 { exe: bytes(out, "exe", exe), comm: bytes(out, "comm", comm) };
    text(out, "unit", process.and_then(|process| process.unit.as_deref()));
    key(out, "container");
    match process.and_then(|process| process.container.as_ref()) {
        None => out.extend_from_slice(b"null"),
        Some(container) => {
            out.push(b'"');
            push_escaped(out, container.runtime.as_bytes());
            out.push(b':');
            push_escaped(out, container.id.as_bytes());
            out.push(b'"');
        }
    }
    is_utf8
}

/// Ends a body with its code and a newline.
pub(super) fn push_mac(out: &mut Vec<u8>, mac: &[u8; MAC_BYTES]) {
    out.extend_from_slice(MAC_FIELD);
    out.extend_from_slice(&hex(mac));
    out.extend_from_slice(b"\"}\n");
}

/// Splits a line without its newline into what the code covers and the code.
pub(super) fn split_mac(line: &[u8]) -> Option<(&[u8], &HexMac)> {
    let line = line.strip_suffix(b"\"}")?;
    let (rest, mac) = line.split_last_chunk()?;
    Some((rest.strip_suffix(MAC_FIELD)?, mac))
}

/// The parts of a line that verification looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    pub(super) seq: Seq,
    /// RFC 3339 with microseconds in UTC: comparing the texts compares the times.
    pub(super) time: &'a str,
    pub(super) action: &'a str,
    pub(super) body: &'a [u8],
    pub(super) prev: &'a HexMac,
    pub(super) mac: &'a HexMac,
}

impl<'a> Line<'a> {
    /// Returns the parts of a line without its newline, or `None` if it has not the form of one.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let (body, mac) = split_mac(line)?;
        let (head, prev) = body.strip_suffix(b"\"")?.split_last_chunk()?;
        let head = head.strip_suffix(PREV_FIELD)?;
        let head = std::str::from_utf8(head).ok()?;
        let (seq, rest) = head.strip_prefix("{\"seq\":")?.split_once(',')?;
        let (time, rest) = rest.strip_prefix("\"time\":\"")?.split_once('"')?;
        let (action, _) = rest.strip_prefix(",\"action\":\"")?.split_once('"')?;
        Some(Self { seq: Seq(seq.parse().ok()?), time, action, body, prev, mac })
    }
}

/// Returns a code in lower-case hexadecimal.
pub(super) fn hex(mac: &[u8; MAC_BYTES]) -> HexMac {
    let mut text = [0; MAC_BYTES * 2];
    for (pair, byte) in text.chunks_exact_mut(2).zip(mac) {
        pair.copy_from_slice(&[digit(byte >> 4), digit(*byte)]);
    }
    text
}

/// Returns an id in lower-case hexadecimal.
pub(super) fn hex_text(id: &[u8]) -> String {
    id.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).map(char::from).collect()
}

/// Returns the bytes that a lower-case hexadecimal text stands for.
pub(super) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    // Without an early end, so that the compiler does many at a time.
    let value = |digit: u8| (digit & 15) + if digit > b'9' { 9 } else { 0 };
    let is_digit = |digit: u8| (digit.wrapping_sub(b'0') < 10) | (digit.wrapping_sub(b'a') < 6);
    let (pairs, rest) = text.as_chunks();
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = value(*high) << 4 | value(*low);
    }
    let is_hex = text.iter().fold(true, |all, digit| all & is_digit(*digit));
    (is_hex && rest.is_empty() && pairs.len() == N).then_some(bytes)
}

fn digit(nibble: u8) -> u8 {
    // Without a table, so that the compiler does many at a time.
    let nibble = nibble & 15;
    nibble + if nibble > 9 { b'a' - 10 } else { b'0' }
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    bytes(out, name, value.map(str::as_bytes));
}

/// Writes a field of text or null. Returns whether the bytes were UTF-8.
fn bytes(out: &mut Vec<u8>, name: &str, value: Option<&[u8]>) -> bool {
    key(out, name);
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return true;
    };
    out.push(b'"');
    let is_utf8 = push_escaped(out, value);
    out.push(b'"');
    is_utf8
}

fn number(out: &mut Vec<u8>, name: &str, value: Option<u64>) {
    key(out, name);
    match value {
        None => out.extend_from_slice(b"null"),
        Some(value) => push_number(out, value),
    }
}

/// Writes the inside of a JSON string in printable ASCII. A byte that is not UTF-8 becomes `\u00XX`.
/// Returns whether there was none.
pub(super) fn push_escaped(out: &mut Vec<u8>, value: &[u8]) -> bool {
    // Without an early end, so that the compiler does many at a time.
    if value.iter().fold(true, |all, &byte| all & is_plain(byte)) {
        out.extend_from_slice(value);
        return true;
    }
    let mut is_utf8 = true;
    for chunk in value.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(out, c));
        for &byte in chunk.invalid() {
            push_unicode(out, byte.into());
            is_utf8 = false;
        }
    }
    is_utf8
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

fn push_char(out: &mut Vec<u8>, c: char) {
    match u8::try_from(c) {
        Ok(byte @ (b'"' | b'\\')) => out.extend_from_slice(&[b'\\', byte]),
        Ok(byte) if is_plain(byte) => out.push(byte),
        Ok(_) | Err(_) => {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|&unit| push_unicode(out, unit))
        }
    }
}

fn push_unicode(out: &mut Vec<u8>, unit: u16) {
    let [high, low] = unit.to_be_bytes();
    out.extend_from_slice(b"\\u");
    out.extend_from_slice(&[digit(high >> 4), digit(high), digit(low >> 4), digit(low)]);
}

/// Writes any JSON value in printable ASCII: what is not can only stand inside of its strings.
pub(super) fn push_ascii_json(out: &mut Vec<u8>, value: &serde_json::Value) {
    for c in value.to_string().chars() {
        match u8::try_from(c) {
            Ok(byte @ b' '..=b'~') => out.push(byte),
            Ok(_) | Err(_) => push_char(out, c),
        }
    }
}

fn push_number(out: &mut Vec<u8>, value: u64) {
    push_digits(out, value, 1);
}

/// Writes a number in decimal with zeros in front up to `width`, at most 20.
fn push_digits(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        if value == 0 && used >= width {
            break;
        }
        *place = digit(u8::try_from(value % 10).unwrap_or(0));
        value /= 10;
        used += 1;
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Writes a time as RFC 3339 has it, with microseconds, in UTC.
pub(super) fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    let time = jiff::tz::Offset::UTC.to_datetime(time);
    push_digits(out, time.year().unsigned_abs().into(), 4);
    out.push(b'-');
    push_digits(out, time.month().unsigned_abs().into(), 2);
    out.push(b'-');
    push_digits(out, time.day().unsigned_abs().into(), 2);
    out.push(b'T');
    push_digits(out, time.hour().unsigned_abs().into(), 2);
    out.push(b':');
    push_digits(out, time.minute().unsigned_abs().into(), 2);
    out.push(b':');
    push_digits(out, time.second().unsigned_abs().into(), 2);
    out.push(b'.');
    push_digits(out, (time.subsec_nanosecond() / 1000).unsigned_abs().into(), 6);
    out.push(b'Z');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_jiff_reads_them() {
        for micros in [0, 1_767_225_599_999_999, 951_782_400_000_001, 1_000_000] {
            let time = Timestamp::from_microsecond(micros).unwrap();
            let mut out = Vec::new();
            push_time(&mut out, time);
            assert_eq!(String::from_utf8(out).unwrap().parse::<Timestamp>().unwrap(), time);
        }
    }

    #[test]
    fn upper_case_hexadecimal_is_not_taken_for_the_same_code() {
        assert_eq!(unhex::<2>(b"00ab"), Some([0, 0xab]));
        assert_eq!(unhex::<2>(b"00AB"), None);
        assert_eq!(unhex::<2>(b"00a"), None);
    }
}
