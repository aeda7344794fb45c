//! Answers that NATS could not carry, shortened: what was recorded is never answered as an error.

use loom_protocol::work::{CompleteAnswer, ItemAnswer, WorkItem};

/// How much of a text is left, in bytes.
const LEFT: usize = 128;

/// The answer with its items' long texts cut, and their labels and earlier errors left out. What
/// was claimed stays whole: its agent knows it from nowhere else.
pub fn without_long_texts(mut answer: CompleteAnswer) -> CompleteAnswer {
    match &mut answer {
        CompleteAnswer::One { item, .. } => shorten(item),
        CompleteAnswer::Many { items, .. } => {
            for item in items {
                if let ItemAnswer::Done(item) = item {
                    shorten(item);
                }
            }
        }
    }
    answer
}

fn shorten(item: &mut WorkItem) {
    item.labels.clear();
    item.errors.clear();
    cut(&mut item.description);
    item.progress_message.as_mut().map(cut);
    if let Some(error) = &mut item.error {
        cut(&mut error.message);
    }
    if let Some(cancel) = &mut item.cancel {
        cut(&mut cancel.by);
        cancel.reason.as_mut().map(cut);
    }
}

fn cut(text: &mut String) {
    if text.len() > LEFT {
        text.truncate(text.floor_char_boundary(LEFT));
        text.push('…');
    }
}
