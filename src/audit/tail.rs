//! The last lines of the log, for a start that has to know what was recorded just before.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::segments;
use crate::model::Seq;

/// How much is read at one time, from the end backwards.
const BLOCK: u64 = 64 << 10;

/// Returns the last lines, the oldest first, back to the first one from the end whose number is not
/// `wanted`. What they say is not verified here: a start has verified the last segment before.
pub fn tail(dir: &Path, mut wanted: impl FnMut(Seq) -> bool) -> io::Result<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    for segment in segments::list(dir)?.iter().rev() {
        let mut file = segment.open()?;
        let mut start = file.metadata()?.len();
        let mut rest = Vec::new();
        loop {
            let len = start.min(BLOCK);
            start -= len;
            file.seek(SeekFrom::Start(start))?;
            let mut block = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_exact(&mut block)?;
            block.append(&mut rest);
            // What is before the first newline may begin in the block before.
            let whole = if start == 0 { 0 } else { after_newline(&block) };
            rest = block.drain(..whole).collect();
            for line in block.rsplit(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                // A half line at the end is no line, and room that is kept there holds zeros.
                let Some(seq) = seq_of(line) else { continue };
                if !wanted(seq) {
                    lines.reverse();
                    return Ok(lines);
                }
                lines.push(line.to_vec());
            }
            if start == 0 {
                break;
            }
        }
    }
    lines.reverse();
    Ok(lines)
}

fn after_newline(block: &[u8]) -> usize {
    block.iter().position(|&byte| byte == b'\n').map_or(block.len(), |at| at + 1)
}

fn seq_of(line: &[u8]) -> Option<Seq> {
    let digits = line.strip_prefix(b"{\"seq\":")?;
    let end = digits.iter().position(|&byte| byte == b',')?;
    line.ends_with(b"\"}").then_some(())?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok().map(Seq)
}
