use loom_actors::settings::Value;

use super::*;

#[test]
fn near_names_are_found_and_far_ones_are_not() {
    let agents = names_in("agents");
    assert_eq!(
        did_you_mean("hartbeat_every", &agents),
        Some("heartbeat_every")
    );
    assert_eq!(did_you_mean("stale-after", &agents), Some("stale_after"));
    assert_eq!(did_you_mean("stale", &agents), Some("stale_after"));
    assert_eq!(did_you_mean("colour", &agents), None);
    let sections = names_in("");
    assert_eq!(did_you_mean("agent", &sections), Some("agents"));
    assert_eq!(did_you_mean("federation", &sections), None);
}

#[test]
fn actors_take_the_keys_of_supervision() {
    assert!(matches!(
        at("supervision.work_ledger.within"),
        Some(Shape::Key(Kind::Duration(1)))
    ));
    assert!(at("supervision.nobody.within").is_none());
    assert!(matches!(at("supervision.project"), Some(Shape::Section(_))));
    assert!(names_in("supervision").contains(&"work_ledger"));
    assert!(names_in("supervision.work_ledger").contains(&"max_restarts"));
}

#[test]
fn every_key_has_a_sentence_and_one_without_a_default_an_example() {
    let defaults = Settings::default();
    for section in SECTIONS.iter() {
        assert!(section.sentence.ends_with('.'), "{}", section.path);
    }
    for key in all() {
        assert!(key.sentence.ends_with('.'), "{}", key.path);
        let has_default = defaults.get(&key.path).is_some();
        assert_ne!(has_default, !key.example.is_empty(), "{}", key.path);
        if let Some(Shape::Key(Kind::SomeOf(words))) = at(&key.path) {
            assert!(key.sentence.contains(&words.join(", ")), "{}", key.path);
        }
    }
}

#[test]
fn every_word_and_both_bounds_of_a_kind_can_be_taken() {
    for key in all() {
        let values: Vec<Value> = match at(&key.path) {
            Some(Shape::Key(Kind::OneOf(words))) => {
                words.iter().map(|word| (*word).into()).collect()
            }
            Some(Shape::Key(Kind::SomeOf(words))) => vec![words.to_vec().into()],
            Some(Shape::Key(Kind::Whole(least, most))) => vec![least.into(), most.into()],
            _ => continue,
        };
        for value in values {
            let mut settings = Settings::default();
            settings.set(&key.path, value.clone()).unwrap();
            assert_eq!(settings.get(&key.path), Some(value), "{}", key.path);
        }
    }
}
