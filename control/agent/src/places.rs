//! Places on networks for what this node runs itself: asked from the manager, and given back.

use crate::project::{Cluster, Place, place};
use crate::session::Link;
use skep_model::TaskId;
use skep_model::session::AttachRequest;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The network is assigned within a turn of the manager's session, some 50 ms after the attachment.
const NETWORK_LIMIT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Places {
    link: Arc<Link>,
    next_request: Arc<AtomicU64>,
}

/// Who wants to be where.
pub(crate) struct PlaceRequest<'a> {
    /// Name or id.
    pub(crate) network: &'a str,
    /// In DNS; empty: none.
    pub(crate) name: &'a str,
    pub(crate) addr: Option<Ipv4Addr>,
    /// What is attached, for people who look.
    pub(crate) container: &'a str,
}

impl Places {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link, next_request: Arc::default() }
    }

    /// An address on a network this node knows by then, or why not, in one sentence.
    pub(crate) async fn take(&self, wanted: PlaceRequest<'_>) -> Result<Place, String> {
        let request = AttachRequest {
            request: self.next_request.fetch_add(1, Ordering::Relaxed),
            network: wanted.network.to_owned(),
            name: wanted.name.to_owned(),
            addr: wanted.addr,
            container: wanted.container.to_owned(),
        };
        let attached = self.link.attach(request).await?;
        let mut desired = self.link.desired.subscribe();
        let known = async {
            loop {
                let current = desired.borrow_and_update().clone();
                let found = current
                    .map(|desired| place(&Cluster::of(&desired), &attached.task, &attached.attachment));
                match found {
                    Some(Ok(place)) => return Some(place),
                    // The sender is part of the link.
                    Some(Err(_)) | None => desired.changed().await.ok()?,
                }
            }
        };
        match tokio::time::timeout(NETWORK_LIMIT, known).await {
            Ok(Some(place)) => Ok(place),
            Ok(None) | Err(_) => {
                self.give_back(attached.task).await;
                Err(format!(
                    "the manager gave an address on {} but not the network: try again",
                    wanted.network
                ))
            }
        }
    }

    pub(crate) async fn give_back(&self, task: TaskId) {
        self.link.detach(task).await;
    }

    /// Returns when the manager no longer grants the place: its network was removed, for instance.
    pub(crate) async fn revoked(&self, task: &TaskId) {
        let mut desired = self.link.desired.subscribe();
        let grants = |desired: &Option<Arc<skep_model::assign::Desired>>| {
            desired.as_deref().is_some_and(|desired| Cluster::of(desired).tasks.contains_key(task))
        };
        // Fails when this node is no member any more, and then everything ends anyway.
        if desired.wait_for(grants).await.is_ok() {
            let _ = desired.wait_for(|desired| !grants(desired)).await;
        }
    }
}
