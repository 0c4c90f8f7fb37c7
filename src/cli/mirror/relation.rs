//! How two histories of one secret stand to each other, pure: which versions of the source the destination has already.
//!
//! Values may come again in a history, so that a value alone does not say where in it a copy has come to. What does
//! is the longest row of equal values that ends there.

/// What the destination is beside the source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Relation {
    /// It has the source's current version, and later ones.
    Ahead,
    /// Neither has the other's current version.
    Apart,
    /// It has come to the source's version before this one, by index, which is the next.
    Behind(usize),
    Equal,
}

/// Relates two histories, oldest version first, of which neither is empty. `is_whole`: the destination's first version is the
/// first that it ever had, so that it cannot have forgotten an older one.
pub(super) fn relate<T: PartialEq>(source: &[T], destination: &[T], is_whole: bool) -> Relation {
    if source.last() == destination.last() {
        // A copy of a history in which this value comes again may have been cut off before.
        let is_begun = is_whole && destination.len() < source.len();
        let is_cut_off = is_begun && source.starts_with(destination);
        return if is_cut_off { Relation::Behind(destination.len()) } else { Relation::Equal };
    }
    // The destination has come to one of these, as far as its current value goes.
    let reached = (0..source.len()).map(|at| (row(source, at, destination, last(destination)), at));
    let reached: Vec<_> = reached.filter(|(row, _)| *row > 0).collect();
    let longest = reached.iter().map(|(row, _)| *row).max().unwrap_or(0);
    let mut places = reached.into_iter().filter(|(row, _)| *row == longest).map(|(_, at)| at);
    let place = if is_whole && longest == destination.len() {
        // It has nothing but this row: what would be older, or later, it does not have yet.
        places.next()
    } else {
        places.next_back()
    };
    // And here it had the source's current version, before it went on.
    let passed = (0..destination.len()).map(|at| row(source, last(source), destination, at)).max();
    match (place, passed.unwrap_or(0)) {
        (Some(at), passed) if passed <= longest => Relation::Behind(at + 1),
        (None, 0) => Relation::Apart,
        _ => Relation::Ahead,
    }
}

/// Returns how many values are equal, from two places on towards older ones.
fn row<T: PartialEq>(source: &[T], at: usize, destination: &[T], there: usize) -> usize {
    let pairs = source.iter().take(at + 1).rev().zip(destination.iter().take(there + 1).rev());
    pairs.take_while(|(one, other)| one == other).count()
}

fn last<T>(values: &[T]) -> usize {
    values.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_destination_has_come_as_far_as_the_longest_row_of_equal_values_says() {
        use Relation::{Ahead, Apart, Behind, Equal};
        for (source, destination, is_whole, expected) in [
            ("a", "a", true, Equal),
            ("ab", "a", true, Behind(1)),
            ("abc", "ab", true, Behind(2)),
            // It has forgotten the older ones.
            ("abc", "b", false, Behind(2)),
            ("abc", "c", false, Equal),
            // The source has forgotten them.
            ("cd", "abc", true, Behind(1)),
            // A value that comes again.
            ("aba", "a", true, Behind(1)),
            ("aba", "ab", true, Behind(2)),
            ("aba", "a", false, Equal),
            ("abab", "ab", true, Behind(2)),
            ("aaa", "aa", true, Behind(2)),
            // After a value of its own, which the source's came on top of.
            ("abb", "cb", true, Equal),
            ("aab", "abb", true, Equal),
            // Somebody has gone on there, or back.
            ("ab", "abc", true, Ahead),
            ("ab", "aba", true, Ahead),
            ("b", "abc", true, Ahead),
            ("ab", "c", true, Apart),
            ("ab", "ac", true, Apart),
        ] {
            let (here, there): (Vec<char>, Vec<char>) =
                (source.chars().collect(), destination.chars().collect());
            assert_eq!(relate(&here, &there, is_whole), expected, "{source} {destination}");
        }
    }

    proptest! {
        #[test]
        fn a_copy_that_was_cut_off_anywhere_goes_on_there(
            source in prop::collection::vec(0_u8..3, 1..8), cut in any::<prop::sample::Index>(),
        ) {
            let copied = cut.index(source.len()) + 1;
            let relation = relate(&source, &source[..copied], true);
            let expected = if copied == source.len() { Relation::Equal } else { Relation::Behind(copied) };
            prop_assert_eq!(relation, expected);
        }
    }
}
