use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;
use crate::error::ErrorKind;
use crate::security::Pem;

fn env() -> Environment {
    Environment::builder().runtime(tokio::runtime::Handle::current()).build()
}

/// A directory that is removed again.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ottla-tls-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
fn identity() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["client".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority()).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn refused(tls: &Tls) -> Error {
    let error = Connector::new(tls, &env()).err().expect("it is refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    error
}

async fn look(connector: &Connector, env: &Environment) -> (Arc<ClientConfig>, Vec<String>) {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let telling = Arc::clone(&told);
    let plan = connector.plan(env, move |news| {
        telling.lock().unwrap().push(match news {
            News::Renewed => "renewed".to_owned(),
            News::Broken(e) | News::Slow(e) => e.message().to_owned(),
        });
    });
    let config = plan.await.unwrap().config;
    let told = told.lock().unwrap().clone();
    (config, told)
}

#[tokio::test]
async fn settings_that_can_never_work_are_refused_when_the_client_is_built() {
    let (certificate, key) = identity();
    let (other, _) = identity();
    let pem = |text: &str| Pem::text(text);
    let ca = authority().pem();
    let tls = || Tls::system().ca(Pem::text(ca.as_str()));
    let error = refused(&Tls::system().ca(Path::new("/no/such/file")));
    assert!(error.message().contains("/no/such/file"), "{error}");
    let error = refused(&tls().identity(pem(&other), pem(&key)));
    assert!(error.message().contains("not that of the certificate"), "{error}");
    let error = refused(&tls().identity(pem(&key), pem(&key)));
    assert!(error.message().contains("no certificate in it"), "{error}");
    let error = refused(&tls().identity(pem(&certificate), pem(&certificate)));
    assert!(error.message().contains("no private key in it"), "{error}");
    assert!(tls().server_name("a b").check().is_err() && tls().server_name("::1").check().is_ok());
    for tls in [
        tls(),
        tls().identity(pem(&certificate), pem(&key)),
        // One file has both.
        tls().identity(pem(&format!("{certificate}{key}")), pem(&format!("{certificate}{key}"))),
        tls().verify(Verify::Chain),
        Tls::system().verify(Verify::None),
    ] {
        Connector::new(&tls, &env()).unwrap();
    }
}

/// Certificates are renewed while a client runs: file by file, and never at the same instant.
#[tokio::test(start_paused = true)]
async fn files_are_taken_when_they_fit_and_the_old_ones_stay_until_then() {
    let (env, dir) = (env(), Dir::new());
    dir.write("ca", &authority().pem());
    let (first, second) = (identity(), identity());
    dir.write("certificate", &first.0);
    dir.write("key", &first.1);
    let tls = Tls::system().ca(dir.path("ca")).identity(dir.path("certificate"), dir.path("key"));
    let connector = Connector::new(&tls, &env).unwrap();
    let (old, told) = look(&connector, &env).await;
    assert!(told.is_empty());

    dir.write("certificate", &second.0);
    let (config, told) = look(&connector, &env).await;
    assert!(Arc::ptr_eq(&config, &old) && told.is_empty(), "it is too soon to look");

    for (n, words) in [(0, "not that of the certificate"), (1, "")] {
        tokio::time::advance(LOOKED_AFTER).await;
        let (config, told) = look(&connector, &env).await;
        assert!(Arc::ptr_eq(&config, &old), "half of it is new");
        assert_eq!(told.len(), 1 - n, "told once: {told:?}");
        assert!(told.iter().all(|told| told.contains(words)), "{told:?}");
    }

    dir.write("key", &second.1);
    tokio::time::advance(LOOKED_AFTER).await;
    let (new, told) = look(&connector, &env).await;
    assert!(!Arc::ptr_eq(&new, &old), "with a session store of its own");
    assert_eq!(told, ["renewed"]);

    // What has not changed is not made anew: its tickets are of use.
    tokio::time::advance(LOOKED_AFTER).await;
    let (config, told) = look(&connector, &env).await;
    assert!(Arc::ptr_eq(&config, &new) && told.is_empty());

    std::fs::remove_file(dir.path("key")).unwrap();
    tokio::time::advance(LOOKED_AFTER).await;
    let (config, told) = look(&connector, &env).await;
    assert!(Arc::ptr_eq(&config, &new), "a file that is gone is no reason to stop");
    assert!(told.len() == 1 && told[0].contains("key"), "{told:?}");
}

/// A list of CAs that ends between two certificates looks whole: it is taken if the next look finds the same.
#[tokio::test(start_paused = true)]
async fn a_file_with_fewer_certificates_is_looked_at_twice() {
    let (env, dir) = (env(), Dir::new());
    let (one, two) = (authority().pem(), authority().pem());
    dir.write("ca", &format!("{one}{two}"));
    let tls = Tls::system().ca(dir.path("ca"));
    let connector = Connector::new(&tls, &env).unwrap();
    let (old, _) = look(&connector, &env).await;
    let mut looks = Vec::new();
    for content in [&one, &two, &two, &two] {
        dir.write("ca", content);
        tokio::time::advance(LOOKED_AFTER).await;
        let (config, told) = look(&connector, &env).await;
        looks.push((Arc::ptr_eq(&config, &old), told));
    }
    let renewed = vec!["renewed".to_owned()];
    assert_eq!(looks, [(true, vec![]), (true, vec![]), (false, renewed), (false, vec![])]);

    dir.write("ca", &format!("{one}{two}"));
    tokio::time::advance(LOOKED_AFTER).await;
    assert_eq!(look(&connector, &env).await.1, ["renewed"], "more is taken at once");
}

/// Such as one on a mount whose server is gone.
#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_to_its_end_stops_no_dial() {
    let env = env();
    let (answer, answers) = std::sync::mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let (reads, good) =
        (Arc::new(AtomicUsize::new(0)), Tls::system().ca(Pem::text(authority().pem())));
    let (counted, clock) = (Arc::clone(&reads), clock(&env));
    let read = move |before: Option<&Made>, place: &Place| {
        let _ = place.read(&Pem::file("/mnt/gone/ca.pem"), "tls ca");
        if counted.fetch_add(1, Ordering::SeqCst) == 1 {
            answers.lock().unwrap().recv().unwrap();
        }
        make(&good, &clock, before, &Place::default())
    };
    let settings = Arc::new(Tls::system().ca("/mnt/gone/ca.pem"));
    let connector = Arc::new(Connector::reading(settings, &env, Box::new(read)).unwrap());
    let (old, _) = look(&connector, &env).await;

    tokio::time::advance(LOOKED_AFTER).await;
    let dial = {
        let (connector, env) = (Arc::clone(&connector), env.clone());
        tokio::spawn(async move { look(&connector, &env).await })
    };
    while reads.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(PATIENCE + Duration::from_millis(1)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let waits = !dial.is_finished();
    // Another dial waits for nothing, and no second thread hangs in it.
    tokio::time::advance(LOOKED_AFTER).await;
    let second = {
        let (connector, env) = (Arc::clone(&connector), env.clone());
        tokio::spawn(async move { look(&connector, &env).await })
    };
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let (hangs, threads) = (!second.is_finished(), reads.load(Ordering::SeqCst));
    answer.send(()).unwrap();
    assert!(!waits && !hangs && threads == 2, "{waits} {hangs} {threads}");
    let (config, told) = dial.await.unwrap();
    assert!(Arc::ptr_eq(&config, &old), "what there is goes on");
    assert_eq!(told, ["tls ca '/mnt/gone/ca.pem': it is not read within 2s"]);
    assert!(second.await.unwrap().1.is_empty(), "told once");
    while connector.files.state().looking {
        tokio::task::yield_now().await;
    }
    tokio::time::advance(LOOKED_AFTER).await;
    look(&connector, &env).await;
    assert_eq!(reads.load(Ordering::SeqCst), 3, "and then they are looked at again");
}

/// To open a pipe waits for who writes to it.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_opened() {
    let dir = Dir::new();
    let made = std::process::Command::new("mkfifo").arg(dir.path("pipe")).status().unwrap();
    assert!(made.success());
    for path in [dir.path(""), dir.path("pipe")] {
        let error = Pem::from(&*path).read("tls ca").err().expect("it is no file");
        assert!(error.message().contains("it is no file"), "{error}");
    }
}

/// Whoever makes a client is not held up by it, and a dial says what it waits for.
#[tokio::test(start_paused = true)]
async fn the_first_reading_is_beside_the_engine_and_within_a_time() {
    let env = env();
    let (answer, answers) = std::sync::mpsc::channel::<()>();
    let answers = Mutex::new(answers);
    let (good, clock) = (Tls::system().ca(Pem::text(authority().pem())), clock(&env));
    let here = std::thread::current().id();
    let read = move |before: Option<&Made>, place: &Place| {
        assert_ne!(std::thread::current().id(), here, "not on the caller's thread");
        let _ = place.read(&Pem::file("/mnt/gone/ca.pem"), "tls ca");
        answers.lock().unwrap().recv().unwrap();
        make(&good, &clock, before, &Place::default())
    };
    let settings = Arc::new(Tls::system().ca("/mnt/gone/ca.pem"));
    let connector = Arc::new(Connector::reading(settings, &env, Box::new(read)).unwrap());
    let dial = {
        let (connector, env) = (Arc::clone(&connector), env.clone());
        tokio::spawn(async move { connector.plan(&env, |_| ()).await })
    };
    tokio::task::yield_now().await;
    // Time does not pass by itself while a thread is at work.
    tokio::time::advance(PATIENCE + Duration::from_millis(1)).await;
    let error = dial.await.unwrap().err().expect("it is not read");
    assert_eq!(error.kind(), ErrorKind::Tls);
    assert!(error.is_retriable() && !error.is_fatal(), "{error:?}");
    assert_eq!(error.message(), "tls ca '/mnt/gone/ca.pem': it is not read within 2s");
    answer.send(()).unwrap();
    while connector.files.is_first_look() {
        tokio::task::yield_now().await;
    }
    connector.plan(&env, |_| ()).await.unwrap();
}
