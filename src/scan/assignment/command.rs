//! Passwords as options of commands whose options say nothing: `curl -u me:x`, `mysql -px`, `sshpass -p x`.

use std::ops::Range;

use super::cursor::Cursor;
use super::judge::usual;
use super::{Found, Id, Opinion};
use crate::scan::candidate::Reason;
use crate::scan::confidence::Strength;
use crate::scan::value::{classes, is_identifier};

/// Commands whose `-p` takes a password, those with it glued on first.
const GLUED: [&[u8]; 5] = [b"mysql", b"mysqldump", b"mysqladmin", b"mariadb", b"7z"];
const APART: [&[u8]; 9] = [
    b"sshpass",
    b"docker login",
    b"podman login",
    b"az login",
    b"mongo ",
    b"mongosh",
    b"mongodump",
    b"oc login",
    b"helm registry login",
];

pub(super) fn read(text: &[u8], hit: Range<usize>) -> Option<Found> {
    let option = text.get(hit.clone())?;
    let line_start = memchr::memrchr(b'\n', text.get(..hit.start)?).map_or(0, |at| at + 1);
    let line = text.get(line_start..hit.start)?;
    let has = |command: &&[u8]| memchr::memmem::find(line, command).is_some();
    let mut cursor = Cursor::new(text, hit.end);
    match option {
        b" -u" | b" --user" => {
            has(&&b"curl"[..]).then_some(())?;
            cursor.eat(b"=");
            cursor.blanks();
            let argument = argument(&mut cursor)?;
            let bytes = text.get(argument.clone())?;
            let colon = memchr::memchr(b':', bytes)?;
            found(text, argument.start + colon + 1..argument.end)
        }
        b" -p" => {
            let blanks = cursor.blanks();
            let takes = if blanks == 0 {
                GLUED.iter().any(|c| has(c))
            } else {
                APART.iter().any(|c| has(c))
            };
            takes.then_some(())?;
            let argument = argument(&mut cursor)?;
            found(text, argument)
        }
        b" -a " => {
            has(&&b"redis-cli"[..]).then_some(())?;
            let argument = argument(&mut cursor)?;
            found(text, argument)
        }
        // SQL.
        _ => {
            cursor.blanks();
            cursor.eat(b"PASSWORD ");
            let quote = cursor.quote()?;
            let end = quote.end(text, cursor.at)?;
            found(text, cursor.at..end)
        }
    }
}

fn argument(cursor: &mut Cursor<'_>) -> Option<Range<usize>> {
    if let Some(quote) = cursor.quote() {
        let end = quote.end(cursor.text, cursor.at)?;
        return Some(cursor.at..end);
    }
    let start = cursor.at;
    cursor.skip(128, |byte| {
        !byte.is_ascii_whitespace()
            && !matches!(byte, b'"' | b'\'' | b'`' | b';' | b'|' | b'<' | b'>' | b'\\')
    });
    (cursor.at > start).then_some(start..cursor.at)
}

fn found(text: &[u8], value: Range<usize>) -> Option<Found> {
    let opinion = judge(text.get(value.clone())?);
    Some(Found { id: Id::Command, value, opinion })
}

fn judge(value: &[u8]) -> Result<Opinion, Reason> {
    usual(value)?;
    if !(5..=128).contains(&value.len()) || value.starts_with(b"-") {
        return Err(Reason::Shape);
    }
    let mixed = classes(value) >= 2 && !is_identifier(value);
    if !mixed && value.len() < 8 {
        return Err(Reason::StopWord);
    }
    Ok(Opinion {
        strength: Strength::Assigned { mixed, literal: true },
        checked: false,
        floor: 2.0,
    })
}
