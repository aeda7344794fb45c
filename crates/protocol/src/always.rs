//! Fields that an agent always has on the wire: what is not known stands there as a value of its own.

/// Text; `""` where there is none.
pub mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the text, or `""`.
    #[allow(clippy::ref_option, reason = "the signature is serde's")]
    pub fn serialize<S: Serializer>(value: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_deref().unwrap_or_default())
    }

    /// Reads text; `""` and `null` are none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        Ok(text.filter(|text| !text.is_empty()))
    }
}

/// Who may see an agent; `project-only` where it does not say.
pub mod visibility {
    use serde::{Deserializer, Serializer};

    /// What an agent has that does not say who may see it.
    pub const DEFAULT: &str = "project-only";

    /// Writes the word, or the default.
    #[allow(clippy::ref_option, reason = "the signature is serde's")]
    pub fn serialize<S: Serializer>(value: &Option<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.as_deref().unwrap_or(DEFAULT))
    }

    /// Reads the word; the default, `""` and `null` are none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        let word = super::text::deserialize(from)?;
        Ok(word.filter(|word| word != DEFAULT))
    }
}

/// A number; 0 where there is none.
pub mod number {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the number, or 0.
    #[allow(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "the signature is serde's"
    )]
    pub fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.unwrap_or_default())
    }

    /// Reads a number; 0 and `null` are none.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        let number = Option::<u64>::deserialize(from)?;
        Ok(number.filter(|number| *number != 0))
    }
}

#[cfg(test)]
mod tests {
    use crate::agent::{Agent, RegisterRequest};
    use crate::id::AgentGuid;

    #[test]
    fn an_agent_always_has_what_existing_clients_read() {
        let bare = serde_json::json!({
            "guid": AgentGuid::generate(), "handle": "a", "agentType": "t", "status": "online",
            "capabilities": [], "boundaries": ["default"], "projectId": "p",
            "currentTaskCount": 0, "maxConcurrentTasks": 1, "lastHeartbeat": "2026-01-01T00:00:00Z",
            "lastActivity": "2026-01-01T00:00:00Z", "registeredAt": "2026-01-01T00:00:00Z",
        });
        let agent: Agent = serde_json::from_value(bare).unwrap();
        let shown = serde_json::to_value(&agent).unwrap();
        assert_eq!(shown["hostname"], "");
        assert_eq!(shown["username"], "");
        assert_eq!(shown["visibility"], "project-only");
        assert_eq!(shown["spindownAfterIdleMs"], 0);
        assert_eq!(serde_json::from_value::<Agent>(shown).unwrap(), agent);
    }

    #[test]
    fn scope_and_visibility_may_stand_in_one_registration() {
        let both = serde_json::json!({"scope": "team", "visibility": "public"});
        let request: RegisterRequest = serde_json::from_value(both).unwrap();
        assert_eq!(request.visibility.as_deref(), Some("public"));
        assert_eq!(request.scope.as_deref(), Some("team"));
    }
}
