//! Which format the store has, and that a program leaves one alone that a later program has made.
//!
//! The number stands in the metadata of the stream `KV_LOOM_OWNERS`, beside the version of the program that wrote it.
//! It is looked at before anything else of a store is read or written, and raised by whoever owns. A store without a
//! number is of format 1, which was written before there were numbers. [`FORMAT`] grows when a program could not read,
//! or would spoil, what the one before it has written or the other way round.

use std::collections::HashMap;

use async_nats::jetstream::stream;

use super::OwnerError;

/// The format that this program writes, and the latest that it reads.
pub const FORMAT: u32 = 1;

const NUMBER: &str = "loom-format";
const MADE_BY: &str = "loom-version";
/// What the server keeps beside ours, and writes by itself.
const OF_THE_SERVER: &str = "_nats.";

/// The metadata of a store that this program makes.
pub(super) fn ours() -> HashMap<String, String> {
    HashMap::from([
        (NUMBER.to_owned(), FORMAT.to_string()),
        (MADE_BY.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ])
}

/// The format of a store. Refuses that of a later program.
pub(super) fn check(config: &stream::Config) -> Result<u32, OwnerError> {
    let number = config.metadata.get(NUMBER);
    // Whoever writes something else there is later than this program.
    let found = number.map_or(Some(1), |number| number.parse().ok());
    found.filter(|found| *found <= FORMAT).ok_or_else(|| {
        let made_by = config.metadata.get(MADE_BY);
        OwnerError::LaterFormat {
            found: number.cloned().unwrap_or_default(),
            made_by: made_by.cloned().unwrap_or_else(|| "unknown".to_owned()),
        }
    })
}

/// The configuration with our number, where the store has an earlier format.
pub(super) fn noted(config: stream::Config) -> Result<Option<stream::Config>, OwnerError> {
    Ok((check(&config)? < FORMAT).then(|| with_our_number(config)))
}

fn with_our_number(mut config: stream::Config) -> stream::Config {
    config
        .metadata
        .retain(|name, _| !name.starts_with(OF_THE_SERVER));
    config.metadata.extend(ours());
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(number: Option<&str>) -> stream::Config {
        let mut config = stream::Config::default();
        if let Some(number) = number {
            config.metadata.insert(NUMBER.to_owned(), number.to_owned());
            config
                .metadata
                .insert(MADE_BY.to_owned(), "9.8.7".to_owned());
        }
        config
    }

    #[test]
    fn only_a_later_format_is_refused() {
        for (number, found) in [(None, 1), (Some("1"), 1), (Some("0"), 0)] {
            assert_eq!(check(&store(number)), Ok(found), "{number:?}");
        }
        let later = (FORMAT + 1).to_string();
        for number in [&*later, "4294967296", "two"] {
            let error = check(&store(Some(number))).unwrap_err().to_string();
            for part in [number, "9.8.7", env!("CARGO_PKG_VERSION")] {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
            noted(store(Some(number))).unwrap_err();
        }
    }

    #[test]
    fn the_number_is_noted_once_and_nothing_else_is_touched() {
        let mut before = store(None);
        before.metadata.insert("kept".into(), "yes".into());
        before.metadata.insert("_nats.level".into(), "1".into());
        before.metadata.insert(NUMBER.to_owned(), "0".to_owned());
        let after = noted(before).unwrap().unwrap();
        assert_eq!(after.metadata.get("kept").map(String::as_str), Some("yes"));
        assert!(!after.metadata.contains_key("_nats.level"));
        assert_eq!(noted(after).unwrap(), None);
    }
}
