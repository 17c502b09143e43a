//! Byte for byte, by the schemas of Java's ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json
//! (none of their versions is flexible): what is written here as words is what `MessageUtil` puts there, field by
//! field, an i16 of length before a string, an i32 of length or count before bytes and arrays, -1 for null; and the
//! version, an i16, before all of it. The schemas of the sticky assignors are in StickyAssignor and
//! CooperativeStickyAssignor, without a version.

use super::*;

fn text(text: &str) -> Arc<str> {
    Arc::from(text)
}

/// Hexadecimal digits, with spaces between fields.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |two: &[char]| {
        u8::from_str_radix(&two.iter().collect::<String>(), 16).expect("hexadecimal digits")
    };
    digits.chunks(2).map(byte).collect()
}

/// Two topics; no user data; one owned; generation 5; rack "a".
const SUBSCRIPTION: &str = "
    0003
    00000002 0002 7431 0002 7432
    ffffffff
    00000001 0002 7431 00000002 00000000 00000007
    00000005
    0001 61";

fn subscription() -> Subscription {
    Subscription {
        topics: vec![text("t1"), text("t2")],
        user_data: None,
        owned: vec![(text("t1"), vec![0, 7])],
        generation: 5,
        rack: Some(text("a")),
    }
}

#[test]
fn a_subscription_as_java_writes_it() {
    assert_eq!(subscription().encode(), hex(SUBSCRIPTION));
    assert_eq!(Subscription::decode(&hex(SUBSCRIPTION)), Ok(subscription()));
    let nothing = "0003 00000000 ffffffff 00000000 ffffffff ffff";
    assert_eq!(Subscription::default().encode(), hex(nothing));
    assert_eq!(Subscription::decode(&hex(nothing)), Ok(Subscription::default()));
    let with_data = Subscription {
        user_data: Some(Bytes::from_static(&[0, 0, 0, 5])),
        ..Subscription::default()
    };
    let data = "0003 00000000 00000004 00000005 00000000 ffffffff ffff";
    assert_eq!(with_data.encode(), hex(data));
    assert_eq!(Subscription::decode(&hex(data)), Ok(with_data));
}

#[test]
fn older_subscriptions() {
    let v0 = "0000 00000001 0002 7431 00000002 abcd";
    let plain = Subscription {
        topics: vec![text("t1")],
        user_data: Some(Bytes::from_static(&[0xab, 0xcd])),
        ..Subscription::default()
    };
    assert_eq!(Subscription::decode(&hex(v0)), Ok(plain.clone()));
    let owned = "00000001 0002 7431 00000001 00000003";
    let v1 = format!("0001 00000001 0002 7431 00000002 abcd {owned}");
    let owning = Subscription { owned: vec![(text("t1"), vec![3])], ..plain.clone() };
    assert_eq!(Subscription::decode(&hex(&v1)), Ok(owning.clone()));
    let v2 = format!("0002 00000001 0002 7431 00000002 abcd {owned} 00000009");
    let dated = Subscription { generation: 9, ..owning };
    assert_eq!(Subscription::decode(&hex(&v2)), Ok(dated));
    // Who says 1 and writes 0 (franz-go 493).
    let v1 = "0001 00000001 0002 7431 00000002 abcd";
    assert_eq!(Subscription::decode(&hex(v1)), Ok(plain));
    // A version 2 that ends there is cut.
    let v2 = "0002 00000001 0002 7431 00000002 abcd";
    assert_eq!(Subscription::decode(&hex(v2)), Err(Malformed("owned partitions")));
}

#[test]
fn a_later_version_is_read_as_the_last_one_known() {
    for version in ["0004", "7fff"] {
        let later = format!("{version} {} 0000 0001 02", &SUBSCRIPTION.trim_start()[4..]);
        assert_eq!(Subscription::decode(&hex(&later)), Ok(subscription()));
        let later = format!("{version} 00000001 0002 7431 00000001 00000007 ffffffff 00aabb");
        let read = Assignment { partitions: vec![(text("t1"), vec![7])], user_data: None };
        assert_eq!(Assignment::decode(&hex(&later)), Ok(read));
    }
    assert_eq!(Subscription::decode(&hex("ffff 00000000 ffffffff")), Err(Malformed("version")));
    assert_eq!(Assignment::decode(&hex("8000 00000000 ffffffff")), Err(Malformed("version")));
}

/// The coordinator compares the bytes with those of the last JoinGroup, and rebalances if they differ.
#[test]
fn the_same_state_is_the_same_bytes() {
    let other = Subscription {
        topics: vec![text("t2"), text("t1"), text("t2")],
        owned: vec![(text("t1"), vec![7]), (text("t0"), vec![]), (text("t1"), vec![0, 7])],
        ..subscription()
    };
    assert_eq!(other.encode(), subscription().encode());
    let history = |partitions| History { partitions, generation: 1 }.encode();
    assert_eq!(history(other.owned), history(subscription().owned));
}

#[test]
fn an_assignment_as_java_writes_it() {
    let assignment = Assignment {
        partitions: vec![(text("t1"), vec![0, 2]), (text("t2"), vec![1])],
        user_data: None,
    };
    let bytes = "0003 00000002
        0002 7431 00000002 00000000 00000002
        0002 7432 00000001 00000001
        ffffffff";
    assert_eq!(assignment.encode(), hex(bytes));
    for version in 0..=3 {
        let bytes = format!("000{version} {}", &bytes[5..]);
        assert_eq!(Assignment::decode(&hex(&bytes)), Ok(assignment.clone()));
    }
    assert_eq!(Assignment::default().encode(), hex("0003 00000000 ffffffff"));
    let data = "0001 00000000 00000001 07";
    let read = Assignment::decode(&hex(data)).expect("an assignment");
    assert_eq!(read.user_data.as_deref(), Some(&[7][..]));
    assert_eq!(read.encode(), hex("0003 00000000 00000001 07"));
}

/// Java throws there; a leader of librdkafka's names nobody who has no topics.
#[test]
fn who_was_not_named_gets_nothing() {
    assert_eq!(Assignment::decode(&[]), Ok(Assignment::default()));
    assert_eq!(Assignment::decode(&[0]), Err(Malformed("version")));
}

#[test]
fn what_a_sticky_member_had() {
    let v1 = "00000001 0002 7431 00000002 00000000 00000007 00000005";
    let history = History { partitions: vec![(text("t1"), vec![0, 7])], generation: 5 };
    assert_eq!(history.encode(), hex(v1));
    assert_eq!(History::decode(Some(&hex(v1))), history);
    let v0 = "00000001 0002 7431 00000002 00000000 00000007";
    let undated = History { generation: NO_GENERATION, ..history };
    assert_eq!(History::decode(Some(&hex(v0))), undated);
    for nothing in ["", "00", "ffffffff", "00000000", "00000002 0002 7431 00000000", "7fffffff"] {
        assert_eq!(History::decode(Some(&hex(nothing))), History::default(), "{nothing}");
    }
    assert_eq!(History::decode(None), History::default());
    // Below -1 there is no generation.
    assert_eq!(History::decode(Some(&hex("00000000 80000000"))).generation, NO_GENERATION);
}

/// librdkafka 2608: Java's four bytes are no list of partitions.
#[test]
fn the_generation_of_a_cooperative_member_by_the_length_of_its_user_data() {
    assert_eq!(encode_generation(5), hex("00000005"));
    let cases = [
        ("00000005", 5),
        ("ffffffff", -1),
        ("80000000", -1),
        // librdkafka and franz-go: as sticky.
        ("00000001 0002 7431 00000001 00000000 00000006", 6),
        ("00000000 00000006", 6),
        ("00000001 0002 7431 00000001 00000000", -1),
        ("", -1),
        ("0000", -1),
        ("00000005 00", -1),
    ];
    for (bytes, generation) in cases {
        assert_eq!(decode_generation(Some(&hex(bytes))), generation, "{bytes}");
    }
    assert_eq!(decode_generation(None), -1);
}

/// librdkafka has zero bytes for null; an empty rack is Java's default.
#[test]
fn empty_is_null() {
    let empty = "0003 00000000 00000000 00000000 ffffffff 0000";
    assert_eq!(Subscription::decode(&hex(empty)), Ok(Subscription::default()));
}

#[test]
fn what_others_repeat_is_there_once() {
    let twice = "0003
        00000003 0002 7432 0002 7431 0002 7432
        ffffffff
        00000003
            0002 7432 00000001 00000001
            0002 7431 00000004 00000002 00000001 00000002 ffffffff
            0002 7432 00000002 00000000 00000001
        80000000 ffff";
    let read = Subscription::decode(&hex(twice)).expect("a subscription");
    assert_eq!(read.topics, [text("t1"), text("t2")]);
    assert_eq!(read.owned, [(text("t1"), vec![1, 2]), (text("t2"), vec![0, 1])]);
    assert_eq!(read.generation, NO_GENERATION);
}

#[test]
fn impossible_lengths_are_refused() {
    for (bytes, field) in [
        ("", "version"),
        ("0003", "topics"),
        ("0003 ffffffff", "topics"),
        ("0003 7fffffff", "topics"),
        ("0003 80000000 0000", "topics"),
        ("0003 00000001 0003 7431", "topics"),
        // Null, and not a text.
        ("0003 00000001 ffff", "topics"),
        ("0003 00000001 0002 c328", "topics"),
        ("0003 00000000 fffffffe", "user data"),
        ("0003 00000000 7fffffff 00", "user data"),
        ("0003 00000000 ffffffff ffffffff", "owned partitions"),
        ("0003 00000000 ffffffff 00000001 0000", "owned partitions"),
        ("0003 00000000 ffffffff 00000001 0000 ffffffff", "owned partitions"),
        ("0003 00000000 ffffffff 00000001 0000 3fffffff 00000000", "owned partitions"),
        ("0003 00000000 ffffffff 00000000 000000", "generation"),
        ("0003 00000000 ffffffff 00000000 00000000", "rack"),
        ("0003 00000000 ffffffff 00000000 00000000 fffe", "rack"),
        ("0003 00000000 ffffffff 00000000 00000000 0001", "rack"),
    ] {
        assert_eq!(Subscription::decode(&hex(bytes)), Err(Malformed(field)), "{bytes}");
    }
    for (bytes, field) in [
        ("0000 ffffffff ffffffff", "partitions"),
        ("0000 00000001 0001 61 7fffffff 00000000", "partitions"),
        ("0000 00000000", "user data"),
    ] {
        assert_eq!(Assignment::decode(&hex(bytes)), Err(Malformed(field)), "{bytes}");
    }
    assert_eq!(
        Malformed("topics").to_string(),
        "topics cannot be read: cut short, or an impossible length"
    );
}

/// No beginning of a message is one, except the empty one and where a version ends early.
#[test]
fn cut_anywhere() {
    let bytes = subscription().encode();
    for len in 0..bytes.len() {
        assert!(Subscription::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    let bytes = Assignment { partitions: subscription().owned, user_data: None }.encode();
    for len in 1..bytes.len() {
        assert!(Assignment::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
}
