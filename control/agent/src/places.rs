//! Places on networks for what this node runs itself: asked from the manager, and given back.

use crate::project::{Cluster, Place, place};
use crate::session::Link;
use skep_model::TaskId;
use skep_model::assign::Desired;
use skep_model::session::{AttachRequest, Attached};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The place is assigned within a turn of the manager's session, some 50 ms after the attachment.
const ASSIGNED_LIMIT: Duration = Duration::from_secs(10);

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

    /// An address this node forwards for as soon as it has its interface, or why not, in one sentence.
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
                if let Some(place) = current.and_then(|desired| known_place(&desired, &attached)) {
                    return Some(place);
                }
                // The sender is part of the link.
                desired.changed().await.ok()?;
            }
        };
        match tokio::time::timeout(ASSIGNED_LIMIT, known).await {
            Ok(Some(place)) => Ok(place),
            Ok(None) | Err(_) => {
                self.give_back(attached.task).await;
                Err(format!(
                    "the manager gave an address on {} but never assigned it: try again",
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
        let grants = |desired: &Option<Arc<Desired>>| {
            desired.as_deref().is_some_and(|desired| Cluster::of(desired).tasks.contains_key(task))
        };
        // Fails when this node is no member any more, and then everything ends anyway.
        if desired.wait_for(grants).await.is_ok() {
            let _ = desired.wait_for(|desired| !grants(desired)).await;
        }
    }
}

/// None as long as this node knows not all of it: its network may be known before its endpoint is.
fn known_place(desired: &Desired, attached: &Attached) -> Option<Place> {
    let cluster = Cluster::of(desired);
    let Attached { task, attachment, .. } = attached;
    let mut endpoints = cluster.endpoints.iter();
    let has_endpoint = endpoints.any(|own| own.task == *task && own.network == attachment.network);
    place(&cluster, task, attachment).ok().filter(|_| has_endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_manager::FakeSession;
    use crate::project::example;
    use crate::session::tests::connected;
    use skep_model::assign::{Assignment, TaskAssignment};
    use skep_model::session::{ToAgent, ToManager};
    use skep_model::task::TaskState;

    const WANTED: PlaceRequest<'_> =
        PlaceRequest { network: "net1-Name", name: "a", addr: None, container: "somebody" };

    /// Answers the next attach request with a place of task `t1`.
    async fn grant(session: &mut FakeSession) {
        let asked = session.find(|message| match message {
            ToManager::Attach(request) => Some(request),
            _ => None,
        });
        let AttachRequest { request, name, .. } = asked.await;
        let attachment = attachment().attachments.remove(0);
        let result = Ok(Attached { task: "t1".into(), name, attachment });
        session.send(ToAgent::Attached { request, result }).await;
    }

    /// Task `t1` as an attachment on `net1`.
    fn attachment() -> TaskAssignment {
        let mut task = example::task(1, TaskState::Running);
        task.container = None;
        task.attachments.retain(|attachment| attachment.network.as_str() == example::NET);
        task
    }

    async fn assign(session: &FakeSession, desired: &Desired) {
        session.send(ToAgent::Assignments(desired.complete())).await;
    }

    fn with_network(revision: u64) -> Desired {
        let network = Assignment::Network(example::network(example::NET, 4097, "10.0.1.0/24"));
        let endpoint = Assignment::Endpoint(example::endpoint(1, "n1"));
        Desired::new(revision, [example::this_node(), network, endpoint, Assignment::Task(attachment())])
    }

    #[tokio::test]
    async fn a_place_is_taken_once_its_network_and_its_endpoint_are_known() {
        let (_authority, _manager, agent, mut session) = connected().await;
        let places = Places::new(agent.link.clone());
        let mut desired = agent.link.desired.subscribe();
        let take = places.take(WANTED);
        tokio::pin!(take);
        let network = Assignment::Network(example::network(example::NET, 4097, "10.0.1.0/24"));
        let network_known = async {
            grant(&mut session).await;
            assign(&session, &Desired::new(1, [example::this_node(), network])).await;
            drop(desired.wait_for(Option::is_some).await.unwrap());
        };
        tokio::select! {
            biased;
            early = &mut take => panic!("{early:?} before anything was assigned"),
            () = network_known => {}
        }
        let not_yet = tokio::time::timeout(Duration::ZERO, &mut take).await;
        assert!(not_yet.is_err(), "nothing is forwarded to it before its endpoint is known");
        assign(&session, &with_network(2)).await;
        let place = take.await.unwrap();
        assert_eq!((place.task, place.addr), ("t1".into(), "10.0.1.11/24".parse().unwrap()));
        assert_eq!(place.network.vni, 4097);
    }

    #[tokio::test]
    async fn a_refusal_is_the_managers() {
        let (_authority, _manager, agent, mut session) = connected().await;
        let places = Places::new(agent.link.clone());
        let (place, ()) = tokio::join!(places.take(WANTED), async {
            let asked = session.find(|message| match message {
                ToManager::Attach(request) => Some(request.request),
                _ => None,
            });
            let request = asked.await;
            session.send(ToAgent::Attached { request, result: Err("network not found".to_owned()) }).await;
        });
        assert_eq!(place.unwrap_err(), "network not found");
    }

    #[tokio::test]
    async fn a_place_is_revoked_when_it_was_assigned_and_no_longer_is() {
        let (_authority, _manager, agent, session) = connected().await;
        let places = Places::new(agent.link.clone());
        let task = "t1".into();
        let revoked = places.revoked(&task);
        tokio::pin!(revoked);
        let mut desired = agent.link.desired.subscribe();
        for set in [Desired::new(1, [example::this_node()]), with_network(2)] {
            assign(&session, &set).await;
            let arrived =
                desired.wait_for(|desired| desired.as_ref().is_some_and(|d| d.revision == set.revision));
            drop(arrived.await.unwrap());
            let not_yet = tokio::time::timeout(Duration::ZERO, &mut revoked).await;
            assert!(not_yet.is_err(), "revision {}", set.revision);
        }
        assign(&session, &Desired::new(3, [example::this_node()])).await;
        revoked.await;
    }
}
