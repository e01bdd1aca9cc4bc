//! Questions about a stream to the server that has it: a stream elsewhere, reached as one that is here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use raft::group::Channel;
use serde::{Deserialize, Serialize};

use super::super::accounts::Accounts;
use super::super::core::{InfoQuery, StreamReply, StreamRequest};
use super::super::registry::StreamPort;
use super::super::types::{ApiError, ClusterInfo, ConsumerInfo, ErrorCode, StreamInfo};
use super::kinds::ASK;
use super::shown::Shown;
use super::view::View;
use crate::cluster::link::{Links, Request};

/// How long another server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// A question about a stream.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    account: String,
    stream: String,
    ask: Ask,
}

/// What may be asked of a stream elsewhere. All else is carried as the API request that it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Info {
        subjects_filter: Option<String>,
        subjects_offset: usize,
        subjects_limit: usize,
        deleted_details: bool,
    },
    ConsumerInfos {
        offset: usize,
        limit: usize,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Info {
        info: Box<StreamInfo>,
        subjects_total: usize,
    },
    ConsumerInfos {
        infos: Vec<ConsumerInfo>,
        total: usize,
    },
    Refused(ApiError),
}

impl Ask {
    fn of(request: StreamRequest) -> Option<Self> {
        match request {
            StreamRequest::Info(query) => Some(Self::Info {
                subjects_filter: query.subjects_filter,
                subjects_offset: query.subjects_offset,
                subjects_limit: query.subjects_limit,
                deleted_details: query.deleted_details,
            }),
            StreamRequest::ConsumerInfos { offset, limit } => {
                Some(Self::ConsumerInfos { offset, limit })
            }
            _ => None,
        }
    }

    fn into_request(self) -> StreamRequest {
        match self {
            Self::Info {
                subjects_filter,
                subjects_offset,
                subjects_limit,
                deleted_details,
            } => StreamRequest::Info(InfoQuery {
                subjects_filter,
                subjects_offset,
                subjects_limit,
                deleted_details,
            }),
            Self::ConsumerInfos { offset, limit } => StreamRequest::ConsumerInfos { offset, limit },
        }
    }
}

impl Reply {
    /// With who holds copies.
    fn with_cluster(mut self, cluster: Option<ClusterInfo>) -> Self {
        match &mut self {
            Self::Info { info, .. } => info.cluster = cluster,
            Self::ConsumerInfos { infos, .. } => {
                for info in infos {
                    info.cluster.clone_from(&cluster);
                }
            }
            Self::Refused(_) => {}
        }
        self
    }
}

impl From<StreamReply> for Reply {
    fn from(reply: StreamReply) -> Self {
        match reply {
            StreamReply::Info {
                info,
                subjects_total,
            } => Self::Info {
                info,
                subjects_total,
            },
            StreamReply::ConsumerInfos { infos, total } => Self::ConsumerInfos { infos, total },
            StreamReply::Refused(error) => Self::Refused(error),
            _ => Self::Refused(ErrorCode::ClusterNotAvail.into()),
        }
    }
}

impl From<Reply> for StreamReply {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Info {
                info,
                subjects_total,
            } => Self::Info {
                info,
                subjects_total,
            },
            Reply::ConsumerInfos { infos, total } => Self::ConsumerInfos { infos, total },
            Reply::Refused(error) => Self::Refused(error),
        }
    }
}

/// Answers the questions of other servers about streams that are here.
pub(super) fn listen(
    links: &Links,
    accounts: &Arc<Accounts>,
    view: &Arc<View>,
    shown: &Arc<Shown>,
) {
    let (accounts, view) = (Arc::clone(accounts), Arc::clone(view));
    let shown = Arc::clone(shown);
    let asked = move |request: Request| {
        let Ok(question) = serde_json::from_slice::<Question>(&request.body) else {
            return request.responder.refuse("malformed");
        };
        let stream = accounts
            .get(&question.account)
            .filter(|_| view.leads(&question.account, &question.stream))
            .and_then(|account| account.get(&question.stream));
        let Some(stream) = stream else {
            let refused = Reply::Refused(ErrorCode::StreamNotFound.into());
            return request.responder.answer(encode(&refused));
        };
        let cluster = shown.seen_here(&question.account, &question.stream);
        let responder = request.responder;
        stream.ask_then(
            question.ask.into_request(),
            Box::new(move |reply| {
                let reply = Reply::from(reply).with_cluster(cluster);
                responder.answer(encode(&reply));
            }),
        );
    };
    links.handle(ASK, Arc::new(asked));
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    // Values of the API: there is always JSON of them.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

/// A stream on another server.
pub(super) struct RemotePort {
    pub account: String,
    pub stream: String,
    pub links: Arc<Links>,
    /// It knows the accounts, which know the streams.
    pub view: Weak<View>,
    pub runtime: tokio::runtime::Handle,
}

impl StreamPort for RemotePort {
    fn ask(&self, request: StreamRequest, answer: Box<dyn FnOnce(StreamReply) + Send>) {
        let unavailable = || StreamReply::Refused(ErrorCode::ClusterNotAvail.into());
        let view = self.view.upgrade();
        let leader = view.and_then(|view| view.leader_elsewhere(&self.account, &self.stream));
        let (Some(ask), Some(leader)) = (Ask::of(request), leader) else {
            return answer(unavailable());
        };
        let body = encode(&Question {
            account: self.account.clone(),
            stream: self.stream.clone(),
            ask,
        });
        let links = Arc::clone(&self.links);
        self.runtime.spawn(async move {
            let asked = links.request(&leader, Channel::Control, ASK, body, ANSWER_TIMEOUT);
            let reply = match asked.await {
                Ok(bytes) => serde_json::from_slice::<Reply>(&bytes).ok(),
                Err(_) => None,
            };
            answer(reply.map_or_else(unavailable, StreamReply::from));
        });
    }
}
