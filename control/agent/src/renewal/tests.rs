use super::*;
use crate::fake_manager::{Authority, FakeManager};
use jiff::SignedDuration;
use std::sync::Mutex;

fn day(day: i64) -> Timestamp {
    Timestamp::from_second(day * 86_400).unwrap()
}

#[test]
fn a_certificate_is_renewed_between_half_and_four_fifths_of_its_life() {
    let life = Life { begin: day(100), end: day(190) };
    assert_eq!(life.at(*USED.start()), day(145));
    assert_eq!(life.at(*USED.end()), day(172));
    assert_eq!((life.at(0.0), life.at(1.0)), (life.begin, life.end));
}

#[test]
fn a_certificates_life_is_read_from_it() {
    let credentials = Authority::new().credentials_for(day(20_000), day(20_090));
    assert_eq!(Life::of(&credentials.certificate).unwrap(), Life { begin: day(20_000), end: day(20_090) });
    assert!(Life::of("no certificate").is_err());
}

/// In the last tenth of its life as of now.
fn old(authority: &Authority) -> Credentials {
    let (hour, now) = (SignedDuration::from_hours(1), Timestamp::now());
    authority.credentials_for(now - hour * 90, now + hour * 10)
}

#[tokio::test]
async fn an_old_certificate_is_renewed_with_a_new_key_and_kept_before_it_is_used() {
    let authority = Arc::new(Authority::new());
    let manager = FakeManager::start(authority.clone()).await;
    let former = old(&authority);
    let (credentials, mut used) = watch::channel(former.clone());
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (keeping, watching) = (kept.clone(), credentials.subscribe());
    let keep: KeepCredentials = Arc::new(move |renewed: &Credentials| {
        assert_ne!(watching.borrow().certificate, renewed.certificate, "not used before it is kept");
        keeping.lock().unwrap().push(renewed.certificate.clone());
        Ok(())
    });
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(Renewal { credentials, managers: vec![manager.addr], keep }.run(stopped));
    let renewed = used.wait_for(|now| now.certificate != former.certificate).await.unwrap().clone();
    assert_ne!(renewed.private_key, former.private_key);
    assert!(tls::member(&renewed).is_ok());
    let key_of = |credentials: &Credentials| tls::data_path_key(&credentials.certificate).unwrap();
    assert_eq!(key_of(&renewed), key_of(&former));
    assert_eq!(*kept.lock().unwrap(), std::slice::from_ref(&renewed.certificate));
    assert_eq!((renewed.node_id, renewed.root_ca), (former.node_id, former.root_ca));
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_used() {
    let authority = Arc::new(Authority::new());
    let manager = FakeManager::start(authority.clone()).await;
    let (credentials, used) = watch::channel(old(&authority));
    let keep: KeepCredentials = Arc::new(|_: &Credentials| Err(io::Error::other("disk full")));
    let renewal = Renewal { credentials, managers: vec![manager.addr], keep };
    assert!(matches!(renewal.renew().await, Err(RenewalError::Keep(_))));
    assert!(!used.has_changed().unwrap());
}

/// A time chosen anew after each failure would mostly lie weeks ahead.
#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_within_minutes_until_it_works() {
    // At 65 % of their life half of these are due, by chance; the others have weeks.
    const RENEWALS: usize = 40;
    const TRIES: usize = 10 * RENEWALS;
    let (hour, now) = (SignedDuration::from_hours(1), Timestamp::now());
    let credentials = Authority::new().credentials_for(now - hour * 6_500, now + hour * 3_500);
    let broken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let manager = broken.local_addr().unwrap();
    let (tried, mut tries) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || while broken.accept().is_ok() && tried.send(()).is_ok() {});

    let (_stop, stopped) = watch::channel(false);
    let mut renewals = tokio::task::JoinSet::new();
    for _ in 0..RENEWALS {
        let (credentials, managers) = (watch::Sender::new(credentials.clone()), vec![manager]);
        let renewal = Renewal { credentials, managers, keep: Arc::new(|_: &Credentials| Ok(())) };
        renewals.spawn(renewal.run(stopped.clone()));
    }
    let all_tries = async {
        for _ in 0..TRIES {
            tries.recv().await.unwrap();
        }
    };
    // By the paused clock.
    tokio::time::timeout(Duration::from_hours(24), all_tries).await.expect("it is tried again");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_managers_words() {
    let authority = Arc::new(Authority::new());
    let manager = FakeManager::refusing(authority.clone(), "removed").await;
    let (credentials, _used) = watch::channel(old(&authority));
    let renewal =
        Renewal { credentials, managers: vec![manager.addr], keep: Arc::new(|_: &Credentials| Ok(())) };
    assert_eq!(renewal.renew().await.unwrap_err().to_string(), "removed");
}
