use proptest::prelude::*;

use super::*;

const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

fn credentials(hash: Hash, user: &str, password: &str) -> Credentials {
    let (user, password) = (user.to_owned(), Secret::from(password));
    Credentials { hash, user, password, is_token: false, salted: Arc::default() }
}

fn login(credentials: &Credentials, nonce: &str) -> Scram {
    Scram::new(credentials.clone(), nonce.into())
}

/// What is sent next; how often something had to be computed for it.
fn sent(login: &mut Scram, challenge: &str) -> (String, u32) {
    let mut computed = 0;
    loop {
        match login.step(challenge.as_bytes()).expect("it goes on") {
            Step::Send(message) => return (String::from_utf8(message.to_vec()).unwrap(), computed),
            Step::Compute(work) => work(),
            Step::Done => panic!("it is over"),
        }
        computed += 1;
        assert!(computed < 2, "what was computed is not found");
    }
}

fn refused(login: &mut Scram, challenge: &[u8]) -> Error {
    let error = login.step(challenge).expect_err("it is refused");
    assert_eq!(error.kind(), ErrorKind::Authentication);
    assert!(login.step(b"").is_err(), "a login that failed is over");
    error
}

/// At the broker's first message.
fn at_first() -> Scram {
    let mut login = login(&credentials(Hash::Sha256, "user", "pencil"), NONCE);
    sent(&mut login, "");
    login
}

/// At the broker's last message.
fn at_last() -> Scram {
    let mut login = at_first();
    sent(&mut login, FIRST);
    login
}

/// The example of RFC 7677; for SHA-512 the same made by Python's hashlib.
#[test]
fn examples_of_the_rfc() {
    for (hash, proof, signature) in [
        (
            Hash::Sha256,
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
        (
            Hash::Sha512,
            "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
            "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
        ),
    ] {
        let known = credentials(hash, "user", "pencil");
        for computed in [1, 0] {
            let mut login = login(&known, NONCE);
            assert_eq!(sent(&mut login, ""), (format!("n,,n=user,r={NONCE}"), 0));
            let last = format!("c=biws,r={NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p={proof}");
            // The salted password is kept for the next login.
            assert_eq!(sent(&mut login, FIRST), (last, computed));
            let done = login.step(format!("v={signature}").as_bytes());
            assert!(matches!(done, Ok(Step::Done)));
            assert!(login.step(b"").is_err(), "it is over");
        }
    }
}

/// Kafka normalises no password, and knows names by their escaped form. (Numbers by Python's hashlib.)
#[test]
fn names_are_escaped_and_passwords_are_left_as_they_are() {
    let mut login = login(&credentials(Hash::Sha256, "a=b,c", "ﬁe\u{301}"), "abc");
    assert_eq!(sent(&mut login, "").0, "n,,n=a=3Db=2Cc,r=abc");
    let proof = "7MM3aHA+jIt6onS19OmRtkl1YS+MUh6OrkWSrs2vFJo=";
    assert_eq!(sent(&mut login, "r=abcdef,s=eA==,i=4096").0, format!("c=biws,r=abcdef,p={proof}"));
    let done = login.step(b"v=SE61VbQxFH3s5ibCpbL8JHK9lk2A72UjBo7DoxbSBCs=,ext=1");
    assert!(matches!(done, Ok(Step::Done)));
}

#[test]
fn a_token_says_so_and_a_password_does_not() {
    let mut token = credentials(Hash::Sha256, "id", "hmac");
    token.is_token = true;
    assert_eq!(sent(&mut login(&token, "n"), "").0, "n,,n=id,r=n,tokenauth=true");
}

/// One salt is remembered, and only for its number of iterations.
#[test]
fn what_is_remembered_is_for_its_salt_and_iterations() {
    let known = credentials(Hash::Sha256, "user", "pencil");
    let computed = |first: &str| {
        let mut login = login(&known, NONCE);
        sent(&mut login, "");
        sent(&mut login, first).1
    };
    assert_eq!(computed(FIRST), 1);
    assert_eq!(computed(&FIRST.replace("i=4096", "i=4097")), 1);
    assert_eq!(computed(&FIRST.replace("i=4096", "i=4097")), 0);
    assert_eq!(computed(&FIRST.replace("W22Z", "W22Y")), 1);
    assert_eq!(computed(FIRST), 1);
}

#[test]
fn the_brokers_first_message_is_held_to_its_limits() {
    let nonce = |n: usize| format!("r={NONCE}{},s=eA==,i=4096", "x".repeat(n - NONCE.len()));
    let salt = |n: usize| format!("r={NONCE}x,s={},i=4096", BASE64.encode(vec![7; n]));
    let iterations = |n: &str| format!("r={NONCE}x,s=eA==,i={n}");
    for good in [
        nonce(MAX_NONCE),
        nonce(NONCE.len() + 1),
        salt(1),
        salt(MAX_SALT),
        iterations("4096"),
        iterations("65536"),
        format!("r={NONCE}x,s=eA==,i=4096,x=later"),
    ] {
        assert!(at_first().step(good.as_bytes()).is_ok(), "{good}");
    }
    for (bad, words) in [
        (nonce(MAX_NONCE + 1), "nonce"),
        (format!("r={NONCE},s=eA==,i=4096"), "nonce"),
        (format!("r=x{NONCE}x,s=eA==,i=4096"), "nonce"),
        (format!("r={NONCE}\u{1},s=eA==,i=4096"), "nonce"),
        (salt(0), "salt"),
        (salt(MAX_SALT + 1), "salt"),
        (format!("r={NONCE}x,s=e,i=4096"), "salt"),
        (iterations("4095"), "iterations"),
        (iterations("65537"), "iterations"),
        (iterations("+4096"), "iterations"),
        (iterations("-1"), "iterations"),
        (iterations("99999999999999999999"), "iterations"),
        (iterations(""), "iterations"),
        (format!("m=x,r={NONCE}x,s=eA==,i=4096"), "extension"),
        (format!("s=eA==,r={NONCE}x,i=4096"), "lacks"),
        (String::new(), "lacks"),
        ("e=other-error".into(), "refuses the credentials: other-error"),
    ] {
        let error = refused(&mut at_first(), bad.as_bytes());
        assert!(error.message().contains(words), "{bad}: {error}");
    }
    refused(&mut at_first(), &[0xff, 0xfe]);
}

/// Somebody who does not know the password cannot pass for the broker.
#[test]
fn a_broker_that_does_not_sign_is_refused() {
    let signature = BASE64.decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
    let of = |signature: &[u8]| format!("v={}", BASE64.encode(signature));
    assert!(at_last().step(of(&signature).as_bytes()).is_ok());
    let mut other = signature.clone();
    other[31] ^= 1;
    let good = of(&signature);
    for bad in ["", "v=", "v", "x=1", &of(&other), &of(&signature[..31]), &good[2..]] {
        let error = refused(&mut at_last(), bad.as_bytes());
        assert!(error.message().contains("may be somebody else"), "{bad}: {error}");
    }
    let error = refused(&mut at_last(), "e=invalid-proof\u{7}\u{202e}".as_bytes());
    assert!(error.message().ends_with("credentials: invalid-proof"), "{error}");
}

#[test]
fn nobody_speaks_before_the_client() {
    refused(&mut login(&credentials(Hash::Sha512, "u", "p"), "n"), b"hello");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever comes: no panic, and nothing is computed that was not checked.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = at_first().step(&bytes);
        let _ = login(&credentials(Hash::Sha512, "u", "p"), "n").step(&bytes);
        let signed = BASE64.decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        let State::Last { key, signed: message } = at_last_known().state else { panic!() };
        prop_assert!(!Hash::Sha256.is_signed(&key, &message, &bytes) || bytes == signed);
    }

    /// Texts that look like messages.
    #[test]
    fn any_attributes_are_survived(
        parts in proptest::collection::vec(("[rsimevx]=", "[ -~]{0,30}"), 0..6),
    ) {
        let parts: Vec<_> = parts.iter().map(|(name, value)| format!("{name}{value}")).collect();
        let message = parts.join(",").replace("r=", &format!("r={NONCE}"));
        if let Ok(Step::Compute(_)) = at_first().step(message.as_bytes()) {
            let first = ServerFirst::read(message.as_bytes(), NONCE).unwrap();
            prop_assert!((MIN_ITERATIONS..=MAX_ITERATIONS).contains(&first.iterations));
            prop_assert!(!first.salt.is_empty());
        }
    }

    /// A client and a broker with the same password agree, whatever it and the name are; with another they
    /// do not.
    #[test]
    fn who_knows_the_password_is_let_in(user in "[ -~]{1,20}", password in ".{1,20}") {
        let known = credentials(Hash::Sha256, &user, &password);
        let mut login = login(&known, "n");
        let bare = sent(&mut login, "").0.split_off(GS2.len());
        let first = "r=nm,s=eA==,i=4096";
        let last = sent(&mut login, first).0;
        let (without_proof, proof) = last.rsplit_once(",p=").unwrap();
        // As a broker checks it: from the stored key alone.
        let signed = format!("{bare},{first},{without_proof}");
        let salted = Hash::Sha256.salted_password(password.as_bytes(), b"x", 4096);
        let stored = Hash::Sha256.digest(&Hash::Sha256.hmac(&salted, b"Client Key"));
        let signature = Hash::Sha256.hmac(&stored, signed.as_bytes());
        let mut key = BASE64.decode(proof).unwrap();
        key.iter_mut().zip(signature.iter()).for_each(|(a, b)| *a ^= b);
        prop_assert_eq!(&*Hash::Sha256.digest(&key), &*stored);
    }
}

/// As [`at_last`], with the salted password of one computation for all cases.
fn at_last_known() -> Scram {
    static SALTED: std::sync::LazyLock<Arc<Salted>> = std::sync::LazyLock::new(Arc::default);
    let mut known = credentials(Hash::Sha256, "user", "pencil");
    known.salted = Arc::clone(&SALTED);
    let mut login = login(&known, NONCE);
    sent(&mut login, "");
    sent(&mut login, FIRST);
    login
}

/// Logins that go on at the same time share a place for what is computed, and each goes on with its own: brokers may have
/// different salts for one user (for a delegation token each has its own).
#[test]
fn logins_at_two_brokers_do_not_disturb_each_other() {
    let credentials = credentials(Hash::Sha256, "user", "pencil");
    let mut logins = [login(&credentials, "a"), login(&credentials, "b")];
    let firsts = ["r=a1,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "r=b1,s=c2FsdA==,i=4096"];
    let mut works = Vec::new();
    for (login, first) in logins.iter_mut().zip(firsts) {
        sent(login, "");
        let Ok(Step::Compute(work)) = login.step(first.as_bytes()) else {
            panic!("it is computed")
        };
        works.push(work);
    }
    works.into_iter().for_each(|work| work());
    for (login, first) in logins.iter_mut().zip(firsts) {
        assert!(matches!(login.step(first.as_bytes()), Ok(Step::Send(_))), "{first}");
    }
}
