//! An HTTP client for one address, which connects to nothing that the guard refuses.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Method, Request, RequestBuilder, Response, StatusCode, Url};

use crate::webhook::addresses::{AddressRefusal, Guard};

/// How often a request is sent on to another path of the same host.
const REDIRECTS: usize = 3;

/// A client for one address.
pub(crate) struct Client(reqwest::Client);

impl Client {
    pub(crate) fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.0.request(method, url)
    }

    pub(crate) async fn execute(&self, request: Request) -> reqwest::Result<Response> {
        self.0.execute(request).await
    }

    /// Asks for nothing, to see whether somebody answers.
    pub(crate) async fn execute_probe(&self, url: &Url) -> reqwest::Result<StatusCode> {
        let mut root = url.clone();
        // The path may mean something, whatever the method.
        root.set_path("/");
        root.set_query(None);
        let request = self.0.request(Method::OPTIONS, root).build()?;
        Ok(self.0.execute(request).await?.status())
    }
}

/// Makes a client. Where the address names no host but an IP address, that is judged here; a name is judged by what it
/// leads to, each time that it is looked up.
pub(crate) fn for_url(url: &Url, guard: Guard, limit: Duration) -> Result<Client, String> {
    let port = url.port_or_known_default().unwrap_or_default();
    let literal = url.host_str().map(|host| host.trim_matches(['[', ']']));
    if let Some(ip) = literal.and_then(|host| host.parse::<IpAddr>().ok()) {
        guard
            .judge(SocketAddr::new(ip, port))
            .map_err(|refusal| refusal.to_string())?;
    }
    let (host, scheme) = (url.host_str().map(str::to_owned), url.scheme().to_owned());
    let stays = move |attempt: &Attempt<'_>| {
        let to = attempt.url();
        let keeps_method = matches!(attempt.status().as_u16(), 307 | 308);
        let same = to.host_str() == host.as_deref() && to.port_or_known_default() == Some(port);
        keeps_method && same && to.scheme() == scheme && attempt.previous().len() <= REDIRECTS
    };
    let policy = Policy::custom(move |attempt| {
        if stays(&attempt) {
            attempt.follow()
        } else {
            // The answer that says so is given to whoever asked.
            attempt.stop()
        }
    });
    let client = reqwest::Client::builder()
        .dns_resolver(Arc::new(GuardedResolver { guard, port }))
        .redirect(policy)
        .no_proxy()
        .referer(false)
        .timeout(limit)
        .connect_timeout(limit)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("loom/", env!("CARGO_PKG_VERSION")))
        .build();
    client
        .map(Client)
        .map_err(|error| format!("no HTTP client can be made ({error})"))
}

/// Looks names up, and gives out only addresses that may be connected to: whoever answers for the name can't lead
/// elsewhere between the look and the connection.
struct GuardedResolver {
    guard: Guard,
    port: u16,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, port) = (self.guard.clone(), self.port);
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), port)).await?;
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in found {
                match guard.judge(address) {
                    Ok(()) => allowed.push(address),
                    Err(refusal) => refused = Some(refusal),
                }
            }
            match refused {
                Some(refusal) if allowed.is_empty() => Err(refusal.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Whether an address was refused, and why.
pub(crate) fn refusal(error: &reqwest::Error) -> Option<AddressRefusal> {
    let mut cause = error.source();
    while let Some(one) = cause {
        if let Some(refusal) = one.downcast_ref::<AddressRefusal>() {
            return Some(*refusal);
        }
        cause = one.source();
    }
    None
}

/// All that an error says, its causes too, without the address (whose path may hold a secret).
pub(crate) fn causes(error: &reqwest::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(one) = cause {
        let text = one.to_string();
        if !words.last().is_some_and(|last| last.contains(&text)) {
            words.push(text);
        }
        cause = one.source();
    }
    if words.is_empty() {
        "no reason is told".to_owned()
    } else {
        words.join(": ")
    }
}

/// Host and port; a path may hold a secret.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{host}:{port}")
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}
