//! What an agent sees of the coordinator's environment: what is on this list and nothing else.

/// Variables that an agent gets as the coordinator has them.
const ALLOWED: [&str; 5] = ["PATH", "HOME", "LANG", "TERM", "TMPDIR"];
/// Where programs find the way out; in either case.
const PROXIES: [&str; 4] = ["http_proxy", "https_proxy", "no_proxy", "all_proxy"];

/// Whether an agent sees a variable of the coordinator's.
pub fn is_allowed(name: &str) -> bool {
    ALLOWED.contains(&name)
        || name.starts_with("LC_")
        || PROXIES
            .iter()
            .any(|proxy| *proxy == name || proxy.to_uppercase() == name)
}

/// What of the coordinator's environment an agent sees.
pub fn inherited() -> Vec<(String, String)> {
    let variables = std::env::vars_os();
    let texts = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.filter(|(name, _)| is_allowed(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_list_is_seen() {
        for name in ["PATH", "HOME", "LC_ALL", "TERM", "https_proxy", "NO_PROXY"] {
            assert!(is_allowed(name), "{name}");
        }
        for name in [
            "NATS_PASS",
            "API_TOKENS",
            "LOOM_API_TOKEN",
            "LD_PRELOAD",
            "Http_Proxy",
            "GITHUB_TOKEN",
            "",
        ] {
            assert!(!is_allowed(name), "{name}");
        }
    }
}
