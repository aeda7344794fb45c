//! The conversation of an agent program.

use serde::{Deserialize, Serialize};

use crate::id::AgentGuid;
use crate::token;

/// The conversation in which an agent program works on an item, as its agent reports it. It stays with the item over
/// attempts, so that another one may go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// The type of agent that can go on with it, like `claude-code`.
    pub agent_type: String,
    /// The program's own name for it.
    pub id: String,
    /// The machine and user that have it: random, and kept in the user's data directory, since names of hosts are not
    /// unique.
    pub host_id: String,
    /// The name of the host.
    pub hostname: String,
    /// The agent that reported it; where a report leaves it out, its sender.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent_guid: Option<AgentGuid>,
    /// The digest of the directory in which the program keeps its conversations: with another account it is another one.
    pub store: String,
    /// The directory that the program worked in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// The longest id of a conversation, in bytes.
const LONGEST_ID: usize = 256;
/// The longest name of a host, in bytes.
const LONGEST_HOSTNAME: usize = 255;
/// The longest path, in bytes.
const LONGEST_PATH: usize = 1024;

impl Session {
    /// Looks whether a report of this agent may say this.
    ///
    /// # Errors
    /// A sentence that names the field and what may stand in it.
    pub fn check(&self, sender: AgentGuid) -> Result<(), String> {
        for (name, value) in [
            ("session.agentType", &self.agent_type),
            ("session.hostId", &self.host_id),
            ("session.store", &self.store),
        ] {
            token::check_token(name, value).map_err(|error| error.to_string())?;
        }
        for (name, value, most) in [
            ("id", Some(&self.id), LONGEST_ID),
            ("hostname", Some(&self.hostname), LONGEST_HOSTNAME),
            ("path", self.path.as_ref(), LONGEST_PATH),
        ] {
            let Some(value) = value else { continue };
            if value.is_empty() || value.len() > most || value.chars().any(char::is_control) {
                return Err(format!(
                    "session.{name} is to have 1 to {most} bytes and no control characters"
                ));
            }
        }
        match self.agent_guid {
            Some(guid) if guid != sender => Err(format!(
                "session.agentGuid is {guid}, and agent {sender} reports; leave it out, or write the sender's"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            agent_type: "claude-code".into(),
            id: "7c1e".into(),
            host_id: "h-1".into(),
            hostname: "build-2".into(),
            agent_guid: None,
            store: "ab12".into(),
            path: Some("/w/shop".into()),
        }
    }

    type Spoil = fn(&mut Session);

    #[test]
    fn what_is_too_long_or_not_printable_is_named() {
        let guid = AgentGuid::generate();
        assert_eq!(session().check(guid), Ok(()));
        let cases: [(&str, Spoil); 8] = [
            ("id", |s| s.id = String::new()),
            ("id", |s| s.id = "x".repeat(257)),
            ("hostname", |s| s.hostname = "a\nb".into()),
            ("path", |s| s.path = Some("/".repeat(1025))),
            ("agentType", |s| s.agent_type = "two words".into()),
            ("hostId", |s| s.host_id = String::new()),
            ("store", |s| s.store = "d".repeat(65)),
            ("agentGuid", |s| s.agent_guid = Some(AgentGuid::generate())),
        ];
        for (field, spoil) in cases {
            let mut session = session();
            spoil(&mut session);
            let told = session.check(guid).unwrap_err();
            assert!(told.contains(&format!("session.{field}")), "{told}");
        }
    }
}
