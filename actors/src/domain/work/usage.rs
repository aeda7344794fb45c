//! How what attempts report of tokens and money adds up. Pure.
//!
//! A report tells all that its own attempt has used so far, so within an attempt the most that was told counts: one that
//! is repeated, late or lower adds nothing, and no order of reports makes another sum. Over attempts it adds up. What
//! an attempt used that was lost is what it had last reported.

use loom_protocol::work::{CostSource, Usage};

/// A report with what follows from what it says: all tokens from their parts, and where the money comes from.
pub fn complete(reported: Usage) -> Usage {
    let [input, output, cache_read, cache_write, _] = reported.counts().map(|(_, count)| count);
    let of_parts = [input, output, cache_read, cache_write]
        .into_iter()
        .fold(None, |sum, part| both(sum, part, u64::saturating_add));
    let tokens = reported.tokens.or(of_parts);
    let cost_source = match reported.cost_usd {
        Some(_) => Some(reported.cost_source.unwrap_or(CostSource::Reported)),
        None => tokens.map(|_| CostSource::Unknown),
    };
    Usage {
        tokens,
        cost_source,
        ..reported
    }
}

/// What one attempt has used, by what was known of it and what it reports now.
pub fn within_attempt(known: Option<Usage>, reported: Option<Usage>) -> Option<Usage> {
    let (known, reported) = match (known.map(complete), reported.map(complete)) {
        (Some(known), Some(reported)) => (known, reported),
        (known, reported) => return known.or(reported),
    };
    let (cost_usd, cost_source) = larger_cost(&known, &reported);
    Some(Usage {
        cost_usd,
        cost_source,
        ..counted(known, reported, u64::max)
    })
}

/// What attempts have used together: those before, and one more.
pub fn over_attempts(before: Option<Usage>, last: Option<Usage>) -> Option<Usage> {
    let (before, last) = match (before.map(complete), last.map(complete)) {
        (Some(before), Some(last)) => (before, last),
        (before, last) => return before.or(last),
    };
    let cost_usd = both(before.cost_usd, last.cost_usd, |before, last| before + last);
    let cost_source = both(before.cost_source, last.cost_source, CostSource::max);
    Some(Usage {
        cost_usd,
        cost_source,
        ..counted(before, last, u64::saturating_add)
    })
}

fn counted(one: Usage, other: Usage, with: impl Fn(u64, u64) -> u64) -> Usage {
    let each = |one, other| both(one, other, &with);
    Usage {
        input_tokens: each(one.input_tokens, other.input_tokens),
        output_tokens: each(one.output_tokens, other.output_tokens),
        cache_read_tokens: each(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens: each(one.cache_write_tokens, other.cache_write_tokens),
        tokens: each(one.tokens, other.tokens),
        model: other.model.or(one.model),
        ..Usage::default()
    }
}

/// Of the same cost the better known one.
fn larger_cost(one: &Usage, other: &Usage) -> (Option<f64>, Option<CostSource>) {
    let (Some(of_one), Some(of_other)) = (one.cost_usd, other.cost_usd) else {
        let has_cost = if one.cost_usd.is_some() { one } else { other };
        let source = has_cost.cost_source.or(one.cost_source);
        return (has_cost.cost_usd, source);
    };
    let better_known = other.cost_source.cmp(&one.cost_source);
    let larger = match of_one.total_cmp(&of_other).then(better_known) {
        std::cmp::Ordering::Less => other,
        _ => one,
    };
    (larger.cost_usd, larger.cost_source)
}

fn both<T>(one: Option<T>, other: Option<T>, with: impl Fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(with(one, other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
