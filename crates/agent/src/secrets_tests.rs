use super::*;
use loom_protocol::ProjectId;
use proptest::prelude::*;
use std::sync::LazyLock;

fn secrets_of(url: &str) -> Secrets {
    of(&ClientOptions::new(url, ProjectId::new("p").unwrap()), &[])
}

fn scrubbed(secrets: &Secrets, chunks: &[&[u8]]) -> String {
    let mut scrubber = Scrubber::new(secrets.clone());
    let mut out = Vec::new();
    for chunk in chunks {
        scrubber.feed(chunk, |bytes| out.extend_from_slice(bytes));
    }
    scrubber.finish(|bytes| out.extend_from_slice(bytes));
    String::from_utf8(out).unwrap()
}

#[test]
fn what_stands_in_the_url_is_hidden_however_it_is_written() {
    let secrets = secrets_of("nats://ann:p%40ss%2Fw0rd@a:4222,tls://tok3n-x@b");
    for (said, shown) in [
        ("nats://ann:p%40ss%2Fw0rd@a:4222", "nats://***@a:4222"),
        ("nats://ann:p%40ss%2fw0rd@a:4222", "nats://***@a:4222"),
        ("PASS=p@ss/w0rd.", "PASS=***."),
        (r#"{"pass":"p@ss\/w0rd"}"#, r#"{"pass":"***"}"#),
        ("%70%40%73%73%2F%77%30%72%64", "***"),
        ("tls://tok3n-x@b and tok3n-x", "tls://***@b and ***"),
        ("ann is a user", "ann is a user"),
    ] {
        assert_eq!(secrets.hide(said), shown);
        assert_eq!(scrubbed(&secrets, &[said.as_bytes()]), shown);
    }
}

#[test]
fn what_is_escaped_or_encoded_is_hidden() {
    let secrets =
        Secrets::new(["p\u{e4}ss\"w1ord1", "sekret pass/1", "ann:\u{1f511}key"].map(String::from));
    for (said, shown) in [
        (r#"{"pw": "p\u00e4ss\"w1ord1"}"#, r#"{"pw": "***"}"#),
        (r#"{"p\u00E4ss\u0022w1ord1": 1}"#, r#"{"***": 1}"#),
        (r#"{"output":"\u0073ekret pass/1"}"#, r#"{"output":"***"}"#),
        (
            r#""{\"a\": \"\\u0073ekret pass\\/1\"}""#,
            r#""{\"a\": \"***\"}""#,
        ),
        (
            r#""{\"a\": \"p\\u00e4ss\\\"w1ord1\"}""#,
            r#""{\"a\": \"***\"}""#,
        ),
        ("a=sekret+pass%2F1&b=2", "a=***&b=2"),
        ("a=sekret%20pass%2f1&b=2", "a=***&b=2"),
        (r"b'p\xc3\xa4ss\x22w1ord1'", "b'***'"),
        (r#""ann:\ud83d\udd11key""#, r#""***""#),
        // `sekret pass/1` and `ann:…key`, alone and with more behind it.
        ("Basic c2VrcmV0IHBhc3MvMQ==", "Basic ***=="),
        ("x c2VrcmV0IHBhc3MvMQo=", "x ***o="),
        ("Basic YW5uOvCflJFrZXk=", "Basic ***="),
        (r#""\u0073ecret pass/1""#, r#""\u0073ecret pass/1""#),
    ] {
        assert_eq!(secrets.hide(said), shown);
        let chunks: Vec<&[u8]> = said.as_bytes().chunks(3).collect();
        assert_eq!(scrubbed(&secrets, &chunks), shown);
    }
}

#[test]
fn a_short_password_is_hidden_beside_its_user_only() {
    let secrets = secrets_of("nats://loomuser:loom@a");
    assert_eq!(secrets.hide("nats://loomuser:loom@a"), "nats://***@a");
    assert_eq!(secrets.hide("loom agent run"), "loom agent run");
}

#[test]
fn what_is_given_beside_the_url_and_in_a_file_is_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.creds");
    let jwt = format!("eyJ0{}-x_y", "abc".repeat(200));
    let seed = format!("SUA{}", "X7".repeat(27));
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(&file, &text).unwrap();
    let mut options = ClientOptions::new("nats://a", ProjectId::new("p").unwrap());
    options.credentials = Credentials::File(file);
    let hidden = of(&options, &[]).hide(&text);
    assert!(
        !hidden.contains(&jwt) && !hidden.contains(&seed),
        "{hidden}"
    );
    assert!(hidden.contains("-----BEGIN NATS USER JWT-----"));
    options.credentials = Credentials::UserPassword("ann".into(), "s3cret!".into());
    assert_eq!(of(&options, &[]).hide("s3cret!"), "***");
    options.credentials = Credentials::Token("t0ken-t0ken".into());
    assert_eq!(of(&options, &[]).hide("t0ken-t0ken"), "***");
}

#[test]
fn debug_shows_none() {
    let secrets = secrets_of("nats://ann:s3cret!@a");
    assert!(!format!("{:?}", Scrubber::new(secrets)).contains("s3cret"));
}

/// A text as JSON writes it, with what else is to be escaped.
fn as_json(text: &str, is_escaped: impl Fn(usize, char) -> bool) -> String {
    let mut json = String::from('"');
    for (at, c) in text.chars().enumerate() {
        if is_escaped(at, c) {
            let mut units = [0; 2];
            let units = c.encode_utf16(&mut units).iter();
            json.extend(units.map(|unit| format!("\\u{unit:04x}")));
        } else {
            let plain = serde_json::to_string(&c).unwrap();
            json.push_str(&plain[1..plain.len() - 1]);
        }
    }
    json + "\""
}

/// One for all: to make one takes longer than to use it.
static HIDING: LazyLock<Secrets> = LazyLock::new(|| Secrets::new(["s3cret!pass".to_owned()]));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// However a secret is written within JSON within JSON: what is read of it has none in it, and is
    /// still JSON.
    #[test]
    fn what_is_read_of_json_holds_no_secret(
        secret in "[a-z\"/ \u{e4}\u{1f511}]{2}[a-z\"\\\\/ \u{e4}\u{1f511}]{6,20}[a-z]",
        mask in any::<u64>(),
        is_ascii in prop::collection::vec(any::<bool>(), 0..3),
        before in "[a-z ]{0,5}",
        after in "[a-z ]{0,5}",
    ) {
        let secret = secret.trim().to_owned();
        prop_assume!(secret.len() >= 6);
        let secrets = Secrets::new([secret.clone()]);
        let mut text = as_json(&format!("{before}{secret}{after}"), |at, _| mask >> (at % 64) & 1 == 1);
        for is_ascii in &is_ascii {
            text = as_json(&text, |_, c| *is_ascii && !c.is_ascii());
        }
        let mut read = secrets.hide(&text);
        for _ in 0..=is_ascii.len() {
            prop_assert!(!read.contains(&secret), "{}", read);
            read = serde_json::from_str(&read).unwrap();
        }
        prop_assert!(!read.contains(&secret) && read.contains("***"), "{} of {}", read, text);
    }

}

proptest! {
    /// In whatever pieces a stream comes: no secret is left, nothing else is lost, and it is the
    /// same as in one piece.
    #[test]
    fn a_secret_that_is_cut_in_two_is_hidden(
        parts in prop::collection::vec(
            prop_oneof![
                Just("s3cret!pass".to_owned()), Just("s3cret%21pass".to_owned()),
                Just("s3cret".to_owned()), Just("s3c\n".to_owned()), "[a-z\r\n%]{0,9}",
            ],
            0..12,
        ),
        sizes in prop::collection::vec(1_usize..9, 1..60),
    ) {
        let secrets = &*HIDING;
        let text = parts.concat();
        let mut chunks = Vec::new();
        let mut rest = text.as_bytes();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*size).min(rest.len()));
            chunks.push(now);
            rest = later;
        }
        let out = scrubbed(secrets, &chunks);
        prop_assert_eq!(&out, &text.replace("s3cret!pass", "***").replace("s3cret%21pass", "***"));
    }
}

#[test]
fn the_keys_that_are_passed_on_by_name_are_hidden_and_other_variables_are_not() {
    let options = ClientOptions::new("nats://a", ProjectId::new("p").unwrap());
    let passed = ["ANTHROPIC_API_KEY", "SHORT_TOKEN", "LANG"].map(str::to_owned);
    let secrets = known_by(&options, &passed, |name| {
        let value = match name {
            "ANTHROPIC_API_KEY" => "sk-ant-123",
            "SHORT_TOKEN" => "abcde",
            "LANG" => "en_US.UTF-8",
            "OPENAI_API_KEY" => "sk-not-passed",
            _ => return None,
        };
        Some(value.to_owned())
    });
    assert_eq!(
        secrets.hide("sk-ant-123 abcde en_US.UTF-8 sk-not-passed"),
        "*** abcde en_US.UTF-8 sk-not-passed"
    );
}
