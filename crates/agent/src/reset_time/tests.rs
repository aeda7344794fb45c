use super::*;
use proptest::prelude::*;

/// A Wednesday afternoon in UTC.
const NOW: &str = "2026-07-29T14:00:00.000Z";

fn read(text: &str) -> Option<String> {
    read_at(text, NOW, &TimeZone::UTC)
}

fn read_at(text: &str, now: &str, zone: &TimeZone) -> Option<String> {
    let read = reset_time(text, now.parse().unwrap(), zone);
    read.map(|(time, _)| time.to_string())
}

#[test]
fn what_programs_say_is_understood() {
    for (said, meant) in [
        // Instants.
        ("2026-07-29T17:00:00+02:00", "2026-07-29T15:00:00.000Z"),
        ("2026-07-29T17:00:00.123Z", "2026-07-29T17:00:00.000Z"),
        ("2026-07-29 17:00", "2026-07-29T17:00:00.000Z"),
        ("2026-08-02", "2026-08-02T00:00:00.000Z"),
        ("1785340800", "2026-07-29T16:00:00.000Z"),
        ("1785340800000", "2026-07-29T16:00:00.000Z"),
        ("\": 1785340800, \"x\": 1", "2026-07-29T16:00:00.000Z"),
        // Durations.
        ("45", "2026-07-29T14:00:45.000Z"),
        ("2 days 17 hours 14 minutes", "2026-08-01T07:14:00.000Z"),
        ("5 days 22 hours 11\nminutes.", "2026-08-04T12:11:00.000Z"),
        ("2 hours", "2026-07-29T16:00:00.000Z"),
        ("in 2 hours", "2026-07-29T16:00:00.000Z"),
        ("8h44m7s", "2026-07-29T22:44:07.000Z"),
        ("1h 30min", "2026-07-29T15:30:00.000Z"),
        ("34.07s", "2026-07-29T14:00:34.070Z"),
        ("after 840 seconds", "2026-07-29T14:14:00.000Z"),
        ("2 minutes before trying again", "2026-07-29T14:02:00.000Z"),
        (
            "15 hours 23 minutes. Please review our Terms",
            "2026-07-30T05:23:00.000Z",
        ),
        ("1 day, 2 hrs and 3 mins", "2026-07-30T16:03:00.000Z"),
        ("250ms", "2026-07-29T14:00:00.250Z"),
        ("less than a minute", "2026-07-29T14:01:00.000Z"),
        ("about an hour", "2026-07-29T15:00:00.000Z"),
        ("half an hour", "2026-07-29T14:30:00.000Z"),
        ("an hour and a half", "2026-07-29T15:30:00.000Z"),
        ("two hours and fifteen minutes", "2026-07-29T16:15:00.000Z"),
        ("twenty-four hours", "2026-07-30T14:00:00.000Z"),
        ("a few minutes", "2026-07-29T14:03:00.000Z"),
        ("a couple of hours", "2026-07-29T16:00:00.000Z"),
        // Clocks.
        ("3pm", "2026-07-29T15:00:00.000Z"),
        ("3 p.m.", "2026-07-29T15:00:00.000Z"),
        ("12:50am", "2026-07-30T00:50:00.000Z"),
        ("2:51 PM", "2026-07-29T14:51:00.000Z"),
        ("7:38 PM.", "2026-07-29T19:38:00.000Z"),
        ("18:44", "2026-07-29T18:44:00.000Z"),
        ("12pm", "2026-07-30T12:00:00.000Z"),
        ("noon", "2026-07-30T12:00:00.000Z"),
        ("midnight", "2026-07-30T00:00:00.000Z"),
        // Zones.
        ("3pm (America/Bogota)", "2026-07-29T20:00:00.000Z"),
        ("12:50am (America/Los_Angeles)", "2026-07-30T07:50:00.000Z"),
        ("10am (Asia/Seoul) · /upgrade", "2026-07-30T01:00:00.000Z"),
        ("5:10pm (Europe/Paris)", "2026-07-29T15:10:00.000Z"),
        ("4pm (UTC)", "2026-07-29T16:00:00.000Z"),
        ("4pm GMT+1", "2026-07-29T15:00:00.000Z"),
        ("4pm (GMT+1)", "2026-07-29T15:00:00.000Z"),
        ("4pm UTC-5", "2026-07-29T21:00:00.000Z"),
        ("4pm UTC+05:30", "2026-07-30T10:30:00.000Z"),
        // The signs of these are turned around by those who named them.
        ("6pm (Etc/GMT-3)", "2026-07-29T15:00:00.000Z"),
        ("6pm Etc/GMT+3", "2026-07-29T21:00:00.000Z"),
        ("at 4pm PST", "2026-07-30T00:00:00.000Z"),
        ("4pm PDT", "2026-07-29T23:00:00.000Z"),
        ("4pm PT", "2026-07-29T23:00:00.000Z"),
        ("4pm EST", "2026-07-29T21:00:00.000Z"),
        ("4pm CET", "2026-07-29T15:00:00.000Z"),
        ("10pm IST", "2026-07-29T16:30:00.000Z"),
        ("9pm (Nowhere/City)", "2026-07-29T21:00:00.000Z"),
        ("9pm Mars time", "2026-07-29T21:00:00.000Z"),
        // Days.
        ("tomorrow at 10am", "2026-07-30T10:00:00.000Z"),
        ("tomorrow", "2026-07-30T00:00:00.000Z"),
        ("10am tomorrow (Asia/Seoul)", "2026-07-30T01:00:00.000Z"),
        ("today at 5pm", "2026-07-29T17:00:00.000Z"),
        ("Monday", "2026-08-03T00:00:00.000Z"),
        ("next Monday at 9:30 am", "2026-08-03T09:30:00.000Z"),
        ("Wednesday", "2026-08-05T00:00:00.000Z"),
        ("Wed 6pm", "2026-07-29T18:00:00.000Z"),
        ("Wed 6am", "2026-08-05T06:00:00.000Z"),
        ("on Thurs, 8am PT", "2026-07-30T15:00:00.000Z"),
        ("Jul 31, 2am (UTC)", "2026-07-31T02:00:00.000Z"),
        ("Sep 15 at 7pm", "2026-09-15T19:00:00.000Z"),
        ("Sept. 15", "2026-09-15T00:00:00.000Z"),
        (
            "Feb 20, 5pm (Africa/Libreville)",
            "2027-02-20T16:00:00.000Z",
        ),
        ("Aug 20th, 2026 6:38 AM", "2026-08-20T06:38:00.000Z"),
        ("August 1st", "2026-08-01T00:00:00.000Z"),
        ("the 2nd of August at 6:00", "2026-08-02T06:00:00.000Z"),
        ("3 Aug 2026, 18:00 CEST", "2026-08-03T16:00:00.000Z"),
        // What has just passed is now, and not tomorrow.
        ("1:55 PM", NOW),
        ("2pm", NOW),
        ("Jul 29 at 1:30pm", NOW),
        ("today at 9am", NOW),
        ("Wed 1:50pm", NOW),
        ("1000000000", NOW),
        ("2020-01-01T00:00:00Z", NOW),
    ] {
        assert_eq!(read(said).as_deref(), Some(meant), "{said:?}");
    }
}

#[test]
fn what_is_no_time_is_none() {
    for said in [
        "",
        "soon",
        "a moment",
        "each test",
        "every 5h and every week",
        "25:00",
        "13pm",
        "Foo 3 at 4",
        "3 apples",
        "Feb 30, 5pm",
        "(UTC)",
        "today",
        "may be later",
        "the counter before the next call",
        "1234567",
    ] {
        assert_eq!(read(said), None, "{said:?}");
    }
}

#[test]
fn the_text_may_go_on_and_its_length_is_told() {
    for (text, time) in [
        ("in 5 minutes. Or do not.", "in 5 minutes"),
        ("3pm (Europe/Paris) · more", "3pm (Europe/Paris"),
        ("9pm on all days", "9pm"),
        ("1785340800\",\"models\":9", "1785340800"),
    ] {
        let (_, length) = reset_time(text, NOW.parse().unwrap(), &TimeZone::UTC).unwrap();
        assert_eq!(&text[..length], time);
    }
}

#[test]
fn a_time_without_a_zone_is_that_of_the_agent() {
    let zone = TimeZone::get("America/New_York").unwrap();
    for said in ["3pm", "3pm (Nowhere/City)"] {
        let read = read_at(said, NOW, &zone);
        assert_eq!(read.as_deref(), Some("2026-07-29T19:00:00.000Z"));
    }
    // The day there is another one than in UTC.
    let read = read_at("tomorrow", "2026-07-30T02:00:00.000Z", &zone);
    assert_eq!(read.as_deref(), Some("2026-07-30T04:00:00.000Z"));
}

proptest! {
    /// Whatever is said, it is read without a panic, and never a time in the past.
    #[test]
    fn any_text_is_read_and_no_time_is_in_the_past(
        text in prop_oneof![
            "\\PC{0,40}",
            "(in |at |[0-9]{1,13}|:|am|pm|jul|mon|tomorrow|gmt|[+-]|/| |h|m|s|th){0,12}",
        ],
    ) {
        let now: Timestamp = NOW.parse().unwrap();
        if let Some((time, length)) = reset_time(&text, now, &TimeZone::UTC) {
            prop_assert!(time >= now && text.is_char_boundary(length));
        }
    }

    #[test]
    fn a_time_of_day_is_the_next_one(hour in 1_i64..=12, minute in 0_i64..60, pm in any::<bool>()) {
        let half = if pm { "pm" } else { "am" };
        let now: Timestamp = NOW.parse().unwrap();
        let time = reset_time(&format!("{hour}:{minute:02}{half}"), now, &TimeZone::UTC);
        let (time, _) = time.unwrap();
        prop_assert!(time >= now && time.since(now) <= Duration::from_hours(24));
        // Never until tomorrow for what was a moment ago.
        prop_assert!(time.since(now) <= Duration::from_mins(24 * 60 - 15), "{}", time);
    }
}
