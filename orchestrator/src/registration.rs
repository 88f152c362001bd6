//! `component-registration-request`: joining with a token, and coming back with a certificate.

use bus::{Authentic, Context, Sender};
use jiff::{SignedDuration, Timestamp};
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::ComponentId;
use proto::message::{ComponentRegistrationRequest, ComponentRegistrationResponse};
use proto::operator::TokenView;
use proto::topic::Topic;
use service::audit::{Act, Actor};
use service::token::{JoinToken, is_proof_of};
use uuid::Uuid;

use crate::ca;
use crate::core::Action;
use crate::core::admission::Joining;
use crate::driver::Handle;
use crate::store::{StoreError, TokenRow};

/// Answers a registration, where its sender can hear it.
pub(crate) async fn take(handle: &Handle, message: &Authentic, request: &ComponentRegistrationRequest) {
    let from = message.envelope().from;
    let (topic, outcome) = match message.sender() {
        Sender::Joining { public_key } => {
            let outcome = match (&request.join_proof, request.component_unique_identifier) {
                // Its certificate has run out: it still has its key.
                (None, Some(id)) => come_back(handle, request, id, Some(*public_key)).await,
                _ => join(handle, request, *public_key).await,
            };
            (Topic::RegistrationAnswer(from), outcome)
        }
        Sender::Member { component, .. } => (Topic::Admin(from), come_back(handle, request, *component, None).await),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        tracing::error!(error = %service::report::Chain(&error), "the store failed");
        Err(Fault::new(FaultCode::Internal, "the orchestrator cannot register anybody at the moment"))
    });
    let context = Context::answering(message);
    // Strangers are at the own broker, wherever members are.
    let bus = if matches!(message.sender(), Sender::Joining { .. }) { &handle.inner.joins } else { &handle.inner.bus };
    let sent = match outcome {
        Ok(response) => bus.send(&topic, &response, context),
        Err(fault) => {
            // Whoever waits for an approval asks again and again.
            if fault.code != FaultCode::PendingApproval {
                tracing::warn!(%from, %fault, "registration refused");
                bus.count_refusal(&fault);
            }
            bus.send(&topic, &fault, context)
        }
    };
    if let Err(error) = sent {
        tracing::error!(%error, "cannot answer a registration");
    }
}

type Outcome = Result<Result<ComponentRegistrationResponse, Fault>, StoreError>;

async fn join(handle: &Handle, request: &ComponentRegistrationRequest, sealed_with: [u8; 32]) -> Outcome {
    let denied = |text: &str| Ok(Err(Fault::new(FaultCode::NotAuthorized, text)));
    if request.component_unique_identifier.is_some() {
        return denied("an id is claimed with its certificate, not with a token");
    }
    if request.component_type == ComponentType::Orchestrator {
        return denied("an orchestrator does not join by token");
    }
    match ca::key_of(&request.certificate_signing_request) {
        Ok(key) if key == sealed_with => {}
        Ok(_) => return denied("the signing request is for another key than the message's"),
        Err(error) => return Ok(Err(Fault::new(FaultCode::Malformed, error.to_string()))),
    }
    let Some(proof) = &request.join_proof else { return denied("joining needs a token's proof") };
    // One answer for every wrong token: a stranger learns nothing about which ids exist.
    let wrong = "the join token is unknown, expired, revoked, used up, or for another type of component";
    let Some(TokenRow { view: token, secret }) = handle.inner.store.token(&proof.token_id).await? else {
        return denied(wrong);
    };
    let is_open = {
        let core = handle.inner.core.lock().await;
        let is_known = core.components().any(|component| component.public_key == sealed_with);
        // Who has joined, or waits, has used its use; an operator may take a while to approve.
        let is_open_to_new = token.expires > Timestamp::now() && token.uses_left > core.pending_with(&token.id);
        !token.is_revoked && (is_known || is_open_to_new)
    };
    if !is_open
        || token.component_type != request.component_type
        || !is_proof_of(&secret, &request.certificate_signing_request, proof)
    {
        return denied(wrong);
    }
    let joining = Joining {
        component_type: request.component_type,
        name: &request.component_name,
        public_key: sealed_with,
        token: &token.id,
        labels: &token.labels,
        needs_approval: token.needs_approval,
    };
    let joined = handle.act(|core, now| {
        let (outcome, mut actions) = core.join(joining, now);
        if let Some(Action::StoreComponent(component)) = actions.first() {
            let act = if token.needs_approval { "ask-to-join" } else { "join" };
            let who = Actor::Component(component.id.to_string());
            let detail = format!("{} `{}` with the token {}", component.component_type, component.name, token.id);
            actions.push(Action::Record(Box::new(Act::new(who, act, component.id).because(detail))));
        }
        (outcome, actions)
    });
    match joined.await? {
        Ok(id) => certify(handle, request, id, request.component_type).await,
        Err(fault) => Ok(Err(fault)),
    }
}

/// Its certificate has sealed the request, or where that has run out, its key.
async fn come_back(
    handle: &Handle,
    request: &ComponentRegistrationRequest,
    sender: ComponentId,
    sealed_with: Option<[u8; 32]>,
) -> Outcome {
    let key = match ca::key_of(&request.certificate_signing_request) {
        Ok(key) => key,
        Err(error) => return Ok(Err(Fault::new(FaultCode::Malformed, error.to_string()))),
    };
    if sealed_with.is_some_and(|sealed_with| sealed_with != key) {
        let text = "the signing request is for another key than the message's";
        return Ok(Err(Fault::new(FaultCode::NotAuthorized, text)));
    }
    let returned = handle
        .inner
        .core
        .lock()
        .await
        .come_back(sender, request.component_unique_identifier, key, Timestamp::now())
        .map(|component| component.component_type);
    match returned {
        Ok(component_type) => certify(handle, request, sender, component_type).await,
        Err(fault) => Ok(Err(fault)),
    }
}

/// Makes the certificate. That it was made is stored before it is given.
async fn certify(
    handle: &Handle,
    request: &ComponentRegistrationRequest,
    id: ComponentId,
    component_type: ComponentType,
) -> Outcome {
    let now = Timestamp::now();
    if let Err(fault) = handle.inner.core.lock().await.may_have_certificate(id, now) {
        return Ok(Err(fault));
    }
    let (certificate, validity) =
        match handle.inner.ca.issue(&request.certificate_signing_request, id, component_type, now) {
            Ok(issued) => issued,
            Err(error) => return Ok(Err(Fault::new(FaultCode::Malformed, error.to_string()))),
        };
    let detail = format!("until {:.0}", validity.until);
    let act = Act::new(Actor::Orchestrator, "issue-certificate", id).because(detail);
    let heartbeat_interval_seconds = handle
        .act(|core, _| {
            let mut actions = core.certified(id, validity);
            actions.push(Action::Record(Box::new(act)));
            (core.pulse(id), actions)
        })
        .await?;
    Ok(Ok(ComponentRegistrationResponse {
        component_unique_identifier: id,
        certificate,
        ca_certificate: handle.inner.ca.pem(),
        orchestrator: handle.inner.bus.own(),
        heartbeat_interval_seconds,
        server_time: now,
        broker: handle.inner.external.as_ref().map(|link| link.get().address),
    }))
}

/// What a token is for.
#[derive(Debug, Clone)]
pub struct TokenScope {
    /// For this type of component.
    pub component_type: ComponentType,
    /// How many components may join with it.
    pub uses: u32,
    /// How long it holds.
    pub ttl_seconds: u64,
    /// What those who come with it are called.
    pub labels: Vec<String>,
    /// Whether an operator has to approve each of them.
    pub needs_approval: bool,
}

impl TokenScope {
    /// For one component of a type, with nothing else to say of it.
    pub fn one(component_type: ComponentType, ttl_seconds: u64) -> Self {
        Self { component_type, uses: 1, ttl_seconds, labels: Vec::new(), needs_approval: false }
    }
}

/// Makes a token and keeps it.
pub(crate) async fn create_token(handle: &Handle, actor: Actor, scope: TokenScope) -> Result<String, StoreError> {
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let ttl = SignedDuration::from_secs(i64::try_from(scope.ttl_seconds).unwrap_or(i64::MAX));
    let now = Timestamp::now();
    let view = TokenView {
        id: Uuid::new_v4().simple().to_string(),
        component_type: scope.component_type,
        uses_left: scope.uses,
        created: now,
        expires: now.saturating_add(ttl).unwrap_or(Timestamp::MAX),
        labels: scope.labels,
        needs_approval: scope.needs_approval,
        is_revoked: false,
    };
    let row = TokenRow { view, secret: secret.clone() };
    let detail = format!("{}, {} uses, until {:.0}", row.view.component_type, row.view.uses_left, row.view.expires);
    let act = Act::new(actor, "create-token", &row.view.id).because(detail);
    handle.inner.store.put_token(&row, &act).await?;
    let token = JoinToken {
        address: handle.address().to_owned(),
        ca_fingerprint: handle.ca_fingerprint(),
        id: row.view.id,
        secret,
    };
    Ok(token.to_string())
}

/// Nobody joins with it any more.
pub(crate) async fn revoke_token(handle: &Handle, actor: Actor, id: &str) -> Result<Result<(), Fault>, StoreError> {
    let Some(mut token) = handle.inner.store.token(id).await? else {
        let text = format!("there is no token `{id}`; `muster token list` shows them");
        return Ok(Err(Fault::new(FaultCode::UnknownIdentifier, text)));
    };
    token.view.is_revoked = true;
    handle.inner.store.put_token(&token, &Act::new(actor, "revoke-token", id)).await?;
    Ok(Ok(()))
}
