//! What a connection's operations mean: the state of one client and its answers.
//!
//! Everything the session says is staged in its delivery, in order with the messages it causes, and
//! leaves when the batch is handed over.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::authentication::{Credentials, HashCheck, Login, Verdict};
use super::buffer::ReadBuffer;
use super::clients::Clients;
use super::entrance::Entrance;
use super::ping::{Due, Pings};
use super::publish::PublishCheck;
use super::task::Hello;
use super::terms::Terms;
use super::trace::Trace;
use crate::broker::outbox::chunk::COPIED_BYTES_MAX;
use crate::broker::permissions::Permissions;
use crate::broker::{
    Account, Client, ClientInfo, CloseReason, Delivery, Flow, Membership, Offer, Owner, Traffic,
    coarse_unix_ns,
};
use crate::protocol::connect::PROTOCOL_WITH_INFO;
use crate::protocol::{
    ConnectRequest, Op, Parsed, ProtocolViolation, Rules, ServerInfo, encode, parse,
};
use crate::tls::PeerIdentity;

/// A client that was not heard for so long is quiet: what its next message needs is made anew then.
const REST_AFTER: Duration = Duration::from_secs(2);

/// What the task should do next.
pub(super) enum Step {
    /// Read more; the unfinished operation at the front takes this many bytes in all, 0 for unknown.
    Read {
        /// As far as it is known.
        bytes_in_all: usize,
    },
    /// Hand over what is staged, then go on with the same bytes.
    HandOver,
    /// Have this compared elsewhere, then go on with the same bytes.
    Hash(Box<HashCheck>),
    /// End the connection.
    Close(CloseReason),
}

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It must say who it is before this moment.
    Authenticating {
        /// It has so long.
        until: Instant,
    },
    /// It has not introduced itself and need not.
    Anonymous,
    /// It has introduced itself.
    Connected,
}

/// One client's state.
pub(super) struct Session {
    pub(super) clients: Arc<Clients>,
    /// What holds for it now.
    pub(super) terms: Arc<Terms>,
    pub(super) entrance: Entrance,
    pub(super) client: Arc<Client>,
    pub(super) account: Arc<Account>,
    /// Its place in the account, once it has introduced itself.
    membership: Option<Membership>,
    /// As whom it was admitted.
    pub(super) login: Option<Login>,
    /// Whom its certificate names.
    pub(super) peer: Option<Arc<PeerIdentity>>,
    /// What it has to sign when it logs in with a key; empty when nobody does.
    pub(super) nonce: String,
    pub(super) info: Arc<ClientInfo>,
    pub(super) request: ConnectRequest,
    pub(super) permissions: Option<Arc<Permissions>>,
    pub(super) delivery: Delivery,
    /// How many it may hold; `None` is no limit.
    pub(super) subscriptions_max: Option<u64>,
    /// When ended subscriptions are looked for next, by how many there are.
    pub(super) sweep_at: usize,
    pub(super) publish_check: PublishCheck,
    pub(super) trace: Trace,
    /// Messages and bytes of the current batch.
    pub(super) counted_in: (u64, u64),
    /// Whether the current batch subscribed or unsubscribed.
    pub(super) interest_changed: bool,
    pub(super) rules: Rules,
    pub(super) stage: Stage,
    pub(super) pings: Pings,
    /// When it is looked whether the client has fallen quiet; `None` while it is.
    rest_at: Option<Instant>,
    had_first_pong: bool,
    pub(super) deadline_changed: bool,
    /// A new configuration is being looked at, and a slow comparison belongs to that.
    pub(super) is_under_review: bool,
    /// Where the last message went that a mapping sent elsewhere.
    pub(super) mapped: Vec<u8>,
}

impl Session {
    /// The client is told the nonce in its greeting. `preset` is what is known of it before it says anything.
    pub(super) fn new(
        clients: Arc<Clients>,
        terms: Arc<Terms>,
        client: Arc<Client>,
        hello: Hello,
    ) -> Self {
        let Hello {
            entrance,
            nonce,
            preset,
            peer,
            ..
        } = hello;
        let now = Instant::now();
        let options = &terms.options;
        let stage = if entrance.authenticator.is_required() {
            Stage::Authenticating {
                until: now + entrance.authentication_timeout,
            }
        } else {
            Stage::Anonymous
        };
        Self {
            account: Arc::clone(clients.broker.global()),
            membership: None,
            login: None,
            peer,
            nonce,
            info: client.info(),
            request: preset,
            permissions: None,
            delivery: Delivery::default(),
            subscriptions_max: options.subscriptions_max,
            sweep_at: 0,
            publish_check: PublishCheck::default(),
            trace: Trace::new(options, &client),
            counted_in: (0, 0),
            interest_changed: false,
            rules: options.rules(),
            stage,
            pings: Pings::new(entrance.ping_interval, options.pings_outstanding_max, now),
            rest_at: Some(now + REST_AFTER),
            had_first_pong: false,
            deadline_changed: false,
            is_under_review: false,
            mapped: Vec::new(),
            clients,
            terms,
            entrance,
            client,
        }
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Says hello.
    pub(super) fn greet(&mut self) {
        let info = self.own_info();
        self.send_info(&info);
        self.hand_over();
    }

    /// Turns the client away because the server is full.
    pub(super) fn refuse_for_lack_of_room(&mut self) -> CloseReason {
        self.send_error("maximum connections exceeded");
        self.hand_over();
        let reason = CloseReason::MaxConnectionsExceeded;
        self.client.outbox().close(reason);
        reason
    }

    /// Works through the buffer until something else is to be done.
    pub(super) fn process(&mut self, buffer: &mut ReadBuffer) -> Step {
        loop {
            if let Stage::Authenticating { .. } = self.stage
                && let Some(first) = buffer.unread().first()
                && !first.eq_ignore_ascii_case(&b'C')
                && let Err(reason) = self.enter_without_credentials()
            {
                return Step::Close(reason);
            }
            let (op, consumed) = match parse(buffer.unread(), &self.rules) {
                Ok(Parsed::Complete { op, consumed }) => (op, consumed),
                Ok(Parsed::Incomplete { bytes_in_all }) => return Step::Read { bytes_in_all },
                Err(violation) => {
                    if let ProtocolViolation::PayloadTooLarge { .. } = violation {
                        self.report_too_large(buffer.unread());
                    }
                    return Step::Close(self.refuse(violation));
                }
            };
            let outcome = match op {
                Op::Publish(_) if consumed > COPIED_BYTES_MAX => {
                    self.publish_frame(buffer, consumed);
                    if self.delivery.is_full() {
                        return Step::HandOver;
                    }
                    continue;
                }
                Op::Publish(publish) => {
                    self.publish(&publish, Owner::Buffer);
                    Ok(())
                }
                Op::Subscribe {
                    subject,
                    queue,
                    sid,
                } => {
                    self.subscribe(subject, queue, sid);
                    Ok(())
                }
                Op::Unsubscribe { sid, max } => {
                    self.unsubscribe(sid, max);
                    Ok(())
                }
                Op::Ping => {
                    self.ping();
                    Ok(())
                }
                Op::Pong => {
                    self.pong();
                    Ok(())
                }
                Op::Connect(json) => self.connect(json),
                Op::Error(text) => {
                    self.trace.incoming("-ERR", text);
                    Err(Step::Close(CloseReason::ParseError))
                }
                Op::Ok | Op::Info(_) => Ok(()),
            };
            buffer.advance(consumed);
            match outcome {
                Ok(()) if self.delivery.is_full() => return Step::HandOver,
                Ok(()) => {}
                Err(step) => return step,
            }
        }
    }

    /// A large message is taken out of the buffer, so that its receivers can share it.
    fn publish_frame(&mut self, buffer: &mut ReadBuffer, bytes: usize) {
        let frame = buffer.take_frame(bytes);
        // The same bytes parse the same way again.
        if let Ok(Parsed::Complete {
            op: Op::Publish(publish),
            ..
        }) = parse(&frame, &self.rules)
        {
            self.publish(&publish, Owner::Frame(&frame));
        }
    }

    /// Ends the connection over bytes that break the protocol; says so where that is customary.
    fn refuse(&mut self, violation: ProtocolViolation) -> CloseReason {
        tracing::debug!(
            "{} - cid:{} - {violation}",
            self.info.address,
            self.client.id
        );
        if let Some(text) = violation.error_text() {
            self.send_error(text);
        }
        match violation {
            ProtocolViolation::ControlLineTooLong { .. } => CloseReason::MaxControlLineExceeded,
            ProtocolViolation::PayloadTooLarge { .. } => CloseReason::MaxPayloadExceeded,
            ProtocolViolation::UnknownOperation
            | ProtocolViolation::BadArguments { .. }
            | ProtocolViolation::HeadersNotSupported => CloseReason::ProtocolViolation,
        }
    }

    /// The client does something before it said who it is: some may.
    fn enter_without_credentials(&mut self) -> Result<(), CloseReason> {
        match self.entrance.authenticator.without_credentials() {
            Some(login) => self.enter(login),
            None => Err(self.refuse_login()),
        }
    }

    fn connect(&mut self, json: &[u8]) -> Result<(), Step> {
        self.trace.connect(json);
        let later =
            ConnectRequest::parse(json).map_err(|_| Step::Close(CloseReason::ProtocolViolation))?;
        self.request.update(later);
        if self.stage == Stage::Connected {
            self.end_all_subscriptions();
        }
        match self.entrance.authenticator.check(&self.credentials()) {
            Verdict::Granted(login) => self.welcome(login).map_err(Step::Close),
            Verdict::Refused => Err(Step::Close(self.refuse_login())),
            Verdict::Hash(check) => Err(Step::Hash(Box::new(check))),
        }
    }

    /// What the client has to show for itself.
    pub(super) fn credentials(&self) -> Credentials<'_> {
        Credentials {
            request: &self.request,
            nonce: &self.nonce,
            peer: self.peer.as_deref(),
            way: self.entrance.kind,
            before: self.login.as_ref(),
        }
    }

    /// The slow comparison has ended.
    pub(super) fn hashed(&mut self, login: Option<Login>) -> Result<(), CloseReason> {
        match login {
            Some(login) if self.stage == Stage::Connected && self.is_under_review => {
                self.stay(login)
            }
            Some(login) => self.welcome(login),
            None => {
                let reason = self.refuse_login();
                self.hand_over();
                Err(reason)
            }
        }
    }

    pub(super) fn refuse_login(&mut self) -> CloseReason {
        self.note_introduction();
        tracing::error!(
            "{} - cid:{} - authentication error - User {:?}",
            self.info.address,
            self.client.id,
            self.request.user.as_deref().unwrap_or("N/A")
        );
        self.send_error("Authorization Violation");
        CloseReason::AuthenticationFailure
    }

    /// The client is who it says; whether what else it says can be granted.
    fn welcome(&mut self, login: Login) -> Result<(), CloseReason> {
        if self.request.asks_for_account() || !login.may_come_by(self.entrance.kind) {
            return Err(self.refuse_login());
        }
        self.enter(login)?;
        let request = &self.request;
        if !(0..=PROTOCOL_WITH_INFO).contains(&request.protocol_level()) {
            self.send_error("invalid client protocol");
            return Err(CloseReason::BadClientProtocolVersion);
        }
        if request.wants_no_responders() && !self.rules.headers {
            self.send_error("no responders requires headers support");
            return Err(CloseReason::NoRespondersRequiresHeaders);
        }
        if request.is_verbose() {
            self.send(encode::OK);
        }
        Ok(())
    }

    /// Keeps what the client said of itself, also of one that is turned away.
    fn note_introduction(&mut self) {
        let said = |field: &Option<String>| field.clone().unwrap_or_default();
        self.client.set_info(ClientInfo {
            name: said(&self.request.name),
            lang: said(&self.request.lang),
            version: said(&self.request.version),
            ..ClientInfo::clone(&self.info)
        });
        self.info = self.client.info();
    }

    /// Puts the client where it belongs.
    fn enter(&mut self, login: Login) -> Result<(), CloseReason> {
        // A second CONNECT gives the first one's place back.
        self.membership = None;
        match login.account.join(&self.client) {
            Ok(membership) => self.membership = Some(membership),
            Err(full) => {
                self.note_introduction();
                self.send_error(&full.to_string());
                return Err(CloseReason::MaxAccountConnectionsExceeded);
            }
        }
        self.account = Arc::clone(&login.account);
        self.apply_limits();
        let said = |field: &Option<String>| field.clone().unwrap_or_default();
        self.rules.headers = self.terms.options.headers && self.request.has_headers();
        self.client.set_headers(self.rules.headers);
        self.client
            .set_takes_info(self.request.protocol_level() >= PROTOCOL_WITH_INFO);
        self.client.set_info(ClientInfo {
            account: self.account.name().to_owned(),
            user: login.user.clone(),
            name: said(&self.request.name),
            lang: said(&self.request.lang),
            version: said(&self.request.version),
            ..ClientInfo::clone(&self.info)
        });
        self.info = self.client.info();
        if let Some(observer) = self.clients.observer.get() {
            observer.connected(&self.client);
        }
        self.take_permissions(&login);
        self.login = Some(login);
        let now = Instant::now();
        if self.client.round_trip_us() == 0 {
            let since_start = self.client.started.elapsed().as_micros();
            self.client
                .set_round_trip_us(u64::try_from(since_start).unwrap_or(u64::MAX));
        }
        self.stage = Stage::Connected;
        self.pings.connected(now);
        self.deadline_changed = true;
        Ok(())
    }

    /// What the client may use, by the server's limits and its account's.
    pub(super) fn apply_limits(&mut self) {
        let limits = self.account.limits();
        let options = &self.terms.options;
        self.rules.control_line_bytes_max = options.control_line_bytes_max;
        self.rules.payload_bytes_max = match limits.payload_bytes_max {
            Some(max) => max.min(options.payload_bytes_max),
            None => options.payload_bytes_max,
        };
        self.subscriptions_max = match (limits.subscriptions_max, options.subscriptions_max) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// What the client may do.
    pub(super) fn take_permissions(&mut self, login: &Login) {
        let permissions = login.permissions.as_ref();
        self.client
            .set_responses(permissions.and_then(|permissions| permissions.new_responses()));
        self.publish_check = PublishCheck::new(permissions);
        self.permissions = login.permissions.clone();
    }

    fn ping(&mut self) {
        self.trace.incoming("PING", b"");
        self.send(encode::PONG);
        if self.stage != Stage::Connected || self.had_first_pong {
            return;
        }
        self.had_first_pong = true;
        if self.request.protocol_level() >= PROTOCOL_WITH_INFO {
            let info = ServerInfo {
                connect_info: true,
                remote_account: self.account.name().to_owned(),
                acc_is_sys: Arc::ptr_eq(&self.account, self.clients.broker.system()),
                ..self.own_info()
            };
            self.send_info(&info);
        }
    }

    fn pong(&mut self) {
        self.trace.incoming("PONG", b"");
        if let Some(round_trip) = self.pings.pong(Instant::now()) {
            let microseconds = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            self.client.set_round_trip_us(microseconds);
        }
    }

    /// When time alone makes something happen next.
    pub(super) fn next_deadline(&self) -> Instant {
        let next = match self.rest_at {
            Some(rest_at) => rest_at.min(self.pings.next()),
            None => self.pings.next(),
        };
        match self.stage {
            Stage::Authenticating { until } => until.min(next),
            _ => next,
        }
    }

    /// Whether the deadline moved since this was asked last.
    pub(super) fn take_deadline_changed(&mut self) -> bool {
        std::mem::take(&mut self.deadline_changed)
    }

    /// The deadline has come.
    pub(super) fn on_timer(&mut self, now: Instant) -> Result<(), CloseReason> {
        let result = self.timer_result(now);
        self.hand_over();
        result
    }

    fn timer_result(&mut self, now: Instant) -> Result<(), CloseReason> {
        if let Stage::Authenticating { until } = self.stage
            && now >= until
        {
            self.send_error("Authentication Timeout");
            return Err(CloseReason::AuthenticationTimeout);
        }
        if now < self.pings.next() {
            return Ok(());
        }
        match self.pings.tick(now) {
            Due::Nothing => {}
            Due::Ping => self.send(encode::PING),
            Due::Stale => {
                Traffic::count(&self.clients.broker.traffic().stale_connections);
                self.send_error("Stale Connection");
                return Err(CloseReason::StaleConnection);
            }
        }
        Ok(())
    }

    /// Bytes came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.pings.heard(now);
        if self.rest_at.is_none() {
            self.rest_at = Some(now + REST_AFTER);
            self.deadline_changed = true;
        }
    }

    /// Gives memory back that a quiet client does not need. Whether it is quiet.
    pub(super) fn rest_if_quiet(&mut self, now: Instant) -> bool {
        let rest_at = self.pings.heard_at() + REST_AFTER;
        if self.rest_at.is_some() && now < rest_at {
            self.rest_at = Some(rest_at);
            return false;
        }
        self.rest_at = None;
        self.delivery.rest();
        self.publish_check.rest();
        self.client.outbox().rest();
        true
    }

    /// Hands over what the batch staged and counts it.
    pub(super) fn hand_over(&mut self) -> Flow {
        self.count_in();
        self.delivery.hand_over(self.clients.broker.traffic())
    }

    /// The same at the end of what was read: what follows from it may be done here.
    pub(super) fn hand_over_offered(&mut self) -> (Flow, Option<Offer>) {
        self.count_in();
        let traffic = self.clients.broker.traffic();
        self.delivery.hand_over_offered(traffic)
    }

    fn count_in(&mut self) {
        let traffic = self.clients.broker.traffic();
        let (messages, bytes) = std::mem::take(&mut self.counted_in);
        if messages > 0 || std::mem::take(&mut self.interest_changed) {
            self.client.note_activity(coarse_unix_ns());
        }
        if messages > 0 {
            self.client.count_in(messages, bytes);
            traffic.in_messages.fetch_add(messages, Ordering::Relaxed);
            traffic.in_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Holds this producer up for a receiver that is close to its limit; how long that took.
    pub(super) async fn stall(&self, receiver: &Arc<Client>, at_most: Duration) -> Duration {
        if self.terms.options.no_fast_producer_stall || receiver.id == self.client.id {
            return Duration::ZERO;
        }
        Traffic::count(&self.clients.broker.traffic().stalled_clients);
        self.client.count_stall();
        let start = Instant::now();
        receiver.outbox().wait_while_stalled(at_most).await;
        start.elapsed().min(at_most)
    }

    /// The connection has ended.
    pub(super) fn end(&mut self) {
        self.hand_over();
        self.end_all_subscriptions();
    }

    /// The connection has ended for this reason: its place in the account is free.
    pub(super) fn leave_account(&mut self, reason: CloseReason) {
        let was_member = self.membership.take().is_some();
        let Some(observer) = self.clients.observer.get() else {
            return;
        };
        if was_member {
            observer.disconnected(&self.client, reason);
        } else if matches!(
            reason,
            CloseReason::AuthenticationFailure | CloseReason::AuthenticationTimeout
        ) {
            observer.refused(&self.client, reason);
        }
    }

    fn own_info(&self) -> ServerInfo {
        ServerInfo {
            max_payload: i32::try_from(self.rules.payload_bytes_max).unwrap_or(i32::MAX),
            ..self.clients.info_for(
                &self.entrance,
                self.client.id,
                self.info.address,
                &self.nonce,
            )
        }
    }

    fn send_info(&mut self, info: &ServerInfo) {
        let mut line = Vec::new();
        encode::info(&mut line, info);
        self.send(&line);
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.trace.outgoing(bytes);
        self.delivery.write_to(&self.client, bytes.len(), |out| {
            out.extend_from_slice(bytes);
        });
    }

    pub(super) fn send_error(&mut self, text: &str) {
        let mut line = Vec::new();
        encode::error(&mut line, text);
        self.send(&line);
    }

    pub(super) fn send_ok_when_verbose(&mut self) {
        if self.request.is_verbose() {
            self.send(encode::OK);
        }
    }
}
