use super::*;
use proptest::prelude::*;
use serde_json::json;

fn read(chunks: &[&[u8]]) -> Option<Value> {
    let mut reader = Reader::default();
    for chunk in chunks {
        reader.feed(chunk);
    }
    reader.end()
}

#[test]
fn values_are_read_as_they_are() {
    for text in [
        r#"{"a":1,"b":[true,false,null,-1.5e3],"c":{"d":"e\"\\\/\n\u00e4\ud83d\ude00"}}"#,
        "[]",
        "{}",
        " [ { } , [ ] ] ",
        "\"text\"",
        "17",
        r#"{"twice":1,"twice":2}"#,
    ] {
        let expected: Value = serde_json::from_str(text).unwrap();
        assert_eq!(read(&[text.as_bytes()]), Some(expected), "{text}");
    }
}

#[test]
fn what_is_no_value_is_none() {
    for text in [
        "",
        "{",
        "[1",
        "{\"a\"}",
        "{\"a\":}",
        "[1,]",
        "{\"a\":1,}",
        "[1]]",
        "{} {}",
        "yes",
        "01",
        "\"open",
        "{a:1}",
        "[1}",
        "{]",
        ",",
        "plain words",
    ] {
        assert_eq!(read(&[text.as_bytes()]), None, "{text}");
    }
    let deep = "[".repeat(2_000) + &"]".repeat(2_000);
    assert_eq!(read(&[deep.as_bytes()]), None);
}

#[test]
fn a_reader_begins_anew_behind_each_value() {
    let mut reader = Reader::default();
    for _ in 0..2 {
        reader.feed(b"{broken");
        assert_eq!(reader.end(), None);
        reader.feed(b"{\"a\":");
        reader.feed(b"1}");
        assert_eq!(reader.end(), Some(json!({"a": 1})));
    }
}

#[test]
fn nul_and_lone_surrogates_and_odd_bytes_are_no_trouble() {
    for (text, meant) in [
        (&br#""a\u0000b""#[..], "a\0b"),
        (b"\"a\0b\"", "a\0b"),
        (br#""\ud800""#, "\u{fffd}"),
        (
            br#""\ud800\ud83d\ude00\ude00x""#,
            "\u{fffd}\u{1f600}\u{fffd}x",
        ),
        (br#""\ud800\n""#, "\u{fffd}\n"),
        (br#""\u12x""#, "\u{fffd}x"),
        (b"\"\xff\xfe\"", "\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(read(&[text]), Some(json!(meant)), "{meant:?}");
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&bytes), Some(json!(meant)), "{meant:?} byte by byte");
    }
}

#[test]
fn the_fields_behind_thirty_megabytes_are_there_and_the_ends_of_the_text() {
    let megabyte = vec![b'x'; 1_000_000];
    let mut chunks = vec![&b"{\"type\":\"result\",\"result\":\"begin "[..]];
    chunks.extend(vec![&megabyte[..]; 30]);
    chunks.push(b" end\",\"list\":[");
    let entries = "{\"n\":[1,2,\"three\"]},".repeat(50_000);
    chunks.extend([entries.as_bytes(), b"0],\"usage\":{\"tokens\":7}}"]);
    let read = read(&chunks).unwrap();
    assert_eq!(read["usage"], json!({"tokens": 7}));
    let text = read["result"].as_str().unwrap();
    assert!(text.starts_with("begin xxx") && text.ends_with("xxx end"));
    assert!(text.contains("bytes left out") && text.len() < 300 * 1024);
    assert_eq!(read["list"].as_array().unwrap().len(), ENTRIES);
}

#[test]
fn what_is_kept_stays_small_whatever_comes() {
    let mut reader = Reader::default();
    reader.feed(b"[");
    for _ in 0..200 {
        let texts = format!("[\"{}\"],", "y".repeat(100_000));
        reader.feed(texts.as_bytes());
        let many = format!("{{{}\"last\":1}},", "\"k\":{\"a\":[1]},".repeat(2_000));
        reader.feed(many.as_bytes());
    }
    reader.feed(b"\"the end\"]");
    let kept = serde_json::to_string(&reader.end().unwrap()).unwrap();
    assert!(kept.len() < 3 * ROOM, "{}", kept.len());
}

proptest! {
    /// However JSON arrives it is the same value as that of another reader, and no bytes make it panic.
    #[test]
    fn any_bytes_in_any_pieces_are_read_alike(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[\\[\\]{}:,\"\\\\ua0-9tnd ]{0,60}".prop_map(String::into_bytes),
            arbitrary_json().prop_map(|value| value.to_string().into_bytes()),
        ],
        size in 1_usize..20,
    ) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let all = read(&[&bytes]);
        prop_assert_eq!(&all, &read(&pieces));
        if let Ok(expected) = serde_json::from_slice::<Value>(&bytes) {
            prop_assert_eq!(all, Some(expected));
        }
    }
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{0,4}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}
