//! What servers ask each other over links, by number.

use crate::cluster::link::RequestKind;

/// What are you to the meta group?
pub(super) const GREET: RequestKind = RequestKind(1);
/// Promise yourself to a founding.
pub(super) const PROMISE: RequestKind = RequestKind(2);
/// Take me into the meta group.
pub(super) const JOIN: RequestKind = RequestKind(3);
/// Answer an API request.
pub(super) const API: RequestKind = RequestKind(4);
/// What do you have of an account?
pub(super) const GATHER: RequestKind = RequestKind(5);
/// What is a stream that you lead?
pub(super) const ASK: RequestKind = RequestKind(6);
/// This has become of me, or of what I hold.
pub(super) const REPORT: RequestKind = RequestKind(7);
/// Give me what my replica of a stream lacks.
pub(super) const FETCH: RequestKind = RequestKind(8);
/// How far is what you know of the meta group's state?
pub(super) const CURRENT: RequestKind = RequestKind(10);
/// These groups I lead, and no others.
pub(super) const LEADS: RequestKind = RequestKind(9);
/// Wait for the archive of a stream.
pub(super) const RESTORE: RequestKind = RequestKind(11);
/// Have a stream be in the state that came out of a backup here.
pub(super) const RESTORED: RequestKind = RequestKind(12);
/// Am I still part of the meta group?
pub(super) const STILL: RequestKind = RequestKind(13);

const _: () = {
    let kinds = [
        GREET, PROMISE, JOIN, API, GATHER, ASK, REPORT, FETCH, LEADS, CURRENT, RESTORE, RESTORED,
        STILL,
    ];
    let mut at = 0;
    while at < kinds.len() {
        assert!(
            kinds[at].0 as usize == at + 1,
            "a number of its own for each"
        );
        at += 1;
    }
};
