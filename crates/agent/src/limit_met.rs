//! What is nobody's failure: that an account or its provider stands in the way.

use std::fmt;

use loom_protocol::Timestamp;

/// What is nobody's failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// An account has used its share; that ends at a time.
    Limit,
    /// The provider is in trouble; that ends by itself.
    Outage,
    /// A person has to act: to pay, to sign in.
    Account,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limit => "a usage limit is met",
            Self::Outage => "the provider is in trouble",
            Self::Account => "the account needs a person",
        })
    }
}

/// A usage limit that a program has met, or what else is nobody's failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitMet {
    /// Which of them.
    pub class: Class,
    /// Until when, if it says so and it can be understood.
    pub until: Option<Timestamp>,
    /// What it said.
    pub said: String,
}
