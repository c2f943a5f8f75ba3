//! Identifiers and names for containers that were given none.

use std::fmt::Write;
use std::io::Read;

use crate::fs::FileError;

const ADJECTIVES: [&str; 96] = [
    "able", "airy", "amber", "apt", "arctic", "ashen", "autumn", "azure", "balmy", "blithe", "bold", "brass", "breezy",
    "bright", "brisk", "bronze", "calm", "cedar", "chalky", "civil", "clear", "cobalt", "copper", "coral", "cosy",
    "crisp", "curly", "daring", "deep", "dewy", "distant", "downy", "dusky", "early", "earnest", "easy", "even",
    "fair", "fern", "fleet", "flint", "foggy", "fond", "frank", "fresh", "frosty", "gentle", "gilded", "glad",
    "golden", "grand", "green", "hardy", "hazel", "honest", "humble", "icy", "indigo", "ivory", "jade", "jolly",
    "keen", "kind", "lean", "level", "light", "lively", "lucid", "lunar", "mellow", "merry", "mild", "misty", "mossy",
    "neat", "nimble", "noble", "olive", "patient", "placid", "plain", "polar", "prime", "proud", "quick", "quiet",
    "rapid", "ruddy", "sandy", "silver", "sleek", "solid", "spry", "steady", "sunny", "tidy",
];

const NOUNS: [&str; 96] = [
    "acorn", "alder", "anchor", "anvil", "arch", "aspen", "atlas", "badger", "barn", "basin", "beacon", "beaver",
    "birch", "bison", "boulder", "bramble", "brook", "canyon", "canoe", "cliff", "clover", "comet", "compass",
    "condor", "cove", "crane", "creek", "cricket", "crow", "delta", "dune", "eagle", "elm", "ember", "falcon", "fjord",
    "finch", "forge", "fox", "gale", "garnet", "glacier", "glade", "goose", "granite", "grove", "gull", "harbour",
    "hare", "heath", "hedge", "heron", "hill", "island", "jay", "juniper", "kestrel", "kettle", "lagoon", "lake",
    "lantern", "larch", "lark", "ledge", "lichen", "linden", "lynx", "magpie", "maple", "marsh", "meadow", "mill",
    "moor", "moth", "nettle", "oak", "orchard", "otter", "owl", "pebble", "pine", "plover", "pond", "quarry", "quartz",
    "raven", "reef", "ridge", "river", "robin", "rook", "shore", "spruce", "stork", "tern", "thistle",
];

/// An identifier: 64 hexadecimal digits of the kernel's randomness.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn random_id() -> Result<String, FileError> {
    let bytes = random::<32>()?;
    Ok(bytes.iter().fold(String::with_capacity(64), |mut id, byte| {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    }))
}

/// A name of two words. One of 9216 may be taken: from the second `attempt` (1) on, four hexadecimal digits follow.
///
/// # Errors
/// When `/dev/urandom` cannot be read.
pub fn random_name(attempt: u32) -> Result<String, FileError> {
    let [a, b, c, d, e, f] = random::<6>()?;
    let pick = |words: &[&'static str], high, low| words[usize::from(u16::from_be_bytes([high, low])) % words.len()];
    let name = format!("{}_{}", pick(&ADJECTIVES, a, b), pick(&NOUNS, c, d));
    Ok(if attempt == 0 { name } else { format!("{name}_{e:02x}{f:02x}") })
}

fn random<const N: usize>() -> Result<[u8; N], FileError> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; N];
    let mut source = std::fs::File::open(SOURCE).map_err(FileError::new("open", SOURCE))?;
    source.read_exact(&mut bytes).map_err(FileError::new("read", SOURCE))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn identifiers_are_64_digits_and_differ() {
        let ids: BTreeSet<String> = (0..100).map(|_| random_id().unwrap()).collect();
        assert_eq!(ids.len(), 100);
        assert!(
            ids.iter().all(|id| id.len() == 64 && id.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)))
        );
    }

    #[test]
    fn names_are_two_words() {
        let name = random_name(0).unwrap();
        let (adjective, noun) = name.split_once('_').unwrap();
        assert!(ADJECTIVES.contains(&adjective) && NOUNS.contains(&noun), "{name}");
        assert_eq!(random_name(1).unwrap().split('_').count(), 3);
    }

    #[test]
    fn no_word_stands_twice() {
        for words in [ADJECTIVES, NOUNS] {
            assert_eq!(words.iter().collect::<BTreeSet<_>>().len(), words.len());
            assert!(words.iter().all(|word| word.bytes().all(|c| c.is_ascii_lowercase())));
        }
    }
}
