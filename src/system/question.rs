//! Which subject asks what.

/// What is asked of a server: `$SYS.REQ.SERVER.<id>.X` and `$SYS.REQ.SERVER.PING.X`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerService {
    Identity,
    Statistics,
    General,
    Subscriptions,
    Connections,
    Routes,
    Gateways,
    LeafNodes,
    Accounts,
    JetStream,
    Groups,
    Health,
    Variables,
    Queues,
    /// Takes as long as it is told to.
    Profile,
}

/// What is asked about an account: `$SYS.REQ.ACCOUNT.<account>.X`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccountService {
    Subscriptions,
    Connections,
    LeafNodes,
    JetStream,
    Info,
    Figures,
    /// How many connections there are: the answer is the event that tells of it.
    ConnectionCount,
}

/// The services of a server, by the last token of their subjects.
pub(super) const SERVER_SERVICES: [(&str, ServerService); 15] = [
    ("IDZ", ServerService::Identity),
    ("STATSZ", ServerService::Statistics),
    ("VARZ", ServerService::General),
    ("SUBSZ", ServerService::Subscriptions),
    ("CONNZ", ServerService::Connections),
    ("ROUTEZ", ServerService::Routes),
    ("GATEWAYZ", ServerService::Gateways),
    ("LEAFZ", ServerService::LeafNodes),
    ("ACCOUNTZ", ServerService::Accounts),
    ("JSZ", ServerService::JetStream),
    ("RAFTZ", ServerService::Groups),
    ("HEALTHZ", ServerService::Health),
    ("EXPVARZ", ServerService::Variables),
    ("IPQUEUESZ", ServerService::Queues),
    ("PROFILEZ", ServerService::Profile),
];

/// What one server can be told to do, by its id alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To read its configuration again.
    Reload,
    /// To close a connection.
    Kick,
    /// To tell a client to look for another server.
    LameDuck,
}

/// The orders, by the last token of their subjects.
pub(super) const ORDERS: [(&str, Order); 3] = [
    ("RELOAD", Order::Reload),
    ("KICK", Order::Kick),
    ("LDM", Order::LameDuck),
];

/// The services about an account, by the last token of their subjects.
pub(super) const ACCOUNT_SERVICES: [(&str, AccountService); 7] = [
    ("SUBSZ", AccountService::Subscriptions),
    ("CONNZ", AccountService::Connections),
    ("LEAFZ", AccountService::LeafNodes),
    ("JSZ", AccountService::JetStream),
    ("INFO", AccountService::Info),
    ("STATZ", AccountService::Figures),
    ("CONNS", AccountService::ConnectionCount),
];

/// The old name of `$SYS.REQ.SERVER.PING.STATSZ`.
pub(super) const OLD_PING: &str = "$SYS.REQ.SERVER.PING";
/// The figures of every account.
pub(super) const ALL_FIGURES: &str = "$SYS.REQ.ACCOUNT.PING.STATZ";
/// What the clients of every account may ask about themselves.
pub(super) const USER_INFO: &str = "$SYS.REQ.USER.INFO";

/// What the clients of every account may ask about who listens in their account.
pub(super) const SUBSCRIBERS: &str = "$SYS.DEBUG.SUBSCRIBERS";
/// What servers ask each other to answer that.
pub(super) const SUBSCRIPTION_COUNT: &str = "$SYS.REQ.ACCOUNT.NSUBS";

/// What the clients of every account may ask about their own account.
pub(super) const OWN_SERVICES: [(&str, AccountService); 3] = [
    ("$SYS.REQ.ACCOUNT.PING.CONNZ", AccountService::Connections),
    ("$SYS.REQ.SERVER.PING.CONNZ", AccountService::Connections),
    (ALL_FIGURES, AccountService::Figures),
];

/// What is asked, and about whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question<'a> {
    /// What the client that asks is known as.
    User,
    /// How many listen in the account of who asks.
    Subscribers,
    /// Another server asks how many listen here.
    SubscriptionCount,
    /// This server is told to do something.
    Order(Order),
    /// About this server.
    Server(ServerService),
    /// About this account.
    Account(&'a str, AccountService),
    /// The figures of every account.
    AllFigures,
}

impl<'a> Question<'a> {
    /// What a subject asks in the system account; `None` when it is none of ours.
    pub(super) fn parse(subject: &'a str) -> Option<Self> {
        match subject {
            USER_INFO => return Some(Self::User),
            SUBSCRIBERS => return Some(Self::Subscribers),
            SUBSCRIPTION_COUNT => return Some(Self::SubscriptionCount),
            OLD_PING => return Some(Self::Server(ServerService::Statistics)),
            ALL_FIGURES => return Some(Self::AllFigures),
            _ => {}
        }
        if let Some(rest) = subject.strip_prefix("$SYS.REQ.SERVER.") {
            let (_, service) = rest.rsplit_once('.')?;
            if let Some(order) = find(&ORDERS, service) {
                return Some(Self::Order(order));
            }
            return find(&SERVER_SERVICES, service).map(Self::Server);
        }
        // The name of an account may have several tokens.
        let rest = subject.strip_prefix("$SYS.REQ.ACCOUNT.")?;
        let (account, service) = rest.rsplit_once('.')?;
        find(&ACCOUNT_SERVICES, service).map(|service| Self::Account(account, service))
    }

    /// What a subject asks in another account: never about any but that one.
    pub(super) fn parse_of(subject: &str, account: &'a str) -> Option<Self> {
        match subject {
            USER_INFO => Some(Self::User),
            SUBSCRIBERS => Some(Self::Subscribers),
            _ => find(&OWN_SERVICES, subject).map(|service| Self::Account(account, service)),
        }
    }
}

fn find<T: Copy>(services: &[(&str, T)], wanted: &str) -> Option<T> {
    let found = services.iter().find(|(name, _)| *name == wanted);
    found.map(|(_, service)| *service)
}
