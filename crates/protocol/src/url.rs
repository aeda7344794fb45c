//! Addresses of servers as people write them: one, or several with commas between them, with or
//! without credentials. Text in, text out.

/// What stands where credentials are not shown.
const HIDDEN: &str = "***";

/// The addresses without user, password or token: to be shown, or handed on.
///
/// Where commas and `@` leave open what is a password, too much is left out rather than too little.
pub fn without_credentials(urls: &str) -> String {
    with_credentials_as(urls, "")
}

/// As [`without_credentials`], with `***@` where something was left out.
pub fn redacted(urls: &str) -> String {
    with_credentials_as(urls, &format!("{HIDDEN}@"))
}

fn with_credentials_as(urls: &str, mark: &str) -> String {
    let shown = addresses(urls).into_iter().map(|address| {
        let (scheme, rest) = match address.find("://") {
            Some(end) => address.split_at(end + "://".len()),
            None => ("", address.as_str()),
        };
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}{mark}{host}"),
            None => address.clone(),
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

/// Takes a list apart. A password may hold a comma, so a part without a scheme belongs to the one
/// before it.
fn addresses(urls: &str) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match addresses.last_mut() {
            Some(last) if !part.contains("://") => {
                last.push(',');
                last.push_str(part);
            }
            _ => addresses.push(part.trim().to_owned()),
        }
    }
    addresses
}

/// Takes a list of addresses apart that are to be connected to: at every comma. One in a password is
/// written `%2C`.
pub fn split(urls: &str) -> impl Iterator<Item = &str> {
    let parts = urls.split(',').map(str::trim);
    parts.filter(|address| !address.is_empty())
}

/// Reads `%XX`, as in the user and the password of an address; anything else stands for itself.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        bytes.push(escaped.map_or(*first, |(high, low)| high * 16 + low));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_shown() {
        for (urls, bare, marked) in [
            ("nats://h:4222", "nats://h:4222", "nats://h:4222"),
            ("h:4222", "h:4222", "h:4222"),
            ("nats://me:secret@h:1", "nats://h:1", "nats://***@h:1"),
            ("nats://secret@h", "nats://h", "nats://***@h"),
            ("secret@h", "h", "***@h"),
            ("me:secret@h:1", "h:1", "***@h:1"),
            ("ws://me:se@cret@h", "ws://h", "ws://***@h"),
            ("wss://me:secr%40et@h", "wss://h", "wss://***@h"),
            (
                "nats://a:1,nats://b:2",
                "nats://a:1,nats://b:2",
                "nats://a:1,nats://b:2",
            ),
            (
                "nats://me:secret@a:1, tls://secret@b",
                "nats://a:1,tls://b",
                "nats://***@a:1,tls://***@b",
            ),
            ("tls://me:sec,ret@h,i:1", "tls://h,i:1", "tls://***@h,i:1"),
            ("tls://me:s@secret,secret@h", "tls://h", "tls://***@h"),
            ("me:secret@a,me:secret@b", "b", "***@b"),
        ] {
            assert_eq!(without_credentials(urls), bare);
            assert_eq!(redacted(urls), marked);
            assert!(!redacted(urls).contains("secret"));
        }
    }

    #[test]
    fn percent_signs_are_read() {
        for (text, meant) in [
            ("p%40ss%3aw", "p@ss:w"),
            ("100%", "100%"),
            ("%zz%4", "%zz%4"),
            ("%+1", "%+1"),
            ("%C3%BC", "ü"),
            ("", ""),
        ] {
            assert_eq!(percent_decoded(text), meant);
        }
    }
}
