//! A setting is said once: a line of [`section!`](crate::section) is its key, its type, its default, its bounds and its
//! sentence. The field of the struct, the default, the sample, the checks and what is shown all come from there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use loom_nats::server::Profile;
use loom_protocol::ProjectId;
use loom_protocol::target::Mechanism;
use loom_protocol::work::Reason;
use serde::Serialize;
use serde::de::DeserializeOwned;
pub use toml::Value;

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Text that nobody prints.
    Secret,
    /// A list of some of these words; commas between them in the environment.
    SomeOf(&'static [&'static str]),
    /// A list of texts that nobody prints; commas between them in the environment.
    Secrets,
    /// The URL of a NATS server, or several with commas between them.
    ServerUrl,
    /// An IP address and a port.
    Address,
    /// A length of time, text with a unit; at least so many milliseconds.
    Duration(u64),
    /// A whole number between two bounds, both allowed.
    Whole(i64, i64),
    /// `true` or `false`.
    Flag,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A project id.
    Project,
    /// Tables of their own: `[[section.name]]`. They stand in the file only.
    Tables,
}

impl Kind {
    /// A list of such values.
    const fn list(self) -> Self {
        match self {
            Self::OneOf(words) => Self::SomeOf(words),
            Self::Secret => Self::Secrets,
            _ => panic!("no key takes a list of these"),
        }
    }
}

/// A length of time that is not shorter than this.
pub const fn at_least_ms(milliseconds: u64) -> Kind {
    Kind::Duration(milliseconds)
}

/// A whole number from `least` to `most`.
pub const fn between(least: i64, most: i64) -> Kind {
    Kind::Whole(least, most)
}

/// What stands at a path.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A key, and what it takes.
    Key(Kind),
    /// More keys and sections.
    Section(Section),
}

impl Shape {
    /// What a section has of its own; of a key nothing.
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::Key(_) => &[],
            Self::Section(section) => section.fields,
        }
    }

    /// Everything that may stand in a section; of a key nothing.
    pub fn all(self) -> impl Iterator<Item = &'static Field> {
        let own: &[Field] = match self {
            Self::Key(_) => &[],
            Self::Section(section) => section.own,
        };
        self.fields().iter().chain(own)
    }
}

/// What may stand in a section.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Its keys, and after them the sections below it.
    pub fields: &'static [Field],
    /// Sections below it that repeat its keys, each optional.
    pub own: &'static [Field],
}

/// One line of a section.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The name within the section.
    pub name: &'static str,
    /// What it means.
    pub sentence: &'static str,
    /// What stands there.
    pub shape: Shape,
    /// A value to show where there is no default.
    pub example: Option<&'static str>,
}

/// What can be set and asked by path: one value, or a section of them.
pub trait Setting {
    /// What it is.
    const SHAPE: Shape;

    /// Sets what stands at `path` below this one (empty: this one). Nothing else changes, so that what nobody sets
    /// keeps its default.
    ///
    /// # Errors
    /// A path that is not there, or a value of another type. Bounds are not checked here.
    fn set(&mut self, path: &str, value: Value) -> Result<(), String>;

    /// What stands at `path` below this one (empty: this one, of a section all that is set in it). Secrets are hidden.
    fn get(&self, path: &str) -> Option<Value>;
}

/// One value, written as one TOML value. The bounds of its kind are those of the type; a key may have narrower ones.
pub trait Scalar: Serialize + DeserializeOwned {
    /// What a key of this type takes.
    const KIND: Kind;

    /// Reads a value.
    ///
    /// # Errors
    /// A value of another type.
    fn read(value: Value) -> Result<Self, String> {
        let read = value.try_into();
        read.map_err(|error: toml::de::Error| error.message().to_owned())
    }

    /// Writes the value; a secret hidden.
    fn write(&self) -> Option<Value> {
        Value::try_from(self).ok()
    }
}

impl<T: Scalar> Setting for T {
    const SHAPE: Shape = Shape::Key(T::KIND);

    fn set(&mut self, path: &str, value: Value) -> Result<(), String> {
        *self = at_its_end(path, value).and_then(T::read)?;
        Ok(())
    }

    fn get(&self, path: &str) -> Option<Value> {
        path.is_empty().then(|| self.write())?
    }
}

impl<T: Scalar> Setting for Option<T> {
    const SHAPE: Shape = Shape::Key(T::KIND);

    fn set(&mut self, path: &str, value: Value) -> Result<(), String> {
        *self = Some(at_its_end(path, value).and_then(T::read)?);
        Ok(())
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.as_ref().filter(|_| path.is_empty())?.write()
    }
}

fn at_its_end(path: &str, value: Value) -> Result<Value, String> {
    if path.is_empty() {
        Ok(value)
    } else {
        Err(no_such(path))
    }
}

/// What [`Setting::set`] says of a path that is not there.
pub fn no_such(path: &str) -> String {
    format!("there is no {path}")
}

/// The first name of a path, and what follows it.
pub fn split(path: &str) -> (&str, &str) {
    path.split_once('.').unwrap_or((path, ""))
}

macro_rules! scalars {
    ($($type:ty: $kind:expr;)+) => {
        $(impl Scalar for $type { const KIND: Kind = $kind; })+
    };
}

scalars! {
    bool: Kind::Flag;
    u8: between(0, 0xff);
    u16: between(0, 0xffff);
    u32: between(0, 0xffff_ffff);
    usize: between(0, i64::MAX);
    String: Kind::Text;
    PathBuf: Kind::Text;
    SocketAddr: Kind::Address;
    ProjectId: Kind::Project;
    Mechanism: Kind::OneOf(&[
        Mechanism::Local.as_str(),
        Mechanism::Ssh.as_str(),
        Mechanism::Kubernetes.as_str(),
        Mechanism::GithubActions.as_str(),
        Mechanism::Webhook.as_str(),
    ]);
    Profile: Kind::OneOf(&["safe", "fast"]);
    // Those that may be put back: neither what was never an item, nor what somebody called off.
    Reason: Kind::OneOf(&[
        Reason::AgentError.as_str(),
        Reason::UsageLimit.as_str(),
        Reason::Timeout.as_str(),
        Reason::AgentLost.as_str(),
        Reason::NotStarted.as_str(),
        Reason::Released.as_str(),
        Reason::Deadline.as_str(),
        Reason::NoResult.as_str(),
        Reason::Denied.as_str(),
        Reason::Checks.as_str(),
        Reason::Outage.as_str(),
        Reason::Account.as_str(),
    ]);
}

impl<T: Scalar> Scalar for Vec<T> {
    const KIND: Kind = T::KIND.list();
}

/// Text with a unit, like `"30s"` or `"1h 30m"`.
impl Scalar for Duration {
    const KIND: Kind = at_least_ms(0);

    fn read(value: Value) -> Result<Self, String> {
        let text = value
            .as_str()
            .ok_or("a duration is text with a unit, like \"30s\"")?;
        humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is not a duration: {error}"))
    }

    fn write(&self) -> Option<Value> {
        let text = humantime::format_duration(*self).to_string();
        Some(Value::String(text))
    }
}

/// Makes a struct of settings, a line per key:
///
/// ```
/// use loom_actors::section;
/// use loom_actors::settings::{Setting as _, between};
///
/// section! {
///     /// `[printer]`
///     pub struct PrinterSettings {
///         /// How many copies are printed.
///         copies: u32 [between(1, 99)] = 1;
///         /// Where the paper lies.
///         tray: Option<String>, like "upper";
///     }
/// }
///
/// let mut printer = PrinterSettings::default();
/// printer.set("copies", 2.into()).unwrap();
/// assert_eq!((printer.copies, printer.tray), (2, None));
/// ```
///
/// The doc comment is the sentence that the sample carries. `[…]` narrows what the type takes; without `= …` the
/// default is that of the type; `like …` stands in the sample where there is no default; `as "…"` is the key where that is
/// no name that a field may have. A section below this one is a field like any other, and comes after the keys.
#[macro_export]
macro_rules! section {
    (@default) => { ::core::default::Default::default() };
    (@default $default:expr) => { $default };
    (@shape $type:ty) => { <$type as $crate::settings::Setting>::SHAPE };
    (@shape $type:ty, $kind:expr) => { $crate::settings::Shape::Key($kind) };
    (@key $name:ident) => { stringify!($name) };
    (@key $name:ident, $key:literal) => { $key };
    (@example) => { ::core::option::Option::None };
    (@example $example:literal) => { ::core::option::Option::Some($example) };
    (
        $(#[$about:meta])*
        pub struct $section:ident {
            $(
                $(#[doc = $sentence:literal])+
                $name:ident $(as $key:literal)?: $type:ty $([$kind:expr])? $(= $default:expr)? $(, like $example:literal)?;
            )+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $section {
            $($(#[doc = $sentence])+ pub $name: $type,)+
        }

        impl ::core::default::Default for $section {
            fn default() -> Self {
                Self { $($name: $crate::section!(@default $($default)?),)+ }
            }
        }

        impl $crate::settings::Setting for $section {
            const SHAPE: $crate::settings::Shape = $crate::settings::Shape::Section(
                $crate::settings::Section {
                    fields: &[$($crate::settings::Field {
                        name: $crate::section!(@key $name $(, $key)?),
                        sentence: concat!($($sentence),+).trim_ascii(),
                        shape: $crate::section!(@shape $type $(, $kind)?),
                        example: $crate::section!(@example $($example)?),
                    }),+],
                    own: &[],
                },
            );

            fn set(
                &mut self,
                path: &str,
                value: $crate::settings::Value,
            ) -> ::core::result::Result<(), ::std::string::String> {
                let (name, rest) = $crate::settings::split(path);
                match name {
                    $($crate::section!(@key $name $(, $key)?) => $crate::settings::Setting::set(&mut self.$name, rest, value),)+
                    _ => ::core::result::Result::Err($crate::settings::no_such(path)),
                }
            }

            fn get(&self, path: &str) -> ::core::option::Option<$crate::settings::Value> {
                let (name, rest) = $crate::settings::split(path);
                match name {
                    "" => {
                        let fields = [$((
                            $crate::section!(@key $name $(, $key)?),
                            $crate::settings::Setting::get(&self.$name, ""),
                        )),+];
                        let set = fields.into_iter().filter_map(|(name, value)| {
                            ::core::option::Option::Some((name.to_owned(), value?))
                        });
                        ::core::option::Option::Some($crate::settings::Value::Table(set.collect()))
                    }
                    $($crate::section!(@key $name $(, $key)?) => $crate::settings::Setting::get(&self.$name, rest),)+
                    _ => ::core::option::Option::None,
                }
            }
        }
    };
}
