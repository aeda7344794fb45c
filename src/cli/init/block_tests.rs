use super::*;
use proptest::prelude::*;

#[test]
fn an_empty_file_has_the_block_and_nothing_else() {
    assert_eq!(with("").unwrap().unwrap(), whole("\n"));
}

#[test]
fn an_old_block_is_replaced_where_it_stands() {
    let old = format!("# Ours\n{BEGINS_WITH} (0.0) -->\nold words\n{END}\nmore of ours\n");
    let new = with(&old).unwrap().unwrap();
    assert_eq!(new, format!("# Ours\n{}more of ours\n", whole("\n")));
    assert!(is_in(&old));
}

#[test]
fn half_a_block_and_two_of_them_are_refused_with_their_lines() {
    let begins = format!("one\n{BEGIN}\nthree\n");
    assert_eq!(with(&begins), Err(Broken::NoEnd(2)));
    assert_eq!(with(&format!("one\n{END}\n")), Err(Broken::NoBegin(2)));
    let block = whole("\n");
    let lines = block.lines().count();
    assert_eq!(
        without(&format!("{block}{block}")),
        Err(Broken::Second(lines + 1))
    );
    assert_eq!(
        with(&format!("{BEGIN}\n{BEGIN}\n{END}\n")),
        Err(Broken::Second(2))
    );
}

#[test]
fn the_line_feeds_of_the_file_are_kept() {
    let new = with("# Ours\r\n").unwrap().unwrap();
    assert!(new.starts_with("# Ours\r\n\r\n<!-- loom"), "{new:?}");
    assert_eq!(new.matches('\n').count(), new.matches("\r\n").count());
}

#[test]
fn a_block_without_a_last_line_feed_is_up_to_date() {
    let text = whole("\n");
    assert_eq!(with(text.trim_end()), Ok(None));
}

proptest! {
    #[test]
    fn written_twice_it_is_as_written_once_and_what_was_there_stays(
        text in "([a-z<!-]{0,12}\r?\n){0,6}[a-z]{0,5}",
    ) {
        let once = with(&text).unwrap().unwrap();
        prop_assert!(once.starts_with(&text));
        prop_assert_eq!(with(&once), Ok(None));
        let without = without(&once).unwrap().unwrap();
        // A last line gets its line feed; nothing else is left of the block.
        let line_feed = line_feed_of(&text);
        let ended = text.is_empty() || text.ends_with('\n');
        let expected = if ended { text } else { format!("{text}{line_feed}") };
        prop_assert_eq!(without, expected);
    }
}
