//! Histories that are sound, and histories that break one rule each.

mod broken;
mod random;
mod world;

use std::time::Duration;

use loom_protocol::WireError;

use super::*;

#[test]
fn a_recorder_keeps_the_order_of_sending_and_the_answers() {
    let recorder = Recorder::new();
    let item = loom_protocol::WorkId::generate();
    let first = recorder.begin(Action::Submit(ItemSpec::new(item, "rust")));
    let second = recorder.begin(Action::Cancel(item));
    second.refused(&WireError::unavailable("not just now", Duration::ZERO));
    first.accepted();
    drop(recorder.disturb(Duration::from_secs(1)));

    let history = recorder.history();
    let [submit, cancel] = &history.operations[..] else {
        panic!("{history:?}");
    };
    assert!(submit.sent <= cancel.sent && submit.accepted_at() >= Some(cancel.sent));
    // What was not possible just then may have been done all the same.
    assert_eq!(cancel.answer, None);
    let [(from, until)] = history.disturbances[..] else {
        panic!("{history:?}");
    };
    assert!(until.since_begin() >= from.since_begin() + Duration::from_secs(1));
}
