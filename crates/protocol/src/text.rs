//! Texts that are too long for where they go. Pure.

/// The room for the words that tell of a cut, in bytes.
const MARK: usize = 48;

/// At most `max` bytes of a text: its middle is left out, and how much of it stands in its place. What
/// matters is said first or last.
pub fn without_middle(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let half = max.saturating_sub(MARK) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    let left_out = tail - head;
    format!(
        "{}\n[… {left_out} bytes left out]\n{}",
        &text[..head],
        &text[tail..]
    )
}

/// At most `max` bytes of a text: its end is left out, with a mark in its place.
pub fn without_end(text: &str, max: usize) -> String {
    const GAP: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub(GAP.len()));
    format!("{}{GAP}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(without_middle("ünïc", 6), "ünïc");
        assert_eq!(without_end("ünïc", 6), "ünïc");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_fits() {
        for max in 60..200 {
            let text = format!("first {} last", "ü".repeat(3_000));
            let cut = without_middle(&text, max);
            assert!(cut.len() <= max, "{max}: {cut}");
            assert!(cut.starts_with("first") && cut.ends_with("last"), "{cut}");
            let count: usize = cut
                .split(['…', ' '])
                .find_map(|word| word.parse().ok())
                .unwrap();
            let kept = cut.len() - format!("\n[… {count} bytes left out]\n").len();
            assert_eq!(count + kept, text.len());
            let cut = without_end(&text, max);
            assert!(cut.len() <= max && cut.starts_with("first") && cut.ends_with('…'));
        }
    }
}
