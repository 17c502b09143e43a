//! When a provider is asked, and what logins get meanwhile. In virtual time.

use std::future::poll_fn;
use std::task::Poll;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::token::{TokenError, TokenProvider};
use super::super::{OAuth, Token};
use super::*;
use crate::security::mechanism::Step;

const HOUR: Duration = Duration::from_secs(3_600);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A provider that a test steers.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<Book>>);

#[derive(Default)]
struct Book {
    asked: Vec<Instant>,
    /// How long its tokens are good; none: they have no end.
    life: Option<Duration>,
    takes: Duration,
    fails: bool,
    panics: bool,
}

impl Provider {
    fn of(life: Duration) -> Self {
        let provider = Self::default();
        provider.book().life = Some(life);
        provider
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap()
    }

    fn asked(&self) -> usize {
        self.book().asked.len()
    }
}

impl TokenProvider for Provider {
    fn token(&self) -> BoxFuture<'_, Result<Token, TokenError>> {
        Box::pin(async move {
            let takes = {
                let mut book = self.book();
                book.asked.push(Instant::now());
                book.takes
            };
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            let book = self.book();
            assert!(!book.panics, "on purpose");
            if book.fails {
                return Err("the vault is sealed".into());
            }
            let token = Token::new(format!("token-{}", book.asked.len()));
            Ok(book.life.map_or(token.clone(), |life| token.expires_in(life)))
        })
    }
}

fn env(seed: u64) -> Environment {
    Environment::builder().runtime(tokio::runtime::Handle::current()).seed(seed).build()
}

fn keeper(provider: &Provider, seed: u64) -> Keeper {
    OAuth::provider(provider.clone()).keeper(&env(seed)).unwrap()
}

fn broker(port: u16) -> Endpoint {
    Endpoint { host: "h".into(), port }
}

/// A broker does not take the token that there is.
fn refuse(keeper: &Keeper) {
    let text = keeper.0.state().token.as_ref().unwrap().text.clone();
    keeper.0.refused(&text, &broker(1));
}

/// A login with the token that there is was good for so long.
fn taken(keeper: &Keeper, life: Duration) {
    let text = keeper.0.state().token.as_ref().unwrap().text.clone();
    keeper.0.taken(&text, &broker(1), Instant::now(), Some(life));
}

/// The token that a login shows.
async fn login(keeper: &Keeper, need: Need) -> Result<String> {
    login_at(1, keeper, need).await
}

async fn login_at(port: u16, keeper: &Keeper, need: Need) -> Result<String> {
    let to = broker(port);
    let mut login = keeper.prepare(&to, need, &Arc::default()).await?;
    let Ok(Step::Send(message)) = login.step(b"") else { panic!("it begins") };
    let text = String::from_utf8(message.to_vec()).unwrap();
    Ok(text.split('\u{1}').nth(1).unwrap().strip_prefix("auth=Bearer ").unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn one_token_is_asked_for_by_all_connections_together() {
    let provider = Provider::of(HOUR);
    provider.book().takes = secs(2);
    let keeper = Arc::new(keeper(&provider, 1));
    let logins: Vec<_> = (0..50)
        .map(|_| {
            let keeper = Arc::clone(&keeper);
            tokio::spawn(async move { login(&keeper, Need::Login).await })
        })
        .collect();
    for one in logins {
        assert_eq!(one.await.unwrap().unwrap(), "token-1");
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_replaced_before_it_ends_and_no_login_waits_for_that() {
    for seed in 0..20 {
        let provider = Provider::of(HOUR);
        let keeper = keeper(&provider, seed);
        login(&keeper, Need::Login).await.unwrap();
        provider.book().takes = secs(5);
        let begun = Instant::now();
        while begun.elapsed() < 10 * HOUR {
            let asked = Instant::now();
            login(&keeper, Need::Login).await.unwrap();
            assert_eq!(asked.elapsed(), Duration::ZERO);
            tokio::time::sleep(secs(20)).await;
        }
        let asked = provider.book().asked.clone();
        let first = (asked[1] - asked[0]).as_secs_f64() / 3_600.0;
        assert!((0.1..0.801).contains(&first), "{first}");
        for pair in asked[1..].windows(2) {
            let part = (pair[1] - pair[0] - secs(5)).as_secs_f64() / 3_600.0;
            assert!((0.5..0.801).contains(&part), "{part}");
        }
    }
}

/// It goes on while there is a token that is good, and comes back by itself.
#[tokio::test(start_paused = true)]
async fn a_token_outlives_a_provider_that_gives_no_other() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 3);
    login(&keeper, Need::Login).await.unwrap();
    provider.book().fails = true;
    let begun = Instant::now();
    while begun.elapsed() < HOUR - secs(2) {
        for need in [Need::Login, Need::Renewal] {
            assert_eq!(login(&keeper, need).await.unwrap(), "token-1", "{need:?}");
        }
        tokio::time::sleep(secs(1)).await;
    }
    tokio::time::sleep(secs(3)).await;
    let error = login(&keeper, Need::Login).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials);
    assert!(error.message().contains("the vault is sealed") && error.is_retriable(), "{error}");
    // Seldom, as long as it is good; logins ask in the last tenth of its life, each after 1 s to 60 s.
    let asked = provider.asked();
    assert!((8..=60).contains(&asked), "{asked} requests in an hour");
    provider.book().fails = false;
    let begun = Instant::now();
    while login(&keeper, Need::Login).await.is_err() {}
    assert!(begun.elapsed() <= secs(61), "{:?}", begun.elapsed());
}

/// Whoever finds that there is none is told at once, and comes back without a pause.
#[tokio::test(start_paused = true)]
async fn a_provider_that_gives_none_is_asked_seldom_however_many_want_one() {
    let provider = Provider::default();
    provider.book().fails = true;
    let keeper = Arc::new(keeper(&provider, 4));
    let begun = Instant::now();
    login(&keeper, Need::Login).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO, "told at once");
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let keeper = Arc::clone(&keeper);
            tokio::spawn(async move {
                let mut tried = 0;
                let begun = Instant::now();
                while begun.elapsed() < secs(600) {
                    login(&keeper, Need::Login).await.unwrap_err();
                    tried += 1;
                }
                tried
            })
        })
        .collect();
    for one in waiting {
        let tried = one.await.unwrap();
        assert!(tried <= 1_300, "{tried} attempts in ten minutes");
    }
    let asked = provider.asked();
    assert!((10..=40).contains(&asked), "{asked} requests in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_never_answers_or_panics_is_told_of() {
    let provider = Provider::default();
    provider.book().takes = HOUR;
    let slow = keeper(&provider, 5);
    let begun = Instant::now();
    let error = login(&slow, Need::Login).await.unwrap_err();
    assert_eq!(begun.elapsed(), secs(10));
    assert!(error.message().contains("no answer within 10s") && error.is_retriable(), "{error}");

    let provider = Provider::default();
    provider.book().panics = true;
    let error = login(&keeper(&provider, 6), Need::Login).await.unwrap_err();
    assert!(error.message().contains("panic"), "{error}");
}

/// A session ends with its token, and is renewed again then. The token has a time of its own.
#[tokio::test(start_paused = true)]
async fn a_renewal_takes_the_token_that_there_is_until_its_time_has_come() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 7);
    login(&keeper, Need::Login).await.unwrap();
    let at = keeper.0.state().refresh_at.unwrap();
    tokio::time::sleep_until(at - secs(1)).await;
    assert_eq!(login(&keeper, Need::Renewal).await.unwrap(), "token-1");
    provider.book().takes = secs(1);
    tokio::time::sleep_until(at).await;
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1");
    assert_eq!(login(&keeper, Need::Renewal).await.unwrap(), "token-2", "it waits for that");
    assert_eq!(provider.asked(), 2);
}

/// A broker says how long a session lasts: not for ever, though the token does not say so.
#[tokio::test(start_paused = true)]
async fn a_broker_knows_when_a_token_ends_that_does_not_say_so() {
    let provider = Provider::default();
    let keeper = keeper(&provider, 18);
    login(&keeper, Need::Login).await.unwrap();
    taken(&keeper, HOUR);
    tokio::time::sleep(secs(3_240)).await;
    assert_eq!(login(&keeper, Need::Renewal).await.unwrap(), "token-1", "nothing is known yet");
    // The session ends when that of before would have.
    taken(&keeper, secs(360));
    tokio::time::sleep(secs(1)).await;
    assert_eq!(login(&keeper, Need::Renewal).await.unwrap(), "token-2", "before that");
    // And the next one is replaced in time.
    let begun = Instant::now();
    while provider.asked() == 2 {
        tokio::time::sleep(secs(10)).await;
    }
    let part = begun.elapsed().as_secs_f64() / 3_600.0;
    assert!((0.49..0.81).contains(&part), "{part}");
}

/// `connections.max.reauth.ms` of a broker is no end of a token.
#[tokio::test(start_paused = true)]
async fn sessions_that_brokers_bound_have_no_tokens_asked_for() {
    for provider in [Provider::default(), Provider::of(10 * HOUR)] {
        let keeper = keeper(&provider, 19);
        login(&keeper, Need::Login).await.unwrap();
        for _ in 0..6 {
            taken(&keeper, secs(600));
            tokio::time::sleep(secs(540)).await;
            assert_eq!(login(&keeper, Need::Renewal).await.unwrap(), "token-1");
        }
    }
}

/// A machine that slept: the clock that timers follow stood still.
#[tokio::test(start_paused = true)]
async fn a_token_that_is_over_by_the_time_of_day_is_over() {
    let provider = Provider::of(HOUR);
    let env = env(20);
    let keeper = OAuth::provider(provider.clone()).keeper(&env).unwrap();
    login(&keeper, Need::Login).await.unwrap();
    env.set_time_of_day(HOUR - secs(400));
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1");
    env.set_time_of_day(secs(60));
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-2");
    provider.book().fails = true;
    env.set_time_of_day(2 * HOUR);
    login(&keeper, Need::Login).await.unwrap_err();
}

/// Brokers' clocks are not ours.
#[tokio::test(start_paused = true)]
async fn what_is_nearly_over_is_no_token_to_log_in_with() {
    for (life, left) in [(HOUR, secs(360)), (secs(120), secs(30)), (secs(20), secs(5))] {
        let provider = Provider::of(life);
        let keeper = keeper(&provider, 8);
        login(&keeper, Need::Login).await.unwrap();
        let asleep = Instant::now() + 10 * HOUR;
        keeper.0.state().refresh_at = Some(asleep);
        keeper.0.wake.notify_one();
        tokio::time::sleep(life - left - secs(1)).await;
        assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1", "{life:?}");
        tokio::time::sleep(secs(1)).await;
        assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-2", "{life:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_a_broker_refuses_is_replaced_if_it_is_not_new() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 9);
    login(&keeper, Need::Login).await.unwrap();
    refuse(&keeper);
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1", "it was made just now");
    tokio::time::sleep(REFUSED_AFTER).await;
    refuse(&keeper);
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-2");
    // And is not used any more where there is no other.
    provider.book().fails = true;
    tokio::time::sleep(REFUSED_AFTER).await;
    refuse(&keeper);
    login(&keeper, Need::Login).await.unwrap_err();
}

/// Brokers have keys and clocks of their own.
#[tokio::test(start_paused = true)]
async fn what_one_broker_refuses_is_good_at_the_others() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 9);
    login(&keeper, Need::Login).await.unwrap();
    tokio::time::sleep(REFUSED_AFTER).await;
    provider.book().fails = true;
    refuse(&keeper);
    login(&keeper, Need::Login).await.unwrap_err();
    for need in [Need::Login, Need::Renewal] {
        assert_eq!(login_at(2, &keeper, need).await.unwrap(), "token-1", "{need:?}");
    }
    tokio::time::sleep(HOUR).await;
    login_at(2, &keeper, Need::Login).await.unwrap_err();
}

/// A proxy may have a moment of its own. A wrong URL gives the same answers, and does not get better.
#[tokio::test(start_paused = true)]
async fn a_strange_answer_is_tried_again_and_not_for_ever() {
    let (provider, mut rng) = (Provider::default(), StdRng::seed_from_u64(1));
    let keeper = keeper(&provider, 21);
    let strange = || {
        let error = Error::new(ErrorKind::Credentials, "it answers 404");
        Failure { is_strange: true, ..Failure::from(error) }
    };
    let mut told = Vec::new();
    for _ in 0..=MAX_STRANGE {
        keeper.0.came(Err(strange()), &mut rng);
        let (error, until) = keeper.0.state().failure.clone().unwrap();
        assert!(error.message().contains("404"), "{error}");
        told.push(error.is_retriable());
        assert!(until - Instant::now() <= secs(60) || !error.is_retriable());
    }
    assert_eq!(told.iter().filter(|passes| **passes).count() as u32, MAX_STRANGE);
    assert!(!told[MAX_STRANGE as usize]);
    keeper.0.came(Ok(Token::new("t")), &mut rng);
    keeper.0.came(Err(strange()), &mut rng);
    assert!(keeper.0.state().failure.as_ref().unwrap().0.is_retriable(), "another time");
}

#[tokio::test(start_paused = true)]
async fn what_a_broker_says_of_a_former_token_is_not_said_of_this_one() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 9);
    login(&keeper, Need::Login).await.unwrap();
    tokio::time::sleep(REFUSED_AFTER).await;
    keeper.0.refused(&Secret::from("token-0"), &broker(1));
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1");
}

/// The provider takes connections and never answers.
#[tokio::test(start_paused = true)]
async fn a_token_outlives_a_provider_that_hangs() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 3);
    login(&keeper, Need::Login).await.unwrap();
    provider.book().takes = 10 * HOUR;
    tokio::time::sleep(secs(3_420)).await;
    for _ in 0..60 {
        let got = tokio::time::timeout(secs(5), login(&keeper, Need::Login)).await;
        assert_eq!(got.unwrap().unwrap(), "token-1");
        tokio::time::sleep(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_given_for_good_ends_once() {
    let keeper = OAuth::from(Token::new("a").expires_in(HOUR)).keeper(&env(1)).unwrap();
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "a");
    tokio::time::sleep(2 * HOUR).await;
    let error = login(&keeper, Need::Login).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Credentials, "{error}");
}

/// An error of a provider that panics as it is shown.
#[derive(Debug)]
struct Shy;

impl std::fmt::Display for Shy {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("on purpose");
    }
}

impl std::error::Error for Shy {}

#[derive(Default)]
struct ShyOnce(AtomicBool);

impl TokenProvider for ShyOnce {
    fn token(&self) -> BoxFuture<'_, Result<Token, TokenError>> {
        let first = !self.0.swap(true, Ordering::Relaxed);
        Box::pin(async move { if first { Err(Shy.into()) } else { Ok(Token::new("good")) } })
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_foreign_code_is_a_failure_like_others() {
    let keeper = OAuth::provider(ShyOnce::default()).keeper(&env(1)).unwrap();
    login(&keeper, Need::Login).await.unwrap_err();
    let again = async {
        loop {
            tokio::time::sleep(secs(1)).await;
            if let Ok(token) = login(&keeper, Need::Login).await {
                return token;
            }
        }
    };
    let token = tokio::time::timeout(secs(600), again).await;
    assert_eq!(token.expect("it goes on"), "good");
}

/// What the client itself is to blame for is not repeated as often.
#[tokio::test(start_paused = true)]
async fn attempts_are_repeated_by_what_they_failed_of() {
    let (provider, mut rng) = (Provider::default(), StdRng::seed_from_u64(1));
    let keeper = keeper(&provider, 10);
    let wait = |failure: Failure, rng: &mut StdRng| {
        keeper.0.came(Err(failure), rng);
        keeper.0.state().failure.as_ref().unwrap().1 - Instant::now()
    };
    let own = || Failure::from(Error::new(ErrorKind::Credentials, "invalid_client"));
    let passing = || Failure::from(own().error.passing());
    for _ in 0..50 {
        assert!((secs(1)..=secs(60)).contains(&wait(passing(), &mut rng)));
        assert!((secs(30)..=secs(300)).contains(&wait(own(), &mut rng)));
        let asked = |after| Failure { retry_after: Some(secs(after)), ..passing() };
        assert!(wait(asked(100), &mut rng) >= secs(100));
        assert!(wait(asked(1_000_000), &mut rng) <= secs(300));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_for_who_is_gone() {
    let provider = Provider::of(HOUR);
    let keeper = keeper(&provider, 11);
    login(&keeper, Need::Login).await.unwrap();
    let shared = Arc::downgrade(&keeper.0);
    drop(keeper);
    tokio::time::sleep(10 * HOUR).await;
    assert_eq!(provider.asked(), 1);
    assert!(shared.upgrade().is_none(), "it is not kept");
}

/// A program's own code may be at work for as long as it is waited for.
#[tokio::test(start_paused = true)]
async fn what_was_asked_for_who_is_gone_is_given_up() {
    let (tx, mut given_up) = tokio::sync::mpsc::unbounded_channel();
    let oauth = OAuth::provider(move || {
        let tx = tx.clone();
        async move {
            let _at_work = AtTheEnd(Some(move || {
                let _ = tx.send(());
            }));
            std::future::pending().await
        }
    });
    let keeper = oauth.keeper(&env(14)).unwrap();
    let waited = tokio::time::timeout(secs(1), login(&keeper, Need::Login)).await;
    assert!(waited.is_err(), "it never answers");
    let since = Instant::now();
    drop(keeper);
    given_up.recv().await.unwrap();
    assert!(since.elapsed() < secs(1), "after {:?}", since.elapsed());
}

/// Pools of two clusters, with one and the same provider.
#[tokio::test(start_paused = true)]
async fn one_provider_is_asked_once_at_a_time() {
    let provider = Provider::of(HOUR);
    provider.book().takes = secs(3);
    let oauth = OAuth::provider(provider.clone());
    let (a, b) = (oauth.keeper(&env(20)).unwrap(), oauth.keeper(&env(21)).unwrap());
    let (first, second) = tokio::join!(login(&a, Need::Login), login(&b, Need::Login));
    assert_eq!((&*first.unwrap(), &*second.unwrap()), ("token-1", "token-1"));
    assert_eq!(provider.asked(), 1);
    // What has come is for who waited for it.
    let c = oauth.keeper(&env(22)).unwrap();
    assert_eq!(login(&c, Need::Login).await.unwrap(), "token-2");
}

/// And its time counts from when it was asked.
#[tokio::test(start_paused = true)]
async fn an_asking_outlives_who_began_it_and_no_more() {
    let (tx, mut given_up) = tokio::sync::mpsc::unbounded_channel();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let oauth = OAuth::provider(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let tx = tx.clone();
        async move {
            let _at_work = AtTheEnd(Some(move || {
                let _ = tx.send(());
            }));
            tokio::time::sleep(secs(8)).await;
            Ok(Token::new("late"))
        }
    });
    let (a, b) = (oauth.keeper(&env(23)).unwrap(), oauth.keeper(&env(24)).unwrap());
    let began = Instant::now();
    let mut first = Box::pin(login(&a, Need::Login));
    assert!(tokio::time::timeout(secs(1), &mut first).await.is_err());
    let mut second = Box::pin(login(&b, Need::Login));
    assert!(tokio::time::timeout(secs(1), &mut second).await.is_err());
    drop(first);
    drop(a);
    assert_eq!(second.await.unwrap(), "late");
    assert!(began.elapsed() < secs(9), "after {:?}", began.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    given_up.recv().await.unwrap();
    // With the last of them it ends.
    let c = oauth.keeper(&env(25)).unwrap();
    assert!(tokio::time::timeout(secs(1), login(&c, Need::Login)).await.is_err());
    assert!(given_up.try_recv().is_err());
    drop(c);
    given_up.recv().await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// Does something once it is dropped.
struct AtTheEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtTheEnd<F> {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_ended_is_none() {
    let given = |token: Token| OAuth::from(token).keeper(&env(12)).unwrap();
    let past = Token::new("a").expires_at(std::time::UNIX_EPOCH + secs(1));
    let error = login(&given(past), Need::Login).await.unwrap_err();
    assert!(error.message().contains("expired") && !error.is_retriable(), "{error}");
    assert_eq!(login(&given(Token::new("a")), Need::Login).await.unwrap(), "a");
}

/// Kubernetes renews the token in a file; who writes it by hand is not always quick.
#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_and_the_old_token_stays_until_there_is_another() {
    let path = std::env::temp_dir().join(format!("ottla-token-{}", std::process::id()));
    std::fs::write(&path, "first\n").unwrap();
    let keeper = OAuth::file(&path).keeper(&env(13)).unwrap();
    let mut seen = Vec::new();
    for content in [Some("first"), Some("second"), Some(" "), None, Some("third")] {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        seen.push(login(&keeper, Need::Login).await.unwrap());
        tokio::time::sleep(secs(60)).await;
    }
    assert_eq!(seen, ["first", "second", "second", "second", "third"]);
    std::fs::write(&path, "fourth").unwrap();
    tokio::time::sleep(secs(1)).await;
    let before = login(&keeper, Need::Login).await.unwrap();
    std::fs::write(&path, "fifth").unwrap();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), before, "read a moment ago");
    std::fs::remove_file(&path).unwrap();
    let gone = OAuth::file(&path).keeper(&env(14)).unwrap();
    let error = login(&gone, Need::Login).await.unwrap_err();
    assert!(error.message().contains("token file '") && error.is_retriable(), "{error}");
}

/// Clients that were deployed together, with tokens of an hour: what their provider has to do.
#[tokio::test(start_paused = true)]
async fn a_fleet_does_not_come_back_together() {
    const CLIENTS: u64 = 2_000;
    /// So long that chance is a twentieth of what comes.
    const WINDOW: u64 = 900;
    let provider = Provider::of(HOUR);
    let env = env(15);
    let keepers: Vec<_> =
        (0..CLIENTS).map(|_| OAuth::provider(provider.clone()).keeper(&env).unwrap()).collect();
    for keeper in &keepers {
        login(keeper, Need::Login).await.unwrap();
    }
    let begun = Instant::now();
    let per_window = |provider: &Provider, from: Instant| {
        let asked = std::mem::take(&mut provider.book().asked);
        let mut windows = vec![0u64; 6 * 3_600 / WINDOW as usize];
        for at in asked.into_iter().filter(|at| *at > from) {
            windows[((at - from).as_secs() / WINDOW) as usize] += 1;
        }
        windows
    };
    provider.book().asked.clear();
    tokio::time::sleep(6 * HOUR - secs(1)).await;
    let windows = per_window(&provider, begun);
    // Each client asks every 39 minutes or so.
    let mean = (CLIENTS * WINDOW) as f64 / (0.65 * 3_600.0);
    let peak = *windows.iter().max().unwrap() as f64;
    assert!(peak <= 2.0 * mean, "peak {peak} of mean {mean}: {windows:?}");

    // An hour without a provider: they come back over a minute, and do not come back together after that.
    provider.book().fails = true;
    tokio::time::sleep(HOUR).await;
    provider.book().fails = false;
    tokio::time::sleep(secs(120)).await;
    provider.book().asked.clear();
    let begun = Instant::now();
    tokio::time::sleep(6 * HOUR - secs(1)).await;
    let windows = per_window(&provider, begun);
    let peak = *windows.iter().max().unwrap() as f64;
    assert!(peak <= 2.0 * mean, "peak {peak} of mean {mean}: {windows:?}");
    drop(keepers);
}

/// Sessions are renewed more often than tokens: that is no reason to ask for another one.
#[tokio::test(start_paused = true)]
async fn sessions_bring_a_fleet_into_no_step() {
    const CLIENTS: u64 = 1_000;
    const WINDOW: u64 = 600;
    let provider = Provider::of(HOUR);
    let env = env(17);
    let keepers: Vec<_> = (0..CLIENTS)
        .map(|_| Arc::new(OAuth::provider(provider.clone()).keeper(&env).unwrap()))
        .collect();
    for keeper in &keepers {
        login(keeper, Need::Login).await.unwrap();
    }
    provider.book().asked.clear();
    let begun = Instant::now();
    let mut rng = StdRng::seed_from_u64(17);
    let sessions: Vec<_> = keepers
        .iter()
        .map(|keeper| {
            let (keeper, mut rng) = (Arc::clone(keeper), StdRng::seed_from_u64(rng.random()));
            tokio::spawn(async move {
                while begun.elapsed() < 6 * HOUR {
                    tokio::time::sleep(secs(600).mul_f64(rng.random_range(0.85..0.95))).await;
                    login(&keeper, Need::Renewal).await.unwrap();
                }
            })
        })
        .collect();
    tokio::time::sleep(6 * HOUR - secs(1)).await;
    let asked = std::mem::take(&mut provider.book().asked);
    sessions.iter().for_each(tokio::task::JoinHandle::abort);
    let mut windows = vec![0u64; 6 * 3_600 / WINDOW as usize];
    for at in &asked {
        windows[((*at - begun).as_secs() / WINDOW) as usize] += 1;
    }
    let mean = asked.len() as f64 / windows.len() as f64;
    let peak = *windows.iter().max().unwrap() as f64;
    assert!(peak <= 2.0 * mean, "peak {peak} of mean {mean}: {windows:?}");
}

/// A login that is given up leaves the attempt to the others.
#[tokio::test(start_paused = true)]
async fn who_gives_up_takes_nothing_with_it() {
    let provider = Provider::of(HOUR);
    provider.book().takes = secs(3);
    let keeper = keeper(&provider, 16);
    let mut first = Box::pin(login(&keeper, Need::Login));
    let pending = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await;
    assert!(pending);
    drop(first);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1");
    assert_eq!(provider.asked(), 1);
}

/// A broker whose bound was lowered says nothing of the token by that.
#[tokio::test(start_paused = true)]
async fn a_session_that_ends_earlier_than_the_one_before_is_no_end_of_a_token() {
    let provider = Provider::default();
    let keeper = keeper(&provider, 18);
    login(&keeper, Need::Login).await.unwrap();
    taken(&keeper, HOUR);
    tokio::time::sleep(secs(1_800)).await;
    taken(&keeper, secs(600));
    tokio::time::sleep(secs(601)).await;
    assert_eq!(login(&keeper, Need::Login).await.unwrap(), "token-1");
    assert_eq!(provider.asked(), 1);
}
