//! Ids that follow from a published message.

use loom_protocol::{ProjectId, Timestamp, WorkId};
use sha2::{Digest as _, Sha256};

/// The id of an item whose submission names none: the same when the message comes again.
pub(super) fn message_id(project: &ProjectId, published: Timestamp, sequence: u64) -> WorkId {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(project.as_str())
        .chain_update([0])
        .chain_update(published.as_millis().to_be_bytes())
        .chain_update(sequence.to_be_bytes())
        .finalize()
        .into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    WorkId::from_digest(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_id_and_no_other_message_has_it() {
        let project = |name: &str| ProjectId::new(name).unwrap();
        let at = Timestamp::from_millis;
        let id = message_id(&project("p"), at(1), 1);
        assert_eq!(id, message_id(&project("p"), at(1), 1));
        for other in [
            message_id(&project("q"), at(1), 1),
            message_id(&project("p"), at(2), 1),
            message_id(&project("p"), at(1), 2),
        ] {
            assert_ne!(id, other);
        }
    }
}
