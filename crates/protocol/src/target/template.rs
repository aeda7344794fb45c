//! The body of a webhook, and the inputs of a workflow: text with `{{name}}` in it. A name that is none is refused when
//! the target is registered; what is filled into a body is escaped as inside a JSON text, and nothing is read again.

use std::fmt::Write as _;

macro_rules! placeholders {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)+) => {
        /// What may stand in double braces.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Placeholder {
            $($(#[$doc])* $variant,)+
        }

        impl Placeholder {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name between the braces.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

placeholders! {
    /// The id of the target.
    TargetId = "targetId";
    /// Its name.
    TargetName = "targetName";
    /// The type of agent to start.
    AgentType = "agentType";
    /// When the start was asked for.
    Timestamp = "timestamp";
    /// The project.
    ProjectId = "projectId";
    /// The item that asked for an agent; empty where none did.
    WorkItemId = "workItemId";
    /// The capability that is needed; empty where none is named.
    Capability = "capability";
    /// The boundary that is needed; empty where none is named.
    Boundary = "boundary";
    /// The id of the start.
    SpinUpId = "spinUpId";
    /// The ticket that the agent registers with.
    Ticket = "ticket";
    /// Where the agent finds NATS.
    NatsUrl = "natsUrl";
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name that nothing stands for.
    #[error("has the placeholder {{{{{0}}}}}, which does not exist; there are {known}", known = known())]
    Unknown(String),
    /// Braces that are not closed.
    #[error("has `{{{{` at byte {0} without `}}}}`; close it, or write the braces apart")]
    Unclosed(usize),
}

fn known() -> String {
    let names: Vec<&str> = Placeholder::ALL.iter().map(|one| one.as_str()).collect();
    names.join(", ")
}

/// A text whose placeholders are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyTemplate {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

impl BodyTemplate {
    /// Reads a template.
    ///
    /// # Errors
    /// A placeholder is unknown, or not closed.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, from)) = rest.split_once("{{") {
            let at = text.len() - from.len() - 2;
            let (name, after) = from.split_once("}}").ok_or(TemplateError::Unclosed(at))?;
            let name = name.trim();
            let placeholder = Placeholder::ALL.iter().find(|one| one.as_str() == name);
            let unknown = || TemplateError::Unknown(name.chars().take(64).collect());
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Value(*placeholder.ok_or_else(unknown)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self { pieces })
    }

    /// The body of a target that names none: an object with everything that can be said.
    pub fn of_everything() -> Self {
        let mut pieces = Vec::new();
        for (place, placeholder) in Placeholder::ALL.iter().enumerate() {
            let opening = if place == 0 { "{" } else { "\"," };
            let name = placeholder.as_str();
            pieces.push(Piece::Text(format!("{opening}\"{name}\":\"")));
            pieces.push(Piece::Value(*placeholder));
        }
        pieces.push(Piece::Text("\"}".to_owned()));
        Self { pieces }
    }

    /// The text with every value in its place, escaped as inside a JSON text.
    pub fn fill<'a>(&self, value_of: impl Fn(Placeholder) -> &'a str) -> String {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Value(placeholder) => escape(value_of(*placeholder), &mut filled),
            }
        }
        filled
    }

    /// The text with every value in its place as it is, where the whole is no JSON.
    pub fn fill_plain(&self, value_of: impl Fn(Placeholder) -> String) -> String {
        let filled = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(placeholder) => value_of(*placeholder),
        });
        filled.collect()
    }

    /// Whether a placeholder stands in it.
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.pieces.contains(&Piece::Value(placeholder))
    }
}

fn escape(value: &str, to: &mut String) {
    for character in value.chars() {
        match character {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            '\t' => to.push_str("\\t"),
            other if other.is_control() => {
                let _ = write!(to, "\\u{:04x}", u32::from(other));
            }
            other => to.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn each_placeholder_is_filled_and_an_unknown_one_is_named() {
        let template = BodyTemplate::parse("<{{ticket}}|{{ projectId }}> }} {x}").unwrap();
        let filled = template.fill(|one| match one {
            Placeholder::Ticket => "{{projectId}}",
            _ => "p",
        });
        assert_eq!(
            filled, "<{{projectId}}|p> }} {x}",
            "what is filled in is not read"
        );
        assert!(template.has(Placeholder::Ticket) && !template.has(Placeholder::SpinUpId));
        let plain = template.fill_plain(|_| "\"{{ticket}}\n".to_owned());
        assert_eq!(plain, "<\"{{ticket}}\n|\"{{ticket}}\n> }} {x}");
        let error = BodyTemplate::parse("{{ticket}} {{tikcet}}").unwrap_err();
        assert!(error.to_string().contains("{{tikcet}}"), "{error}");
        assert!(error.to_string().contains("workItemId"), "{error}");
        let error = BodyTemplate::parse("ab{{ticket}").unwrap_err();
        assert_eq!(error, TemplateError::Unclosed(2));
        assert!(error.to_string().contains("`{{` at byte 2"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_is_filled_in_is_the_same_text_in_json(value in "\\PC*|[\\x00-\\x7f]*") {
            let everything = BodyTemplate::of_everything().fill(|_| &value);
            let read: Value = serde_json::from_str(&everything).unwrap();
            for placeholder in Placeholder::ALL {
                prop_assert_eq!(read[placeholder.as_str()].as_str(), Some(&*value));
            }
        }

        #[test]
        fn any_text_is_read_or_refused_and_one_without_braces_stays(text in "[{}a-z \\n]{0,40}|\\PC{0,40}") {
            if let Ok(template) = BodyTemplate::parse(&text) && !text.contains("{{") {
                prop_assert_eq!(template.fill(|_| ""), text);
            }
        }
    }
}
