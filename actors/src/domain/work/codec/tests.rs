use super::super::transition::tests::any_record;
use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn records_round_trip(record in any_record()) {
        let bytes = encode(&record).unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), record);
    }

    #[test]
    fn damaged_records_are_refused_or_read_but_never_panic(
        record in any_record(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&record).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
        bytes.truncate(at);
        prop_assert!(decode(&bytes).is_err());
    }
}

#[test]
fn a_record_of_a_loom_without_dead_letters_reads() {
    #[derive(Serialize)]
    struct Before {
        errors: Vec<WorkErrorInfo>,
        cancel: Option<CancelInfo>,
        usage: Option<UsageBefore>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct UsageBefore {
        tokens: Option<u64>,
        cost_usd: Option<f64>,
    }
    let record = WorkRecord::blank(
        WorkId::new(Uuid::nil()),
        "me",
        Timestamp::default(),
        BTreeMap::new(),
    );
    let mut stored = Stored::from(&record);
    let before = Before {
        errors: Vec::new(),
        cancel: None,
        usage: Some(UsageBefore {
            tokens: Some(u64::MAX),
            cost_usd: Some(0.5),
        }),
    };
    stored.rare = Some(Raw(rmp_serde::to_vec_named(&before).unwrap().into()));
    let mut bytes = vec![VERSION];
    rmp_serde::encode::write(&mut bytes, &stored).unwrap();
    let read = decode(&bytes).unwrap();
    let usage = Some(Usage {
        tokens: Some(u64::MAX),
        cost_usd: Some(0.5),
        ..Usage::default()
    });
    assert_eq!(read, WorkRecord { usage, ..record });
}

#[test]
fn other_versions_are_named() {
    assert!(matches!(decode(&[]), Err(RecordError::Empty)));
    assert!(matches!(decode(&[9, 0]), Err(RecordError::Version(9))));
    assert!(matches!(decode(b"garbage"), Err(RecordError::Damaged(_))));
}

#[test]
fn the_one_count_of_a_record_of_0_1_0_is_read_as_returns_that_were_never_started() {
    let record = WorkRecord {
        unstarted_returns: 4,
        ..WorkRecord::blank(
            WorkId::new(Uuid::nil()),
            "me",
            Timestamp::default(),
            BTreeMap::new(),
        )
    };
    let mut bytes = vec![VERSION];
    // As it was written then: without anything rare.
    rmp_serde::encode::write(&mut bytes, &Stored::from(&record)).unwrap();
    let read = decode(&bytes).unwrap();
    assert_eq!((read.unstarted_returns, read.releases), (4, 0));
    assert_eq!((read.has_run, read.loss), (false, None));
}
