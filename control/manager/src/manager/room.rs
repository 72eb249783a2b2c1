//! A full disk makes the cluster read-only, and nothing more: nodes stay connected, what runs runs on. Once there
//! is room everything goes on without a restart.

use crate::db::Db;
use std::time::Duration;

/// How soon room is noticed; well below the five seconds people are promised.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks after the store for as long as it is polled.
pub(super) async fn watch(db: Db) {
    let mut known: Option<String> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(trouble) = db.trouble().map(|trouble| trouble.to_string()) else {
            if known.take().is_some() {
                tracing::info!("the cluster can be changed again");
            }
            continue;
        };
        if known.as_ref() != Some(&trouble) {
            tracing::error!("{trouble}");
            known = Some(trouble);
        }
        let store = db.clone();
        // What keeps it from recovering is its trouble.
        drop(tokio::task::spawn_blocking(move || store.recover()).await);
    }
}
