//! How to connect.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use loom_protocol::url::{percent_decoded, split, without_credentials};
use loom_protocol::{Encoding, ProjectId};

use crate::error::{ClientError, ErrorKind};

/// Who the client is to NATS. Never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// What stands in the URL, if anything does.
    #[default]
    FromUrl,
    /// A name and a password.
    UserPassword(String, String),
    /// A token.
    Token(String),
    /// A `.creds` file.
    File(PathBuf),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromUrl => "FromUrl",
            Self::UserPassword(..) => "UserPassword(***)",
            Self::Token(_) => "Token(***)",
            Self::File(_) => "File(…)",
        })
    }
}

/// How to connect, and how patient to be. Start from [`ClientOptions::new`] and change what you need.
#[derive(Clone)]
pub struct ClientOptions {
    /// One or several addresses, comma between them: `nats://127.0.0.1:4222` (also `tls`, `ws`, `wss`).
    pub url: String,
    /// The project that every request is about.
    pub project: ProjectId,
    /// Who the client is.
    pub credentials: Credentials,
    /// The connection's name in the server's lists. `loom-client` unless set.
    pub name: String,
    /// The prefix of reply subjects. A fresh one under `_INBOX` unless set, so that nobody else on a
    /// shared account reads the answers.
    pub inbox_prefix: Option<String>,
    /// How requests are written. MessagePack unless set.
    pub encoding: Encoding,
    /// How long one try of a request may take. 3 s unless set.
    pub request_timeout: Duration,
    /// How long a request may take with all its tries, where the caller gives no deadline. 15 s unless set.
    pub request_deadline: Duration,
    /// How long [`Client::connect`](crate::Client::connect) keeps trying to reach a server. 5 s unless
    /// set. Once connected, the client reconnects for ever.
    pub connect_deadline: Duration,
}

impl ClientOptions {
    /// The usual options for a project behind `url`.
    pub fn new(url: impl Into<String>, project: ProjectId) -> Self {
        Self {
            url: url.into(),
            project,
            credentials: Credentials::default(),
            name: "loom-client".into(),
            inbox_prefix: None,
            encoding: Encoding::MessagePack,
            request_timeout: Duration::from_secs(3),
            request_deadline: Duration::from_secs(15),
            connect_deadline: Duration::from_secs(5),
        }
    }

    /// The address without what is secret in it, to be shown.
    pub fn shown_url(&self) -> String {
        without_credentials(&self.url)
    }

    /// The addresses, and the credentials that stand in the first of them.
    pub(crate) fn addresses(
        &self,
    ) -> Result<(Vec<async_nats::ServerAddr>, Credentials), ClientError> {
        let mut addresses = Vec::new();
        for address in split(&self.url) {
            let address: async_nats::ServerAddr = address.parse().map_err(|_| {
                ClientError::new(
                    ErrorKind::Options,
                    format!(
                        "{:?} is not a NATS address; write it like nats://127.0.0.1:4222",
                        self.shown_url()
                    ),
                )
            })?;
            addresses.push(address);
        }
        let Some(first) = addresses.first() else {
            return Err(ClientError::new(
                ErrorKind::Options,
                "no NATS address is given; write one like nats://127.0.0.1:4222",
            ));
        };
        let in_url = match (first.username(), first.password()) {
            (Some(user), Some(password)) => {
                Credentials::UserPassword(percent_decoded(user), percent_decoded(password))
            }
            (Some(token), None) => Credentials::Token(percent_decoded(token)),
            _ => Credentials::FromUrl,
        };
        let credentials = match &self.credentials {
            Credentials::FromUrl => in_url,
            given => given.clone(),
        };
        // NATS takes none out of an address by itself, and writes addresses into its debug log.
        let bare = addresses.into_iter().map(bare).collect::<Result<_, _>>();
        let bare = bare.map_err(|_| {
            let message = format!("{:?} is not a NATS address", self.shown_url());
            ClientError::new(ErrorKind::Options, message)
        })?;
        Ok((bare, credentials))
    }
}

/// An address without user, password or token.
fn bare(address: async_nats::ServerAddr) -> std::io::Result<async_nats::ServerAddr> {
    let mut url = address.into_inner();
    // An address without a host takes neither, and has neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    async_nats::ServerAddr::from_url(url)
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("url", &self.shown_url())
            .field("project", &self.project.as_str())
            .field("credentials", &self.credentials)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> ClientOptions {
        ClientOptions::new(url, ProjectId::new("p").unwrap())
    }

    #[test]
    fn secrets_are_never_shown() {
        let mut options = options("nats://ann:s3cret@a:4222, tls://tok3n@b");
        options.credentials = Credentials::Token("t0p".into());
        let shown = format!("{options:?}");
        assert_eq!(options.shown_url(), "nats://a:4222,tls://b");
        for secret in ["s3cret", "tok3n", "t0p", "ann"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn credentials_in_the_address_count_unless_others_are_given() {
        let in_url = |url| options(url).addresses().unwrap().1;
        assert_eq!(
            in_url("nats://ann:p%40ss%zz@a"),
            Credentials::UserPassword("ann".into(), "p@ss%zz".into())
        );
        assert_eq!(in_url("nats://tok@a"), Credentials::Token("tok".into()));
        assert_eq!(in_url("nats://a"), Credentials::FromUrl);
        let (bare, _) = options("nats://ann:p%40ss@a:4,ws://tok@b:5/x")
            .addresses()
            .unwrap();
        let bare: Vec<_> = bare
            .iter()
            .map(async_nats::ServerAddr::as_url_str)
            .collect();
        assert_eq!(
            bare,
            ["nats://a:4", "ws://b:5/x"],
            "nothing to log that is secret"
        );
        let mut given = options("nats://ann:pass@a");
        given.credentials = Credentials::Token("t".into());
        assert_eq!(given.addresses().unwrap().1, Credentials::Token("t".into()));
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_secrets() {
        for bad in ["", " , ", "nats://ann:s3cret@[::bad"] {
            let error = options(bad).addresses().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Options);
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
