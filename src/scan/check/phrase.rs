//! Recovery phrases of wallets: twelve to twenty-four plain words.

use super::Verdict;

/// A phrase in the manner of BIP 39. The words are all different but for chance, and none of those that
/// sentences are made of; the phrases of documents and test networks repeat one word.
pub(super) fn mnemonic(phrase: &[u8]) -> Verdict {
    const OF_SENTENCES: [&[u8]; 16] = [
        b"the", b"of", b"and", b"for", b"are", b"from", b"your", b"was", b"has", b"have", b"can",
        b"words", b"these", b"which", b"our", b"not",
    ];
    let mut words: Vec<&[u8]> =
        phrase.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
    let count = words.len();
    let sentence = words.iter().any(|word| OF_SENTENCES.contains(word));
    words.sort_unstable();
    words.dedup();
    let whole = (12..=24).contains(&count) && count.is_multiple_of(3);
    Verdict::possible(whole && !sentence && words.len() + 2 >= count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_and_a_repeated_word_are_no_phrase() {
        let phrase =
            "ripple velvet orbit canyon walnut fossil ladder mimic pepper sunset tunnel zebra";
        assert_eq!(mnemonic(phrase.as_bytes()), Verdict::Unknown);
        let test_network = "test test test test test test test test test test test junk";
        assert_eq!(mnemonic(test_network.as_bytes()), Verdict::Invalid);
        let sentence = "list twelve words that you should write down and keep somewhere safe";
        assert_eq!(mnemonic(sentence.as_bytes()), Verdict::Invalid);
        assert_eq!(mnemonic(b"one two three"), Verdict::Invalid);
    }
}
