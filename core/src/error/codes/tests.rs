use super::*;

/// Every code of Kafka with its name and how its exception is to be taken: `retriable`, and beyond
/// that `metadata` or `coordinator` for what must be asked for again first.
const KAFKA: &str = include_str!("kafka-4.3.txt");

#[test]
fn codes_are_kafkas() {
    let mut rows = TABLE.iter();
    for line in KAFKA.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        let &[code, name, again] = &words[..] else { panic!("not three words: {line}") };
        let row = rows.next().unwrap_or_else(|| panic!("no row for {line}"));
        assert_eq!((row.code.to_string().as_str(), row.name), (code, name));
        assert_eq!(row.retriable, again != "-", "{name}");
        // A broker that is gone, another controller, a session whose topic ids changed, and the
        // wish of a broker that its client begins anew: metadata is stale too.
        let beyond = [8, 41, 106, 129].contains(&row.code);
        assert_eq!(row.refresh_metadata, again == "metadata" || beyond, "{name}");
    }
    assert!(rows.next().is_none(), "a row that Kafka does not have");
}

#[test]
fn what_contradicts_itself() {
    for row in TABLE {
        assert!(!(row.fatal && row.retriable), "{} again, and never again", row.name);
        // What is fatal whatever its code is so in the table.
        assert!(!row.kind.fatal() || row.fatal, "{}", row.name);
        assert_eq!(row.kind == K::Authorization, row.name.ends_with("AUTHORIZATION_FAILED"));
    }
}

#[test]
fn fatal_codes() {
    let fatal: Vec<_> = TABLE.iter().filter(|row| row.fatal).map(|row| row.code).collect();
    let settings = [21, 23, 24, 26, 50, 112, 128];
    let credentials = [33, 34, 58];
    let transactional_id = [48, 53, 90];
    let membership = [81, 82, 111];
    let mut expected = [&settings[..], &credentials, &transactional_id, &membership].concat();
    expected.sort_unstable();
    assert_eq!(fatal, expected);
}

#[test]
fn a_refusal_fails_its_scope() {
    for (code, scope) in [
        (29, ErrorScope::Topic),
        (30, ErrorScope::Group),
        (31, ErrorScope::Cluster),
        (53, ErrorScope::Transaction),
        (58, ErrorScope::Connection),
        (10, ErrorScope::Record),
        (16, ErrorScope::Coordinator),
        (70, ErrorScope::Session),
        (42, ErrorScope::Request),
        (999, ErrorScope::Request),
    ] {
        assert_eq!(BrokerCode::of(code).scope, scope, "{code}");
    }
}

#[test]
fn table_is_sorted_so_that_it_can_be_searched() {
    assert!(TABLE.windows(2).all(|w| w[0].code < w[1].code));
}

#[test]
fn unlisted_codes_are_in_doubt() {
    assert!(!definitely_unwritten(999, -1));
    assert_eq!(describe(999).name, "UNKNOWN_CODE");
}

#[test]
fn what_is_definite() {
    // (code, base offset, definitely unwritten)
    for (code, base, want) in [
        (6, -1, true),
        (6, 41, false),
        (3, -1, true),
        (3, 0, false),
        (100, -1, true),
        (56, -1, true),
        (56, 7, false),
        (19, -1, true),
        (20, -1, false),
        (7, -1, false),
        (10, -1, true),
        (87, -1, true),
        // What one record, or the batch as such, is refused for before anything is appended.
        (2, -1, true),
        (17, -1, true),
        (18, -1, true),
        (21, -1, true),
        (32, -1, true),
        (43, -1, true),
        (76, -1, true),
        (29, -1, true),
        (45, -1, false),
        (46, -1, false),
        (-1, -1, false),
        (0, 5, false),
    ] {
        assert_eq!(definitely_unwritten(code, base), want, "code {code} base {base}");
    }
}
