//! Names that went out of use, because the field has a better one. A reader who knows the field finds the thing under
//! the name on the right.

use std::sync::LazyLock;

/// A name that was given up, and what the thing is called.
const RENAMED: &[(&str, &str)] = &[
    ("Reign", "OwnershipTerm"),
    ("Accession", "Prepared"),
    ("accede", "acquire"),
    ("FormerDoor", "FormerApi"),
    ("kept_until", "valid_until"),
    ("Grace", "StallGuard"),
    ("Crossing", "BarrierOutcome"),
    ("Arrivals", "AppliedPositions"),
    ("Markers", "LoopbackMarkers"),
    ("Ticket", "InFlightGuard"),
    ("prolong", "extend"),
    ("enclose", "layer"),
    ("let_in", "authorize, or release_from_quarantine"),
    ("Untold", "UnacknowledgedAssignments"),
    ("found_leased", "reconcile_lease"),
    ("give_again", "redeliver"),
    ("take_back", "expire_leases"),
    ("hold_off", "cool_down"),
    ("ClaimWants", "ClaimFilter"),
    ("ClaimOrder", "Claim"),
    ("RetryOrder", "RetryBatch"),
    ("ShutdownOrder", "ShutdownCommand"),
    ("order_about", "cancel_directive"),
    ("order_home", "request_shutdown"),
    ("send_home", "request_scale_in"),
    ("called_off", "cancellation"),
    ("orders_carried", "record_directives_delivered"),
    ("ghost_heard", "unregistered_agent_heard"),
    ("KnownGraves", "GraveIndex"),
    ("LettersWanted", "PendingDeadLetters"),
    ("Deed", "ReapAction"),
    ("in_hand", "in_progress"),
    ("sightings", "watch_events"),
    ("say_goodbye", "on_offline_announced"),
    ("fall_silent", "mark_offline"),
    ("put_to_sleep", "deactivate"),
    ("Teller", "StatusPrinter"),
    ("accuse", "add_finding"),
    ("Conduct", "Behaviour"),
    ("AgentNews", "AgentNotification"),
    ("NewsDesk", "Notifier"),
    ("on_news", "on_notification"),
    ("farewell", "deregister, or summary_line"),
    ("hear_of_epoch", "note_epoch"),
    ("Ears", "WakeSubscriptions"),
    ("hear_of", "record_sign_of_life"),
    ("born", "apply_group_pause"),
    ("tell_counts", "notify_counts"),
    ("untold_count", "take_unannounced_count"),
    ("heartbeat_heard", "published_heartbeat"),
    ("own_sighted", "on_own_record"),
    ("put_sighted", "on_put"),
    ("removal_sighted", "on_removal"),
    ("leave_in_quarantine", "remove_quarantined"),
    ("said_and_written", "written_progress"),
    ("as_told", "with_live_progress"),
];
/// Words that make a definition of what follows them.
const DEFINING: &[&str] = &["struct", "enum", "trait", "type", "fn", "mod"];

/// A name is what a definition says, not a word of a sentence: only definitions are looked at.
static PATTERNS: LazyLock<Vec<(String, &str, &str)>> = LazyLock::new(|| {
    let of = |(old, new): &(&'static str, &'static str)| {
        let (old, new) = (*old, *new);
        DEFINING
            .iter()
            .map(move |word| (format!("{word} {old}"), old, new))
    };
    RENAMED.iter().flat_map(of).collect()
});

/// What a line defines under a name that went out of use, with the name in use.
pub fn out_of_use(line: &str) -> Option<(&'static str, &'static str)> {
    let line = line.trim_start();
    if line.starts_with("//") {
        return None;
    }
    let defines = |(pattern, ..): &&(String, &str, &str)| {
        line.match_indices(pattern.as_str()).any(|(at, _)| {
            let ends = line[at + pattern.len()..].chars().next();
            let begins = line[..at].chars().next_back();
            begins.is_none_or(char::is_whitespace) && !ends.is_some_and(is_of_a_name)
        })
    };
    PATTERNS
        .iter()
        .find(defines)
        .map(|(_, old, new)| (*old, *new))
}

fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_under_an_old_name_is_found_and_nothing_else() {
        assert_eq!(
            out_of_use("pub struct Reign {"),
            Some(("Reign", "OwnershipTerm"))
        );
        assert_eq!(
            out_of_use("    pub(super) async fn let_in(&self)").map(|(old, _)| old),
            Some("let_in")
        );
        assert_eq!(
            out_of_use("mod called_off;").map(|(_, new)| new),
            Some("cancellation")
        );
        assert_eq!(out_of_use("pub struct Reigning {"), None);
        assert_eq!(out_of_use("/// struct Reign was one"), None);
        assert_eq!(out_of_use("let kept = let_in(agent);"), None);
    }
}
