//! Passwords: so many characters of an alphabet, each as likely as every other.
//!
//! A password that lacks what is required is drawn again as a whole, so that those that have it remain
//! equally likely.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::credential::{self, Shape};
use crate::crypto::fill_random;
use crate::system::SecretBytes;

use super::GenerateError;

const DEFAULT_LENGTH: usize = 32;
const MAX_LENGTH: usize = 65_536;
/// A password with fewer possibilities than this many bits can be guessed by whoever gets at its hash.
const MIN_BITS: f64 = 40.0;
/// With [`MIN_BITS`] at least one draw in 200 or so meets any requirement (three classes of one character
/// each beside 32 symbols, in 8), so that this many never all fail.
const MAX_DRAWS: usize = 100_000;

/// How passwords are made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Settings", into = "Settings")]
pub struct Password {
    settings: Settings,
    /// Sorted, without duplicates.
    characters: Box<[u8]>,
}

/// What the configuration says.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default = "default_length")]
    length: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alphabet: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    classes: Option<Vec<Class>>,
    #[serde(default)]
    exclude: String,
    /// Classes of which there is at least one character in each password.
    #[serde(default)]
    require: Vec<Class>,
}

/// A part of the printable ASCII characters; each but the space is in one of them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Digits,
    Lower,
    Symbols,
    Upper,
}

impl Password {
    /// Returns the generator of passwords of that many letters and digits.
    pub fn of_length(length: usize) -> Result<Self, String> {
        Settings { length, ..Settings::default() }.try_into()
    }

    /// Returns the generator of values of that many of the 64 characters that need no quoting in URLs,
    /// shells and files.
    pub fn url_safe(length: usize) -> Result<Self, String> {
        let alphabet = (b'!'..=b'~').filter(|b| b.is_ascii_alphanumeric() || b"-_".contains(b));
        let alphabet = Some(alphabet.map(char::from).collect());
        Settings { length, alphabet, ..Settings::default() }.try_into()
    }

    pub(super) fn generate(&self) -> Result<SecretBytes, GenerateError> {
        for _ in 0..MAX_DRAWS {
            let password = draw(&self.characters, self.settings.length)?;
            let bytes = password.expose();
            let has = |class: &Class| bytes.iter().any(|&byte| class.contains(byte));
            // What looks like a URL or an object could not be rotated as a password later.
            if self.settings.require.iter().all(has)
                && credential::shape(&password) == Ok(Shape::Bare)
            {
                return Ok(password);
            }
        }
        Err(GenerateError::Unlucky)
    }
}

impl Default for Password {
    fn default() -> Self {
        let settings = Settings::default();
        Self { characters: settings.characters(), settings }
    }
}

impl TryFrom<Settings> for Password {
    type Error = String;

    fn try_from(mut settings: Settings) -> Result<Self, String> {
        if settings.alphabet.is_some() && settings.classes.is_some() {
            return Err("use either `alphabet` or `classes` for a password".into());
        }
        let given = settings.alphabet.as_deref().unwrap_or_default().chars();
        if let Some(odd) = given.chain(settings.exclude.chars()).find(|c| !c.is_ascii_graphic()) {
            return Err(format!("{odd:?} cannot be in a password: use printable ASCII, no spaces"));
        }
        if settings.length > MAX_LENGTH {
            return Err(format!("a password has at most {MAX_LENGTH} characters"));
        }
        settings.require.sort_unstable_by_key(|class| *class as u8);
        settings.require.dedup();
        let characters = settings.characters();
        let float = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let bits = float(settings.length) * float(characters.len().max(1)).log2();
        if bits < MIN_BITS {
            return Err(format!(
                "{} of {} characters are {bits:.0} bits: a password needs {MIN_BITS}",
                settings.length,
                characters.len()
            ));
        }
        for class in &settings.require {
            if !characters.iter().any(|&byte| class.contains(byte)) {
                let class = format!("{class:?}").to_lowercase();
                return Err(format!("{class} are required, but there are none to choose from"));
            }
        }
        Ok(Self { settings, characters })
    }
}

impl From<Password> for Settings {
    fn from(password: Password) -> Self {
        password.settings
    }
}

impl Settings {
    fn characters(&self) -> Box<[u8]> {
        const LETTERS_AND_DIGITS: [Class; 3] = [Class::Digits, Class::Lower, Class::Upper];
        let classes = self.classes.as_deref().unwrap_or(&LETTERS_AND_DIGITS);
        let is_in = |byte: u8| match &self.alphabet {
            Some(alphabet) => alphabet.as_bytes().contains(&byte),
            None => classes.iter().any(|class| class.contains(byte)),
        };
        let excluded = self.exclude.as_bytes();
        (b'!'..=b'~').filter(|&byte| is_in(byte) && !excluded.contains(&byte)).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            length: DEFAULT_LENGTH,
            alphabet: None,
            classes: None,
            exclude: String::new(),
            require: Vec::new(),
        }
    }
}

fn default_length() -> usize {
    DEFAULT_LENGTH
}

impl Class {
    fn contains(self, byte: u8) -> bool {
        match self {
            Self::Digits => byte.is_ascii_digit(),
            Self::Lower => byte.is_ascii_lowercase(),
            Self::Symbols => byte.is_ascii_punctuation(),
            Self::Upper => byte.is_ascii_uppercase(),
        }
    }
}

/// Draws characters of an alphabet of 1 to 94.
pub(super) fn draw(alphabet: &[u8], length: usize) -> Result<SecretBytes, GenerateError> {
    let count = alphabet.len().max(1);
    // Bytes from here on are passed over: they would favour the first characters.
    let limit = 256 - 256 % count;
    let mut random = Zeroizing::new([0_u8; 64]);
    let mut unused = 0;
    SecretBytes::with_len(length, |room| {
        for place in room.iter_mut() {
            *place = loop {
                if unused == 0 {
                    fill_random(&mut *random)?;
                    unused = random.len();
                }
                unused -= 1;
                let byte = usize::from(random.get(unused).copied().unwrap_or_default());
                if byte < limit {
                    break alphabet.get(byte % count).copied().ok_or(GenerateError::Unlucky)?;
                }
            };
        }
        Ok(length)
    })
}
