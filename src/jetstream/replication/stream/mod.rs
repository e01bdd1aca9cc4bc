//! A stream on several servers: its group's state machine, and how a replica that lags is given the state.
//!
//! - `machine`: what the group commits goes to the stream's shard; roles, manifests and states likewise.
//! - `request`: what one replica asks of another, as bytes.
//! - `fetch`: how such a request reaches the other server, and who answers there.
//! - `outstanding`: how much of that may be on its way.
//! - `replica`: all of it together, from start to end.
//! - `scale`: from one replica to several and back.
//! - `recover`: what a start finds in storage.
//! - `install`: from a manifest to an equal replica.
//! - `verdict`: which of the replicas that differ are wrong; pure. `inquiry`: how a replica finds out whether it is one of them.
//! - `simulation`: whole clusters from a seed.
//!
//! The stream itself, with its replica's part, lives on a shard.

pub(crate) mod fetch;
mod inquiry;
mod install;
pub(crate) mod machine;
pub(crate) mod outstanding;
pub(crate) mod recover;
pub(crate) mod replica;
mod request;
pub(crate) mod scale;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod verdict;

/// Reads a request, whatever it is. For fuzzing.
pub(crate) fn read_request(bytes: &[u8]) {
    if let Ok((group, request)) = request::decode(bytes) {
        assert_eq!(
            request::decode(&request::encode(group, request)),
            Ok((group, request))
        );
    }
    let answer = bytes::Bytes::copy_from_slice(bytes);
    if let Ok(answer) = request::read_answer(&answer) {
        let _ = request::read_prepared(&answer);
        let _ = request::read_recollection(&answer);
    }
}

/// Requests to begin fuzzing with.
pub(crate) fn request_samples() -> Vec<Vec<u8>> {
    let group = raft::group::GroupNumber(3);
    let requests = [
        request::Request::Manifest {
            after: 5,
            records_max: 1000,
        },
        request::Request::Records {
            from: 1,
            upto: 300,
            bytes_max: 70_000,
        },
        request::Request::Mark(crate::jetstream::core::Mark {
            index: 2048,
            digest: 77,
        }),
    ];
    let encoded = requests.map(|one| request::encode(group, one).to_vec());
    encoded.into()
}
