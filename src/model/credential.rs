//! Credentials as decisions and people see them: what they are, how far they are used, why a turn
//! failed on one. Never a byte of a secret.

use serde::{Deserialize, Serialize};

use super::{AgentId, CredentialId, CredentialKind, Timestamp};

/// One credential of the pool, as its file is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialInfo {
    pub id: CredentialId,
    pub kind: CredentialKind,
    /// `max`, `pro`, `team`, as the login file says; `None` for everything else.
    pub plan: Option<String>,
    /// Prepaid, with a 5-hour and a weekly window: a login or a subscription's token. Anything else
    /// is billed by use, and nothing tells its limits before they are hit.
    pub subscription: bool,
    /// It holds a refresh token, so the supervisor can renew its access token.
    pub refreshable: bool,
    /// When its access token expires, if the file says so.
    pub expires_at: Option<Timestamp>,
    /// Changes when what an instance would be given changes; tells nothing about it.
    pub fingerprint: String,
}

/// One usage window of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// 0 to 100, sometimes more.
    pub used_percent: f64,
    pub resets_at: Timestamp,
}

/// What Claude Code's status line tells of the limits; only ever of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Windows {
    pub five_hour: Option<Window>,
    pub seven_day: Option<Window>,
}

/// Which quota is spent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaWindow {
    FiveHour,
    Weekly,
    /// The weekly quota of one model, `opus`, `sonnet`; lower case.
    Model(String),
    /// A limit of an account or an API key that says when it ends and no more.
    Account,
}

/// Why a turn failed, told apart by Claude Code's `error` and message (observed with 2.1.197).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Spent until the reset, if the text tells it: another credential helps.
    QuotaSpent {
        window: QuotaWindow,
        resets_at: Option<Timestamp>,
    },
    /// A 429 that is no quota: too many requests at once. Waiting helps, another credential only
    /// moves the burst.
    TooFast,
    /// Overload, 5xx, network: the provider's, whatever the credential.
    Overloaded,
    /// The key, token or login is not accepted.
    LoginRefused,
    /// Out of credit, or a billing problem.
    Billing,
    /// The model does not exist for this credential.
    ModelRefused,
    /// The request itself: it would fail with any credential.
    TaskRefused,
    /// Nothing we know.
    Unclear,
}

/// One credential in the snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CredentialView {
    pub id: CredentialId,
    pub kind: CredentialKind,
    pub plan: Option<String>,
    /// `ready`, `spent` (until its reset), `cooling` (short), `refused` (a person must act),
    /// `gone` (its file is not usable any more; agents that have it keep it).
    pub state: String,
    /// One sentence: why the state is what it is.
    pub reason: Option<String>,
    /// When the state ends by itself.
    pub until: Option<Timestamp>,
    pub lent_to: Vec<AgentId>,
    pub windows: Windows,
    /// When the windows were told last.
    pub windows_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// When the supervisor renewed it last.
    pub refreshed_at: Option<Timestamp>,
}
