#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);

fn day(number: u64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000).after(DAY * u32::try_from(number).unwrap())
}

/// The record after the gateway has looked at it at `now`, until there is nothing more to do.
fn settled(record: Option<ManagedKeyRecord>, now: Timestamp, schedule: KeySchedule) -> ManagedKeyRecord {
    let mut record = record;
    for _ in 0..4 {
        match schedule.advance(record.as_ref(), now).unwrap() {
            Some(next) => record = Some(next),
            None => return record.unwrap(),
        }
    }
    panic!("it never settles: {record:?}");
}

fn names(record: &ManagedKeyRecord, now: Timestamp) -> (String, Vec<String>) {
    let set = record.at(now).unwrap().unwrap();
    (set.current.kid().to_owned(), set.others.iter().map(|key| key.kid().to_owned()).collect())
}

#[test]
fn a_key_is_published_before_it_signs_and_after_it_has() {
    let schedule = KeySchedule::new(LIFETIME);
    assert_eq!(schedule.overlap(), DAY * 9);
    let first = settled(None, day(0), schedule);
    let (one, others) = names(&first, day(0));
    assert!(others.is_empty());
    assert_eq!(settled(Some(first.clone()), day(80), schedule), first, "nothing to do for long");

    let second = settled(Some(first), day(81), schedule);
    let (current, others) = names(&second, day(81));
    let two = others[0].clone();
    assert_eq!((&current, others.len()), (&one, 1), "published, not signing yet");
    assert_eq!(names(&second, day(89)).0, one);
    assert_eq!(names(&second, day(90)), (two.clone(), vec![one.clone()]), "signing, the old one still there");
    assert_eq!(settled(Some(second.clone()), day(98), schedule), second);
    let third = settled(Some(second), day(99), schedule);
    assert_eq!(names(&third, day(99)), (two, Vec::new()));
}

#[test]
fn after_a_long_stop_the_old_key_signs_until_the_new_one_is_known() {
    let schedule = KeySchedule::new(LIFETIME);
    let first = settled(None, day(0), schedule);
    let (one, _) = names(&first, day(0));
    let late = settled(Some(first), day(400), schedule);
    let (current, others) = names(&late, day(400));
    assert_eq!((current, others.len()), (one.clone(), 1));
    assert_eq!(names(&late, day(408)).0, one);
    assert_eq!(names(&late, day(409)).0, others[0]);
}

#[test]
fn overlap_and_interval_suit_every_lifetime() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    for (lifetime, overlap) in [(1, hours(1) / 2), (48, hours(24)), (240, hours(24)), (2400, hours(240))] {
        let schedule = KeySchedule::new(hours(lifetime));
        assert_eq!(schedule.overlap(), overlap);
        assert!(schedule.interval() * 3 < overlap, "a replica sees a new key well before it signs");
    }
}

#[test]
fn a_record_survives_its_own_writing_and_prints_no_key() {
    let record = settled(None, day(0), KeySchedule::new(LIFETIME));
    let written = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<ManagedKeyRecord>(&written).unwrap(), record);
    assert!(!format!("{record:?}").contains(record.keys[0].pkcs8.expose()));
    assert!(ManagedKeyRecord { keys: Vec::new() }.at(day(0)).unwrap().is_none());
}

proptest::proptest! {
    /// However irregularly the gateway looks, some key always signs, it was published in advance unless
    /// it was the first, and those that signed lately are still there.
    #[test]
    fn whenever_it_is_looked_at_the_keys_overlap(steps in proptest::collection::vec(0u64..50, 1..25)) {
        let schedule = KeySchedule::new(LIFETIME);
        let mut now = day(0);
        let mut record = settled(None, now, schedule);
        let (mut signing, mut published) = names(&record, now);
        for step in steps {
            now = now.after(DAY * u32::try_from(step).unwrap());
            // What replicas hold until they look again.
            let held = names(&record, now);
            proptest::prop_assert!(held.0 == signing || published.contains(&held.0));
            record = settled(Some(record), now, schedule);
            let (current, others) = names(&record, now);
            proptest::prop_assert_eq!(&current, &held.0, "looking never changes who signs");
            proptest::prop_assert!(record.keys.len() <= 3);
            (signing, published) = (current, others);
        }
    }
}
