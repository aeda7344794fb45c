//! A configuration as it comes (nested, flat, or as changes to another one), as it is stored, and as it is answered.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::config::{MechanismConfig, WORKFLOW_FILE};
use super::merging::{SECRET, apply};
use super::{Mechanism, check, limits, misread};
use crate::error::{ErrorCode, WireError};

pub(super) type Fields = Map<String, Value>;

/// Marks, in what is stored, a configuration that came flat.
const SHAPE: &str = "shape";

/// How a configuration came, and so how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConfigShape {
    /// `{mechanism: "ssh", ssh: {…}}`
    #[default]
    Nested,
    /// `{mechanism: "ssh", host: …}`
    Flat,
}

/// A configuration as somebody wrote it, not checked yet. Not printed: it may hold secrets.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schemas"), derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct RawConfig(pub Map<String, Value>);

impl fmt::Debug for RawConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a target's mechanism needs to know, checked. Serialised as it is answered: in the shape in which it came, with
/// its secrets masked. What is to be read again is made by [`TargetConfig::stored`].
#[derive(Debug, Clone, PartialEq)]
pub struct TargetConfig {
    shape: ConfigShape,
    of: MechanismConfig,
}

impl TargetConfig {
    /// A nested one of these settings.
    ///
    /// # Errors
    /// A field is missing or wrong; the error names it.
    pub fn nested(of: MechanismConfig) -> Result<Self, WireError> {
        let shape = ConfigShape::Nested;
        check::config(&of, &prefix(of.mechanism(), shape))?;
        Ok(Self { shape, of })
    }

    /// Reads a new one.
    ///
    /// # Errors
    /// It is meant for another mechanism, too large, or a field is missing or wrong; the error names it.
    pub fn read(mechanism: Mechanism, raw: &RawConfig) -> Result<Self, WireError> {
        Self::merge(mechanism, None, raw)
    }

    /// This one with changes: a field replaces the field, `null` removes it, and variables, headers, inputs and
    /// resources are merged by name. A secret that is [`MASK`](super::MASK) stays as it is. The shape stays.
    ///
    /// # Errors
    /// As of [`TargetConfig::read`].
    pub fn updated(&self, changes: &RawConfig) -> Result<Self, WireError> {
        Self::merge(self.mechanism(), Some(self), changes)
    }

    /// Whose it is.
    pub const fn mechanism(&self) -> Mechanism {
        self.of.mechanism()
    }

    /// What it says.
    pub const fn of(&self) -> &MechanismConfig {
        &self.of
    }

    /// How it came.
    pub const fn shape(&self) -> ConfigShape {
        self.shape
    }

    /// As it is stored: nested, with its secrets and the shape in which it came.
    ///
    /// # Errors
    /// None that is known.
    pub fn stored(&self) -> Result<Value, serde_json::Error> {
        let mechanism = self.mechanism();
        let mut stored =
            json!({"mechanism": mechanism, mechanism.key(): self.fields_with_secrets()?});
        if self.shape == ConfigShape::Flat {
            stored[SHAPE] = "flat".into();
        }
        Ok(stored)
    }

    /// As it is answered.
    ///
    /// # Errors
    /// None that is known.
    pub fn answered(&self) -> Result<Value, serde_json::Error> {
        let mechanism = self.mechanism();
        let mut fields = self.fields()?;
        if self.shape == ConfigShape::Nested {
            return Ok(json!({"mechanism": mechanism, mechanism.key(): fields}));
        }
        fields.insert("mechanism".to_owned(), json!(mechanism));
        match &self.of {
            // A line is what a flat command is.
            MechanismConfig::Local(config) if config.shell => {
                fields.remove("shell");
            }
            MechanismConfig::GithubActions(config) => {
                fields.insert(WORKFLOW_FILE.to_owned(), json!(config.workflow));
            }
            _ => {}
        }
        Ok(Value::Object(fields))
    }

    fn fields(&self) -> Result<Fields, serde_json::Error> {
        let fields = match &self.of {
            MechanismConfig::Local(config) => serde_json::to_value(config),
            MechanismConfig::Ssh(config) => serde_json::to_value(config),
            MechanismConfig::Kubernetes(config) => serde_json::to_value(config),
            MechanismConfig::GithubActions(config) => serde_json::to_value(config),
            MechanismConfig::Webhook(config) => serde_json::to_value(config),
        };
        match fields? {
            Value::Object(fields) => Ok(fields),
            _ => Err(serde::ser::Error::custom("a configuration is an object")),
        }
    }

    fn fields_with_secrets(&self) -> Result<Fields, serde_json::Error> {
        let mut fields = self.fields()?;
        if let Some((field, secrets)) = self.of.secrets()
            && !secrets.is_empty()
        {
            fields.insert(field.to_owned(), secrets.stored());
        }
        Ok(fields)
    }

    fn merge(
        mechanism: Mechanism,
        base: Option<&Self>,
        changes: &RawConfig,
    ) -> Result<Self, WireError> {
        within_limit(&changes.0)?;
        let (came, changes) = fields_of(mechanism, &changes.0)?;
        let prefix = prefix(mechanism, came);
        check_own(mechanism, &changes, &prefix)?;
        let broken = |error: serde_json::Error| WireError::invalid(format!("config: {error}"));
        let stored = base.map(Self::fields_with_secrets).transpose();
        let mut merged = stored.map_err(broken)?.unwrap_or_default();
        for (name, value) in changes {
            apply(&mut merged, name, value, &prefix)?;
        }
        within_limit(&merged)?;
        let of = decode(mechanism, merged, &prefix)?;
        check::config(&of, &prefix)?;
        let shape = base.map_or(came, |base| base.shape);
        Ok(Self { shape, of })
    }
}

fn prefix(mechanism: Mechanism, shape: ConfigShape) -> String {
    match shape {
        ConfigShape::Nested => format!("config.{}.", mechanism.key()),
        ConfigShape::Flat => "config.".to_owned(),
    }
}

fn within_limit(fields: &Fields) -> Result<(), WireError> {
    let size = serde_json::to_vec(fields).map_or(usize::MAX, |json| json.len());
    if size <= limits::CONFIG {
        return Ok(());
    }
    let most = limits::CONFIG;
    let message = format!("config has {size} bytes; at most {most} are allowed: shorten it");
    Err(check::with_field(
        WireError::new(ErrorCode::TooLarge, message),
        "config",
    ))
}

/// The fields of a configuration for this mechanism, and the shape in which they came.
fn fields_of(mechanism: Mechanism, config: &Fields) -> Result<(ConfigShape, Fields), WireError> {
    let present = |value: &&Value| !value.is_null();
    if let Some(said) = config.get("mechanism").filter(present)
        && said.as_str() != Some(mechanism.as_str())
    {
        let said: String = said.to_string().chars().take(64).collect();
        let message =
            format!("is {said}, and the target's mechanism is {mechanism}: make them equal");
        return Err(check::refused("config.", "mechanism", &message));
    }
    let foreign = |other: &&Mechanism| {
        **other != mechanism && config.get(other.key()).is_some_and(Value::is_object)
    };
    if let Some(other) = Mechanism::ALL.iter().find(foreign) {
        let message = format!(
            "is for another mechanism than {mechanism}: leave it out, or register another target"
        );
        return Err(check::refused("config.", other.key(), &message));
    }
    let nested = config.get(mechanism.key()).filter(present);
    let (shape, mut fields) = match nested {
        Some(Value::Object(fields))
            if config.get(SHAPE).and_then(Value::as_str) == Some("flat") =>
        {
            return Ok((ConfigShape::Flat, fields.clone()));
        }
        Some(Value::Object(fields)) => (ConfigShape::Nested, fields.clone()),
        Some(_) => {
            return Err(check::refused(
                "config.",
                mechanism.key(),
                "is not an object; write its fields in braces",
            ));
        }
        None => (ConfigShape::Flat, config.clone()),
    };
    if shape == ConfigShape::Flat {
        fields.remove("mechanism");
        if let Some(workflow) = fields.remove(WORKFLOW_FILE)
            && mechanism == Mechanism::GithubActions
        {
            fields.entry("workflow").or_insert(workflow);
        }
    }
    if mechanism == Mechanism::Local
        && fields.contains_key("command")
        && !fields.contains_key("shell")
    {
        let has_args = fields.get("args").is_some_and(|args| !args.is_null());
        let is_line = shape == ConfigShape::Flat && !has_args;
        fields.insert("shell".to_owned(), is_line.into());
    }
    Ok((shape, fields))
}

/// Refuses a field that only another mechanism has: what was meant for another machine would be done on this one. What
/// nobody knows is passed over.
fn check_own(mechanism: Mechanism, fields: &Fields, prefix: &str) -> Result<(), WireError> {
    for (name, value) in fields {
        if value.is_null() || mechanism.has_field(name) {
            continue;
        }
        let others = Mechanism::ALL.into_iter().filter(|of| of.has_field(name));
        let others: Vec<&str> = others.map(Mechanism::as_str).collect();
        if !others.is_empty() {
            let problem = format!(
                "is for the mechanism {}, and the target's is {mechanism}; leave it out",
                others.join(" or ")
            );
            return Err(check::refused(prefix, name, &problem));
        }
    }
    Ok(())
}

fn decode(
    mechanism: Mechanism,
    fields: Fields,
    prefix: &str,
) -> Result<MechanismConfig, WireError> {
    Ok(match mechanism {
        Mechanism::Local => MechanismConfig::Local(typed(fields, prefix)?),
        Mechanism::Ssh => MechanismConfig::Ssh(typed(fields, prefix)?),
        Mechanism::Kubernetes => MechanismConfig::Kubernetes(typed(fields, prefix)?),
        Mechanism::GithubActions => MechanismConfig::GithubActions(typed(fields, prefix)?),
        Mechanism::Webhook => MechanismConfig::Webhook(typed(fields, prefix)?),
    })
}

fn typed<T: DeserializeOwned>(fields: Fields, prefix: &str) -> Result<T, WireError> {
    serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
        let path: String = error.path().to_string().chars().take(128).collect();
        // A place in a list is named as where it is checked: `args.0`.
        let path = path.replace('[', ".").replace(']', "");
        let secret = SECRET.iter().any(|field| path.starts_with(field));
        // What stands there may be a secret.
        let problem = if secret {
            "can't be read: takes texts only".to_owned()
        } else {
            misread::sentence(&error.inner().to_string())
        };
        check::refused(prefix, &path, &problem)
    })
}

impl Serialize for TargetConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let answered = self.answered().map_err(S::Error::custom)?;
        answered.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TargetConfig {
    /// Reads what was stored or answered; there the mechanism is always named.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = RawConfig::deserialize(deserializer)?;
        let named = raw.0.get("mechanism").cloned().unwrap_or_default();
        let mechanism = Mechanism::deserialize(named).map_err(D::Error::custom)?;
        let (shape, fields) = fields_of(mechanism, &raw.0).map_err(D::Error::custom)?;
        let of = decode(mechanism, fields, &prefix(mechanism, shape)).map_err(D::Error::custom)?;
        Ok(Self { shape, of })
    }
}

#[cfg(any(test, feature = "schemas"))]
impl schemars::JsonSchema for TargetConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TargetConfig".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        use super::config::{
            GithubActionsConfig, KubernetesConfig, LocalConfig, SshConfig, WebhookConfig,
        };
        let local = generator.subschema_for::<LocalConfig>();
        let ssh = generator.subschema_for::<SshConfig>();
        let kubernetes = generator.subschema_for::<KubernetesConfig>();
        let github = generator.subschema_for::<GithubActionsConfig>();
        let webhook = generator.subschema_for::<WebhookConfig>();
        schemars::json_schema!({
            "description": "Below the key of its mechanism, or flat beside `mechanism`.",
            "type": "object",
            "required": ["mechanism"],
            "properties": {
                "mechanism": generator.subschema_for::<Mechanism>(),
                "local": local,
                "ssh": ssh,
                "kubernetes": kubernetes,
                "githubActions": github,
                "webhook": webhook,
            }
        })
    }
}
