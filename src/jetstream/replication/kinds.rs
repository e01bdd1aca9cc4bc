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
