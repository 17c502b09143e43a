use super::*;

/// The example of RFC 7677, chapter 3.
mod rfc7677 {
    pub(super) const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub(super) const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    pub(super) const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    pub(super) const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    pub(super) const CLIENT_LAST: &str = "c=biws,\
         r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
         p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    pub(super) const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
}
use rfc7677::*;

fn known(user: &str) -> Option<Credential> {
    let salt = STANDARD.decode(SALT).unwrap();
    (user == "user").then(|| Credential::new(Hash::Sha256, "pencil", salt, 4096))
}

fn begin(message: &str, fault: Option<LoginFault>) -> Result<(Exchange, Vec<u8>), Refused> {
    Exchange::begin(Hash::Sha256, message.as_bytes(), SERVER_NONCE, known, fault)
}

#[test]
fn the_example_of_rfc_7677_succeeds() {
    let (exchange, answer) = begin(CLIENT_FIRST, None).ok().unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), SERVER_FIRST);
    let (user, answer) = exchange.finish(CLIENT_LAST.as_bytes(), None).ok().unwrap();
    assert_eq!(user, "user");
    assert_eq!(String::from_utf8(answer).unwrap(), SERVER_LAST);
}

/// The salted password of SHA-512 has no example in an RFC: this one is from other implementations, which
/// agree on it.
#[test]
fn both_hashes_have_keys_of_their_length() {
    for (hash, len) in [(Hash::Sha256, 32), (Hash::Sha512, 64)] {
        let credential = Credential::new(hash, "pencil", b"salt".to_vec(), 4096);
        assert_eq!((credential.stored_key.len(), credential.server_key.len()), (len, len));
    }
}

#[test]
fn a_proof_that_is_not_right_is_refused() {
    for (from, to) in [
        ("p=dHzb", "p=dHzc"),                      // another proof
        ("p=dHzb", "p="),                          // none of this length
        ("k0,p", "k1,p"),                          // another nonce
        ("c=biws", "c=eSws"),                      // another header than was signed
        ("k0,p", "k0,x=y,p"),                      // an extension that was not signed
        ("p=dHzbZapW", "p=dHzbZap"),               // no base64
        ("c=biws,", ""),                           // no header
        (CLIENT_LAST, ""),                         // nothing
        (CLIENT_LAST, "n,,n=user,r=rOprNGfwEbeR"), // the first again
    ] {
        let (exchange, _) = begin(CLIENT_FIRST, None).ok().unwrap();
        let message = CLIENT_LAST.replace(from, to);
        assert_ne!(message, CLIENT_LAST);
        let refused = exchange.finish(message.as_bytes(), None).err();
        assert_eq!(refused, Some(Refused::Generic), "{message}");
    }
}

#[test]
fn first_messages_are_read_as_kafka_does() {
    for (message, right) in [
        ("n,,n=user,r=abc", true),
        ("n,a=user,n=user,r=abc", true),
        ("n,,n=user,r=abc,tokenauth=true,x=y=z", true),
        ("y,,n=user,r=abc", false),
        ("p=tls-exporter,,n=user,r=abc", false),
        ("n,,m=x,n=user,r=abc", false),
        ("n,,n=user", false),
        ("n,,n=,r=abc", false),
        ("n,,n=user,r=", false),
        ("n,,n=us=er,r=abc", false),
        ("n,,n=us\u{e9}r,r=abc", false),
        ("n,,n=user,r=a\u{e9}", false),
        ("n,,n=user,r=abc,x1=y", false),
        ("n,,n=user,r=abc,x=", false),
        ("n,,n=bob,r=abc", false),
        ("", false),
    ] {
        let begun = begin(message, None);
        match right {
            true => assert!(begun.is_ok(), "{message}"),
            false => assert_eq!(begun.err(), Some(Refused::Generic), "{message}"),
        }
    }
    let other = begin("n,a=bob,n=user,r=abc", None).err();
    assert_eq!(other, Some(Refused::Told(OTHER_IDENTITY.to_owned())));
}

#[test]
fn names_may_have_commas_and_equals_signs() {
    for (escaped, name) in [("a=2Cb=3Dc", "a,b=c"), ("=3D2C", "=2C"), ("=2C", ",")] {
        let mut asked = String::new();
        let message = format!("n,,n={escaped},r=abc");
        let begun = Exchange::begin(
            Hash::Sha512,
            message.as_bytes(),
            "xyz",
            |user| {
                asked = user.to_owned();
                known("user")
            },
            None,
        );
        assert!(begun.is_ok(), "{escaped}");
        assert_eq!(asked, name);
    }
}

#[test]
fn fewer_rounds_than_kafka_takes_let_nobody_in() {
    for (rounds, right) in [(4095, false), (4096, true)] {
        let find = |_: &str| Some(Credential::new(Hash::Sha256, "p", b"salt".to_vec(), rounds));
        let begun = Exchange::begin(Hash::Sha256, b"n,,n=user,r=abc", "xyz", find, None);
        assert_eq!(begun.is_ok(), right, "{rounds}");
    }
}

#[test]
fn faults_lie_as_they_say() {
    let answer =
        |fault| String::from_utf8(begin(CLIENT_FIRST, Some(fault)).ok().unwrap().1).unwrap();
    let rounds = answer(LoginFault::ScramIterations(1_000_000_000));
    assert!(rounds.ends_with(",i=1000000000"), "{rounds}");
    let foreign = answer(LoginFault::ScramForeignNonce);
    assert!(!foreign.starts_with("r=rOprNGfwEbeRWgbNEkqO"), "{foreign}");

    let last = |fault| {
        let (exchange, _) = begin(CLIENT_FIRST, None).ok().unwrap();
        let (_, answer) = exchange.finish(CLIENT_LAST.as_bytes(), Some(fault)).ok().unwrap();
        String::from_utf8(answer).unwrap()
    };
    let wrong = last(LoginFault::ScramWrongSignature);
    assert!(wrong.starts_with("v=") && wrong != SERVER_LAST, "{wrong}");
    assert_eq!(last(LoginFault::ScramNoSignature), "");
}
