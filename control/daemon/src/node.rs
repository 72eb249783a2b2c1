//! This node's life: not a member, joining, member (and manager), leaving.

mod request;
mod status;

use crate::addresses;
use crate::api::{ALREADY_A_MEMBER, NOT_A_MANAGER, NOT_IN_SWARM, error::ApiError};
use crate::member::{self, Member};
use anyhow::Context;
use skep_agent::{Agent, AgentConfig, Membership};
use skep_manager::{InitOptions, Manager};
use skep_model::NodeId;
use skep_model::data_path::DataPathKey;
use skep_model::join::Credentials;
use skep_model::node::Availability;
use skep_model::token::JoinToken;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing::{info, warn};

pub(crate) use request::{InitRequest, JoinRequest};
use request::{data_cipher, data_path_port, ipv4, pools, resolve, route_to, subnet_size};
pub(crate) use status::LocalState;

pub(crate) struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) state_dir: PathBuf,
}

pub(crate) struct Node {
    config: Config,
    agent: Agent,
    /// One change of membership at a time.
    changing: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    member: Option<Member>,
    manager: Option<Manager>,
    error: Option<String>,
}

/// How long a restarted daemon waits before it tries again to take up its membership.
const RESUME_RETRY: Duration = Duration::from_secs(5);

impl Node {
    /// Starts the agent, which clears what a killed daemon left. Membership is taken up by [`Self::resume`].
    pub(crate) async fn start(config: Config) -> anyhow::Result<Self> {
        let member = member::load(&config.state_dir).with_context(|| {
            let file = config.state_dir.join("member.json");
            format!("{} is damaged: restore it, or remove the state directory and join again", file.display())
        })?;
        let hidden = vec![config.state_dir.clone(), config.socket.clone()];
        let agent = Agent::new(AgentConfig { state_dir: config.state_dir.join("agent"), hidden }).await?;
        let current = Current { member, ..Current::default() };
        Ok(Self { config, agent, changing: tokio::sync::Mutex::new(()), current: Mutex::new(current) })
    }

    /// Takes up the membership of before a restart; retried until it works, for an address may come late.
    pub(crate) async fn resume(&self) {
        loop {
            let changing = self.changing.lock().await;
            let Some(member) = self.current(|current| current.member.clone()) else { return };
            match self.take_up(&member).await {
                Ok(()) => {
                    self.change(|current| current.error = None);
                    info!(node = %member.credentials.node_id, "membership resumed");
                    return;
                }
                Err(error) => {
                    warn!("cannot take up the membership yet: {error}");
                    self.change(|current| current.error = Some(error));
                }
            }
            drop(changing);
            tokio::time::sleep(RESUME_RETRY).await;
        }
    }

    async fn take_up(&self, member: &Member) -> Result<(), String> {
        if let Some(listen) = member.listen
            && self.manager().is_none()
        {
            let manager = Manager::open(&self.manager_dir()).map_err(|error| error.to_string())?;
            manager.start(listen).map_err(|error| error.to_string())?;
            self.change(|current| current.manager = Some(manager));
        }
        self.agent.join(self.membership(member)).await.map_err(|error| error.to_string())
    }

    pub(crate) async fn init(&self, request: InitRequest) -> Result<NodeId, ApiError> {
        let _changing = self.changing.lock().await;
        self.require_no_member()?;
        let host = self.agent.host_addresses();
        let listen = addresses::listen(&request.listen, &host).map_err(ApiError::bad_request)?;
        let advertise =
            addresses::advertise(&request.advertise, listen, &host).map_err(ApiError::bad_request)?;
        let advertise_ip = ipv4(advertise)?;
        let data_path_addr = addresses::data_path(&request.data_path_addr, advertise_ip, &host)
            .map_err(ApiError::bad_request)?;
        let (data_path_port, data_cipher) =
            (data_path_port(request.data_path_port)?, data_cipher(&request.data_cipher)?);
        let options = InitOptions {
            hostname: self.description().hostname,
            advertise,
            data_path_port,
            data_cipher,
            default_addr_pool: pools(&request.default_addr_pool)?,
            subnet_size: subnet_size(request.subnet_size)?,
            data_path_key: self.agent.make_key().await.map_err(ApiError::internal)?,
            availability: request.availability,
            spec: request.spec,
        };
        let availability = options.availability;
        self.clear_manager_dir()?;
        let (manager, credentials) = match Manager::init(&self.manager_dir(), options) {
            Ok(made) => made,
            Err(error) => {
                // The key is for nothing.
                self.agent.leave().await;
                return Err(ApiError::internal(error));
            }
        };
        let member = Member {
            credentials,
            managers: vec![advertise],
            listen: Some(listen),
            advertise: advertise_ip,
            data_path_addr,
            data_path_port,
            data_cipher,
            availability,
        };
        match self.begin(&manager, listen, &member).await {
            Ok(()) => {
                let id = member.credentials.node_id.clone();
                self.change(|current| {
                    *current = Current { member: Some(member), manager: Some(manager), error: None }
                });
                Ok(id)
            }
            Err(error) => {
                self.agent.leave().await;
                manager.shutdown().await;
                self.erase();
                Err(error)
            }
        }
    }

    async fn begin(&self, manager: &Manager, listen: SocketAddr, member: &Member) -> Result<(), ApiError> {
        manager.start(listen).map_err(ApiError::bad_request)?;
        self.agent.join(self.membership(member)).await.map_err(ApiError::bad_request)?;
        self.save(member)
    }

    fn membership(&self, member: &Member) -> Membership {
        let state_dir = self.config.state_dir.clone();
        Membership {
            credentials: Credentials::clone(&member.credentials),
            keep: Arc::new(move |credentials| member::keep(&state_dir, credentials)),
            managers: member.managers.clone(),
            data_path_addr: member.data_path_addr,
            data_path_port: member.data_path_port,
            data_cipher: member.data_cipher,
        }
    }

    fn save(&self, member: &Member) -> Result<(), ApiError> {
        member::save(&self.config.state_dir, member).map_err(|error| self.cannot_save(error))
    }

    fn cannot_save(&self, error: std::io::Error) -> ApiError {
        let directory = self.config.state_dir.display();
        ApiError::internal(format!("cannot write the membership to {directory}: {error}"))
    }

    pub(crate) async fn join(&self, request: JoinRequest) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        self.require_no_member()?;
        let token: JoinToken = request.token.parse().map_err(ApiError::bad_request)?;
        let host = self.agent.host_addresses();
        let listen = addresses::listen(&request.listen, &host).map_err(ApiError::bad_request)?;
        let managers = resolve(&request.managers).await?;
        let advertise = match request.advertise.as_str() {
            "" if listen.ip().is_unspecified() => route_to(&managers)?,
            text => ipv4(addresses::advertise(text, listen, &host).map_err(ApiError::bad_request)?)?,
        };
        let data_path_addr =
            addresses::data_path(&request.data_path_addr, advertise, &host).map_err(ApiError::bad_request)?;
        member::try_room(&self.config.state_dir).map_err(|error| self.cannot_save(error))?;
        let data_path_key = self.agent.make_key().await.map_err(ApiError::internal)?;
        let enrolled =
            self.enroll(&managers, token, request.availability, (data_path_addr, data_path_key)).await;
        let enrolled = match enrolled {
            Ok(enrolled) => enrolled,
            Err(error) => {
                // The key is for nothing.
                self.agent.leave().await;
                return Err(error);
            }
        };
        let member = Member {
            credentials: enrolled.credentials,
            managers,
            listen: None,
            advertise,
            data_path_addr,
            data_path_port: enrolled.data_path_port,
            data_cipher: enrolled.data_cipher,
            availability: request.availability,
        };
        let joined = match self.agent.join(self.membership(&member)).await {
            Ok(()) => self.save(&member),
            Err(error) => Err(ApiError::bad_request(error)),
        };
        match joined {
            Ok(()) => {
                self.change(|current| {
                    *current = Current { member: Some(member), manager: None, error: None }
                });
                Ok(())
            }
            Err(error) => {
                self.agent.leave().await;
                self.erase();
                Err(error)
            }
        }
    }

    /// Asks each manager in turn; the last refusal is the answer.
    async fn enroll(
        &self,
        managers: &[SocketAddr],
        token: JoinToken,
        availability: Availability,
        (data_path_addr, data_path_key): (Ipv4Addr, DataPathKey),
    ) -> Result<skep_agent::Enrolled, ApiError> {
        let mut refusal = ApiError::bad_request("no manager to join: give its address, as in ADDR:2377");
        for manager in managers {
            let request = skep_agent::EnrollRequest {
                manager: *manager,
                token: token.clone(),
                hostname: self.description().hostname,
                availability,
                data_path_addr,
                data_path_key,
            };
            match skep_agent::enroll(request).await {
                Ok(enrolled) => return Ok(enrolled),
                Err(error) => refusal = ApiError::bad_request(error),
            }
        }
        Err(refusal)
    }

    pub(crate) async fn leave(&self, force: bool) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        if self.current(|current| current.member.is_none()) {
            return Err(ApiError::unavailable("This node is not part of a swarm"));
        }
        let manager = self.current(|current| current.manager.clone());
        if manager.is_some() && !force {
            return Err(ApiError::unavailable(
                "You are attempting to leave the swarm on a node that is participating as a manager. Removing the \
                 last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
            ));
        }
        self.agent.leave().await;
        if let Some(manager) = manager {
            manager.shutdown().await;
        }
        self.change(|current| *current = Current::default());
        self.erase();
        info!("left the swarm");
        Ok(())
    }

    /// Ends what runs here and keeps the membership for the next start.
    pub(crate) async fn shutdown(&self) {
        let _changing = self.changing.lock().await;
        self.agent.shutdown().await;
        if let Some(manager) = self.manager() {
            manager.shutdown().await;
        }
    }

    /// Removes the membership from disk. What can't be removed is told: it would be taken up at the next start.
    fn erase(&self) {
        if let Err(error) = member::forget(&self.config.state_dir) {
            warn!("cannot forget the membership: {error}; remove member.json before the next start");
        }
        if let Err(error) = self.clear_manager_dir() {
            warn!("cannot remove the manager's state: {error:?}");
        }
    }

    fn clear_manager_dir(&self) -> Result<(), ApiError> {
        match fs::remove_dir_all(self.manager_dir()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ApiError::internal(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn manager_dir(&self) -> PathBuf {
        self.config.state_dir.join("manager")
    }

    fn require_no_member(&self) -> Result<(), ApiError> {
        match self.current(|current| current.member.is_some()) {
            true => Err(ApiError::unavailable(ALREADY_A_MEMBER)),
            false => Ok(()),
        }
    }

    pub(crate) fn manager(&self) -> Option<Manager> {
        self.current(|current| current.manager.clone())
    }

    /// The manager, or why this node cannot answer for the cluster.
    pub(crate) fn require_manager(&self) -> Result<Manager, ApiError> {
        self.current(|current| match (&current.manager, &current.member) {
            (Some(manager), _) => Ok(manager.clone()),
            (None, None) => Err(ApiError::unavailable(NOT_IN_SWARM)),
            (None, Some(member)) if member.listen.is_some() => Err(ApiError::unavailable(
                "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.",
            )),
            (None, Some(_)) => Err(ApiError::unavailable(NOT_A_MANAGER)),
        })
    }

    fn current<T>(&self, read: impl FnOnce(&Current) -> T) -> T {
        read(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, write: impl FnOnce(&mut Current)) {
        write(&mut self.current.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
